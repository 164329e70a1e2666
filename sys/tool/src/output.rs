//! Reading what a tool prints, aside, so that it never waits for a reader.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// What happens to output beyond the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It is read and thrown away: the tool runs to its end.
    Discard,
    /// The output is closed: the tool is ended by SIGPIPE, or gets an error, at the next thing that it prints. For
    /// output that is of no use unless it is whole.
    Close,
}

/// Reads a stream to its end in a thread of its own. The receiver gets the first `max_bytes` of it, once it has ended.
pub(crate) fn reader(
    mut stream: impl Read + Send + 'static,
    max_bytes: u64,
    excess: Excess,
) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut kept = Vec::new();
        // What was read before an error is still worth passing on; how the tool ended decides.
        let _ = stream.by_ref().take(max_bytes).read_to_end(&mut kept);
        if excess == Excess::Discard {
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        drop(stream);
        // Nobody waits for it any more where the tool took too long.
        let _ = sender.send(kept);
    });
    receiver
}
