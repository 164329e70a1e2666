//! What control does all day: it keeps its state, listens, talks to Unix sockets, and has relays started.
//!
//! A service manager starts the relays for it; then it executes nothing. Started by hand it executes the relay's program itself,
//! which inherits what control may: so that list holds what a relay takes until it has confined itself, and all that it keeps.
//!
//! It connects to nobody but Unix sockets. The address of connect(2) is behind a pointer, where a filter does not see it, and
//! its length is not: whatever is too short for IPv4 can only name a Unix socket, by a short path (unix(7)), or nobody.

use libc::{c_int, c_long};

use crate::attacks::attacks;
use crate::relay::{self, PROT_READ_WRITE, call_with, option};
use crate::rule::{Calls, Profile, Rule, more};

/// The length of an IPv4 address (`struct sockaddr_in`). The kernel takes no shorter one, and those of IPv6 are longer.
const IPV4_ADDRESS_BYTES: u32 = 16;
/// The kind of a socket, without what is asked for in the same argument.
const SOCKET_KIND: u32 = 0xf;
const SIGKILL: u32 = libc::SIGKILL.cast_unsigned();
const SIGABRT: u32 = libc::SIGABRT.cast_unsigned();
const PROT_READ_EXEC: u32 = (libc::PROT_READ | libc::PROT_EXEC).cast_unsigned();
const CLONE_THREAD: u32 = libc::CLONE_THREAD.cast_unsigned();
/// What the C library asks for with a thread.
const THREAD: u32 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID)
    .cast_unsigned();
/// And with a process; the lowest byte is a signal.
const PROCESS: u32 =
    (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID | 0xff)
        .cast_unsigned();
