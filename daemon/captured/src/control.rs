//! What is tried with control: what a relay is tried with, as far as it has the same, and what it could do that a relay can't.

use nix::errno::Errno;
use nix::libc;

use crate::attempts::{Attempt, HERE, Right, V4, V6};

const MSG_FASTOPEN: u64 = 0x2000_0000;
const TCP_FASTOPEN_CONNECT: u64 = 30;
const SO_ATTACH_BPF: u64 = 50;
const IPPROTO_SCTP: u64 = 132;
const IPPROTO_MPTCP: u64 = 262;
const SIGKILL: u64 = 9;
const SIGCONT: u64 = 18;
/// With SIGCHLD at the end.
const CLONE_NEWUSER: u64 = 0x1000_0011;
/// A little less than an IPv4 address has.
const SHORT_BYTES: u64 = 15;

/// Files, by landlock.
const CLOSED: Right = Right::Closed { since: 1, error: Errno::EACCES };
const UNIX: &str =
    "it asks the broker, relays and its service manager so; a path is as open as its mode says";

/// What somebody tries who has taken control over; `by_hand` without a service manager that starts relays for it.
pub fn control(by_hand: bool) -> Vec<Attempt> {
    let mut attempts: Vec<_> = crate::relay().into_iter().filter_map(as_control).collect();
    attempts.extend(NETWORK.iter().chain(UNIX_SOCKETS).chain(FILES).chain(OTHERS));
    attempts.extend(if by_hand { BY_HAND } else { MANAGED });
    attempts
}

/// What of a relay's is right for control as well, or something else; nothing where it stands below in words of its own.
fn as_control(attempt: Attempt) -> Option<Attempt> {
    let right = match attempt.name {
        "socket(AF_INET)" | "socket(AF_INET6)" => Right::Harmless("it listens with one; see connect"),
        "socket(AF_NETLINK)" | "memfd_create" | "socketpair(AF_UNIX, SOCK_DGRAM), sendmsg by path" => {
            Right::Eperm
        }
        "openat(file, O_RDONLY)"
        | "openat(file, O_WRONLY), write"
        | "unlink(file)"
        | "openat(/proc/OTHER/mem, O_RDWR)" => CLOSED,
        "openat(/, O_PATH)" => Right::Harmless("it names a place, and opens nothing"),
        "bind(listener)" => Right::Harmless("what listens is bound already"),
        "listener: shutdown, listen, accept4" => Right::Harmless("it opens and closes its ports so"),
        "pidfd_open(other)" => Right::Harmless("it tells when a process ends, and gives no power over it"),
        "x32: socket(AF_INET)" => Right::Refused,
        "execve(/bin/true)" | "clone" | "seccomp(SECCOMP_SET_MODE_FILTER)" | "kill(other, SIGCONT)" => {
            return None;
        }
        // Its standard input is no channel, and its peers are of IPv4 here.
        name if name.starts_with("channel") || name.contains("accepted, v6") => return None,
        _ => attempt.right,
    };
    Some(Attempt { right, ..attempt })
}

