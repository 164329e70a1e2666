//! The frames of the channel: a message's length (4 bytes, big-endian), the number of descriptors that come with it (1 byte),
//! and the message, which is JSON.
//!
//! Nothing here reads or writes: bytes go in and messages come out, so that the other process can be played by a fuzzer.

/// The longest message to a relay: a policy with a deny-list of some ten thousand entries.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// The longest message of a relay: its metrics, or a record that is full of characters which JSON escapes.
pub const MAX_RELAY_MESSAGE_BYTES: usize = 256 * 1024;
/// The most descriptors with one message.
pub const MAX_DESCRIPTORS: usize = 64;

const HEADER_BYTES: usize = 5;

/// What no frame can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The message is too long.
    #[error("a message of {0} bytes, which is too long")]
    TooLong(usize),
    /// There are too many descriptors for one message.
    #[error("{0} descriptors with one message, more than {MAX_DESCRIPTORS}")]
    TooManyDescriptors(usize),
}

/// One frame, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// How many descriptors came with it, as it says.
    pub descriptors: usize,
    /// The message, JSON.
    pub message: Vec<u8>,
}

/// Puts a message into a frame.
///
/// ```
/// use zone_channel::frame::{Decoder, encode};
///
/// let mut decoder = Decoder::default();
/// let frame = encode(b"\"Activate\"", 0).unwrap();
/// decoder.push(&frame[..7]);
/// assert_eq!(decoder.next_frame(), Ok(None), "it is not whole yet");
/// decoder.push(&frame[7..]);
/// assert_eq!(decoder.next_frame().unwrap().unwrap().message, b"\"Activate\"");
/// ```
pub fn encode(message: &[u8], descriptors: usize) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(message.len())
        .ok()
        .filter(|_| message.len() <= MAX_MESSAGE_BYTES)
        .ok_or(FrameError::TooLong(message.len()))?;
    let count = u8::try_from(descriptors)
        .ok()
        .filter(|_| descriptors <= MAX_DESCRIPTORS)
        .ok_or(FrameError::TooManyDescriptors(descriptors))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + message.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.push(count);
    frame.extend_from_slice(message);
    Ok(frame)
}

/// Takes frames out of a stream of bytes, however it was cut.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    max_message_bytes: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(MAX_MESSAGE_BYTES)
    }
}

impl Decoder {
    /// For messages of at most so many bytes.
    pub fn new(max_message_bytes: usize) -> Self {
        Self { bytes: Vec::new(), max_message_bytes }
    }

    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if it is whole. After an error the stream is of no more use.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((length, descriptors)) = self.header()? else { return Ok(None) };
        let Some(message) = self.bytes.get(HEADER_BYTES..HEADER_BYTES + length) else { return Ok(None) };
        let frame = Frame { descriptors, message: message.to_vec() };
        self.bytes.drain(..HEADER_BYTES + length);
        Ok(Some(frame))
    }

    /// How many descriptors may have come for what is not whole yet: as many as its header says, the most that there can
    /// be while that is on its way, and none where nothing has come.
    pub fn expected_descriptors(&self) -> Result<usize, FrameError> {
        Ok(match self.header()? {
            Some((_, descriptors)) => descriptors,
            None if self.bytes.is_empty() => 0,
            None => MAX_DESCRIPTORS,
        })
    }

    /// The length and the number of descriptors of the next frame, once they have come.
    fn header(&self) -> Result<Option<(usize, usize)>, FrameError> {
        let Some(header) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length > self.max_message_bytes {
            return Err(FrameError::TooLong(length));
        }
        let descriptors = usize::from(header[4]);
        if descriptors > MAX_DESCRIPTORS {
            return Err(FrameError::TooManyDescriptors(descriptors));
        }
        Ok(Some((length, descriptors)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_whole_wherever_the_stream_was_cut() {
        let messages = [b"{}".to_vec(), Vec::new(), vec![b' '; 300]];
        let stream: Vec<u8> =
            messages.iter().enumerate().flat_map(|(n, message)| encode(message, n).unwrap()).collect();
        for cut in 0..=stream.len() {
            let mut decoder = Decoder::default();
            let mut frames = Vec::new();
            for piece in [&stream[..cut], &stream[cut..]] {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            let expected = messages.iter().cloned().enumerate();
            let expected: Vec<_> =
                expected.map(|(descriptors, message)| Frame { descriptors, message }).collect();
            assert_eq!(frames, expected, "cut at {cut}");
        }
    }

    #[test]
    fn a_length_beyond_the_bound_is_refused_before_its_message_is_waited_for() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::try_from(MAX_MESSAGE_BYTES + 1).unwrap().to_be_bytes());
        assert_eq!(decoder.next_frame(), Ok(None));
        decoder.push(&[0]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooLong(MAX_MESSAGE_BYTES + 1)));
        assert_eq!(encode(b"", MAX_DESCRIPTORS + 1), Err(FrameError::TooManyDescriptors(65)));
        let mut of_a_relay = Decoder::new(MAX_RELAY_MESSAGE_BYTES);
        of_a_relay.push(&encode(&vec![b' '; MAX_RELAY_MESSAGE_BYTES + 1], 0).unwrap());
        assert_eq!(of_a_relay.next_frame(), Err(FrameError::TooLong(MAX_RELAY_MESSAGE_BYTES + 1)));
    }

    #[test]
    fn a_header_with_more_descriptors_than_there_can_be_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 9, 65]);
        assert_eq!(decoder.next_frame(), Err(FrameError::TooManyDescriptors(65)));
    }
}
