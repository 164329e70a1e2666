//! What the firewall broker reads from its socket: a request that is accepted means the same after it was written and
//! read again, on one line, and so does an answer.

#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zone_firewall_protocol::{Answer, Request, parse_request};

fuzz_target!(|data: &[u8]| {
    means_the_same_again::<Request>(data);
    means_the_same_again::<Answer>(data);
    // As the broker reads it: what follows the first line changes nothing.
    if let Some(end) = data.iter().position(|byte| *byte == b'\n') {
        assert_eq!(parse_request(data), parse_request(&data[..=end]));
    }
});

/// Reads one line as both sides do.
fn means_the_same_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(line: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(line) else { return };
    let written = serde_json::to_vec(&message).expect("what was read can be written");
    assert!(!written.contains(&b'\n'), "a message is one line");
    let read: T = serde_json::from_slice(&written).expect("what was written can be read");
    assert_eq!(read, message);
}
