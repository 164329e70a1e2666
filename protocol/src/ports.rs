//! Well-known port numbers.

/// Provisioning and status; fixed.
pub const CONTROL: u16 = 17488;
/// Endpoints from outside, by default.
pub const ENDPOINT: u16 = 17486;
/// Module Servers, by default.
pub const MODULE_SERVER: u16 = 17487;

/// The lowest port that a provisioning document may name: those below need privileges that the proxy has not.
pub const MIN_RELAY_PORT: u16 = 1024;

/// Why `port` can't be a relay port, or `None` where it can.
pub fn reserved(port: u16) -> Option<&'static str> {
    match port {
        CONTROL => Some("17488 is the provisioning port and can't carry anything else"),
        p if p < MIN_RELAY_PORT => Some("ports below 1024 need privileges that the proxy does not have"),
        _ => None,
    }
}
