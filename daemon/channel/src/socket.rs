//! The socket between control and relay: JSON messages in frames, with descriptors beside them (SCM_RIGHTS, unix(7)).

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::frame::{Decoder, FrameError, MAX_DESCRIPTORS, encode};
use crate::message::Message;

/// For the other process to take a whole message.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

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
    /// Descriptors came that no message announced or carries.
    #[error("channel: the other process sent descriptors where none belong")]
    Descriptors,
    /// Not the process that began to send.
    #[error("channel: process {now} sent something, and process {before} said hello")]
    OtherSender {
        /// Who sent first.
        before: u32,
        /// Who sends now.
        now: u32,
    },
    /// The other process does not read.
    #[error("channel: the other process took no message for {} s", SEND_TIMEOUT.as_secs())]
    Stalled,
}

impl ChannelError {
    /// Whether the other process did what no process of ours does.
    pub fn is_violation(&self) -> bool {
        match self {
            Self::Closed | Self::Io(_) | Self::Stalled => false,
            Self::Malformed(_) | Self::Frame(_) | Self::Descriptors | Self::OtherSender { .. } => true,
        }
    }
}

/// Who wrote to the other end of a channel, as the kernel tells (SCM_CREDENTIALS, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderProcess {
    /// Process id.
    pub pid: u32,
    /// Its user, the real or the effective one.
    pub uid: u32,
}

/// Has the kernel tell with every message which process sent it. To be called before the other end is another process's:
/// what was sent before has no sender.
pub fn show_senders(socket: impl AsFd) -> io::Result<()> {
    Ok(set_socket_passcred(socket, true)?)
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
    sender: Option<SenderProcess>,
    kind: PhantomData<fn() -> M>,
}

/// Both halves over a connected Unix stream socket. Needs a tokio runtime.
pub fn pair<Out, In: Message>(stream: OwnedFd) -> io::Result<(Sender<Out>, Receiver<In>)> {
    let stream = StdStream::from(stream);
    stream.set_nonblocking(true)?;
    let stream = Arc::new(UnixStream::from_std(stream)?);
    let sender = Sender { stream: Arc::clone(&stream), writing: Arc::default(), kind: PhantomData };
    let decoder = Decoder::new(In::MAX_BYTES);
    Ok((sender, Receiver { stream, decoder, descriptors: Vec::new(), sender: None, kind: PhantomData }))
}

impl<M: Message + Serialize> Sender<M> {
    /// Sends one message with its descriptors, which stay open here. Where the other process does not take it within
    /// [`SEND_TIMEOUT`], the channel has ended for both: what is cut can't be gone on with.
    pub async fn send(&self, message: &M, descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let json = serde_json::to_vec(message).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        if json.len() > M::MAX_BYTES {
            return Err(FrameError::TooLong(json.len()).into());
        }
        let frame = encode(&json, descriptors.len())?;

        let _writing = self.writing.lock().await;
        let sent = timeout(SEND_TIMEOUT, self.write(&frame, descriptors)).await;
        sent.unwrap_or_else(|_| {
            // It fails where the channel has ended otherwise.
            let _ = shutdown(&self.stream, Shutdown::Both);
            Err(ChannelError::Stalled)
        })
    }

    async fn write(&self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
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

impl<M: Message + DeserializeOwned> Receiver<M> {
    /// Which process sends, once something has come, where [`show_senders`] was called. It is the same one to the end.
    pub fn sender(&self) -> Option<SenderProcess> {
        self.sender
    }

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
                Ok(Read { bytes: 0, .. }) => return Err(ChannelError::Closed),
                Ok(Read { descriptors_lost: true, .. }) => return Err(self.lost_descriptors()),
                Ok(Read { sender, .. }) => self.note_sender(sender)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(closed_or(error)),
            }
        }
    }

    /// Why the kernel has closed descriptors instead of handing them over.
    fn lost_descriptors(&self) -> ChannelError {
        if self.descriptors.len() >= MAX_DESCRIPTORS {
            ChannelError::Descriptors
        } else {
            ChannelError::Io(rustix::io::Errno::MFILE.into())
        }
    }

    /// Ends the channel, in both directions.
    pub fn close(&self) {
        // It fails where the channel has ended otherwise.
        let _ = shutdown(&self.stream, Shutdown::Both);
    }

    fn take(&mut self) -> Result<Option<(M, Vec<OwnedFd>)>, ChannelError> {
        let Some(frame) = self.decoder.next_frame()? else {
            // Descriptors come with the first byte of their frame, so more than it announces belong to none.
            return if self.descriptors.len() > self.decoder.expected_descriptors()? {
                Err(ChannelError::Descriptors)
            } else {
                Ok(None)
            };
        };
        let count = frame.descriptors;
        if self.descriptors.len() < count {
            return Err(ChannelError::Malformed(format!("{count} descriptors announced, fewer came")));
        }
        let message: M =
            serde_json::from_slice(&frame.message).map_err(|e| ChannelError::Malformed(e.to_string()))?;
        if count > 0 && !message.carries_descriptors() {
            return Err(ChannelError::Descriptors);
        }
        Ok(Some((message, self.descriptors.drain(..count).collect())))
    }

    fn note_sender(&mut self, now: Option<SenderProcess>) -> Result<(), ChannelError> {
        let Some(now) = now else { return Ok(()) };
        let before = *self.sender.get_or_insert(now);
        if before == now {
            Ok(())
        } else {
            Err(ChannelError::OtherSender { before: before.pid, now: now.pid })
        }
    }
}

