//! The socket between control and relay: JSON messages in frames, with descriptors beside them (SCM_RIGHTS, unix(7)).

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

use crate::frame::{Decoder, FrameError, MAX_DESCRIPTORS, encode};

/// Why the channel is of no more use.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other process is gone, or has closed the channel.
    #[error("the other process closed the channel")]
    Closed,
    /// The socket failed.
    #[error("channel: {0}")]
    Io(#[from] io::Error),
    /// What came is no message of this version.
    #[error("channel: the other process sent something that is no message of this version: {0}")]
    Malformed(String),
    /// A message is beyond a bound.
    #[error("channel: {0}")]
    Frame(#[from] FrameError),
}

/// The sending half; clones share the socket and never mix their frames.
#[derive(Debug)]
pub struct Sender<M> {
    stream: Arc<UnixStream>,
    /// Held while a frame is being written.
    writing: Arc<Mutex<()>>,
    kind: PhantomData<fn(M)>,
}

impl<M> Clone for Sender<M> {
    fn clone(&self) -> Self {
        Self { stream: Arc::clone(&self.stream), writing: Arc::clone(&self.writing), kind: PhantomData }
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver<M> {
    stream: Arc<UnixStream>,
    decoder: Decoder,
    descriptors: Vec<OwnedFd>,
    kind: PhantomData<fn() -> M>,
}

/// Both halves over a connected Unix stream socket. Needs a tokio runtime.
pub fn pair<Out, In>(stream: OwnedFd) -> io::Result<(Sender<Out>, Receiver<In>)> {
    let stream = StdStream::from(stream);
    stream.set_nonblocking(true)?;
    let stream = Arc::new(UnixStream::from_std(stream)?);
    let sender = Sender { stream: Arc::clone(&stream), writing: Arc::default(), kind: PhantomData };
    Ok((sender, Receiver { stream, decoder: Decoder::default(), descriptors: Vec::new(), kind: PhantomData }))
}

impl<M: Serialize> Sender<M> {
    /// Sends one message with its descriptors, which stay open here.
    pub async fn send(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let json = serde_json::to_vec(message).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        let frame = encode(&json, descriptors.len())?;

        let _writing = self.writing.lock().await;
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
            let (decoder, descriptors) = (&mut self.decoder, &mut self.descriptors);
            let read = || receive_some(self.stream.as_fd(), decoder, descriptors);
            match self.stream.try_io(Interest::READABLE, read) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(closed_or(error)),
            }
        }
    }

    fn take(&mut self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        let Some(frame) = self.decoder.next_frame()? else { return Ok(None) };
        let count = frame.descriptors;
        if self.descriptors.len() < count {
            return Err(ChannelError::Malformed(format!("{count} descriptors announced, fewer came")));
        }
        let message =
            serde_json::from_slice(&frame.message).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        Ok(Some((message, self.descriptors.drain(..count).collect())))
    }
}

fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn receive_some(
    socket: BorrowedFd<'_>,
    decoder: &mut Decoder,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut chunk = [0; 16 * 1024];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    decoder.push(&chunk[..received.bytes]);
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
        assert!(matches!(received.receive().await, Err(ChannelError::Frame(FrameError::TooLong(_)))));
    }
}
