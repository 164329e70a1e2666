//! Control is killed at every system call of a transaction that changes something (acceptance 4): afterwards
//! the old state holds or the new one, wholly, and whoever asked can ask again.
//!
//! `strace` delivers SIGKILL on entering the N-th call of a name, so that this call does not happen any more;
//! the call after it shows what a kill right behind it does. Relays are not traced.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use zone_tests::host::Host;
use zone_tests::process::{Process, fail, run, succeed};
use zone_tests::session::Session;
use zone_tests::zone::Zone;
use zone_tests::{program, skip, until};

/// What changes files and directories.
pub(crate) const FILES: &str = "mkdir,mkdirat,openat,write,pwrite64,ftruncate,fsync,fdatasync,link,linkat,symlink,\
                     symlinkat,rename,renameat,renameat2,unlink,unlinkat,rmdir,chmod,fchmod,fchmodat";
/// How often what was passed over is looked for, at most.
const PASSES: usize = 4;
/// What changes sockets and processes, or tells another process something.
const SOCKETS: &str = "socket,socketpair,setsockopt,bind,listen,connect,sendto,sendmsg,writev,shutdown,clone,\
                       clone3,fork,vfork";
/// For a call that comes after the client has its answer.
const LATE_CALL_TIMEOUT: Duration = Duration::from_millis(500);

#[test]
fn control_killed_at_any_change_of_a_file_leaves_the_old_state_or_the_new_one() {
    let test = "control_killed_at_any_change_of_a_file_leaves_the_old_state_or_the_new_one";
    let Some(mut scene) = Scene::new(test) else { return };
    let tally = scene.kill_provisionings(FILES);
    println!("provisioning, files:\n{tally}");
    assert!(tally.changes() >= 40, "{tally}");
    assert!(tally.old > 0 && tally.new > 0, "{tally}");
}

#[test]
fn control_killed_at_any_change_of_a_socket_or_process_leaves_the_old_state_or_the_new_one() {
    let test = "control_killed_at_any_change_of_a_socket_or_process_leaves_the_old_state_or_the_new_one";
    let Some(mut scene) = Scene::new(test) else { return };
    let tally = scene.kill_provisionings(SOCKETS);
    println!("provisioning, sockets and processes:\n{tally}");
    assert!(tally.changes() >= 15, "{tally}");
    assert!(tally.old > 0 && tally.new > 0, "{tally}");
}

/// The same for leaving the zone, at the first and the last call of each name.
#[test]
fn control_killed_while_it_leaves_its_zone_is_a_member_or_none() {
    let test = "control_killed_while_it_leaves_its_zone_is_a_member_or_none";
    let Some(mut scene) = Scene::new(test) else { return };
    let tally = scene.kill_unprovisionings(&format!("{FILES},{SOCKETS}"));
    println!("un-provisioning:\n{tally}");
    assert!(tally.changes() >= 12, "{tally}");
    assert!(tally.old > 0 && tally.new > 0, "{tally}");
}

/// What all kills of a test share: the zone that asks, one that has no say, and relays that can be told apart.
struct Scene {
    zone: Zone,
    stranger: Zone,
    endpoint: PathBuf,
    relays: Relays,
    hosts: u32,
}

/// A host of the scene; the proxy on it is to be killed.
struct Victim {
    host: Host,
    name: String,
    payload: String,
}

impl Scene {
    fn new(test: &str) -> Option<Self> {
        let missing = ["strace", "openssl"].into_iter().find(|tool| {
            let probe = Command::new(tool).arg(if *tool == "strace" { "-V" } else { "version" }).output();
            !probe.is_ok_and(|output| output.status.success())
        });
        if let Some(tool) = missing {
            skip(test, &format!("{tool} is missing"));
            return None;
        }
        let mut traced = Process::start(Command::new("sleep").arg("60"));
        let attached = Trace::start(&traced, &["trace=none"]).is_some();
        traced.kill();
        if !attached {
            skip(test, "strace may not attach to another process here");
            return None;
        }
        let zone = Zone::init();
        let endpoint = zone.issue_endpoint("e1", &[]);
        Some(Self { zone, stranger: Zone::init(), endpoint, relays: Relays::new(), hosts: 0 })
    }

