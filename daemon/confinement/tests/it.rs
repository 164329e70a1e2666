//! What is left to a process that has confined itself, and what its end looks like. Each test has the test program run
//! once more, as the process that is confined.

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::thread;

use libc::{SIGABRT, SIGSYS};
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use zone_confinement::{Control, Files, Kept, control, deny_files, relay, restrict_calls, restrict_files};

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
    restrict_calls(&relay(std::process::id(), &datagrams)).expect("confined");
}

/// Confines this process as a control, which starts relays itself or not.
fn confine_control(starts_relays: bool) {
    let own = Control { process: std::process::id(), starts_relays, connects: false, looks_up: false };
    restrict_calls(&control(own)).expect("confined");
}

/// The test of this name is ended by the kernel, for a call that only an attacker makes.
fn is_killed(test: &str) {
    let output = confined(test);
    assert_eq!(output.status.signal(), Some(SIGSYS), "{}", said(&output));
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
    is_killed("a_new_socket_ends_the_process");
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
        Files::Restricted { .. } => panic!("nothing is kept"),
        Files::NotInKernel => assert!(opened && said.to_string() == "not in this kernel"),
        Files::Failed(why) => panic!("{why}"),
    }
    println!("landlock: {said}");
    ends();
}

#[test]
fn a_control_listens_starts_threads_and_connects_to_a_unix_socket_by_a_short_path() {
    if !is_confined() {
        return is_as_it_should_be(
            "a_control_listens_starts_threads_and_connects_to_a_unix_socket_by_a_short_path",
        );
    }
    let folder = tempfile::tempdir().unwrap();
    std::env::set_current_dir(folder.path()).unwrap();
    confine_control(false);
    let unix = UnixListener::bind("twelve.bytes").unwrap();
    UnixStream::connect("twelve.bytes").unwrap();
    unix.accept().unwrap();
    TcpListener::bind("127.0.0.1:0").unwrap();
    TcpListener::bind("[::1]:0").unwrap();
    assert_eq!(thread::spawn(|| 7).join().unwrap(), 7);
    std::fs::write("state", "words").unwrap();
    std::fs::rename("state", "other").unwrap();
    ends();
}

#[test]
fn a_control_that_connects_to_an_address_of_the_network_is_ended() {
    if is_confined() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        confine_control(true);
        let _ = TcpStream::connect(listener.local_addr().unwrap());
        ends();
    }
    is_killed("a_control_that_connects_to_an_address_of_the_network_is_ended");
}

#[test]
fn a_control_that_executes_a_program_is_ended_where_a_service_manager_starts_relays() {
    if is_confined() {
        confine_control(false);
        let _ = Command::new("/bin/true").status();
        ends();
    }
    is_killed("a_control_that_executes_a_program_is_ended_where_a_service_manager_starts_relays");
}

#[test]
fn a_control_that_starts_relays_executes_a_program_which_inherits_what_it_has_given_up() {
    let test = "a_control_that_starts_relays_executes_a_program_which_inherits_what_it_has_given_up";
    if !is_confined() {
        return is_as_it_should_be(test);
    }
    let before = Command::new("cat").arg("/proc/self/status").output().unwrap();
    confine_control(true);
    let after = Command::new("cat").arg("/proc/self/status").output().unwrap();
    let filters = |output: &Output| {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("Seccomp_filters:"));
        line.and_then(|number| number.trim().parse::<u32>().ok()).expect("the kernel shows it")
    };
    assert_eq!(filters(&after), filters(&before) + zone_confinement::FILTERS, "{}", said(&after));
    ends();
}

#[test]
fn of_files_that_are_kept_each_is_open_as_far_as_it_is_kept_and_no_other_is() {
    let test = "of_files_that_are_kept_each_is_open_as_far_as_it_is_kept_and_no_other_is";
    if !is_confined() {
        return is_as_it_should_be(test);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["read", "change", "other"] {
        std::fs::create_dir(path(name)).unwrap();
        std::fs::write(path(name).join("file"), "words").unwrap();
    }
    let kept =
        Kept { read: vec![path("read"), path("missing")], change: vec![path("change")], ..Kept::default() };
    let said = restrict_files(&kept);
    let Files::Restricted { .. } = said else {
        assert_eq!(said, Files::NotInKernel);
        ends();
    };
    let closed = |result: std::io::Result<()>| {
        assert!(result.is_err_and(|error| error.raw_os_error() == Some(libc::EACCES)));
    };
    assert_eq!(std::fs::read_to_string(path("read").join("file")).unwrap(), "words");
    closed(std::fs::write(path("read").join("file"), "others"));
    std::fs::write(path("change").join("file"), "others").unwrap();
    std::fs::rename(path("change").join("file"), path("change").join("new")).unwrap();
    closed(std::fs::read(path("other").join("file")).map(drop));
    closed(std::fs::remove_file(path("other").join("file")));
    closed(Command::new("/bin/true").status().map(drop));
    ends();
}
