//! How long things may take in an endpoint.

use std::time::Duration;

/// How long things may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// One dial, from the proxy's name to its 101.
    pub dial: Duration,
    /// The proxy pings after 20 s of silence; after this long without a byte it is given up.
    pub silence: Duration,
    /// Opening a service for a session. The proxy tries another park after 3 s without an answer, so this
    /// should stay below.
    pub target_connect: Duration,
    /// The handshake of TLS end to end.
    pub end_to_end: Duration,
    /// The window of the first back-off.
    pub back_off_first: Duration,
    /// The window of every later back-off grows to this.
    pub back_off_longest: Duration,
    /// Sessions may go on for this long once the endpoint is told to stop.
    pub shutdown_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            silence: Duration::from_secs(45),
            target_connect: Duration::from_secs(2),
            end_to_end: Duration::from_secs(10),
            back_off_first: Duration::from_secs(1),
            back_off_longest: Duration::from_secs(60),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}