    fn kill_provisionings(&mut self, names: &str) -> Tally {
        let victim = self.victim();
        let trace =
            Trace::start(&victim.host.control, &[&format!("trace={names}")]).expect("it attached before");
        self.provision(&victim);
        let seen = trace.detach();
        self.is_whole(&victim);
        drop(victim);
        let mut tally = Tally::of(seen);
        // Calls that are not the transaction's own shift those behind them now and then, and one of these is passed over: what
        // was passed over is looked for again.
        for pass in 0..PASSES {
            for (name, count) in tally.counts() {
                if pass == 0 || !tally.left_out(Some(&name)).is_empty() {
                    self.kill_provisionings_at(&name, count + pass, &mut tally);
                }
            }
        }
        tally.reached_everything();
        tally
    }

    /// Kills control at each of so many calls of a name.
    fn kill_provisionings_at(&mut self, name: &str, count: usize, tally: &mut Tally) {
        for n in 1..=count {
            let mut victim = self.victim();
            let (mut client, payload) = (self.provision_command(&victim), victim.payload.clone());
            let (call, output) = victim.run_and_kill(name, n, &mut client, payload.as_bytes());
            let Some(call) = call else {
                tally.missed.push(format!("{name} {n}"));
                assert!(output.status.success(), "{name} {n}: {output:?}");
                continue;
            };
            victim.host.restart();
            let provisioned = self.is_whole(&victim);
            assert!(
                provisioned || !output.status.success(),
                "{call}: the answer was given, and is forgotten"
            );
            let again = self.provision(&victim);
            assert_eq!(again.contains("already provisioned by this zone"), provisioned, "{call}: {again}");
            assert!(self.is_whole(&victim), "{call}: unprovisioned after a repeated provisioning");
            tally.add(call, provisioned);
        }
    }

    fn kill_unprovisionings(&mut self, names: &str) -> Tally {
        let victim = self.victim();
        self.provision(&victim);
        let trace =
            Trace::start(&victim.host.control, &[&format!("trace={names}")]).expect("it attached before");
        succeed(&mut self.zone.cli(&["unprovision", &victim.name]), b"");
        let seen = trace.detach();
        drop(victim);
        let mut tally = Tally::of(seen);
        for (name, count) in tally.counts() {
            for n in BTreeSet::from([1, count]) {
                let mut victim = self.victim();
                self.provision(&victim);
                let mut client = self.zone.cli(&["unprovision", &victim.name]);
                let (call, output) = victim.run_and_kill(&name, n, &mut client, b"");
                let Some(call) = call else {
                    tally.missed.push(format!("{name} {n}"));
                    assert!(output.status.success(), "{name} {n}: {output:?}");
                    continue;
                };
                victim.host.restart();
                let member = victim.is_member();
                assert!(
                    !member || !output.status.success(),
                    "{call}: the answer was given, and is forgotten"
                );
                if member {
                    self.is_whole(&victim);
                    succeed(&mut self.zone.cli(&["unprovision", &victim.name]), b"");
                }
                let spent = std::mem::replace(&mut victim.payload, victim.host.payload());
                assert!(!self.is_whole(&victim), "{call}: still a member after a repeated un-provisioning");
                fail(&mut self.provision_command(&victim), spent.as_bytes());
                self.provision(&victim);
                assert!(self.is_whole(&victim), "{call}: it can't be provisioned again");
                // Old and new as everywhere: what was before the transaction, and after it.
                tally.add(call, !member);
            }
        }
        tally
    }