/// Ways into the network.
const NETWORK: &[Attempt] = &[
    Attempt {
        name: "socket(AF_INET), connect, write",
        right: Right::Killed,
        make: |c| {
            let (socket, address) = (c.tcp(V4)?, c.address(V4));
            c.connect(socket, address)?;
            c.say(socket)
        },
    },
    Attempt {
        name: "socket(AF_INET6), connect, write",
        right: Right::Killed,
        make: |c| {
            let (socket, address) = (c.tcp(V6)?, c.address(V6));
            c.connect(socket, address)?;
            c.say(socket)
        },
    },
    Attempt {
        name: "socket(AF_INET), connect with a length of 15",
        right: Right::Harmless("the kernel takes no address so short"),
        make: |c| {
            let (socket, (address, _)) = (c.tcp(V4)?, c.address(V4));
            c.connect(socket, (address, SHORT_BYTES))?;
            c.say(socket)
        },
    },
    Attempt {
        name: "socket(AF_INET6), connect with a length of 15",
        right: Right::Harmless("the kernel takes no address so short"),
        make: |c| {
            let (socket, (address, _)) = (c.tcp(V6)?, c.address(V6));
            c.connect(socket, (address, SHORT_BYTES))?;
            c.say(socket)
        },
    },
    Attempt {
        name: "socket(AF_INET), connect with a negative length",
        right: Right::Killed,
        make: |c| {
            let (socket, (address, _)) = (c.tcp(V4)?, c.address(V4));
            c.connect(socket, (address, u64::MAX))
        },
    },
    Attempt {
        name: "connect with a length in the other half of the register",
        right: Right::Killed,
        make: |c| {
            let (socket, (address, length)) = (c.tcp(V4)?, c.address(V4));
            c.connect(socket, (address, length | 0xdead_0000_0000_0000))
        },
    },
    Attempt {
        name: "socket(AF_INET), sendto(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            let (socket, address) = (c.tcp(V4)?, c.address(V4));
            c.sendto(socket, MSG_FASTOPEN, address)
        },
    },
    Attempt {
        name: "socket(AF_INET6), sendmsg(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            let (socket, address) = (c.tcp(V6)?, c.address(V6));
            c.sendmsg(socket, MSG_FASTOPEN, address)
        },
    },
    Attempt {
        name: "socket(AF_INET), sendmmsg(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            let (socket, address) = (c.tcp(V4)?, c.address(V4));
            let message = c.message(address);
            c.call(libc::SYS_sendmmsg, &[socket, message, 1, MSG_FASTOPEN])
        },
    },
    Attempt {
        name: "socket(AF_INET), sendmsg(address)",
        right: Right::Harmless("a TCP socket that is not connected takes no bytes without MSG_FASTOPEN"),
        make: |c| {
            let (socket, address) = (c.tcp(V4)?, c.address(V4));
            c.sendmsg(socket, 0, address)
        },
    },
    Attempt {
        name: "socket(AF_INET), TCP_FASTOPEN_CONNECT",
        right: Right::Eperm,
        make: |c| {
            let socket = c.tcp(V4)?;
            c.set(socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        },
    },
    Attempt {
        name: "socket(AF_INET), SO_ATTACH_BPF",
        right: Right::Eperm,
        make: |c| {
            let socket = c.tcp(V4)?;
            c.set(socket, libc::SOL_SOCKET, SO_ATTACH_BPF, 0)
        },
    },
    Attempt {
        name: "socket(AF_INET, SOCK_DGRAM), sendto",
        right: Right::Eperm,
        make: |c| {
            let socket = c.call(libc::SYS_socket, &[2, 2, 0])?;
            let address = c.address(V4);
            c.sendto(socket, 0, address)
        },
    },
    Attempt {
        name: "socket(AF_INET6, SOCK_DGRAM)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_socket, &[10, 2, 0]),
    },
    Attempt {
        name: "socket(AF_INET, SOCK_RAW)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_socket, &[2, 3, 1]),
    },
    Attempt {
        name: "socket(AF_PACKET)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_socket, &[17, 2, 0]),
    },
    Attempt {
        name: "socket(AF_VSOCK)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_socket, &[40, 1, 0]),
    },
    Attempt { name: "socket(AF_ALG)", right: Right::Eperm, make: |c| c.call(libc::SYS_socket, &[38, 5, 0]) },
    Attempt {
        name: "socket(AF_INET, IPPROTO_SCTP)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_socket, &[2, 1, IPPROTO_SCTP]),
    },
    Attempt {
        name: "socket(AF_INET, IPPROTO_MPTCP)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_socket, &[2, 1, IPPROTO_MPTCP]),
    },
];

