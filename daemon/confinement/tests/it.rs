//! What is left to a process that has confined itself, and what its end looks like. Each test has the test program run
//! once more, as the process that is confined.

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::thread;

use libc::{SIGABRT, SIGSYS};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use zone_confinement::{Files, deny_files, relay, restrict_calls};

/// In the environment of the process that is to confine itself.
const CONFINED: &str = "ZONE_TEST_CONFINED";

/// Runs the test of this name again, where it is told to be the confined one.
fn confined(test: &str) -> Output {
    let own = std::env::current_exe().expect("the test program");
    let mut command = Command::new(own);
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CONFINED, "")
        .env("RUST_BACKTRACE", "1");
    command.output().expect("the test program")
}

fn is_confined() -> bool {
    std::env::var_os(CONFINED).is_some()
}

/// Confines this process as a relay, which tells its service manager by this socket.
fn confine(datagrams: &[&UnixDatagram]) {
    let datagrams: Vec<_> = datagrams.iter().map(|socket| socket.as_fd()).collect();
    restrict_calls(&relay(std::process::id(), &datagrams), &datagrams).expect("confined");
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// Ends the confined process where a test of it is over.
fn ends() -> ! {
    println!("as it should be");
    std::process::exit(0)
}

fn is_as_it_should_be(test: &str) {
    let output = confined(test);
    assert!(said(&output).contains("as it should be"), "{}: {}", output.status, said(&output));
}

#[test]
fn what_serving_takes_goes_on() {
    if !is_confined() {
        return is_as_it_should_be("what_serving_takes_goes_on");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    confine(&[]);
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.set_nodelay(true).unwrap();
    caller.write_all(b"words").unwrap();
    accepted.write_all(&vec![7; 3_000_000][..1_000]).unwrap();
    assert!(listener.try_clone().is_ok());
    ends();
}

#[test]
fn files_and_threads_are_refused_and_nothing_breaks() {
    if !is_confined() {
        return is_as_it_should_be("files_and_threads_are_refused_and_nothing_breaks");
    }
    confine(&[]);
    let refused = File::open("/dev/null").expect_err("no file");
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    thread::Builder::new().spawn(|| ()).expect_err("no thread");
    ends();
}

#[test]
fn a_thread_that_ran_before_is_confined_as_well() {
    if !is_confined() {
        return is_as_it_should_be("a_thread_that_ran_before_is_confined_as_well");
    }
    let (confined, waits) = std::sync::mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        waits.recv().unwrap();
        File::open("/dev/null").map(drop)
    });
    confine(&[]);
    confined.send(()).unwrap();
    thread.join().unwrap().expect_err("no file");
    ends();
}

#[test]
fn an_abort_looks_like_one() {
    if is_confined() {
        confine(&[]);
        std::process::abort();
    }
    let output = confined("an_abort_looks_like_one");
    assert_eq!(output.status.signal(), Some(SIGABRT), "{}", said(&output));
}

#[test]
fn a_panic_says_its_words_and_where() {
    if is_confined() {
        confine(&[]);
        panic!("these very words");
    }
    let output = confined("a_panic_says_its_words_and_where");
    let said = said(&output);
    assert_eq!(output.status.signal(), None, "{said}");
    assert!(said.contains("these very words") && said.contains("tests/it.rs"), "{said}");
}

#[test]
fn a_new_socket_ends_the_process() {
    if is_confined() {
        confine(&[]);
        let _ = UnixDatagram::unbound();
        ends();
    }
    let output = confined("a_new_socket_ends_the_process");
    assert_eq!(output.status.signal(), Some(SIGSYS), "{}", said(&output));
}

#[test]
fn by_the_service_managers_socket_it_is_told_and_it_alone() {
    let test = "by_the_service_managers_socket_it_is_told_and_it_alone";
    if !is_confined() {
        let output = confined(test);
        assert!(said(&output).contains("told"), "{}: {}", output.status, said(&output));
        return assert_eq!(output.status.signal(), Some(SIGSYS), "{}", said(&output));
    }
    let (own, manager) = UnixDatagram::pair().unwrap();
    confine(&[&own]);
    own.send(b"READY=1").unwrap();
    assert_eq!(manager.recv(&mut [0; 64]).unwrap(), 7);
    own.try_clone().expect_err("a second descriptor would be one that the filter does not know");
    manager.try_clone().expect("others may be duplicated");
    println!("told");
    // It could name any receiver.
    let _ = sendmsg(&own, &[IoSlice::new(b"x")], &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL);
    ends();
}

#[test]
fn what_is_said_of_landlock_is_what_it_does() {
    if !is_confined() {
        return is_as_it_should_be("what_is_said_of_landlock_is_what_it_does");
    }
    let said = deny_files();
    let opened = File::open("/").is_ok();
    match &said {
        Files::Denied { abi } => assert!(*abi > 0 && !opened, "{said}"),
        Files::NotInKernel => assert!(opened && said.to_string() == "not in this kernel"),
        Files::Failed(why) => panic!("{why}"),
    }
    println!("landlock: {said}");
    ends();
}
