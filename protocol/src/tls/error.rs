//! What is wrong with certificates or keys that somebody configured.

/// What is wrong with certificates or keys that somebody configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// Not PEM, or not of the kind that belongs there.
    #[error("{what}: {why}")]
    Pem {
        /// The item, as its owner would call it.
        what: String,
        /// What is wrong with the item.
        why: String,
    },
    /// A certificate that can't be read.
    #[error("{what}: not a readable X.509 certificate: {why}")]
    Certificate {
        /// The item, as its owner would call it.
        what: String,
        /// What is wrong with the item.
        why: String,
    },
    /// A certificate, or a chain of them, that can be read and that this protocol does not take.
    #[error("{what}: {why}")]
    Unfit {
        /// The item, as its owner would call it.
        what: String,
        /// What is wrong with the item, and what would be right.
        why: String,
    },
    /// rustls refuses a combination.
    #[error("{0}")]
    Policy(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Policy(error.to_string())
    }
}
