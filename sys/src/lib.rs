//! System calls that no safe crate wraps. Every other crate of the workspace forbids `unsafe`.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

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
