//! Provisioning tokens: whatever is accepted is exactly what a proxy reveals, and one character less is not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use zone_protocol::token::{Token, TokenError};

const PIN: usize = 32;
const SECRET: usize = 20;
const LENGTH: usize = 94;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        what_is_accepted_is_what_is_revealed(text);
    }
    if let Some((parts, &at)) = data.first_chunk::<{ PIN + SECRET }>().zip(data.last()) {
        what_is_revealed_is_accepted(*parts, usize::from(at));
    }
});

fn what_is_accepted_is_what_is_revealed(text: &str) {
    match text.parse::<Token>() {
        Ok(token) => assert_eq!(token.reveal(), text.trim()),
        Err(TokenError::Prefix) => assert!(!text.trim().starts_with("zp1-")),
        Err(TokenError::Length(counted)) => {
            assert_eq!(counted, text.trim().chars().count());
            assert_ne!(counted, LENGTH, "the person is told that the length is wrong, and it is right");
        }
        Err(TokenError::Alphabet | TokenError::Checksum) => assert!(text.trim().starts_with("zp1-")),
    }
}

fn what_is_revealed_is_accepted(parts: [u8; PIN + SECRET], at: usize) {
    let (mut pin, mut secret) = ([0; PIN], [0; SECRET]);
    pin.copy_from_slice(&parts[..PIN]);
    secret.copy_from_slice(&parts[PIN..]);
    let token = Token::new(pin, secret);
    let text = token.reveal();
    assert_eq!(text.len(), LENGTH);
    let read: Token = text.parse().expect("a revealed token is accepted");
    assert!(read == token && *read.pin() == pin && *read.secret() == secret);

    let at = at % LENGTH;
    assert!(text[..at].parse::<Token>().is_err(), "cut to {at} characters");
    let mut wrong = text.into_bytes();
    wrong[at] = if wrong[at] == b'q' { b'r' } else { b'q' };
    let wrong = String::from_utf8(wrong).expect("one ASCII letter for another");
    assert!(wrong.parse::<Token>().is_err(), "a wrong character at {at}");
}
