//! The helper that kills a relay: it ends what it may, and nothing else.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use zone_channel::end::{ENDED, send};

use crate::bench::{as_relay, program};

/// Starts the helper on one end of a connection; the other end is control's.
fn helper() -> (UnixStream, Child, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = program(folder.path());
    let child = command.arg("end").stdin(OwnedFd::from(theirs)).stderr(Stdio::null()).spawn().unwrap();
    (ours, child, folder)
}

/// What the helper answers to a pidfd, or anything else that is a descriptor.
fn asked(descriptor: BorrowedFd<'_>) -> String {
    let (ours, helper, _folder) = helper();
    send(&ours, descriptor).unwrap();
    answer(ours, helper)
}

fn answer(mut ours: UnixStream, mut helper: Child) -> String {
    let mut answer = String::new();
    ours.read_to_string(&mut answer).unwrap();
    helper.wait().unwrap();
    answer
}

fn sleeper(of_the_relays_user: bool) -> Child {
    let mut command = Command::new("sleep");
    command.arg("60").stdin(Stdio::null());
    if of_the_relays_user {
        as_relay(&mut command);
    }
    command.spawn().unwrap()
}

fn pidfd(process: &Child) -> OwnedFd {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
    pidfd_open(pid, PidfdFlags::empty()).unwrap()
}

#[test]
fn a_process_of_the_relays_user_is_killed() {
    let mut relay = sleeper(true);
    let pidfd = pidfd(&relay);
    assert_eq!(asked(pidfd.as_fd()), ENDED);
    assert_eq!(relay.wait().unwrap().signal(), Some(9));
    assert_eq!(asked(pidfd.as_fd()), ENDED, "what is gone is gone");
}

#[test]
fn a_process_of_another_user_is_left_alone() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("SKIPPED: a_process_of_another_user_is_left_alone: it takes root");
        return;
    }
    let mut other = sleeper(false);
    let told = asked(pidfd(&other).as_fd());
    assert!(told.starts_with("refused: process") && told.contains("belongs to user 0"), "{told}");
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn what_is_no_pidfd_or_no_request_is_refused() {
    let (pipe, _other) = std::io::pipe().unwrap();
    assert_eq!(asked(pipe.as_fd()), "refused: the descriptor is no pidfd of a process on this host\n");
    for (request, words) in
        [(&b"end\n"[..], "brought 0 descriptors"), (b"stop\n", "no request"), (b"", "no request")]
    {
        let (mut ours, helper, _folder) = helper();
        ours.write_all(request).unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let told = answer(ours, helper);
        assert!(told.starts_with("refused: ") && told.contains(words), "{told}");
    }
}

#[test]
fn it_does_not_end_itself() {
    let (ours, helper, _folder) = helper();
    send(&ours, pidfd(&helper).as_fd()).unwrap();
    let told = answer(ours, helper);
    assert!(told.contains("is this helper"), "{told}");
}