const NAMESPACES: [c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Asks for the auxiliary vector, which a library looks at (prctl(2), from Linux 6.4 on).
const PR_GET_AUXV: c_int = 0x4155_5856;
const FIONREAD: u32 = 0x541b;

/// Calls that are harmless whatever their arguments are, beside those of a relay.
const WHOLE: [c_long; 39] = [
    // Sockets: where it listens, and whom it has accepted.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    // Files, of which landlock says which.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_unlinkat,
    libc::SYS_umask,
    // Who it is, and where.
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_uname,
    // Whether a process is still there: by a descriptor, which gives no power over it.
    libc::SYS_pidfd_open,
    libc::SYS_wait4,
    libc::SYS_waitid,
    // Waiting.
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_readv,
];

/// What a relay takes before it has confined itself, from its execution on.
const STARTS: [c_long; 13] = [
    libc::SYS_execve,
    libc::SYS_chdir,
    libc::SYS_setpgid,
    libc::SYS_dup3,
    libc::SYS_set_tid_address,
    libc::SYS_getresuid,
    libc::SYS_capget,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getppid,
    libc::SYS_dup,
];

/// Older calls of the same kinds, which younger machines never had.
#[cfg(target_arch = "x86_64")]
const OLDER: [c_long; 10] = [
    libc::SYS_access,
    libc::SYS_chmod,
    libc::SYS_mkdir,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [c_long; 0] = [];
#[cfg(target_arch = "x86_64")]
const OLDER_STARTS: [c_long; 2] = [libc::SYS_arch_prctl, libc::SYS_dup2];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_STARTS: [c_long; 0] = [];

/// What a control is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// Its process id.
    pub process: u32,
    /// It starts relays itself. Otherwise it starts no process and no program.
    pub starts_relays: bool,
    /// It sends its log to a server off the box. Otherwise it connects to Unix sockets only, by paths of at most 12 bytes.
    pub connects: bool,
    /// It asks for that server's address by name, for which the C library may load libraries.
    pub looks_up: bool,
}

/// What a control may.
pub fn control(own: Control) -> Profile {
    Profile { killed: killed(own), allowed: allowed(own) }
}

fn killed(own: Control) -> Calls {
    let mut calls = attacks();
    // Not those of netlink, by which the C library asks for addresses of this host: it does without.
    let raw = |of| of_kind(of, libc::SOCK_RAW);
    let raw = [raw(libc::AF_INET), raw(libc::AF_INET6), family(libc::AF_PACKET)];
    more(&mut calls, libc::SYS_socket, raw);
    more(&mut calls, libc::SYS_clone, NAMESPACES.map(|flag| Rule::new().has(0, flag.cast_unsigned())));
    if !own.connects {
        more(&mut calls, libc::SYS_connect, [Rule::new().is_at_least(2, IPV4_ADDRESS_BYTES)]);
        more(&mut calls, libc::SYS_sendto, [Rule::new().is_not_null(4)]);
    }
    if !own.looks_up {
        calls.insert(libc::SYS_sendmmsg, Vec::new());
    }
    more(&mut calls, libc::SYS_pidfd_send_signal, [Rule::new().is_not(1, SIGKILL)]);
    if own.starts_relays {
        more(&mut calls, libc::SYS_kill, [Rule::new().is_not(1, SIGKILL)]);
    } else {
        calls.insert(libc::SYS_kill, Vec::new());
        calls.insert(libc::SYS_execve, Vec::new());
        more(&mut calls, libc::SYS_clone, [Rule::new().masked(0, CLONE_THREAD, 0)]);
    }
    calls
}

fn allowed(own: Control) -> Calls {
    let mut calls = relay::allowed(own.process, &[]);
    calls.extend(WHOLE.into_iter().chain(OLDER).map(|number| (number, Vec::new())));
    sockets(&mut calls, own);
    more(&mut calls, libc::SYS_clone, [Rule::new().has(0, CLONE_THREAD).has_only(0, THREAD)]);
    more(&mut calls, libc::SYS_pidfd_send_signal, [Rule::new().is(1, SIGKILL)]);
    more(&mut calls, libc::SYS_prctl, [libc::PR_SET_NAME, PR_GET_AUXV].map(|asked| call_with(0, asked)));
    more(&mut calls, libc::SYS_prlimit64, [Rule::new().is(0, 0).is_null(2)]);
    if own.looks_up || own.starts_relays {
        // Libraries. What is written to and to be run ends the process.
        more(
            &mut calls,
            libc::SYS_mmap,
            [PROT_READ_WRITE, PROT_READ_EXEC].map(|access| Rule::new().has_only(2, access)),
        );
    }
    if own.starts_relays {
        starts(&mut calls);
    }
    calls
}

/// New sockets and their options.
fn sockets(calls: &mut Calls, own: Control) {
    let unix = |kind| of_kind(libc::AF_UNIX, kind).is(2, 0);
    more(calls, libc::SYS_socket, [libc::SOCK_STREAM, libc::SOCK_DGRAM].map(unix));
    more(calls, libc::SYS_socketpair, [unix(libc::SOCK_STREAM)]);
    let mut internet = vec![(libc::SOCK_STREAM, 0), (libc::SOCK_STREAM, libc::IPPROTO_TCP)];
    let mut set = vec![
        (libc::SOL_SOCKET, libc::SO_REUSEADDR),
        (libc::SOL_SOCKET, libc::SO_PASSCRED),
        (libc::SOL_SOCKET, libc::SO_RCVTIMEO),
        (libc::SOL_SOCKET, libc::SO_SNDTIMEO),
        (libc::SOL_SOCKET, libc::SO_SNDBUF),
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    ];
    if own.connects {
        internet.extend([(libc::SOCK_DGRAM, 0), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)]);
        set.extend([
            (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
            (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
            (libc::IPPROTO_IP, libc::IP_RECVERR),
            (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        ]);
        calls.insert(libc::SYS_connect, Vec::new());
        calls.insert(libc::SYS_sendto, Vec::new());
        more(calls, libc::SYS_ioctl, [Rule::new().is(1, FIONREAD)]);
    } else {
        more(calls, libc::SYS_connect, [Rule::new().is_below(2, IPV4_ADDRESS_BYTES)]);
    }
    if own.looks_up {
        calls.insert(libc::SYS_sendmmsg, Vec::new());
    }
    for family in [libc::AF_INET, libc::AF_INET6] {
        let rules =
            internet.iter().map(|(kind, protocol)| of_kind(family, *kind).is(2, protocol.cast_unsigned()));
        more(calls, libc::SYS_socket, rules);
    }
    more(calls, libc::SYS_setsockopt, set.into_iter().map(option));
    let get = [libc::SO_ACCEPTCONN, libc::SO_TYPE, libc::SO_SNDBUF, libc::SO_RCVTIMEO, libc::SO_SNDTIMEO];
    more(calls, libc::SYS_getsockopt, get.map(|name| option((libc::SOL_SOCKET, name))));
}

/// Relays of its own: their start, and their end.
fn starts(calls: &mut Calls) {
    calls.extend(STARTS.into_iter().chain(OLDER_STARTS).map(|number| (number, Vec::new())));
    more(calls, libc::SYS_clone, [Rule::new().has_only(0, PROCESS)]);
    more(calls, libc::SYS_kill, [Rule::new().is(1, SIGKILL)]);
    // Whose process id is not known yet.
    more(calls, libc::SYS_tgkill, [Rule::new().is(2, SIGABRT)]);
    let held =
        [libc::PR_CAPBSET_READ, libc::PR_CAP_AMBIENT, libc::PR_SET_NO_NEW_PRIVS, libc::PR_GET_SECUREBITS];
    more(calls, libc::SYS_prctl, held.map(|asked| call_with(0, asked)));
    more(calls, libc::SYS_prlimit64, [Rule::new().is(0, 0).is(1, libc::RLIMIT_NOFILE)]);
    // To give up more.
    let filter = Rule::new().is(0, libc::SECCOMP_SET_MODE_FILTER);
    let flags = u32::try_from(libc::SECCOMP_FILTER_FLAG_TSYNC).unwrap_or_default();
    more(calls, libc::SYS_seccomp, [filter.has_only(1, flags)]);
}

fn family(family: c_int) -> Rule {
    call_with(0, family)
}

fn of_kind(of: c_int, kind: c_int) -> Rule {
    family(of).masked(1, SOCKET_KIND, kind.cast_unsigned())
}
