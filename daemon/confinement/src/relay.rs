//! What a relay does all day: it accepts, reads, writes, waits, passes descriptors on, and ends.
//!
//! No call of this list takes a path or an address, makes a socket, a file, a process or a thread, or touches another process.

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::{c_int, c_long};

use crate::attacks::attacks;
use crate::rule::{Calls, Profile, Rule, more};

/// What sends may ask for besides their bytes.
const SEND_FLAGS: u32 = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT).cast_unsigned();
const PROT_EXEC: u32 = libc::PROT_EXEC.cast_unsigned();
pub(crate) const PROT_READ_WRITE: u32 = (libc::PROT_READ | libc::PROT_WRITE).cast_unsigned();
const MAP_ANONYMOUS: u32 = libc::MAP_ANONYMOUS.cast_unsigned();
/// Requests of ioctl(2): not to block, how much is not acknowledged yet, and whether it is a terminal.
const IOCTLS: [u32; 3] = [FIONBIO, TIOCOUTQ, TCGETS];
const FIONBIO: u32 = 0x5421;
const TIOCOUTQ: u32 = 0x5411;
const TCGETS: u32 = 0x5401;

/// What ends a relay, and does not end every process of the proxy: sockets and new ends for those at hand, programs, memory
/// without a file, other processes.
const ATTACKS: [c_long; 11] = [
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendmmsg,
    libc::SYS_execve,
    libc::SYS_memfd_create,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
];

/// Calls that are harmless whatever their arguments are.
const WHOLE: [c_long; 33] = [
    // Connections, the channel and the log.
    libc::SYS_accept4,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_fstat,
    // Waiting.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_futex,
    libc::SYS_sched_yield,
    libc::SYS_restart_syscall,
    // Time, where the kernel does not answer without a call, and random numbers.
    libc::SYS_clock_gettime,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Memory.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // A thread's first and last steps: those that were started may still be about them.
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sigaltstack,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_exit,
    // The end of the process, also by abort(3).
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    // Who asks is told that it is not there, by a filter of its own.
    libc::SYS_clone3,
];

/// Older calls of the same kinds, which younger machines never had.
#[cfg(target_arch = "x86_64")]
const OLDER: [c_long; 2] = [libc::SYS_epoll_wait, libc::SYS_time];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [c_long; 0] = [];

/// What a relay may. `datagrams` are the sockets by which the service manager is told how it goes: bytes go there without an
/// address, and there is no second descriptor of them. They lead to one receiver, and to any other if sendmsg(2) names it:
/// the name is behind a pointer, where a filter does not see it.
pub fn relay(process: u32, datagrams: &[BorrowedFd<'_>]) -> Profile {
    let datagrams: Vec<_> = datagrams.iter().map(|socket| socket.as_raw_fd().cast_unsigned()).collect();
    Profile { killed: killed(&datagrams), allowed: allowed(process, &datagrams) }
}

fn killed(datagrams: &[u32]) -> Calls {
    let mut calls = attacks();
    calls.extend(ATTACKS.map(|number| (number, Vec::new())));
    more(&mut calls, libc::SYS_sendto, [Rule::new().is_not_null(4)]);
    more(&mut calls, libc::SYS_sendmsg, datagrams.iter().map(|number| Rule::new().is(0, *number)));
    more(&mut calls, libc::SYS_mmap, [Rule::new().has(2, PROT_EXEC)]);
    calls
}

/// What is carried out.
pub(crate) fn allowed(process: u32, datagrams: &[u32]) -> Calls {
    let mut calls: Calls = WHOLE.into_iter().chain(OLDER).map(|number| (number, Vec::new())).collect();
    let mut allow = |number, rules: Vec<Rule>| calls.insert(number, rules);
    let no_datagrams = |rule: Rule| datagrams.iter().fold(rule, |rule, socket| rule.is_not(0, *socket));
    allow(libc::SYS_sendto, vec![Rule::new().has_only(3, SEND_FLAGS).is_null(4)]);
    allow(libc::SYS_sendmsg, vec![no_datagrams(Rule::new().has_only(2, SEND_FLAGS))]);
    let fcntl = |command| call_with(1, command);
    let harmless = [libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL].map(fcntl);
    let duplicate = no_datagrams(fcntl(libc::F_DUPFD_CLOEXEC));
    allow(libc::SYS_fcntl, harmless.into_iter().chain([duplicate]).collect());
    allow(libc::SYS_ioctl, IOCTLS.map(|request| Rule::new().is(1, request)).to_vec());
    let set = [(libc::IPPROTO_TCP, libc::TCP_NODELAY), (libc::SOL_SOCKET, libc::SO_LINGER)];
    allow(libc::SYS_setsockopt, set.map(option).to_vec());
    let get = [(libc::SOL_SOCKET, libc::SO_ERROR), (libc::SOL_SOCKET, libc::SO_PEERCRED)];
    allow(libc::SYS_getsockopt, get.map(option).to_vec());
    // Memory of its own, never to be run.
    let mapping = Rule::new().has_only(2, PROT_READ_WRITE).has(3, MAP_ANONYMOUS);
    allow(libc::SYS_mmap, vec![mapping]);
    allow(libc::SYS_mprotect, vec![Rule::new().has_only(2, PROT_READ_WRITE)]);
    // abort(3) sends itself a signal, and can send none to another process.
    allow(libc::SYS_tgkill, vec![Rule::new().is(0, process)]);
    calls
}

/// A call that asks for this in the argument at this place.
pub(crate) fn call_with(argument: u8, asked: c_int) -> Rule {
    Rule::new().is(argument, asked.cast_unsigned())
}

/// An option of a socket, by its level and its name.
pub(crate) fn option((level, name): (c_int, c_int)) -> Rule {
    call_with(1, level).is(2, name.cast_unsigned())
}
