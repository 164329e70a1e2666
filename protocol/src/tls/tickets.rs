//! Session tickets (RFC 5077) whose keys can be shared between the generations of one port and with nobody else.
//!
//! TLS 1.2 resumption does not run the certificate verifier, so a ticket must never carry a role to another
//! port: each port has keys of its own, and the port's name is authenticated with every ticket. A ticket is
//! `key name (16) | nonce (12) | AES-256-GCM ciphertext and tag`.
//!
//! A ticket of a revoked certificate opens nothing: every change of the trust document comes with fresh keys, and
//! whoever resumes is authorised again by [`Admission::authorise`](super::verifier::Admission::authorise), which looks at
//! the deny-list and at the certificate's end.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use data_encoding::BASE64;
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// How long a ticket is good, in seconds: two rotations of the keys.
pub const LIFETIME_SECONDS: u32 = 24 * 60 * 60;

const NAME_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// The key that seals new tickets, and the one before, which still opens old ones.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct TicketKeys {
    current: String,
    previous: Option<String>,
}

impl TicketKeys {
    /// Fresh keys; no earlier ticket opens under them. `None` where the system has no randomness to give.
    pub fn generate() -> Option<Self> {
        Some(Self { current: generate()?, previous: None })
    }

    /// The next keys: tickets of the last rotation still open.
    pub fn rotated(&self) -> Option<Self> {
        Some(Self { current: generate()?, previous: Some(self.current.clone()) })
    }
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKeys(..)")
    }
}

fn generate() -> Option<String> {
    let mut bytes = [0; NAME_BYTES + KEY_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    let text = BASE64.encode(&bytes);
    bytes.zeroize();
    Some(text)
}

/// Seals and opens the tickets of one port.
#[derive(Debug)]
pub struct PortTickets {
    port: &'static str,
    keys: Vec<([u8; NAME_BYTES], LessSafeKey)>,
}

impl PortTickets {
    /// `port` is authenticated with every ticket. `None` where the keys are malformed.
    pub fn new(port: &'static str, keys: &TicketKeys) -> Option<Self> {
        let keys = std::iter::once(&keys.current)
            .chain(&keys.previous)
            .map(|text| read(text))
            .collect::<Option<_>>()?;
        Some(Self { port, keys })
    }
}

fn read(text: &str) -> Option<([u8; NAME_BYTES], LessSafeKey)> {
    let mut bytes = BASE64.decode(text.as_bytes()).ok()?;
    let (name, key) = bytes.split_at_checked(NAME_BYTES)?;
    let read = (name.try_into().ok()?, LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?));
    bytes.zeroize();
    Some(read)
}

impl ProducesTickets for PortTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_SECONDS
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let (name, key) = self.keys.first()?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from([name.as_slice(), self.port.as_bytes()].concat());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        Some([name.as_slice(), &nonce, &sealed].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = cipher.split_at_checked(NAME_BYTES)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let (_, key) = self.keys.iter().find(|(known, _)| known == name)?;
        let aad = Aad::from([name, self.port.as_bytes()].concat());
        let mut opened = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = key.open_in_place(nonce, aad, &mut opened).ok()?.len();
        opened.truncate(length);
        Some(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_on_its_own_port_only() {
        let keys = TicketKeys::generate().unwrap();
        let endpoint = PortTickets::new("endpoint", &keys).unwrap();
        let module = PortTickets::new("module-server", &keys).unwrap();
        let ticket = endpoint.encrypt(b"who I am").unwrap();
        assert_eq!(endpoint.decrypt(&ticket).unwrap(), b"who I am");
        assert_eq!(module.decrypt(&ticket), None);
    }

    #[test]
    fn a_ticket_survives_one_rotation_and_not_two() {
        let first = TicketKeys::generate().unwrap();
        let second = first.rotated().unwrap();
        let third = second.rotated().unwrap();
        let ticket = PortTickets::new("p", &first).unwrap().encrypt(b"x").unwrap();
        assert!(PortTickets::new("p", &second).unwrap().decrypt(&ticket).is_some());
        assert!(PortTickets::new("p", &third).unwrap().decrypt(&ticket).is_none());
    }

    #[test]
    fn garbage_and_cut_tickets_do_not_open() {
        let tickets = PortTickets::new("p", &TicketKeys::generate().unwrap()).unwrap();
        let ticket = tickets.encrypt(b"x").unwrap();
        for n in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..n]), None);
        }
    }
}
