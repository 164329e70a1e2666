//! System calls that no safe crate wraps. Every other crate of the workspace forbids `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The first descriptor that a service manager passes (`sd_listen_fds(3)`).
const FIRST_PASSED_FD: libc::c_int = 3;
/// The most passed descriptors that are looked at.
const MAX_PASSED_FDS: libc::c_int = 64;

/// How many bytes a TCP socket has not yet had acknowledged by its peer (`SIOCOUTQ`, tcp(7)).
///
/// A reset throws away what is still queued, so whoever wants everything delivered first asks here.
pub fn unsent_bytes(socket: impl AsFd) -> io::Result<usize> {
    let mut queued: libc::c_int = 0;
    // SAFETY: the descriptor is borrowed and so open for the whole call, and SIOCOUTQ (which Linux gives the
    // number of TIOCOUTQ) writes one int to the address given, which is that of a live local.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(queued).unwrap_or(0))
}

/// Gives the memory back to the system that this process has freed (`malloc_trim(3)`). glibc keeps a page for as long as
/// anything behind it in the same heap is in use.
///
/// It walks all free memory, holding the lock of one heap after the other: some milliseconds for a hundred MiB.
pub fn return_freed_memory() {
    // SAFETY: it takes a number, touches nothing but what malloc itself keeps, under malloc's own locks, and may be called
    // at any time by any thread.
    unsafe { libc::malloc_trim(0) };
}

/// The descriptors that the service manager passed to this process, each with its name (`sd_listen_fds(3)`).
///
/// Call it first thing in `main`, before anything is opened: it takes the environment's word for who owns the
/// descriptors from 3 on. Later calls return none. The descriptors are closed on exec from then on.
pub fn listen_fds() -> Vec<(String, OwnedFd)> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name| std::env::var(name).unwrap_or_default();
    if variable("LISTEN_PID") != std::process::id().to_string() || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let count = variable("LISTEN_FDS").parse().unwrap_or(0).clamp(0, MAX_PASSED_FDS);
    let names = variable("LISTEN_FDNAMES");
    let mut names = names.split(':');
    let mut passed = Vec::new();
    for number in FIRST_PASSED_FD..FIRST_PASSED_FD + count {
        let name = names.next().unwrap_or_default().to_owned();
        // SAFETY: fcntl with F_SETFD takes any number and reports one that is not open.
        if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
            continue;
        }
        // SAFETY: the descriptor is open, as the call above found, and the service manager passed it to this
        // process for its own; nobody else here has taken it, because TAKEN lets one caller through.
        passed.push((name, unsafe { OwnedFd::from_raw_fd(number) }));
    }
    passed
}

/// Which version of landlock the running kernel has, from 1 on (`landlock_create_ruleset(2)`).
///
/// Fails with ENOSYS or EOPNOTSUPP where it has none, and with EPERM where something around this process forbids to ask.
pub fn landlock_abi() -> io::Result<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: with LANDLOCK_CREATE_RULESET_VERSION the kernel takes a null pointer of size 0 and touches no memory.
    let abi = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, 0_usize, 0_usize, VERSION) };
    u32::try_from(abi).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn memory_that_was_freed_before_memory_in_use_goes_back() {
        let resident = || {
            let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
            pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap()
        };
        // Small enough that each is a part of the heap, and no mapping of its own.
        let crowd: Vec<_> = (0..4_000).map(|n: u16| vec![n.to_le_bytes()[0]; 16 << 10]).collect();
        let last = vec![1_u8; 16 << 10];
        let full = resident();
        drop(crowd);
        return_freed_memory();
        assert!(full - resident() > 12_000, "{full} pages, then {}", resident());
        assert_eq!(last[0], 1);
    }

    #[test]
    fn bytes_that_the_peer_has_no_room_for_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(unsent_bytes(&stream).unwrap(), 0);
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 4096]).is_ok() {}
        assert!(unsent_bytes(&stream).unwrap() > 0);
    }
}
