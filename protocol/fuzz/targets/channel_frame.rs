//! What a captured relay or control may write into the channel: frames come out the same wherever the stream was cut, no
//! more is held than was sent, and a message that is accepted means the same after it was written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zone_channel::frame::{Decoder, Frame, FrameError, encode};
use zone_channel::{FromRelay, ToRelay};

fuzz_target!(|data: &[u8]| {
    // The first byte says where the stream is cut; the messages themselves are tried as they are, too.
    let Some((cut, stream)) = data.split_first() else { return };
    let at = usize::from(*cut) * stream.len() / 255;
    let whole = decode(&[stream]);
    assert_eq!(whole, decode(&[&stream[..at], &stream[at..]]), "cut at {at}");
    for frame in &whole.0 {
        means_the_same_again::<ToRelay>(&frame.message);
        means_the_same_again::<FromRelay>(&frame.message);
        if let Ok(again) = encode(&frame.message, frame.descriptors) {
            assert_eq!(decode(&[&again]), (vec![frame.clone()], None));
        }
    }
    means_the_same_again::<ToRelay>(stream);
    means_the_same_again::<FromRelay>(stream);
});

/// The frames of a stream that arrives in these pieces, and the error that ended it.
fn decode(pieces: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let mut decoder = Decoder::default();
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn means_the_same_again<T: Serialize + DeserializeOwned>(json: &[u8]) {
    let Ok(message) = serde_json::from_slice::<T>(json) else { return };
    let written = serde_json::to_value(&message).expect("what was read can be written");
    let read: T = serde_json::from_value(written.clone()).expect("what was written can be read");
    assert_eq!(serde_json::to_value(&read).expect("it can be written again"), written);
}
