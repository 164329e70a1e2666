//! `zone-captured relay|control`: makes every attempt with a process of the packages that are installed here, and prints the
//! table. `zone-captured end SOCKET [PID]`: asks for the end of a process as control does, and prints the answer.
//!
//! For the lab: as root, on a host that runs a provisioned proxy under systemd and is thrown away afterwards.

use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{PidfdFlags, pidfd_open};
use zone_captured::{SERVICE_MANAGER, Scene, Surroundings, Target, User, listens, play};

/// For a service to be up again.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// For the helper to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// A folder that no unit hides, and none can write to.
const BELOW: &str = "/opt";
/// Where a server is that nobody else uses.
const ADDRESS: [u8; 4] = [127, 77, 7, 7];
/// The ports, as they are unless a Module Server says otherwise.
const ENDPOINTS: u16 = 17486;
const MODULE_SERVERS: u16 = 17487;
const CONTROL: u16 = 17488;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["relay", address] => capture(true, address),
        ["control", address] => capture(false, address),
        ["end", socket] => end(socket, None),
        ["end", socket, process] => end(socket, Some(process)),
        _ => {
            eprintln!(
                "zone-captured: relay ADDRESS, control ADDRESS or end SOCKET [PID]; ADDRESS is where the proxy listens"
            );
            ExitCode::FAILURE
        }
    }
}

/// The packaged proxy of this host.
struct Packaged {
    relay: bool,
    address: IpAddr,
}

fn capture(relay: bool, address: &str) -> ExitCode {
    let mut packaged = Packaged { relay, address: address.parse().expect("an address") };
    let attempts = if relay {
        [&zone_captured::relay(), SERVICE_MANAGER].concat()
    } else {
        zone_captured::control(false)
    };
    let own = nix::unistd::User::from_name(packaged.program()).expect("the user database").expect("its user");
    let user = User { uid: own.uid.as_raw(), gid: own.gid.as_raw() };
    let mut around = Surroundings::new(Path::new(BELOW), ADDRESS.into(), user);
    let wrong = play(&mut packaged, &mut around, &attempts);
    println!("{} attempts, {} came to something else than they should", attempts.len(), wrong.len());
    for line in &wrong {
        println!("WRONG: {line}");
    }
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Packaged {
    /// The program; its user has the same name.
    fn program(&self) -> &'static str {
        if self.relay { "zone-relay" } else { "zone-proxy" }
    }
}

impl Scene for Packaged {
    fn target(&mut self) -> Target {
        let [control, relay] = ["zone-proxy", "zone-relay"].map(serving);
        let v6 = IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]);
        let connect: Vec<SocketAddr> = if self.relay {
            vec![(self.address, ENDPOINTS).into(), (v6, ENDPOINTS).into()]
        } else {
            vec![(self.address, CONTROL).into()]
        };
        let process = if self.relay { relay } else { control };
        Target { process, connect, listens: MODULE_SERVERS, landlock: landlock() }
    }

    fn renew(&mut self) {
        // A relay that dies again and again is started after longer and longer delays; by a new control it is started at once.
        let restarted = Command::new("systemctl").args(["restart", "zone-proxy.service"]).status();
        assert!(restarted.is_ok_and(|status| status.success()), "zone-proxy.service can't be restarted");
    }
}

/// Waits until a process of a program holds the relay's ports.
fn serving(program: &str) -> Pid {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let found = processes(program).into_iter().find(|process| listens(*process, MODULE_SERVERS));
        if let Some(process) = found {
            return process;
        }
        assert!(Instant::now() < deadline, "no {program} serves");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The processes of a program that are its service, and no command.
fn processes(program: &str) -> Vec<Pid> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let process = |entry: std::fs::DirEntry| -> Option<Pid> {
        let number = entry.file_name().to_str()?.parse().ok()?;
        let executable = std::fs::read_link(entry.path().join("exe")).ok()?;
        (executable.file_name()? == program).then(|| Pid::from_raw(number))
    };
    entries.filter_map(process).collect()
}

/// The version of landlock that control says it is confined by; 0 for none.
fn landlock() -> u32 {
    let Ok(output) = Command::new("zone-proxy").arg("status").output() else { return 0 };
    let shown = String::from_utf8_lossy(&output.stdout);
    let version = shown.split("landlock: ABI ").nth(1).and_then(|rest| rest.split(',').next());
    version.and_then(|version| version.parse().ok()).unwrap_or_default()
}

fn end(socket: &str, process: Option<&str>) -> ExitCode {
    match ask_for_the_end(socket, process) {
        Ok(answer) => {
            print!("{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("not asked: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask_for_the_end(socket: &str, process: Option<&str>) -> std::io::Result<String> {
    let number = process.and_then(|text| text.parse().ok()).and_then(rustix::process::Pid::from_raw);
    let pidfd: Option<OwnedFd> = number.map(|number| pidfd_open(number, PidfdFlags::empty())).transpose()?;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let pidfds: Vec<_> = pidfd.iter().map(|pidfd| pidfd.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !pidfds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&pidfds));
    }
    sendmsg(&stream, &[IoSlice::new(b"end\n")], &mut ancillary, SendFlags::NOSIGNAL)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