    fn victim(&mut self) -> Victim {
        self.hosts += 1;
        let host = Host::start(&format!("[relay]\nprogram = \"{}\"\n", self.relays.program.display()));
        // strace watches the first thread, which does everything but write log lines, make keys and ask the broker.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", host.control.pid())).expect("it runs");
        let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
        let others: Vec<_> =
            names.filter(|name| !["zone-proxy", "log", "blocking"].contains(&name.trim())).collect();
        assert!(others.is_empty(), "control has threads that strace would miss: {others:?}");
        self.relays.are(0);
        Victim { name: format!("p{}", self.hosts), payload: host.payload(), host }
    }

    fn provision_command(&self, victim: &Victim) -> Command {
        let address = victim.host.address.to_string();
        self.zone.cli(&["provision", "--name", &victim.name, "--listen", &address])
    }

    fn provision(&self, victim: &Victim) -> String {
        succeed(&mut self.provision_command(victim), victim.payload.as_bytes())
    }

    /// Looks at everything that a state shows in; whether it is that of a member.
    fn is_whole(&self, victim: &Victim) -> bool {
        let host = &victim.host;
        let member = victim.is_member();
        if member {
            until("both relay ports are open", || host.answers(17486) && host.answers(17487));
            until("a relay serves", || host.status()["relays"][0]["state"] == "serving");
            self.relays.are(1);
            self.parks(host);
            let refused = fail(&mut host.cli(&["show", "payload"]), b"");
            assert!(refused.contains("already provisioned"), "{refused}");
            let address = host.address.to_string();
            let mut other = self.stranger.cli(&["provision", "--name", "p1", "--listen", &address]);
            fail(&mut other, victim.payload.as_bytes());
        } else {
            self.relays.are(0);
            assert!(!host.answers(17486) && !host.answers(17487), "a relay port is open before provisioning");
            let token = |payload: &str| {
                let payload: serde_json::Value = serde_json::from_str(payload).expect("JSON");
                payload["token"].clone()
            };
            assert_eq!(token(&host.payload()), token(&victim.payload), "the token is another one");
        }
        victim.has_nothing_left_over(member);
        member
    }

    /// An endpoint of the zone can park: the proxy shows its certificates, and knows the zone's anchors.
    fn parks(&self, host: &Host) {
        let mut client = Command::new("openssl");
        client.args(["s_client", "-quiet", "-tls1_2", "-no-CApath", "-no-CAstore", "-verify_return_error"]);
        client.arg("-connect").arg(host.port(17486).to_string());
        client.arg("-CAfile").arg(self.endpoint.join("zone-proxy-ca.crt"));
        client.arg("-cert").arg(self.endpoint.join("endpoint.crt"));
        client.arg("-key").arg(self.endpoint.join("endpoint.key"));
        let mut park = Session::start(&mut client);
        let instance = "0123456789abcdef".repeat(2);
        let fields = format!("Connection: Upgrade\r\nUpgrade: ptth/1\r\nZone-Instance: {instance}\r\n");
        park.send(format!("GET /v1/park HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", host.address).as_bytes());
        park.receives(b"HTTP/1.1 101 ");
    }
}