/// Ways to other processes of the host.
const UNIX_SOCKETS: &[Attempt] = &[
    Attempt {
        name: "socket(AF_UNIX), connect by a short path, write",
        right: Right::Reaches { what: "the Unix stream server", why: UNIX },
        make: |c| c.connect_short(),
    },
    Attempt {
        name: "socket(AF_UNIX, SOCK_DGRAM), sendmsg by path",
        right: Right::Reaches { what: "the Unix datagram server", why: "the journal takes records so" },
        make: |c| {
            let (socket, address) = (c.call(libc::SYS_socket, &[1, 2, 0])?, c.unix("datagram"));
            c.sendmsg(socket, 0, address)
        },
    },
];

/// Files, and memory to be run.
const FILES: &[Attempt] = &[
    Attempt {
        name: "openat(/etc/passwd)",
        right: CLOSED,
        make: |c| {
            let path = c.injection.text("/etc/passwd");
            c.open(path, libc::O_RDONLY)
        },
    },
    Attempt {
        name: "openat(/proc/self/mem, O_RDWR)",
        right: CLOSED,
        make: |c| {
            let path = c.injection.text("/proc/self/mem");
            c.open(path, libc::O_RDWR)
        },
    },
    Attempt {
        name: "openat(/proc/self/status)",
        right: Right::Harmless("status shows what the kernel says of each process"),
        make: |c| {
            let path = c.injection.text("/proc/self/status");
            c.open(path, libc::O_RDONLY)
        },
    },
    Attempt {
        name: "renameat(file, another name)",
        right: CLOSED,
        make: |c| {
            let (from, to) = (c.path("file"), c.path("another"));
            c.call(libc::SYS_renameat, &[HERE, from, HERE, to])
        },
    },
    Attempt {
        name: "linkat(file, another name)",
        right: Right::Eperm,
        make: |c| {
            let (from, to) = (c.path("file"), c.path("another"));
            c.call(libc::SYS_linkat, &[HERE, from, HERE, to, 0])
        },
    },
    Attempt {
        name: "mmap(PROT_WRITE | PROT_EXEC)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_mmap, &[0, 4096, 6, 2, 0, 0]),
    },
];

/// Signals, and what is open elsewhere.
const OTHERS: &[Attempt] = &[
    Attempt {
        name: "kill(other, SIGCONT)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_kill, &[c.other(), SIGCONT]),
    },
    Attempt {
        name: "pidfd_open(other), pidfd_send_signal(SIGCONT)",
        right: Right::Killed,
        make: |c| {
            let other = c.call(libc::SYS_pidfd_open, &[c.other(), 0])?;
            c.call(libc::SYS_pidfd_send_signal, &[other, SIGCONT, 0, 0])
        },
    },
    Attempt {
        name: "pidfd_open(other), pidfd_getfd",
        right: Right::Killed,
        make: |c| {
            let other = c.call(libc::SYS_pidfd_open, &[c.other(), 0])?;
            c.call(libc::SYS_pidfd_getfd, &[other, 0, 0])
        },
    },
    Attempt {
        name: "clone(CLONE_NEWUSER)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_clone, &[CLONE_NEWUSER, 0, 0, 0, 0]),
    },
    Attempt {
        name: "prlimit64(other)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_prlimit64, &[c.other(), 7, 0, 0]),
    },
];

/// Under a service manager, which starts relays and ends them.
const MANAGED: &[Attempt] = &[
    Attempt {
        name: "execve(/bin/true)",
        right: Right::Killed,
        make: |c| {
            let path = c.injection.text("/bin/true");
            c.call(libc::SYS_execve, &[path, 0, 0])
        },
    },
    Attempt { name: "clone", right: Right::Killed, make: |c| c.call(libc::SYS_clone, &[17, 0, 0, 0, 0]) },
    Attempt {
        name: "kill(other, SIGKILL)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_kill, &[c.other(), SIGKILL]),
    },
    Attempt {
        name: "pidfd_open(other), pidfd_send_signal(SIGKILL)",
        right: Right::Closed { since: 6, error: Errno::EPERM },
        make: |c| {
            let other = c.call(libc::SYS_pidfd_open, &[c.other(), 0])?;
            c.call(libc::SYS_pidfd_send_signal, &[other, SIGKILL, 0, 0])
        },
    },
    Attempt {
        name: "seccomp(SECCOMP_SET_MODE_FILTER)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_seccomp, &[1, 0, 0]),
    },
    Attempt {
        name: "mmap(a file, PROT_EXEC)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_mmap, &[0, 4096, 5, 2, 0, 0]),
    },
    Attempt {
        name: "chdir",
        right: Right::Eperm,
        make: |c| {
            let path = c.injection.text("/");
            c.call(libc::SYS_chdir, &[path])
        },
    },
];

