//! A netlink socket, and questions that the kernel answers with lists.

use std::time::Duration;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer};
use netlink_sys::{Socket, SocketAddr};
use socket2::SockRef;

/// How long the kernel may take for the next part of an answer.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes that are read at once. The kernel sends no more than 32 KiB in one part unless a single message is longer.
const BUFFER: usize = 128 << 10;

/// Why the kernel did not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetlinkError {
    /// There is no such socket.
    #[error("no netlink socket could be opened: {0}")]
    Open(#[source] std::io::Error),
    /// The question could not be sent.
    #[error("the kernel could not be asked over netlink: {0}")]
    Send(#[source] std::io::Error),
    /// The answer could not be received.
    #[error("the kernel's answer could not be received over netlink: {0}")]
    Receive(#[source] std::io::Error),
    /// There was no answer in time.
    #[error("the kernel did not answer over netlink within {} s", ANSWER_TIMEOUT.as_secs())]
    Silent,
    /// The kernel refuses to answer.
    #[error("the kernel refuses: {0}")]
    Refused(#[source] std::io::Error),
    /// What is listed was changed meanwhile: some may be missing, and some be there twice.
    #[error("what was read was changed meanwhile")]
    Interrupted,
    /// The answer is broken.
    #[error("the kernel's answer is broken: {0}")]
    Broken(#[from] netlink_packet_core::DecodeError),
    /// An answer is longer than is possible.
    #[error("the kernel's answer is longer than {BUFFER} bytes")]
    TooLong,
}

/// What to do with the rest of a list that was changed while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WhenInterrupted {
    Stop,
    GoOn,
}

/// A connection with the kernel, for one question after the other.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    sequence: u32,
    /// The number of a transaction whose refusal would come with the next answer.
    transaction: Option<u32>,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens one, for a protocol such as `NETLINK_NETFILTER` ([`netlink_sys::protocols`]).
    ///
    /// # Errors
    /// If the system has no such sockets, or may not have more.
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol).map_err(NetlinkError::Open)?;
        socket.bind_auto().map_err(NetlinkError::Open)?;
        // Nobody but the kernel can send to it then.
        socket.connect(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        SockRef::from(&socket).set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(NetlinkError::Open)?;
        Ok(Self { socket, sequence: 0, transaction: None, buffer: Vec::with_capacity(BUFFER) })
    }

    /// Asks for a list, and hands over each of its messages: their kind and what they carry. `payload` is the header of the
    /// protocol with its attributes.
    ///
    /// # Errors
    /// If the kernel does not answer in time, refuses, or says that the list is not consistent; and what `each` says. What is left
    /// of the answer is not read then: another connection has to be opened for the next question.
    pub fn dump<E: From<NetlinkError>>(
        &mut self,
        kind: u16,
        payload: &[u8],
        each: impl FnMut(u16, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.ask(kind, NLM_F_DUMP, payload, WhenInterrupted::Stop, each)
    }

    /// The same, but a list that is not consistent is read to its end before that is said.
    ///
    /// # Errors
    /// As for [`Self::dump`].
    pub(crate) fn dump_to_its_end<E: From<NetlinkError>>(
        &mut self,
        kind: u16,
        payload: &[u8],
        each: impl FnMut(u16, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.ask(kind, NLM_F_DUMP, payload, WhenInterrupted::GoOn, each)
    }

    /// Asks for one thing, and hands over the message that the kernel answers with.
    ///
    /// # Errors
    /// As for [`Self::dump`].
    pub fn get<E: From<NetlinkError>>(
        &mut self,
        kind: u16,
        payload: &[u8],
        each: impl FnMut(u16, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.ask(kind, 0, payload, WhenInterrupted::Stop, each)
    }

    fn ask<E: From<NetlinkError>>(
        &mut self,
        kind: u16,
        flags: u16,
        payload: &[u8],
        when_interrupted: WhenInterrupted,
        mut each: impl FnMut(u16, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut question = Vec::new();
        message_into(&mut question, kind, payload);
        self.head(&mut question, flags | NLM_F_REQUEST);
        self.send(&question)?;
        let mut interrupted = false;
        loop {
            self.receive()?;
            let mut rest = self.buffer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(NetlinkError::Broken)?;
                let length = usize::try_from(message.length()).unwrap_or(usize::MAX).next_multiple_of(4);
                rest = rest.get(length..).unwrap_or_default();
                if self.transaction == Some(message.sequence_number()) && message.message_type() == ERROR {
                    refusal(message.payload())?;
                }
                // An answer to an earlier question, which was not read to its end.
                if message.sequence_number() != self.sequence {
                    continue;
                }
                interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
                if interrupted && when_interrupted == WhenInterrupted::Stop {
                    return Err(NetlinkError::Interrupted.into());
                }
                match message.message_type() {
                    NOOP => {}
                    ERROR | DONE => {
                        refusal(message.payload())?;
                        if interrupted {
                            return Err(NetlinkError::Interrupted.into());
                        }
                        return Ok(());
                    }
                    kind => each(kind, message.payload())?,
                }
                if flags & NLM_F_DUMP == 0 {
                    return Ok(());
                }
            }
        }
    }

    /// Sends messages that the kernel takes as one (`NFNL_MSG_BATCH_BEGIN` to `_END`). It has taken them when this returns; if it
    /// refuses, the next question is answered with the refusal.
    ///
    /// # Errors
    /// If they could not be sent.
    pub(crate) fn transact(&mut self, messages: &[(u16, Vec<u8>)]) -> Result<(), NetlinkError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for (kind, payload) in messages {
            let at = bytes.len();
            message_into(&mut bytes, *kind, payload);
            self.head(&mut bytes[at..], NLM_F_REQUEST);
        }
        self.transaction = Some(self.sequence);
        self.send(&bytes)
    }

    /// Completes the header of a message.
    fn head(&self, message: &mut [u8], flags: u16) {
        let mut header = NetlinkBuffer::new(message);
        header.set_flags(flags);
        header.set_sequence_number(self.sequence);
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        loop {
            match self.socket.send(bytes, 0) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Send(error)),
            }
        }
    }

    fn receive(&mut self) -> Result<(), NetlinkError> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, MSG_TRUNC) {
                Ok(length) if length > self.buffer.len() => return Err(NetlinkError::TooLong),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(NetlinkError::Silent);
                }
                Err(error) => return Err(NetlinkError::Receive(error)),
            }
        }
    }
}

/// Appends a message without flags and with the number 0, padded to a multiple of four.
pub(crate) fn message_into(messages: &mut Vec<u8>, kind: u16, payload: &[u8]) {
    const HEADER: usize = 16;
    let at = messages.len();
    let length = HEADER + payload.len();
    messages.resize(at + HEADER, 0);
    messages.extend_from_slice(payload);
    messages.resize(at + length.next_multiple_of(4), 0);
    let mut header = NetlinkBuffer::new(&mut messages[at..]);
    header.set_length(u32::try_from(length).unwrap_or(u32::MAX));
    header.set_message_type(kind);
}

/// `NLMSG_NOOP`, `NLMSG_ERROR`, `NLMSG_DONE` (netlink.h).
const NOOP: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// The length of what was received is that of the whole, if it was longer than the buffer.
const MSG_TRUNC: i32 = 0x20;

/// The error that a message of kind `ERROR` or `DONE` carries, if it is one.
fn refusal(payload: &[u8]) -> Result<(), NetlinkError> {
    let code = payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes));
    if code < 0 {
        return Err(NetlinkError::Refused(std::io::Error::from_raw_os_error(code.saturating_neg())));
    }
    Ok(())
}
