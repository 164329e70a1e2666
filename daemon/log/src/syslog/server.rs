//! What is known of a syslog server before it is dialled, and why it can't be used.

use std::path::PathBuf;
use std::time::Duration;

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Where it listens: [`PORT`](super::PORT) or [`TLS_PORT`](super::TLS_PORT) by custom.
    pub port: u16,
    /// How it is spoken to.
    pub transport: Transport,
    /// How long to wait for it.
    pub pace: Pace,
}

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// One datagram for each record; nobody notices one that is lost.
    Udp,
    /// In the clear.
    Tcp,
    /// TLS 1.2 or 1.3; the server's certificate is checked against these authorities and its name.
    Tls {
        /// PEM file.
        ca: PathBuf,
    },
}

/// Deadlines and back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For a connection: the lookup of the name and TLS included.
    pub connect: Duration,
    /// For the server to take one message; it counts as away afterwards.
    pub write: Duration,
    /// Before the second attempt to reach it; each further one waits twice as long.
    pub first_delay: Duration,
    /// The longest wait between two attempts.
    pub longest_delay: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            write: Duration::from_secs(5),
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(60),
        }
    }
}

/// Why a server can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum SyslogError {
    /// The file of authorities.
    #[error(
        "{path}: {why}; it must hold the certificate (PEM) of the authority that vouches for the syslog server"
    )]
    Authority {
        /// The file as configured.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The host's name.
    #[error("'{0}' is neither a host name nor an address, so no certificate can be checked against it")]
    Name(String),
    /// The TLS library.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}
