//! Reads what a socket has in one go, however many TLS records that is.
//!
//! rustls by itself asks the kernel for 4 KiB at a time, five times for a record of full size.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite as _, ReadBuf};

use crate::connection::{Connection, MAX_TLS_BUFFER_BYTES};

/// Bytes that one read takes from a socket at most.
pub(super) const READ_BYTES: usize = MAX_TLS_BUFFER_BYTES;
/// Payload of a TLS record at most (RFC 5246, 6.2.1).
pub(super) const RECORD_BYTES: usize = 1 << 14;

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A worker's own room for one chunk: what one read brings, and the record that the read before left incomplete. No session
/// holds it from one turn to the next, so that no session owns a buffer while its peers keep up.
pub(super) struct Scratch {
    ciphertext: Box<[u8]>,
    payload: Box<[u8]>,
}

/// What a read came to.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Bytes of payload, at the beginning of the scratch.
    pub(super) bytes: usize,
    /// How the reading side ended behind them, if it did: cleanly, or by this error.
    pub(super) end: Option<io::Result<()>>,
}

impl Scratch {
    fn new() -> Self {
        let room = |bytes| vec![0; bytes].into_boxed_slice();
        Self { ciphertext: room(READ_BYTES), payload: room(READ_BYTES + RECORD_BYTES) }
    }

    /// Uses this worker's.
    pub(super) fn with<T>(work: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(work)
    }

    /// The payload of a chunk that was just read.
    pub(super) fn payload(&self, chunk: &Chunk) -> &[u8] {
        &self.payload[..chunk.bytes]
    }

    /// Reads once from the socket and decrypts all that came.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, connection: &mut Connection) -> Poll<Chunk> {
        let mut bytes = 0;
        let mut end = self.take_decrypted(connection, &mut bytes);
        while bytes == 0 && end.is_none() {
            let mut room = ReadBuf::new(&mut self.ciphertext);
            if let Err(error) = ready!(Pin::new(connection.get_mut().0).poll_read(cx, &mut room)) {
                return Poll::Ready(Chunk { bytes, end: Some(Err(error)) });
            }
            let read = room.filled().len();
            end = self.decrypt(read, connection, &mut bytes);
            if let Some(Err(_)) = &end {
                // An alert that says why, if it can be written at once.
                let _ = Pin::new(&mut *connection).poll_flush(cx);
            }
        }
        Poll::Ready(Chunk { bytes, end })
    }

    /// Decrypts so many bytes that were read; none are the end of the connection.
    fn decrypt(
        &mut self,
        read: usize,
        connection: &mut Connection,
        bytes: &mut usize,
    ) -> Option<io::Result<()>> {
        let mut from = 0;
        loop {
            let taken = feed(connection, &self.ciphertext[from..read]);
            let end = self.take_decrypted(connection, bytes);
            match taken {
                Err(error) => return end.or(Some(Err(error))),
                // rustls takes nothing any more after a close_notify.
                Ok(0) => return end,
                Ok(n) => from += n,
            }
            if end.is_some() || from == read {
                return end;
            }
        }
    }

    /// Moves what is decrypted to the scratch, as far as there is room.
    fn take_decrypted(&mut self, connection: &mut Connection, bytes: &mut usize) -> Option<io::Result<()>> {
        let mut reader = connection.get_mut().1.reader();
        while *bytes < self.payload.len() {
            match reader.read(&mut self.payload[*bytes..]) {
                Ok(0) => return Some(Ok(())),
                Ok(n) => *bytes += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

/// Has rustls decrypt the beginning of what was read; how much it took.
fn feed(connection: &mut Connection, mut ciphertext: &[u8]) -> io::Result<usize> {
    let tls = connection.get_mut().1;
    let n = tls.read_tls(&mut ciphertext)?;
    tls.process_new_packets().map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(n)
}
