//! What somebody tries who has taken over a process that may do nothing but serve.

use std::os::unix::ffi::OsStrExt as _;

use nix::errno::Errno;
use nix::libc;

use crate::injection::{Called, Injection, Stopped};
use crate::surroundings::Surroundings;

/// What right software makes of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// The process ends.
    Killed,
    /// The call fails, as one that is not permitted.
    Eperm,
    /// The call fails so, or the process ends: a service manager may forbid it as well, and more strictly.
    Refused,
    /// The call fails, as one that this kernel does not have.
    Enosys,
    /// Landlock refuses it with this error, from this version on. An older kernel may carry it out.
    Closed {
        /// The version of landlock.
        since: u32,
        /// With which the call fails then.
        error: Errno,
    },
    /// The call is one that the process needs, and this is why it leads nowhere.
    Harmless(&'static str),
    /// The call is one that the process needs, and it reaches one of the surroundings.
    Reaches {
        /// The one that is reached, by the name that [`Surroundings`](crate::surroundings::Surroundings) has for it.
        what: &'static str,
        /// Why it has to be so.
        why: &'static str,
    },
}

impl Right {
    /// Whether this one of the surroundings may be reached.
    pub fn may_reach(self, reached: &str) -> bool {
        matches!(self, Self::Reaches { what, .. } if what == reached)
    }
}

/// One attempt.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// In the table.
    pub name: &'static str,
    /// What is to become of it.
    pub right: Right,
    /// Tries: the call that decided, and what came of it.
    pub make: fn(&mut Captured) -> Called,
}

/// A process that does as it is told, its descriptors, and what is around it.
pub struct Captured<'a> {
    /// It makes the calls.
    pub injection: Injection,
    /// Its own process id.
    pub process: u64,
    /// Connections that it has accepted: of IPv4, of IPv6.
    pub accepted: Vec<u64>,
    /// Sockets that it listens on: of IPv4, of IPv6.
    pub listener: Vec<u64>,
    /// The socket to its service manager, where it has one.
    pub manager: Option<u64>,
    /// What it could want to reach.
    pub around: &'a Surroundings,
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
    pub fn manager(&self) -> u64 {
        self.manager.expect("a service manager started it")
    }

    /// Makes a call.
    pub fn call(&mut self, number: i64, arguments: &[u64]) -> Called {
        self.injection.call(number, arguments)
    }

    /// The server of this family: where its address is, and how long.
    pub fn address(&mut self, family: usize) -> (u64, u64) {
        let bytes = if family == V4 { self.around.v4() } else { self.around.v6() };
        (self.injection.put(&bytes), bytes.len() as u64)
    }

    /// The same of the Unix server of this name.
    pub fn unix(&mut self, name: &str) -> (u64, u64) {
        let bytes = self.around.unix(name);
        (self.injection.put(&bytes), bytes.len() as u64)
    }

    /// Where the path of one of the surroundings is.
    pub fn path(&mut self, name: &str) -> u64 {
        let path = self.around.path(name);
        self.injection.put(&[path.as_os_str().as_bytes(), b"\0"].concat())
    }

    /// The other process.
    pub fn other(&self) -> u64 {
        u64::from(self.around.other())
    }

    /// Connects, or begins to.
    pub fn connect(&mut self, socket: u64, (address, length): (u64, u64)) -> Called {
        match self.call(libc::SYS_connect, &[socket, address, length]) {
            Err(Stopped::Refused(Errno::EINPROGRESS)) => Ok(0),
            called => called,
        }
    }

    /// Ends the connection, so that it can begin another.
    pub fn disconnect(&mut self, socket: u64) -> Called {
        let unspecified = self.injection.put(&[0; 16]);
        self.connect(socket, (unspecified, 16))
    }

    /// Ends both directions.
    pub fn shutdown(&mut self, socket: u64) -> Called {
        self.call(libc::SYS_shutdown, &[socket, 2])
    }

    /// Writes some words.
    pub fn say(&mut self, socket: u64) -> Called {
        let words = self.injection.put(HELLO);
        self.call(libc::SYS_write, &[socket, words, HELLO.len() as u64])
    }

    /// Sends the same words with these flags to an address.
    pub fn sendto(&mut self, socket: u64, flags: u64, (address, length): (u64, u64)) -> Called {
        let words = self.injection.put(HELLO);
        let flags = flags | libc::MSG_NOSIGNAL as u64;
        self.call(libc::SYS_sendto, &[socket, words, HELLO.len() as u64, flags, address, length])
    }

    /// A `struct msghdr`, and behind it a `msg_len` of sendmmsg(2).
    pub fn message(&mut self, (address, length): (u64, u64)) -> u64 {
        let words = self.injection.put(HELLO);
        let vector = [words, HELLO.len() as u64].map(u64::to_ne_bytes).concat();
        let vector = self.injection.put(&vector);
        let message = [address, length, vector, 1, 0, 0, 0, 0].map(u64::to_ne_bytes).concat();
        self.injection.put(&message)
    }

    /// Sends the words of [`Captured::message`].
    pub fn sendmsg(&mut self, socket: u64, flags: u64, address: (u64, u64)) -> Called {
        let message = self.message(address);
        self.call(libc::SYS_sendmsg, &[socket, message, flags | libc::MSG_NOSIGNAL as u64])
    }

    /// Connects to the Unix stream server by a path that is shorter than any address of the network.
    pub fn connect_short(&mut self) -> Called {
        let path = self.path("stream");
        let file = self.open(path, libc::O_PATH)?;
        let socket = self.call(libc::SYS_socket, &[1, 1, 0])?;
        // The working directory is /proc/self.
        let bytes = [&1_u16.to_ne_bytes()[..], format!("fd/{file}").as_bytes()].concat();
        let address = (self.injection.put(&bytes), bytes.len() as u64);
        self.connect(socket, address)?;
        self.say(socket)
    }

    /// A new TCP socket.
    pub fn tcp(&mut self, family: usize) -> Called {
        self.call(libc::SYS_socket, &[[2, 10][family], 1, 0])
    }

    /// Has an accepted connection lead elsewhere.
    pub fn turn_round_accepted(&mut self, family: usize) -> Called {
        let socket = self.accepted[family];
        self.disconnect(socket)?;
        let address = self.address(family);
        self.connect(socket, address)?;
        self.say(socket)
    }

    /// Has a listening socket lead elsewhere.
    pub fn turn_round_listener(&mut self, family: usize) -> Called {
        let socket = self.listener[family];
        self.shutdown(socket)?;
        let address = self.address(family);
        self.connect(socket, address)?;
        self.say(socket)
    }

    /// Sets an option of a socket.
    pub fn set(&mut self, socket: u64, level: i32, name: u64, value: i32) -> Called {
        let place = self.injection.put(&value.to_ne_bytes());
        self.call(libc::SYS_setsockopt, &[socket, u64::from(level.unsigned_abs()), name, place, 4])
    }

    /// Opens a file.
    pub fn open(&mut self, path: u64, flags: i32) -> Called {
        self.call(libc::SYS_openat, &[HERE, path, u64::from(flags.unsigned_abs())])
    }
}
