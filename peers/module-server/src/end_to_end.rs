//! Whether a session is protected against the proxy that carries it.

use std::fmt;
use std::str::FromStr;

/// Whether TLS runs again inside a session, so that the proxy can neither read nor alter it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EndToEnd {
    /// TLS runs from Module Server to endpoint.
    #[default]
    Required,
    /// TLS ends at the proxy: the service brings its own security.
    Off,
}

impl FromStr for EndToEnd {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self::Required),
            "off" => Ok(Self::Off),
            _ => Err("'required' or 'off' is expected".into()),
        }
    }
}

impl fmt::Display for EndToEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Off => "off",
        })
    }
}
