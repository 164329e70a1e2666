//! What is tried with sockets: with new ones, and with those that the process has.

use nix::libc;

use crate::attempts::{Attempt, Right, V4, V6};

const MSG_FASTOPEN: u64 = 0x2000_0000;
const TCP_FASTOPEN_CONNECT: u64 = 30;
const TCP_REPAIR: u64 = 19;

/// With new ones.
pub const SOCKETS_OF_ITS_OWN: &[Attempt] = &[
    Attempt { name: "socket(AF_INET)", right: Right::Killed, make: |c| c.call(libc::SYS_socket, &[2, 1, 0]) },
    Attempt {
        name: "socket(AF_INET6)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_socket, &[10, 1, 0]),
    },
    Attempt {
        name: "socket(AF_UNIX), connect by path, write",
        right: Right::Killed,
        make: |c| {
            let socket = c.call(libc::SYS_socket, &[1, 1, 0])?;
            let address = c.unix("stream");
            c.connect(socket, address)?;
            c.say(socket)
        },
    },
    Attempt {
        name: "socket(AF_UNIX, SOCK_DGRAM), sendto by path",
        right: Right::Killed,
        make: |c| {
            let socket = c.call(libc::SYS_socket, &[1, 2, 0])?;
            let address = c.unix("datagram");
            c.sendto(socket, 0, address)
        },
    },
    Attempt {
        name: "socket(AF_NETLINK)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_socket, &[16, 3, 0]),
    },
    Attempt {
        name: "socketpair(AF_UNIX, SOCK_DGRAM), sendmsg by path",
        right: Right::Killed,
        make: |c| {
            let pair = c.injection.put(&[0; 8]);
            c.call(libc::SYS_socketpair, &[1, 2, 0, pair])?;
            let (first, address) = (c.injection.number(pair), c.unix("datagram"));
            c.sendmsg(first, 0, address)
        },
    },
    Attempt {
        name: "bind(listener)",
        right: Right::Killed,
        make: |c| {
            let (address, length) = c.address(V4);
            c.call(libc::SYS_bind, &[c.listener[V4], address, length])
        },
    },
];

/// With accepted connections, listening sockets and the channel.
pub const SOCKETS_AT_HAND: &[Attempt] = &[
    Attempt {
        name: "accepted, v4: connect(AF_UNSPEC), connect, write",
        right: Right::Killed,
        make: |c| c.turn_round_accepted(V4),
    },
    Attempt {
        name: "accepted, v6: connect(AF_UNSPEC), connect, write",
        right: Right::Killed,
        make: |c| c.turn_round_accepted(V6),
    },
    Attempt {
        name: "listener, v4: shutdown, connect, write",
        right: Right::Killed,
        make: |c| c.turn_round_listener(V4),
    },
    Attempt {
        name: "listener, v6: shutdown, connect, write",
        right: Right::Killed,
        make: |c| c.turn_round_listener(V6),
    },
    Attempt {
        name: "channel: connect by path, write",
        right: Right::Killed,
        make: |c| {
            let address = c.unix("stream");
            c.connect(0, address)?;
            c.say(0)
        },
    },
    Attempt {
        name: "listener, v4: shutdown, sendto(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            c.shutdown(c.listener[V4])?;
            let address = c.address(V4);
            c.sendto(c.listener[V4], MSG_FASTOPEN, address)
        },
    },
    Attempt {
        name: "listener, v6: shutdown, sendto(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            c.shutdown(c.listener[V6])?;
            let address = c.address(V6);
            c.sendto(c.listener[V6], MSG_FASTOPEN, address)
        },
    },
    Attempt {
        name: "listener, v4: shutdown, sendmsg(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            c.shutdown(c.listener[V4])?;
            let address = c.address(V4);
            c.sendmsg(c.listener[V4], MSG_FASTOPEN, address)
        },
    },
    Attempt {
        name: "listener, v6: shutdown, sendmsg(MSG_FASTOPEN, address)",
        right: Right::Killed,
        make: |c| {
            c.shutdown(c.listener[V6])?;
            let address = c.address(V6);
            c.sendmsg(c.listener[V6], MSG_FASTOPEN, address)
        },
    },
    Attempt {
        name: "listener, v4: shutdown, sendto(address)",
        right: Right::Killed,
        make: |c| {
            c.shutdown(c.listener[V4])?;
            let address = c.address(V4);
            c.sendto(c.listener[V4], 0, address)
        },
    },
    Attempt {
        name: "listener, v4: shutdown, sendmsg(address)",
        right: Right::Harmless("a TCP socket that is not connected takes no bytes without MSG_FASTOPEN"),
        make: |c| {
            c.shutdown(c.listener[V4])?;
            let address = c.address(V4);
            c.sendmsg(c.listener[V4], 0, address)
        },
    },
    Attempt {
        name: "accepted: sendto(address)",
        right: Right::Killed,
        make: |c| {
            let address = c.address(V4);
            c.sendto(c.accepted[V4], 0, address)
        },
    },
    Attempt {
        name: "accepted: sendto(MSG_FASTOPEN)",
        right: Right::Killed,
        make: |c| c.sendto(c.accepted[V4], MSG_FASTOPEN, (0, 0)),
    },
    Attempt {
        name: "accepted: sendmsg(address)",
        right: Right::Harmless("the address is ignored: it goes to whom the connection leads"),
        make: |c| {
            let address = c.address(V4);
            c.sendmsg(c.accepted[V4], 0, address)
        },
    },
    Attempt {
        name: "channel: sendmsg(path of a stream server)",
        right: Right::Harmless("a stream that is connected takes no address"),
        make: |c| {
            let address = c.unix("stream");
            c.sendmsg(0, 0, address)
        },
    },
    Attempt {
        name: "channel: sendmsg(path of a datagram server)",
        right: Right::Harmless("a stream that is connected takes no address"),
        make: |c| {
            let address = c.unix("datagram");
            c.sendmsg(0, 0, address)
        },
    },
    Attempt {
        name: "channel: sendmmsg(path of a datagram server)",
        right: Right::Killed,
        make: |c| {
            let address = c.unix("datagram");
            let message = c.message(address);
            c.call(libc::SYS_sendmmsg, &[0, message, 1, 0])
        },
    },
    Attempt {
        name: "accepted: TCP_FASTOPEN_CONNECT, connect, write",
        right: Right::Eperm,
        make: |c| {
            let socket = c.accepted[V4];
            c.set(socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)?;
            c.turn_round_accepted(V4)
        },
    },
    Attempt {
        name: "listener: shutdown, TCP_FASTOPEN_CONNECT, connect, write",
        right: Right::Eperm,
        make: |c| {
            let socket = c.listener[V4];
            c.shutdown(socket)?;
            c.set(socket, libc::IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)?;
            let address = c.address(V4);
            c.connect(socket, address)?;
            c.say(socket)
        },
    },
    Attempt {
        name: "accepted: TCP_REPAIR",
        right: Right::Eperm,
        make: |c| c.set(c.accepted[V4], libc::IPPROTO_TCP, TCP_REPAIR, 1),
    },
    Attempt {
        name: "listener: shutdown, listen, accept4",
        right: Right::Killed,
        make: |c| {
            c.shutdown(c.listener[V4])?;
            c.call(libc::SYS_listen, &[c.listener[V4], 64])
        },
    },
    Attempt {
        name: "listener: shutdown, accept4",
        right: Right::Harmless("nobody can connect to a listener that was shut down"),
        make: |c| {
            c.shutdown(c.listener[V4])?;
            c.call(libc::SYS_accept4, &[c.listener[V4], 0, 0, libc::SOCK_NONBLOCK as u64])
        },
    },
    Attempt {
        name: "listener: shutdown",
        right: Right::Harmless("a relay does so when its service is stopped: its ports close"),
        make: |c| c.shutdown(c.listener[V4]),
    },
    Attempt {
        name: "io_uring_setup",
        right: Right::Killed,
        make: |c| {
            let parameters = c.injection.put(&[0; 120]);
            c.call(libc::SYS_io_uring_setup, &[8, parameters])
        },
    },
];

