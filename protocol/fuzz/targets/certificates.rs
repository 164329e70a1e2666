//! Certificates as peers show them and as documents carry them: every reader accepts the same ones and says the same of
//! them, what is said stands in the certificate, nothing may follow it, and a chain is read the same from any PEM of it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zone_protocol::tls::certificate::{Leaf, chain_from_pem, facts, issuers, removed_anchors, spki};

/// What names the input in errors; no assertion looks at it.
const WHAT: &str = "input";

fuzz_target!(|data: &[u8]| {
    one_certificate(data);
    if let Ok(text) = std::str::from_utf8(data) {
        chain(text);
    }
});

fn one_certificate(der: &[u8]) {
    let Ok(facts) = facts(der, WHAT) else {
        assert!(Leaf::read(der).is_err(), "a leaf of what is no certificate");
        assert!(issuers(&[der.into()]).is_err(), "an issuer of what is no certificate");
        assert!(spki(der).is_err(), "a key of what is no certificate");
        return;
    };
    assert!(holds(der, &facts.spki), "the key stands in the certificate");
    assert_eq!(spki(der).as_ref(), Ok(&facts.spki));
    let issuer = issuers(&[der.into()]).expect("a certificate has an issuer");
    assert_eq!(issuer.len(), 1);
    let twice = issuers(&[der.into(), der.into()]).expect("the same twice");
    assert_eq!(*twice, [issuer[0], issuer[0]]);
    assert!(self::facts(&[der, b"\0"].concat(), WHAT).is_err(), "something follows the certificate");
    assert!(self::facts(&der[..der.len() - 1], WHAT).is_err(), "the certificate is cut short");

    if let Ok(leaf) = Leaf::read(der) {
        assert!(!facts.authority, "an authority's certificate is no party's");
        assert!(holds(der, leaf.identity.to_string().as_bytes()), "the identity stands in the certificate");
        assert!(holds(der, &leaf.serial) && leaf.serial.first() != Some(&0), "serial {:?}", leaf.serial);
        assert_eq!(leaf.issuer, issuer[0]);
        assert_eq!(leaf.not_before, facts.not_before.unix_timestamp());
        assert_eq!(leaf.not_after, facts.not_after.unix_timestamp());
    }
}

fn chain(text: &str) {
    let Ok(chain) = chain_from_pem(text, WHAT) else { return };
    assert!(!chain.is_empty(), "a chain of nothing");
    let again: String = chain.iter().map(|der| pem(der)).collect();
    assert_eq!(chain_from_pem(&again, WHAT).as_ref(), Ok(&chain), "the same chain, written plainly");
    chain.iter().for_each(|der| one_certificate(der));

    let anchors = [text.to_owned()];
    assert!(removed_anchors(&anchors, &anchors).is_empty(), "an anchor that stays is not removed");
    assert!(removed_anchors(&[], &anchors).is_empty(), "an anchor that is new is not removed");
    assert!(removed_anchors(&anchors, &[]).len() <= chain.len(), "more anchors removed than there were");
}

fn pem(der: &[u8]) -> String {
    let text = data_encoding::BASE64.encode(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn holds(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}