impl Victim {
    /// Runs a client while control is to be killed at the N-th call of a name, and says at which call that
    /// happened; `None` where there were fewer.
    fn run_and_kill(
        &mut self,
        name: &str,
        n: usize,
        client: &mut Command,
        input: &[u8],
    ) -> (Option<Call>, Output) {
        let control = &mut self.host.control;
        let inject = format!("inject={name}:signal=SIGKILL:when={n}");
        let trace = Trace::start(control, &[&format!("trace={name}"), &inject]).expect("it attached before");
        let output = run(client, input);
        let deadline = Instant::now() + LATE_CALL_TIMEOUT;
        while control.runs() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if control.runs() {
            trace.detach();
            return (None, output);
        }
        assert_eq!(control.ends().signal(), Some(Signal::SIGKILL as i32), "{}", control.said());
        let call = trace.ended().pop().expect("the call at which it was killed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || said.contains("zone-module: proxy "), "{call}: {said}");
        (Some(call), output)
    }

    fn is_member(&self) -> bool {
        self.host.status()["state"] == "provisioned"
    }

    /// One state on the disk, wholly, and one rendezvous where a relay runs.
    fn has_nothing_left_over(&self, member: bool) {
        let state = self.host.state();
        assert_eq!(names(&state), ["clock", "current", "lock", "states"]);
        let current = std::fs::read_link(state.join("current")).expect("a link");
        let only = names(&state.join("states"));
        assert_eq!(only.len(), 1, "{only:?}");
        assert_eq!(current, Path::new("states").join(&only[0]));
        let pairs = ["ec.crt", "ec.key", "rsa.crt", "rsa.key"].map(str::to_owned);
        let own = pairs.iter().filter(|_| member).map(|file| format!("control-{file}")).collect::<Vec<_>>();
        let last = if member { "trust.json" } else { "token.json" };
        let files = [&own[..], &pairs, &["state.json", last].map(str::to_owned)].concat();
        assert_eq!(names(&state.join(current)), files);
        until("what control keeps of the relay, if there is one, and of no other", || {
            let found = names(&self.host.runtime());
            let (of_relays, others): (Vec<_>, Vec<_>) =
                found.iter().partition(|name| name.starts_with("relay-"));
            let parts: Vec<_> = of_relays.iter().filter_map(|name| name.split_once('.')).collect();
            let one = parts.iter().all(|(relay, _)| *relay == parts[0].0);
            let mut kinds: Vec<_> = parts.iter().map(|(_, kind)| *kind).collect();
            kinds.sort_unstable();
            // The list of sessions begins with the first one.
            kinds.retain(|kind| *kind != "sessions");
            others.len() == 1
                && one
                && kinds == if member { vec!["json", "notes", "sock"] } else { Vec::new() }
        });
    }
}

/// `strace` on a process, not on its children.
pub(crate) struct Trace {
    strace: Process,
    log: PathBuf,
    _folder: TempDir,
}

impl Trace {
    /// `None` where it can't attach.
    pub(crate) fn start(traced: &Process, expressions: &[&str]) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("trace");
        let mut command = Command::new("strace");
        command.args(["-y", "-p", &traced.pid().to_string()]).arg("-o").arg(&log);
        command.args(expressions.iter().flat_map(|expression| ["-e", expression]));
        let mut strace = Process::start(&mut command);
        until("strace attaches, or says why not", || strace.said().contains("attached") || !strace.runs());
        strace.runs().then_some(Self { strace, log, _folder: folder })
    }

    /// Lets go of a process that goes on.
    pub(crate) fn detach(self) -> Vec<Call> {
        self.strace.signal(Signal::SIGINT);
        self.ended()
    }

    pub(crate) fn ended(mut self) -> Vec<Call> {
        self.strace.ends();
        let log = std::fs::read(&self.log).expect("what strace wrote");
        String::from_utf8_lossy(&log).lines().filter_map(Call::read).collect()
    }
}

/// A system call as strace writes it down.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Call {
    pub(crate) name: String,
    /// The file or the port that it is about, where there is one.
    about: String,
    /// Whether it changes anything that outlives the process, or that another process sees.
    pub(crate) changes: bool,
}

impl Call {
    /// A line such as `fsync(17</state/clock.next>) = 0`; `None` for lines about signals and the end.
    fn read(line: &str) -> Option<Self> {
        let (name, rest) = line.split_once('(')?;
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            return None;
        }
        let held =
            rest.split_once('<').and_then(|(_, rest)| Some(rest.split_once('>')?.0)).unwrap_or_default();
        let named = rest.rsplit('"').nth(1).unwrap_or_default();
        let port = rest.split_once("htons(").and_then(|(_, rest)| Some(rest.split_once(')')?.0));
        let about = match name {
            "bind" => port.unwrap_or(named),
            _ if SOCKETS.split(',').any(|own| own == name) => "",
            "write" | "pwrite64" | "ftruncate" | "fsync" | "fdatasync" | "fchmod" => held,
            _ => named,
        };
        let changes = match name {
            "openat" => rest.contains("O_CREAT"),
            // Log lines and wake-ups of the process itself go to pipes.
            "write" => held.starts_with('/'),
            _ => true,
        };
        let about = about.rsplit('/').next().unwrap_or_default().to_owned();
        Some(Self { name: name.to_owned(), about, changes })
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.about)
    }
}

