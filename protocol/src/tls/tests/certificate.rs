//! What is read from certificates, chains and keys.

use std::collections::HashSet;

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _, RsaKeySize};
use sha2::{Digest as _, Sha256};

use super::zone::{Authority, Draft, NOW, Zone, leaf, moment, rsa_key};
use crate::tls::certificate::{
    KeyKind, Leaf, certified_key, chain_from_pem, facts, issuers, key_from_pem, removed_anchors, spki,
};
use crate::tls::policy::Versions;

const ENDPOINT: &str = "spiffe://plant-7/endpoint/host-7";

fn new_key() -> KeyPair {
    KeyPair::generate().unwrap()
}

#[test]
fn the_kind_of_a_key_is_told_as_far_as_the_policy_needs_it() {
    let authority = Authority::new("a");
    let rsa = |size| KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).unwrap();
    for (key, kind) in [
        (rsa_key(), KeyKind::Rsa(2048)),
        (rsa(RsaKeySize::_3072), KeyKind::Rsa(3072)),
        (new_key(), KeyKind::P256),
        (KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(), KeyKind::P384),
        (KeyPair::generate_for(&PKCS_ED25519).unwrap(), KeyKind::Other),
    ] {
        let der = authority.sign_key(&Draft::of(ENDPOINT), &key);
        let facts = facts(&der, "leaf").unwrap();
        assert_eq!(facts.key, kind);
        assert_eq!(facts.spki, key.subject_public_key_info());
        assert_eq!(facts.spki, spki(&der).unwrap());
    }
}

/// Another curve of the same length, such as secp256k1.
#[test]
fn a_key_of_256_bits_on_another_curve_is_not_taken_for_p256() {
    let mut der = Zone::new().endpoints.sign_key(&Draft::of("spiffe://z/endpoint/a"), &new_key()).to_vec();
    let p256 = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    // The curve stands in the subject's key only: a signature names its algorithm and no curve.
    let place = der.windows(p256.len()).position(|bytes| bytes == p256).unwrap();
    der[place + 9] = 0x06;
    assert_eq!(facts(&der, "certificate").unwrap().key, KeyKind::Other);
}

#[test]
fn a_certificate_tells_its_times_and_whether_it_is_an_authoritys() {
    let authority = Authority::new("a");
    let draft = Draft { not_before: NOW, not_after: NOW + 1, ..Draft::of(ENDPOINT) };
    let found = facts(&authority.sign(&draft), "leaf").unwrap();
    assert_eq!((found.not_before, found.not_after), (moment(NOW), moment(NOW + 1)));
    assert!(!found.authority);
    assert!(facts(&authority.der(), "anchor").unwrap().authority);
}

#[test]
fn what_can_not_be_read_is_named() {
    for der in [&b""[..], b"x", &[0x30, 0x82]] {
        let error = facts(der, "the RSA certificate").unwrap_err().to_string();
        assert!(error.starts_with("the RSA certificate: not a readable X.509 certificate: "), "{error}");
    }
    let mut der = Authority::new("a").sign(&Draft::of(ENDPOINT)).to_vec();
    der.push(0);
    assert!(facts(&der, "leaf").unwrap_err().to_string().ends_with("bytes follow the certificate"));
}

#[test]
fn a_leaf_holds_its_serial_number_without_leading_zeros() {
    let authority = Authority::new("a");
    for (serial, read) in [
        (&[0x80][..], &[0x80][..]),
        (&[0, 0x80], &[0x80]),
        (&[0x7f, 0], &[0x7f, 0]),
        (&[0xff; 19], &[0xff; 19]),
    ] {
        let draft = Draft { serial: serial.to_vec(), ..Draft::of(ENDPOINT) };
        assert_eq!(*leaf(&authority.sign(&draft)).serial, *read);
    }
}

#[test]
fn an_authority_is_no_leaf_and_the_error_says_so() {
    let error = Leaf::read(&Authority::new("a").der()).unwrap_err().to_string();
    assert!(error.contains("it is an authority's; a party needs one of its own"), "{error}");
}

#[test]
fn a_chain_in_pem_is_read_whole_and_in_order_with_words_around_it() {
    let zone = Zone::new();
    let party = zone.endpoints.party(ENDPOINT, &new_key());
    let text = format!("for people\n{}\nand its issuer\n{}", party.chain, zone.endpoints.pem());
    let chain = chain_from_pem(&text, "chain").unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(leaf(&chain[0]).identity.to_string(), ENDPOINT);
    assert_eq!(chain[1], zone.endpoints.der());
    // A key among the certificates is passed over.
    assert_eq!(chain_from_pem(&(party.key + &text), "chain").unwrap(), chain);
    let cut = &text[..text.len() - 40];
    assert!(chain_from_pem(cut, "chain").is_err(), "the last certificate does not end");
    assert_eq!(chain_from_pem("", "chain").unwrap_err().to_string(), "chain: no certificate in it");
}

#[test]
fn a_key_must_be_there_and_fit_the_first_certificate_of_its_chain() {
    let zone = Zone::new();
    let provider = Versions::Tls12.provider();
    let (one, other) = (new_key(), new_key());
    let (party, stranger) = (zone.endpoints.party(ENDPOINT, &one), zone.endpoints.party(ENDPOINT, &other));
    assert!(certified_key(&party.chain, &party.key, "own", &provider).is_ok());
    assert!(certified_key(&party.chain, &stranger.key, "own", &provider).is_err());
    let reversed = stranger.chain.clone() + &party.chain;
    assert!(certified_key(&reversed, &party.key, "own", &provider).is_err());
    assert!(certified_key(&party.chain, &party.chain, "own", &provider).is_err());
    assert!(key_from_pem(&party.chain, "own").unwrap_err().to_string().starts_with("own: "));
    assert!(key_from_pem("", "own").is_err());
}

#[test]
fn the_issuers_of_a_chain_are_those_of_every_certificate_in_it() {
    let root = Authority::new("root");
    let below = Authority::under(&root, "below");
    let chain = [below.sign(&Draft::of(ENDPOINT)), below.der(), root.der()];
    let name = |authority: &Authority| -> [u8; 32] {
        let der = authority.der();
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).unwrap();
        Sha256::digest(certificate.subject().as_raw()).into()
    };
    assert_eq!(*issuers(&chain).unwrap(), [name(&below), name(&root), name(&root)]);
    assert!(issuers(&[]).unwrap().is_empty());
    assert!(issuers(&[chain[0].clone(), b"x".to_vec().into()]).is_err());
}

#[test]
fn an_anchor_is_removed_where_the_same_certificate_is_in_no_text_of_the_new_ones() {
    let (a, b) = (Authority::new("a"), Authority::new("b"));
    let names = |old: &[String], new: &[String]| -> HashSet<_> {
        removed_anchors(old, new).into_iter().map(|anchor| anchor.subject).collect()
    };
    let issuer = |authority: &Authority| leaf(&authority.sign(&Draft::of(ENDPOINT))).issuer;
    let both = [a.pem() + &b.pem()];
    assert!(names(&both, &[b.pem(), a.pem()]).is_empty());
    assert_eq!(names(&both, &[a.pem()]), [issuer(&b)].into());
    assert_eq!(names(&both, &[]), [issuer(&a), issuer(&b)].into());
    assert!(names(&[], &both).is_empty());
    assert!(names(&["nothing".into()], &[]).is_empty());
    // The same name with another key is another anchor.
    assert_eq!(names(&[a.pem()], &[Authority::new("a").pem()]), [issuer(&a)].into());
}
