//! What somebody tries who has taken over a process that may do nothing but serve.

use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::libc;

use super::injection::{Called, Injection, Stopped};
use super::surroundings::Surroundings;

/// What right software makes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// The process ends.
    Killed,
    /// The call fails, as one that is not permitted.
    Eperm,
    /// The call fails, as one that this kernel does not have.
    Enosys,
    /// The call is one that the process needs, and this is why it leads nowhere.
    Harmless(&'static str),
}

/// One attempt.
pub(crate) struct Attempt {
    /// In the table.
    pub(crate) name: &'static str,
    /// What is to become of it.
    pub(crate) right: Right,
    /// Tries: the call that decided, and what came of it.
    pub(crate) make: fn(&mut Captured) -> Called,
}

/// A process that does as it is told, its descriptors, and what is around it.
pub(crate) struct Captured<'a> {
    /// It makes the calls.
    pub(crate) injection: Injection,
    /// Its own process id.
    pub(crate) process: u64,
    /// Connections that it has accepted: of IPv4, of IPv6.
    pub(crate) accepted: [u64; 2],
    /// Sockets that it listens on: of IPv4, of IPv6.
    pub(crate) listener: [u64; 2],
    /// The socket to its service manager, where it has one.
    pub(crate) manager: Option<u64>,
    /// What it could want to reach.
    pub(crate) around: &'a Surroundings,
}

const HELLO: &[u8] = b"HELLO FROM A CAPTURED PROCESS";
/// The place of what is of this family in a pair.
pub(crate) const V4: usize = 0;
/// The same.
pub(crate) const V6: usize = 1;
/// The working directory.
pub(crate) const HERE: u64 = (libc::AT_FDCWD as i64).cast_unsigned();

impl Captured<'_> {
    /// The socket to its service manager.
    pub(crate) fn manager(&self) -> u64 {
        self.manager.expect("a service manager started it")
    }

    /// Makes a call.
    pub(crate) fn call(&mut self, number: i64, arguments: &[u64]) -> Called {
        self.injection.call(number, arguments)
    }

    /// The server of this family: where its address is, and how long.
    pub(crate) fn address(&mut self, family: usize) -> (u64, u64) {
        let bytes = if family == V4 { self.around.v4() } else { self.around.v6() };
        (self.injection.put(&bytes), bytes.len() as u64)
    }

    /// The same of the Unix server of this name.
    pub(crate) fn unix(&mut self, name: &str) -> (u64, u64) {
        let bytes = self.around.unix(name);
        (self.injection.put(&bytes), bytes.len() as u64)
    }

    /// Where the path of one of the surroundings is.
    pub(crate) fn path(&mut self, name: &str) -> u64 {
        let path = self.around.path(name);
        self.injection.put(&[path.as_os_str().as_bytes(), b"\0"].concat())
    }

    /// The other process.
    pub(crate) fn other(&self) -> u64 {
        u64::from(self.around.other.as_raw().unsigned_abs())
    }

    /// Connects, or begins to.
    pub(crate) fn connect(&mut self, socket: u64, (address, length): (u64, u64)) -> Called {
        match self.call(libc::SYS_connect, &[socket, address, length]) {
            Err(Stopped::Refused(Errno::EINPROGRESS)) => Ok(0),
            called => called,
        }
    }

    /// Ends the connection, so that it can begin another.
    pub(crate) fn disconnect(&mut self, socket: u64) -> Called {
        let unspecified = self.injection.put(&[0; 16]);
        self.connect(socket, (unspecified, 16))
    }

    /// Ends both directions.
    pub(crate) fn shutdown(&mut self, socket: u64) -> Called {
        self.call(libc::SYS_shutdown, &[socket, 2])
    }

    /// Writes some words.
    pub(crate) fn say(&mut self, socket: u64) -> Called {
        let words = self.injection.put(HELLO);
        self.call(libc::SYS_write, &[socket, words, HELLO.len() as u64])
    }

    /// Sends the same words with these flags to an address.
    pub(crate) fn sendto(&mut self, socket: u64, flags: u64, (address, length): (u64, u64)) -> Called {
        let words = self.injection.put(HELLO);
        let flags = flags | libc::MSG_NOSIGNAL as u64;
        self.call(libc::SYS_sendto, &[socket, words, HELLO.len() as u64, flags, address, length])
    }

    /// A `struct msghdr`, and behind it a `msg_len` of sendmmsg(2).
    pub(crate) fn message(&mut self, (address, length): (u64, u64)) -> u64 {
        let words = self.injection.put(HELLO);
        let vector = [words, HELLO.len() as u64].map(u64::to_ne_bytes).concat();
        let vector = self.injection.put(&vector);
        let message = [address, length, vector, 1, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
        self.injection.put(&message)
    }

    /// Sends the words of [`Captured::message`].
    pub(crate) fn sendmsg(&mut self, socket: u64, flags: u64, address: (u64, u64)) -> Called {
        let message = self.message(address);
        self.call(libc::SYS_sendmsg, &[socket, message, flags | libc::MSG_NOSIGNAL as u64])
    }

    /// Has an accepted connection lead elsewhere.
    pub(crate) fn turn_round_accepted(&mut self, family: usize) -> Called {
        let socket = self.accepted[family];
        self.disconnect(socket)?;
        let address = self.address(family);
        self.connect(socket, address)?;
        self.say(socket)
    }

    /// Has a listening socket lead elsewhere.
    pub(crate) fn turn_round_listener(&mut self, family: usize) -> Called {
        let socket = self.listener[family];
        self.shutdown(socket)?;
        let address = self.address(family);
        self.connect(socket, address)?;
        self.say(socket)
    }

    /// Sets an option of a socket.
    pub(crate) fn set(&mut self, socket: u64, level: i32, name: u64, value: i32) -> Called {
        let place = self.injection.put(&value.to_ne_bytes());
        self.call(libc::SYS_setsockopt, &[socket, u64::from(level.unsigned_abs()), name, place, 4])
    }

    /// Opens a file.
    pub(crate) fn open(&mut self, path: u64, flags: i32) -> Called {
        self.call(libc::SYS_openat, &[HERE, path, u64::from(flags.unsigned_abs())])
    }
}