/// With the socket to the service manager.
pub const SERVICE_MANAGER: &[Attempt] = &[
    Attempt {
        name: "manager's: sendmsg(path of a datagram server)",
        right: Right::Killed,
        make: |c| {
            let address = c.unix("datagram");
            c.sendmsg(c.manager(), 0, address)
        },
    },
    Attempt {
        name: "manager's: sendmsg(the journal's socket)",
        right: Right::Killed,
        make: |c| {
            let path = b"\x01\0/run/systemd/journal/socket\0";
            let address = (c.injection.put(path), path.len() as u64);
            c.sendmsg(c.manager(), 0, address)
        },
    },
    Attempt {
        name: "manager's: sendmsg, the other half of the register set",
        right: Right::Killed,
        make: |c| {
            let address = c.unix("datagram");
            c.sendmsg(c.manager() | 0xdead_0000_0000_0000, 0, address)
        },
    },
    Attempt {
        name: "manager's: sendmmsg(path of a datagram server)",
        right: Right::Killed,
        make: |c| {
            let address = c.unix("datagram");
            let message = c.message(address);
            c.call(libc::SYS_sendmmsg, &[c.manager(), message, 1, 0])
        },
    },
    Attempt {
        name: "manager's: sendto(path of a datagram server)",
        right: Right::Killed,
        make: |c| {
            let address = c.unix("datagram");
            c.sendto(c.manager(), 0, address)
        },
    },
    Attempt {
        name: "manager's: connect(path of a datagram server), write",
        right: Right::Killed,
        make: |c| {
            let address = c.unix("datagram");
            c.connect(c.manager(), address)?;
            c.say(c.manager())
        },
    },
    Attempt {
        name: "manager's: dup, sendmsg(path of a datagram server)",
        right: Right::Eperm,
        make: |c| {
            let other = c.call(libc::SYS_dup, &[c.manager()])?;
            let address = c.unix("datagram");
            c.sendmsg(other, 0, address)
        },
    },
    Attempt {
        name: "manager's: dup2, sendmsg(path of a datagram server)",
        right: Right::Eperm,
        make: |c| {
            let other = c.call(libc::SYS_dup2, &[c.manager(), 200])?;
            let address = c.unix("datagram");
            c.sendmsg(other, 0, address)
        },
    },
    Attempt {
        name: "manager's: F_DUPFD_CLOEXEC, sendmsg(path)",
        right: Right::Eperm,
        make: |c| {
            let other = c.call(libc::SYS_fcntl, &[c.manager(), 1030, 0])?;
            let address = c.unix("datagram");
            c.sendmsg(other, 0, address)
        },
    },
    Attempt {
        name: "manager's: F_DUPFD, sendmsg(path)",
        right: Right::Eperm,
        make: |c| {
            let other = c.call(libc::SYS_fcntl, &[c.manager(), 0, 0])?;
            let address = c.unix("datagram");
            c.sendmsg(other, 0, address)
        },
    },
    Attempt {
        name: "manager's: write",
        right: Right::Harmless("its manager hears it, who takes from it how it goes and nothing else"),
        make: |c| c.say(c.manager()),
    },
];
