//! Channel-bound proofs: both sides show that they know the token's secret, on this very TLS connection.
//!
//! A proof is HMAC-SHA256 (RFC 2104) under the token's secret over: the prover's label, 32 bytes exported
//! from the TLS connection (RFC 5705), and a digest of the message. Nothing that crosses the wire can be used
//! again, and a man in the middle, who has two TLS connections, can't pass a proof from one to the other.
//!
//! ```
//! use zone_protocol::proof::{Proof, Prover};
//! use zone_protocol::token::Token;
//!
//! let token = Token::new([7; 32], [9; 20]);
//! // What rustls' `export_keying_material` gives both sides of one connection.
//! let exported = &[3; 32];
//! let request = Proof {
//!     token: &token,
//!     prover: Prover::ModuleServer,
//!     exported,
//!     method: "POST",
//!     path: "/v1/provisioning",
//!     body: b"{}",
//! };
//! let field = request.make();
//! assert!(request.verify(&field));
//! assert!(!Proof { exported: &[4; 32], ..request }.verify(&field), "on another connection");
//! ```

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

/// The party that proves itself.
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

/// One message and everything that a proof binds it to.
#[derive(Clone, Copy)]
pub struct Proof<'a> {
    /// The secret that both sides know.
    pub token: &'a Token,
    /// The party that makes the proof.
    pub prover: Prover,
    /// What the TLS connection exports that the message crosses.
    pub exported: &'a Exported,
    /// The method of the request, in both directions.
    pub method: &'a str,
    /// The path of the request, in both directions.
    pub path: &'a str,
    /// The prover's own body: that of the request, or that of the answer.
    pub body: &'a [u8],
}

impl Proof<'_> {
    /// The proof as it stands in the `Zone-Proof` field.
    pub fn make(&self) -> String {
        BASE64URL_NOPAD.encode(&self.mac().finalize().into_bytes())
    }

    /// Whether `field` is what [`Proof::make`] gives; takes the same time either way.
    pub fn verify(&self, field: &str) -> bool {
        BASE64URL_NOPAD.decode(field.as_bytes()).is_ok_and(|given| self.mac().verify_slice(&given).is_ok())
    }

    fn mac(&self) -> Hmac<Sha256> {
        let message = Sha256::new()
            .chain_update(self.method)
            .chain_update(b"\n")
            .chain_update(self.path)
            .chain_update(b"\n")
            .chain_update(self.body)
            .finalize();
        // HMAC takes keys of any length; the error type is only there for other algorithms.
        let Ok(mac) = Hmac::<Sha256>::new_from_slice(self.token.secret()) else {
            unreachable!("HMAC keys have any length")
        };
        mac.chain_update(self.prover.label()).chain_update(self.exported).chain_update(message)
    }
}

/// Whether a `Zone-Proof` field looks like a proof, before there is a body that it could be of.
pub fn is_proof(field: &str) -> bool {
    field.len() == BASE64URL_NOPAD.encode_len(<Sha256 as Digest>::output_size())
        && BASE64URL_NOPAD.decode(field.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_only_for_its_connection_prover_and_message() {
        let (token, other) = (Token::new([1; 32], [2; 20]), Token::new([1; 32], [4; 20]));
        let proved = Proof {
            token: &token,
            prover: Prover::ModuleServer,
            exported: &[3; 32],
            method: "POST",
            path: "/v1/provisioning",
            body: b"{}",
        };
        let field = proved.make();
        assert!(proved.verify(&field));
        for (what, another) in [
            ("token", Proof { token: &other, ..proved }),
            ("prover", Proof { prover: Prover::ZoneProxy, ..proved }),
            ("connection", Proof { exported: &[4; 32], ..proved }),
            ("method", Proof { method: "PUT", ..proved }),
            ("path", Proof { path: "/v1/provisioning/x", ..proved }),
            ("body", Proof { body: b"{ }", ..proved }),
        ] {
            assert!(!another.verify(&field), "another {what}");
        }
    }

    #[test]
    fn a_field_that_is_no_proof_at_all_does_not_hold() {
        let token = Token::new([1; 32], [2; 20]);
        let (exported, method, path, body) = (&[3; 32], "GET", "/v1/status", &b""[..]);
        let proved = Proof { token: &token, prover: Prover::ZoneProxy, exported, method, path, body };
        let field = proved.make();
        let mut wrong = vec![String::new(), "*".into(), format!("{field}="), format!("{field}AAAA")];
        wrong.extend((0..field.len()).map(|end| field[..end].to_owned()));
        for field in wrong {
            assert!(!proved.verify(&field), "'{field}'");
        }
    }
}
