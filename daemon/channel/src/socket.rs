//! The socket between control and relay: JSON messages in frames, with descriptors beside them (SCM_RIGHTS, unix(7)).
//!
//! A frame is its length (4 bytes, big-endian), the number of descriptors (1 byte) and the JSON.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// The longest message: a policy with a deny-list of some ten thousand entries.
pub const LONGEST: usize = 8 * 1024 * 1024;
/// The most descriptors with one message.
pub const MOST_DESCRIPTORS: usize = 64;

const HEADER: usize = 5;

/// Why the channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other process is gone, or has closed the channel.
    #[error("the other process closed the channel")]
    Closed,
    /// The socket failed.
    #[error("channel: {0}")]
    Io(#[from] io::Error),
    /// A message that is none.
    #[error("channel: the other process sent something that is no message of this version: {0}")]
    Malformed(String),
    /// Beyond a bound.
    #[error("channel: a message of {0} bytes, more than {LONGEST}")]
    TooLong(usize),
}

/// The sending half; clones share the socket and never mix their frames.
#[derive(Debug)]
pub struct Sender<M> {
    stream: Arc<UnixStream>,
    turn: Arc<Mutex<()>>,
    kind: PhantomData<fn(M)>,
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { stream: Arc::clone(&self.stream), turn: Arc::clone(&self.turn), kind: PhantomData }
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<M> {
    stream: Arc<UnixStream>,
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
    kind: PhantomData<fn() -> M>,
}

/// Both halves over a connected Unix stream socket. Needs a tokio runtime.
pub fn pair<Out, In>(stream: OwnedFd) -> io::Result<(Sender<Out>, Receiver<In>)> {
    let stream = StdStream::from(stream);
    stream.set_nonblocking(true)?;
    let stream = Arc::new(UnixStream::from_std(stream)?);
    let sender = Sender { stream: Arc::clone(&stream), turn: Arc::new(Mutex::new(())), kind: PhantomData };
    Ok((sender, Receiver { stream, bytes: Vec::new(), descriptors: Vec::new(), kind: PhantomData }))
}

impl<M: Serialize> Sender<M> {
    /// Sends one message with its descriptors, which stay open here.
    pub async fn send(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let json = serde_json::to_vec(message).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        let length = u32::try_from(json.len())
            .ok()
            .filter(|_| json.len() <= LONGEST)
            .ok_or(ChannelError::TooLong(json.len()))?;
        let count = u8::try_from(descriptors.len())
            .ok()
            .filter(|_| descriptors.len() <= MOST_DESCRIPTORS)
            .ok_or_else(|| ChannelError::Malformed(format!("{} descriptors", descriptors.len())))?;
        let mut frame = Vec::with_capacity(HEADER + json.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.push(count);
        frame.extend_from_slice(&json);

        let _turn = self.turn.lock().await;
        let mut sent = 0;
        while sent < frame.len() {
            // Descriptors go with the first byte, so that they are there when the frame is complete.
            let with = if sent == 0 { descriptors } else { &[] };
            let write = || send_some(self.stream.as_fd(), &frame[sent..], with);
            self.stream.writable().await?;
            match self.stream.try_io(Interest::WRITABLE, write) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(closed_or(error)),
            }
        }
        Ok(())
    }
}

impl<M: DeserializeOwned> Receiver<M> {
    /// The next message with its descriptors. Can be cancelled: nothing that arrived is lost.
    pub async fn receive(&mut self) -> Result<(M, Vec<OwnedFd>), ChannelError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.stream.readable().await?;
            let (bytes, descriptors) = (&mut self.bytes, &mut self.descriptors);
            let read = || receive_some(self.stream.as_fd(), bytes, descriptors);
            match self.stream.try_io(Interest::READABLE, read) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(closed_or(error)),
            }
        }
    }

    fn take(&mut self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        let Some((header, rest)) = self.bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
        let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if length > LONGEST {
            return Err(ChannelError::TooLong(length));
        }
        let Some(json) = rest.get(..length) else { return Ok(None) };
        let count = usize::from(header[4]);
        if self.descriptors.len() < count {
            return Err(ChannelError::Malformed(format!("{count} descriptors announced, fewer came")));
        }
        let message = serde_json::from_slice(json).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        let descriptors = self.descriptors.drain(..count).collect();
        self.bytes.drain(..HEADER + length);
        Ok(Some((message, descriptors)))
    }
}

fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn receive_some(
    socket: BorrowedFd<'_>,
    bytes: &mut Vec<u8>,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut chunk = [0; 16 * 1024];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    bytes.extend_from_slice(&chunk[..received.bytes]);
    Ok(received.bytes)
}

fn closed_or(error: io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ChannelError::Closed,
        _ => ChannelError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    type End<Out, In> = (Sender<Out>, Receiver<In>);

    fn connected<Out, In>() -> (End<Out, In>, End<In, Out>) {
        let (a, b) = StdStream::pair().unwrap();
        (pair(a.into()).unwrap(), pair(b.into()).unwrap())
    }

    #[tokio::test]
    async fn a_message_arrives_with_its_descriptors() {
        let ((out, _in), (_, mut received)) = connected::<String, String>();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        out.send(&"hello".to_owned(), &[listener.as_fd()]).await.unwrap();
        out.send(&"again".to_owned(), &[]).await.unwrap();
        let (text, mut descriptors) = received.receive().await.unwrap();
        assert_eq!(text, "hello");
        let same = TcpListener::from(descriptors.remove(0));
        assert_eq!(same.local_addr().unwrap(), address);
        assert!(descriptors.is_empty());
        assert_eq!(received.receive().await.unwrap().0, "again");
    }

    #[tokio::test]
    async fn a_message_larger_than_the_socket_buffer_arrives_whole() {
        let ((out, _in), (_, mut received)) = connected::<String, String>();
        let long = "x".repeat(3_000_000);
        let (sent, got) = tokio::join!(out.send(&long, &[]), received.receive());
        sent.unwrap();
        assert_eq!(got.unwrap().0, long);
    }

    #[tokio::test]
    async fn an_end_is_told_from_garbage() {
        let ((out, inn), (_, mut received)) = connected::<String, String>();
        drop((out, inn));
        assert!(matches!(received.receive().await, Err(ChannelError::Closed)));
        let ((out, _in), (_, mut received)) = connected::<u64, u64>();
        out.stream.writable().await.unwrap();
        out.stream.try_write(b"\xff\xff\xff\xff\x00").unwrap();
        assert!(matches!(received.receive().await, Err(ChannelError::TooLong(_))));
    }
}