/// What was killed at, and how it came out.
#[derive(Default)]
struct Tally {
    /// All calls of a transaction that nobody disturbs.
    undisturbed: Vec<Call>,
    killed: Vec<Call>,
    missed: Vec<String>,
    old: usize,
    new: usize,
}

impl Tally {
    fn of(undisturbed: Vec<Call>) -> Self {
        Self { undisturbed, ..Self::default() }
    }

    /// How often each name is called that changes something at least once.
    fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for call in &self.undisturbed {
            *counts.entry(call.name.clone()).or_default() += 1;
        }
        counts.retain(|name, _| self.undisturbed.iter().any(|call| call.name == *name && call.changes));
        counts
    }

    fn add(&mut self, call: Call, new: bool) {
        self.killed.push(call);
        if new { self.new += 1 } else { self.old += 1 }
    }

    /// Kills at calls that change something.
    fn changes(&self) -> usize {
        self.killed.iter().filter(|call| call.changes).count()
    }

    /// Nothing that an undisturbed transaction changes was left out.
    fn reached_everything(&self) {
        let left_out = self.left_out(None);
        assert!(left_out.is_empty(), "never killed at {left_out:?}\n{self}");
    }

    /// What an undisturbed transaction changes, by calls of this name or of any, and control was not killed at.
    fn left_out(&self, name: Option<&str>) -> Vec<String> {
        let of = |calls: &[Call]| {
            let named = calls.iter().filter(|call| name.is_none_or(|name| call.name == name));
            named.filter(|call| call.changes).cloned().collect::<BTreeSet<_>>()
        };
        of(&self.undisturbed).difference(&of(&self.killed)).map(Call::to_string).collect()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in self.counts().keys() {
            let killed: Vec<_> = self.killed.iter().filter(|call| call.name == *name).collect();
            let about: Vec<_> =
                killed.iter().filter(|call| call.changes).map(|call| call.about.as_str()).collect();
            writeln!(f, "  {name:<11} {:>2} kills: {}", killed.len(), about.join(" "))?;
        }
        if !self.missed.is_empty() {
            writeln!(f, "  not called that often: {}", self.missed.join(", "))?;
        }
        let (kills, changes) = (self.killed.len(), self.changes());
        write!(f, "  {kills} kills, {changes} of them at a change; {} ended old, {} new", self.old, self.new)
    }
}

/// A relay's program under a path of its own, so that its processes can be found.
struct Relays {
    program: PathBuf,
    _folder: TempDir,
}

impl Relays {
    fn new() -> Self {
        let folder = zone_tests::folder();
        let copy = folder.path().canonicalize().expect("a folder").join("zone-relay");
        let original = program("zone-relay");
        std::fs::hard_link(&original, &copy)
            .or_else(|_| std::fs::copy(&original, &copy).map(drop))
            .expect("a copy of zone-relay");
        Self { program: copy, _folder: folder }
    }

    /// Waits until so many of them run.
    fn are(&self, wanted: usize) {
        until(&format!("{wanted} relays run"), || self.running().len() == wanted);
    }

    fn running(&self) -> Vec<Pid> {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        processes
            .filter(|entry| std::fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == self.program))
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw))
            .collect()
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        for relay in self.running() {
            let _ = kill(relay, Signal::SIGKILL);
        }
    }
}

/// What a directory holds, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("a directory").map(|entry| entry.expect("an entry"));
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
