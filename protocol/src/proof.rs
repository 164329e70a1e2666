//! Channel-bound proofs: both sides show that they know the token's secret, on this very TLS connection.
//!
//! A proof is HMAC-SHA256 (RFC 2104) under the token's secret over: the prover's label, 32 bytes exported
//! from the TLS connection (RFC 5705), and a digest of the message. Nothing that crosses the wire can be used
//! again, and a man in the middle, who has two TLS connections, can't pass a proof from one to the other.

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::token::Token;

/// The label given to the TLS exporter; no context value is used.
pub const EXPORTER_LABEL: &[u8] = b"EXPORTER-zone-proxy-provisioning";
/// How many bytes are exported.
pub const EXPORTER_LENGTH: usize = 32;

/// What a TLS connection exports under [`EXPORTER_LABEL`].
pub type Exported = [u8; EXPORTER_LENGTH];

/// Who proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prover {
    /// The Module Server, over a request.
    ModuleServer,
    /// The proxy, over its answer.
    ZoneProxy,
}

impl Prover {
    fn label(self) -> &'static [u8] {
        match self {
            Self::ModuleServer => b"zone-proxy provisioning 1 module-server",
            Self::ZoneProxy => b"zone-proxy provisioning 1 zone-proxy",
        }
    }
}

/// The proof over one message, as it stands in the `Zone-Proof` field.
///
/// `method` and `path` are those of the request in both directions; `body` is the prover's own.
pub fn make(
    token: &Token,
    prover: Prover,
    exported: &Exported,
    method: &str,
    path: &str,
    body: &[u8],
) -> String {
    BASE64URL_NOPAD.encode(&mac(token, prover, exported, method, path, body).finalize().into_bytes())
}

/// Whether `proof` is what [`make`] gives for the same arguments; takes the same time either way.
pub fn verify(
    token: &Token,
    prover: Prover,
    exported: &Exported,
    method: &str,
    path: &str,
    body: &[u8],
    proof: &str,
) -> bool {
    BASE64URL_NOPAD
        .decode(proof.as_bytes())
        .is_ok_and(|given| mac(token, prover, exported, method, path, body).verify_slice(&given).is_ok())
}

fn mac(
    token: &Token,
    prover: Prover,
    exported: &Exported,
    method: &str,
    path: &str,
    body: &[u8],
) -> Hmac<Sha256> {
    let message = Sha256::new()
        .chain_update(method)
        .chain_update(b"\n")
        .chain_update(path)
        .chain_update(b"\n")
        .chain_update(body)
        .finalize();
    // HMAC takes keys of any length; the error type is only there for other algorithms.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(token.secret()) else {
        unreachable!("HMAC keys have any length")
    };
    mac.chain_update(prover.label()).chain_update(exported).chain_update(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_only_for_its_connection_prover_and_message() {
        let token = Token::new([1; 32], [2; 20]);
        let proof = make(&token, Prover::ModuleServer, &[3; 32], "POST", "/v1/provisioning", b"{}");
        let holds = |token: &Token, prover, exported: &Exported, method: &str, path: &str, body: &[u8]| {
            verify(token, prover, exported, method, path, body, &proof)
        };
        let other = Token::new([1; 32], [4; 20]);
        assert!(holds(&token, Prover::ModuleServer, &[3; 32], "POST", "/v1/provisioning", b"{}"));
        assert!(!holds(&other, Prover::ModuleServer, &[3; 32], "POST", "/v1/provisioning", b"{}"));
        assert!(!holds(&token, Prover::ZoneProxy, &[3; 32], "POST", "/v1/provisioning", b"{}"));
        assert!(!holds(&token, Prover::ModuleServer, &[4; 32], "POST", "/v1/provisioning", b"{}"));
        assert!(!holds(&token, Prover::ModuleServer, &[3; 32], "PUT", "/v1/provisioning", b"{}"));
        assert!(!holds(&token, Prover::ModuleServer, &[3; 32], "POST", "/v1/provisioning/x", b"{}"));
        assert!(!holds(&token, Prover::ModuleServer, &[3; 32], "POST", "/v1/provisioning", b"{ }"));
    }
}
