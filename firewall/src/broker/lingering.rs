//! Connections that were refused before their request came: they stay open for a moment, since a client that writes to a closed
//! one gets an error in place of the answer (EPIPE, write(2)), which it has not read yet.

use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long such a connection stays open. A client that is alive has written its request long before.
const LINGER: Duration = Duration::from_secs(2);
/// The most of them; the oldest goes when there are more, so that a flood holds no descriptors.
const MAX_LINGERING: usize = 32;

/// The connections that linger, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lingering(VecDeque<(Instant, UnixStream)>);

impl Lingering {
    /// Keeps a connection whose answer is written. What its client sends stays unread in its buffer, which is bounded by the
    /// kernel (`net.core.wmem_default`, more than a request may have).
    pub(super) fn keep(&mut self, stream: UnixStream, now: Instant) {
        // The end of the answer; where it fails, the client has gone.
        if stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        self.0.push_back((now + LINGER, stream));
        while self.0.len() > MAX_LINGERING {
            self.0.pop_front();
        }
    }

    /// Closes those whose time is over.
    pub(super) fn close_old(&mut self, now: Instant) {
        while self.0.front().is_some_and(|(until, _)| *until <= now) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_client_can_write_for_a_while_and_a_flood_holds_no_more_than_so_many() {
        let begun = Instant::now();
        let mut lingering = Lingering::default();
        let mut clients: Vec<_> = (0..=MAX_LINGERING)
            .map(|_| {
                let (ours, client) = UnixStream::pair().unwrap();
                lingering.keep(ours, begun);
                client
            })
            .collect();
        assert!(clients[0].write_all(b"x").is_err(), "the oldest one made room");
        clients[1].write_all(&vec![0; 64 * 1024]).expect("a whole request");
        lingering.close_old(begun + LINGER / 2);
        clients[1].write_all(b"x").expect("it is still there");
        lingering.close_old(begun + LINGER);
        assert!(clients[1].write_all(b"x").is_err());
    }
}