/// Where it sends its log to a server off the box, by TCP: only landlock tells one address from another.
pub const SYSLOG: &[Attempt] = &[
    Attempt {
        name: "socket(AF_INET), connect to another port, write",
        right: Right::Closed { since: 4, error: Errno::EACCES },
        make: |c| {
            let (socket, address) = (c.tcp(V4)?, c.address(V4));
            c.connect(socket, address)?;
            c.say(socket)
        },
    },
    Attempt {
        name: "socket(AF_INET6), connect to another port, write",
        right: Right::Closed { since: 4, error: Errno::EACCES },
        make: |c| {
            let (socket, address) = (c.tcp(V6)?, c.address(V6));
            c.connect(socket, address)?;
            c.say(socket)
        },
    },
    Attempt {
        name: "accepted: connect(AF_UNSPEC), connect, write",
        right: Right::Closed { since: 4, error: Errno::EACCES },
        make: |c| c.turn_round_accepted(V4),
    },
    Attempt {
        name: "listener, v6: shutdown, connect, write",
        right: Right::Closed { since: 4, error: Errno::EACCES },
        make: |c| c.turn_round_listener(V6),
    },
    Attempt {
        name: "socket(AF_INET), sendto(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            let (socket, address) = (c.tcp(V4)?, c.address(V4));
            c.sendto(socket, MSG_FASTOPEN, address)
        },
    },
    Attempt {
        name: "socket(AF_INET), TCP_FASTOPEN_CONNECT",
        right: Right::Eperm,
        make: |c| {
            let socket = c.tcp(V4)?;
            c.set(socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        },
    },
    Attempt {
        name: "socket(AF_INET, IPPROTO_MPTCP)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_socket, &[2, 1, IPPROTO_MPTCP]),
    },
    Attempt {
        name: "socket(AF_INET, SOCK_RAW)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_socket, &[2, 3, 1]),
    },
    Attempt {
        name: "socket(AF_INET, SOCK_DGRAM), sendto",
        right: Right::Harmless(
            "nothing confines datagrams where the log goes off the box: see the threat model",
        ),
        make: |c| {
            let socket = c.call(libc::SYS_socket, &[2, 2, 0])?;
            let address = c.address(V4);
            c.sendto(socket, 0, address)
        },
    },
];

/// By hand, where it starts relays itself.
const BY_HAND: &[Attempt] = &[
    Attempt {
        name: "execve(/bin/true)",
        right: CLOSED,
        make: |c| {
            let path = c.injection.text("/bin/true");
            c.call(libc::SYS_execve, &[path, 0, 0])
        },
    },
    Attempt {
        name: "clone",
        right: Right::Harmless("it starts relays so, and they have no more than it"),
        make: |c| c.call(libc::SYS_clone, &[17, 0, 0, 0, 0]),
    },
    Attempt {
        name: "kill(other, SIGKILL)",
        right: Right::Reaches {
            what: "the other process",
            why: "it ends relays so that an earlier control started",
        },
        make: |c| c.call(libc::SYS_kill, &[c.other(), SIGKILL]),
    },
    Attempt {
        name: "seccomp(SECCOMP_SET_MODE_FILTER)",
        right: Right::Harmless("a relay gives up more so, and nobody gets anything back"),
        make: |c| c.call(libc::SYS_seccomp, &[1, 0, 0]),
    },
];
