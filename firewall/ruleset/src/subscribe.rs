//! Tells of each transaction that changes the kernel's rules.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::NetlinkBuffer;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use socket2::{SockFilter, SockRef};

use crate::attributes::DecodeError;
use crate::error::ReadError;
use crate::generation::Generation;
use crate::netlink::NetlinkError;
use crate::uapi::message;

/// `NFNLGRP_NFTABLES`.
const GROUP: u32 = 7;

/// Bytes that the kernel keeps for transactions that were not drained yet: some thousands.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What happened since the subscription was last drained.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// There was more than the kernel keeps, and nobody knows what: everything has to be read again.
    pub lost: bool,
    /// The transactions, in order, with who made them.
    pub commits: Vec<Generation>,
}

impl Changes {
    /// Whether nothing happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.lost && self.commits.is_empty()
    }
}

/// Hears of every transaction of the network namespace that it was opened in. Its descriptor is readable when there is something to
/// drain, and does not block.
#[derive(Debug)]
pub struct Subscription {
    socket: Socket,
    buffer: Vec<u8>,
}

impl AsFd for Subscription {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Subscription {
    /// Subscribes. This needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// If there is no netlink socket to be had, or the kernel refuses.
    pub fn open() -> Result<Self, ReadError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(NetlinkError::Open)?;
        // Before it hears anything: each transaction is told in messages of every table, chain and rule, and then in one that says
        // that it is done. Nothing else is needed, and a flood of rules does not fill the buffer then.
        SockRef::from(&socket).attach_filter(&only_generations()).map_err(NetlinkError::Open)?;
        socket.bind(&SocketAddr::new(0, 0)).map_err(NetlinkError::Open)?;
        socket.set_non_blocking(true).map_err(NetlinkError::Open)?;
        // As much as the system lets.
        let _ = socket.set_rx_buf_sz(i32::try_from(RECEIVE_BUFFER).unwrap_or(i32::MAX));
        socket.add_membership(GROUP).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => ReadError::NotPermitted,
            _ => ReadError::Netlink(NetlinkError::Open(error)),
        })?;
        Ok(Self { socket, buffer: Vec::with_capacity(8 << 10) })
    }

    /// All that happened since it was opened or last drained. It does not wait.
    ///
    /// # Errors
    /// If the socket is broken.
    pub fn drain(&mut self) -> Result<Changes, ReadError> {
        /// Transactions that are told of at once. Behind them the descriptor is still readable.
        const AT_ONCE: usize = 10_000;
        let mut changes = Changes::default();
        while changes.commits.len() < AT_ONCE {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer, 0) {
                // From a process, and not from the kernel.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => commits(&self.buffer, &mut changes.commits)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(ENOBUFS) => changes.lost = true,
                Err(error) => return Err(NetlinkError::Receive(error).into()),
            }
        }
        Ok(changes)
    }
}

/// The kernel had to drop messages (errno.h).
const ENOBUFS: i32 = 105;

/// The transactions that messages tell of.
fn commits(mut rest: &[u8], commits: &mut Vec<Generation>) -> Result<(), DecodeError> {
    while !rest.is_empty() {
        let buffer = NetlinkBuffer::new_checked(rest)?;
        if buffer.message_type() == message::NEWGEN {
            commits.push(Generation::read(buffer.payload())?);
        }
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(())
}

/// A program of the socket's filter (linux/filter.h): lets through what begins with `NFT_MSG_NEWGEN`.
fn only_generations() -> [SockFilter; 4] {
    const LOAD_HALF_WORD: u16 = 0x28;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const MESSAGE_TYPE: u32 = 4;
    // It loads in the network's order what stands there in the machine's.
    let newgen = u32::from(message::NEWGEN.to_be());
    [
        SockFilter::new(LOAD_HALF_WORD, 0, 0, MESSAGE_TYPE),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, newgen),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
