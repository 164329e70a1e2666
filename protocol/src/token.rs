//! The provisioning token: one string that lets a Module Server and a fresh proxy recognise each other.
//!
//! `zp1-` and the lower-case base32 (RFC 4648, no padding) of 56 bytes:
//! SHA-256 over both bootstrap leaves' public keys (32), a secret (20), and a checksum (4).
//!
//! ```
//! use zone_protocol::token::{Token, TokenError, pin};
//!
//! // The proxy makes a token of both public keys and a secret; a person carries its text.
//! let pinned = pin(b"the RSA leaf's public key", b"the P-256 leaf's public key");
//! let text = Token::new(pinned, [0x2a; 20]).reveal();
//! assert!(text.starts_with("zp1-"));
//!
//! // The Module Server reads it, and finds a slip before anything is dialed.
//! let token: Token = text.parse()?;
//! assert_eq!(*token.pin(), pinned);
//! assert_eq!(text[..40].parse::<Token>(), Err(TokenError::Length(40)));
//! # Ok::<(), TokenError>(())
//! ```

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

const PREFIX: &str = "zp1-";
const PIN_BYTES: usize = 32;
const SECRET_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;

/// Why a token was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin as a token of this version.
    #[error("this is not a provisioning token of version 1: it must begin with 'zp1-'")]
    Prefix,
    /// Characters are missing or too many.
    #[error("the token has {0} characters, not {expected}: copy all of it", expected = PREFIX.len() + 90)]
    Length(usize),
    /// A character that no token holds.
    #[error("the token holds a character that no token has: only a-z and 2-7 follow 'zp1-'")]
    Alphabet,
    /// At least one character is wrong.
    #[error("the token's checksum does not fit: at least one character is wrong; copy it again")]
    Checksum,
}

/// Whom to trust (the pin) and how to be trusted (the secret).
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    pin: [u8; PIN_BYTES],
    secret: [u8; SECRET_BYTES],
}

impl Token {
    /// A token from its parts; `secret` must come from the system's random source.
    pub fn new(pin: [u8; PIN_BYTES], secret: [u8; SECRET_BYTES]) -> Self {
        Self { pin, secret }
    }

    /// SHA-256 over both leaves' public keys, see [`pin`].
    pub fn pin(&self) -> &[u8; PIN_BYTES] {
        &self.pin
    }

    /// The shared secret, 160 bits. It never crosses the wire: only proofs made with it do.
    pub fn secret(&self) -> &[u8; SECRET_BYTES] {
        &self.secret
    }

    /// The string that people copy. Whoever reads it can provision the proxy, once.
    pub fn reveal(&self) -> String {
        let mut bytes = Vec::with_capacity(PIN_BYTES + SECRET_BYTES + CHECKSUM_BYTES);
        bytes.extend_from_slice(&self.pin);
        bytes.extend_from_slice(&self.secret);
        bytes.extend_from_slice(&checksum(&bytes));
        let text = format!("{PREFIX}{}", BASE32_NOPAD.encode(&bytes).to_ascii_lowercase());
        bytes.zeroize();
        text
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).ok_or(TokenError::Prefix)?;
        if body.chars().count() != BASE32_NOPAD.encode_len(PIN_BYTES + SECRET_BYTES + CHECKSUM_BYTES) {
            return Err(TokenError::Length(text.chars().count()));
        }
        if !body.is_ascii() || body.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(TokenError::Alphabet);
        }
        let mut upper = body.to_ascii_uppercase();
        let decoded = BASE32_NOPAD.decode(upper.as_bytes());
        upper.zeroize();
        let mut bytes = decoded.map_err(|error| match error.kind {
            // A wrong last character can leave bits that no encoder writes.
            data_encoding::DecodeKind::Trailing => TokenError::Checksum,
            _ => TokenError::Alphabet,
        })?;
        let (rest, sum) = bytes.split_at(PIN_BYTES + SECRET_BYTES);
        let fits = checksum(rest) == *sum;
        let mut token = Self { pin: [0; PIN_BYTES], secret: [0; SECRET_BYTES] };
        token.pin.copy_from_slice(&rest[..PIN_BYTES]);
        token.secret.copy_from_slice(&rest[PIN_BYTES..]);
        bytes.zeroize();
        if fits { Ok(token) } else { Err(TokenError::Checksum) }
    }
}

impl TryFrom<String> for Token {
    type Error = TokenError;

    fn try_from(mut text: String) -> Result<Self, Self::Error> {
        let token = text.parse();
        text.zeroize();
        token
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.reveal()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// The pin of a pair of leaves: SHA-256 over the RSA leaf's and then the P-256 leaf's SubjectPublicKeyInfo
/// (DER, RFC 5280 section 4.1), each as it stands in its certificate.
pub fn pin(rsa_spki: &[u8], ec_spki: &[u8]) -> [u8; PIN_BYTES] {
    Sha256::new().chain_update(rsa_spki).chain_update(ec_spki).finalize().into()
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let digest = Sha256::new().chain_update(b"zone-proxy token 1").chain_update(body).finalize();
    [digest[0], digest[1], digest[2], digest[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::new([7; PIN_BYTES], [9; SECRET_BYTES])
    }

    #[test]
    fn a_token_reads_back_what_it_reveals() {
        let text = token().reveal();
        assert_eq!(text.len(), 94);
        assert_eq!(text.parse::<Token>().unwrap(), token());
        assert_eq!(format!("  {text}\n").parse::<Token>().unwrap(), token());
    }

    #[test]
    fn one_wrong_character_anywhere_is_named_as_such() {
        let text = token().reveal();
        for at in PREFIX.len()..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(wrong.parse::<Token>(), Err(TokenError::Checksum), "at {at}");
        }
        assert!(TokenError::Checksum.to_string().contains("checksum"));
    }

    #[test]
    fn a_token_that_was_cut_or_is_none_says_so() {
        let text = token().reveal();
        assert_eq!(text[..50].parse::<Token>(), Err(TokenError::Length(50)));
        assert_eq!("hello".parse::<Token>(), Err(TokenError::Prefix));
        let odd = format!("{}!", &text[..text.len() - 1]);
        assert_eq!(odd.parse::<Token>(), Err(TokenError::Alphabet));
    }

    #[test]
    fn a_token_never_shows_in_a_debug_print() {
        assert_eq!(format!("{:?}", token()), "Token(..)");
    }
}