/// What one read brought, beside bytes and descriptors.
struct Read {
    bytes: usize,
    /// More descriptors came than any message may have, and the kernel has closed some.
    descriptors_lost: bool,
    sender: Option<SenderProcess>,
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
) -> io::Result<Read> {
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1), ScmRights(MAX_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut chunk = [0; READ_BYTES];
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut chunk)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut sender = None;
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(received) => descriptors.extend(received),
            RecvAncillaryMessage::ScmCredentials(credentials) => {
                let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or_default();
                sender = Some(SenderProcess { pid, uid: credentials.uid.as_raw() });
            }
            _ => {}
        }
    }
    decoder.push(&chunk[..received.bytes]);
    let descriptors_lost = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(Read { bytes: received.bytes, descriptors_lost, sender })
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
    use crate::message::FromRelay;
    use std::net::TcpListener;

    type End<Out, In> = (Sender<Out>, Receiver<In>);

    impl Message for String {
        const MAX_BYTES: usize = 4_000_000;

        fn carries_descriptors(&self) -> bool {
            self == "hello"
        }
    }

    fn connected<Out: Message, In: Message>() -> (End<Out, In>, End<In, Out>) {
        let (a, b) = StdStream::pair().unwrap();
        show_senders(&a).unwrap();
        show_senders(&b).unwrap();
        (pair(a.into()).unwrap(), pair(b.into()).unwrap())
    }

    /// A receiver of what a relay says, and the other end of it, where anything can be said.
    fn from_relay() -> (Receiver<FromRelay>, StdStream) {
        let (own, theirs) = StdStream::pair().unwrap();
        show_senders(&own).unwrap();
        let (_sender, receiver) = pair::<String, FromRelay>(own.into()).unwrap();
        (receiver, theirs)
    }

    fn say(stream: &StdStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        assert_eq!(send_some(stream.as_fd(), bytes, descriptors).unwrap(), bytes.len());
    }

    #[tokio::test]
    async fn a_message_arrives_with_its_descriptors_and_its_sender() {
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
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(received.sender(), Some(SenderProcess { pid: std::process::id(), uid }));
    }

    #[tokio::test]
    async fn messages_before_one_with_descriptors_may_be_read_together_with_it() {
        let ((out, _in), (_, mut received)) = connected::<String, String>();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for text in ["first", "second", "hello", "last"] {
            let with = [listener.as_fd()];
            out.send(&text.to_owned(), if text == "hello" { &with } else { &[] }).await.unwrap();
        }
        for (text, descriptors) in [("first", 0), ("second", 0), ("hello", 1), ("last", 0)] {
            let (received, with) = received.receive().await.unwrap();
            assert_eq!((received.as_str(), with.len()), (text, descriptors));
        }
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
        let (mut received, other) = from_relay();
        say(&other, b"\xff\xff\xff\xff\x00", &[]);
        assert!(matches!(received.receive().await, Err(ChannelError::Frame(FrameError::TooLong(_)))));
    }

    #[tokio::test]
    async fn descriptors_that_no_frame_announces_end_the_channel() {
        let pipe = TcpListener::bind("127.0.0.1:0").unwrap();
        let done = encode(br#"{"Done":"Serving"}"#, 0).unwrap();
        for (bytes, count) in [(&done[..], 1), (&done[..], 64), (&done[..7], 1), (&done[..3], 1)] {
            let (mut received, other) = from_relay();
            say(&other, bytes, &vec![pipe.as_fd(); count]);
            if bytes.len() < 5 {
                // Whether they are announced is known once the header is whole.
                say(&other, &done[bytes.len()..], &[]);
            }
            let mut last = received.receive().await;
            if last.is_ok() {
                // The frame itself was in order: what came beside it is found when there is no other.
                last = received.receive().await;
            }
            assert!(matches!(last, Err(ChannelError::Descriptors)), "{count}: {last:?}");
        }
    }

    #[tokio::test]
    async fn descriptors_with_a_message_that_carries_none_end_the_channel() {
        let (mut received, other) = from_relay();
        let pipe = TcpListener::bind("127.0.0.1:0").unwrap();
        say(&other, &encode(br#"{"Done":"Serving"}"#, 1).unwrap(), &[pipe.as_fd()]);
        let error = received.receive().await.unwrap_err();
        assert!(matches!(error, ChannelError::Descriptors) && error.is_violation(), "{error}");
    }

    #[tokio::test]
    async fn json_that_is_too_deep_or_too_long_ends_the_channel() {
        let (mut received, other) = from_relay();
        let deep = format!("{{\"Log\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
        say(&other, &encode(deep.as_bytes(), 0).unwrap(), &[]);
        let error = received.receive().await.unwrap_err();
        assert!(matches!(error, ChannelError::Malformed(_)), "{error}");
        let (mut received, other) = from_relay();
        say(&other, &[0, 0x40, 0, 0, 0], &[]);
        assert!(matches!(received.receive().await, Err(ChannelError::Frame(FrameError::TooLong(_)))));
    }

    #[tokio::test]
    async fn another_process_that_writes_to_the_channel_ends_it() {
        let (mut received, other) = from_relay();
        let done = encode(br#"{"Done":"Serving"}"#, 0).unwrap();
        say(&other, &done, &[]);
        received.receive().await.unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(OwnedFd::from(other.try_clone().unwrap()))
            .spawn()
            .unwrap();
        std::io::Write::write_all(child.stdin.as_mut().unwrap(), &done).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let error = received.receive().await.unwrap_err();
        assert!(matches!(error, ChannelError::OtherSender { .. }), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_does_not_read_ends_the_channel_after_a_time() {
        let ((out, _in), (_stalled, mut received)) = connected::<String, String>();
        let sent = out.send(&"x".repeat(3_000_000), &[]).await;
        assert!(matches!(sent, Err(ChannelError::Stalled)), "{sent:?}");
        assert!(matches!(received.receive().await, Err(ChannelError::Closed)), "both know");
    }
}
