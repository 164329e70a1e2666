//! How a relay is made to end that runs as a user whom control may not signal: control hands a pidfd of it to a helper
//! that runs as that user, on a Unix stream socket. The helper kills the process and answers a line.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// What is asked, with one descriptor.
const REQUEST: &[u8] = b"end\n";
/// The answer once the signal is on its way. Any other line says why it is not.
pub const ENDED: &str = "ended\n";
/// The longest answer.
pub const MAX_ANSWER_BYTES: u64 = 512;

/// Why a request was not understood.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The socket failed, or nothing came in time.
    #[error("the request can't be read: {0}")]
    Io(#[from] io::Error),
    /// It is another one.
    #[error("this is no request of control")]
    Malformed,
    /// It must bring exactly one descriptor.
    #[error("a request brings one pidfd, and this one brought {0} descriptors")]
    Descriptors(usize),
}

/// Asks for the end of the process behind a pidfd.
pub fn send(stream: &UnixStream, pidfd: BorrowedFd<'_>) -> io::Result<()> {
    let pidfds = [pidfd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&pidfds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let sent = sendmsg(stream, &[IoSlice::new(REQUEST)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == REQUEST.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Takes the request in: the descriptor that came with it, which may be anything.
pub fn receive(stream: &UnixStream) -> Result<OwnedFd, RequestError> {
    // Room for more than one, so that more than one are seen.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; REQUEST.len() + 1];
    let received =
        recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
            .map_err(io::Error::from)?;
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    if &bytes[..received.bytes] != REQUEST {
        return Err(RequestError::Malformed);
    }
    let lost = usize::from(received.flags.contains(ReturnFlags::CTRUNC));
    match descriptors.pop() {
        Some(pidfd) if descriptors.is_empty() && lost == 0 => Ok(pidfd),
        last => Err(RequestError::Descriptors(descriptors.len() + usize::from(last.is_some()) + lost)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn one_descriptor_comes_through_and_anything_else_is_refused() {
        let pair = || UnixStream::pair().unwrap();
        let (ours, theirs) = pair();
        send(&ours, ours.as_fd()).unwrap();
        receive(&theirs).unwrap();

        let (mut ours, theirs) = pair();
        ours.write_all(REQUEST).unwrap();
        assert!(matches!(receive(&theirs), Err(RequestError::Descriptors(0))));
        ours.write_all(b"end it\n").unwrap();
        assert!(matches!(receive(&theirs), Err(RequestError::Malformed)));
        drop(ours);
        assert!(matches!(receive(&theirs), Err(RequestError::Malformed)));

        for count in [2, 9] {
            let (ours, theirs) = pair();
            let many = vec![ours.as_fd(); count];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(9))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(&many)));
            sendmsg(&ours, &[IoSlice::new(REQUEST)], &mut ancillary, SendFlags::NOSIGNAL).unwrap();
            assert!(matches!(receive(&theirs), Err(RequestError::Descriptors(2..))));
        }
    }
}
