//! `zone-module` is killed at every change of a name in a directory, and whenever it tells a proxy something, while it
//! replaces an authority, and run again: the end is the same as without the kill, and one new authority was made.
//!
//! The same zone has its authority replaced again and again, so each kill meets what the ones before it have left. What is
//! written before it has its name is seen by nobody, so kills in between change nothing.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};

use zone_module::zone::{Replacement, Zone as Directory};
use zone_protocol::features::TRUST_MERGE;
use zone_protocol::fields;
use zone_protocol::identity::Role;
use zone_protocol::merge::digest;
use zone_protocol::trust::Trust;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{Process, run, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{skip, target};

use super::busy::copy;

/// What gives names to files and takes them away, and what reaches a proxy.
const CHANGES: &str = "rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,mkdir,mkdirat,symlink,symlinkat,\
                       connect,sendto,sendmsg,writev";

#[test]
fn a_replacement_for_endpoints_that_is_killed_anywhere_ends_as_one_that_is_not() {
    kill_everywhere(
        "a_replacement_for_endpoints_that_is_killed_anywhere_ends_as_one_that_is_not",
        Role::Endpoint,
    );
}

#[test]
fn a_replacement_for_module_servers_that_is_killed_anywhere_ends_as_one_that_is_not() {
    kill_everywhere(
        "a_replacement_for_module_servers_that_is_killed_anywhere_ends_as_one_that_is_not",
        Role::ModuleServer,
    );
}

#[test]
fn a_replacement_for_proxies_that_is_killed_anywhere_ends_as_one_that_is_not() {
    kill_everywhere(
        "a_replacement_for_proxies_that_is_killed_anywhere_ends_as_one_that_is_not",
        Role::ZoneProxy,
    );
}

fn kill_everywhere(test: &str, role: Role) {
    let strace = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
    if !strace.is_ok_and(|output| output.status.success()) {
        return skip(test, "strace is missing, or may not trace here");
    }
    let scene = Scene::new(role);
    let before = scene.replacement().signs.pem;
    let renew = scene.calls(&scene.words("renew", "out"));
    scene.delivered("out");
    let retire = scene.calls(&scene.words("retire", "anchors"));
    scene.is_replaced(&before);
    assert!(renew.len() >= 10 && retire.len() >= 3, "{renew:?} {retire:?}");
    let (mut kills, mut missed) = (0, Vec::new());
    for number in 0..renew.len().max(retire.len()) {
        let before = scene.replacement().signs.pem;
        let out = format!("out-{number}");
        let last = format!("anchors-{number}");
        for (verb, out, calls) in [("renew", &out, &renew), ("retire", &last, &retire)] {
            if verb == "retire" {
                let both = scene.delivered(&format!("out-{number}"));
                assert_eq!(both.old().len(), 1, "another authority was made after a kill: {both:?}");
            }
            let words = scene.words(verb, out);
            if let Some((name, n)) = calls.get(number) {
                let ended = scene.killed(name, *n, &words);
                match ended.status.signal() {
                    Some(9) => kills += 1,
                    _ => missed.push(format!("{verb} {name} {n}: {ended:?}")),
                }
                // What is asked of a zone in between works.
                succeed(&mut scene.zone.cli(&["authority", "status"]), b"");
                succeed(&mut scene.zone.cli(&["status"]), b"");
            }
            succeed(&mut scene.command(&words), b"");
        }
        scene.is_replaced(&before);
    }
    println!("{role}: {kills} kills, {} calls were not made that often: {missed:?}", missed.len());
    assert!(kills >= 40 && missed.len() <= 8, "{kills} kills; {missed:?}");
}

/// A zone with a proxy, an endpoint that runs and another Module Server.
struct Scene {
    role: Role,
    host: Host,
    zone: Zone,
    _endpoint: Process,
}

impl Scene {
    fn new(role: Role) -> Self {
        let host = Host::start("");
        let zone = Zone::with(&host);
        zone.issue_module_server("standby");
        let service =
            Service { name: "sealed", port: 8, target: target::echo().to_string(), end_to_end: true };
        let endpoint = zone.endpoint(&host, "e0", &[service]);
        Self { role, host, zone, _endpoint: endpoint }
    }

    fn words(&self, verb: &str, out: &str) -> Vec<String> {
        let out = self.zone.beside(out).to_string_lossy().into_owned();
        ["authority", verb, self.role.as_str(), "--out", &out].map(str::to_owned).into()
    }

    fn command(&self, words: &[String]) -> Command {
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        self.zone.cli(&words)
    }

    fn traced(&self, log: &Path, expressions: &[String], words: &[String]) -> Command {
        let own = self.command(words);
        let mut command = Command::new("strace");
        command.arg("-o").arg(log);
        command.args(expressions.iter().flat_map(|expression| ["-e", expression]));
        command.arg(own.get_program()).args(own.get_args());
        command
    }

    /// Runs a command to its end: the calls that it makes, each by its name and how many of that name came before.
    fn calls(&self, words: &[String]) -> Vec<(String, usize)> {
        let log = self.zone.beside("trace");
        succeed(&mut self.traced(&log, &[format!("trace={CHANGES}")], words), b"");
        let text = std::fs::read_to_string(&log).expect("what strace wrote");
        let mut calls: Vec<(String, usize)> = Vec::new();
        for name in text.lines().filter_map(|line| Some(line.split_once('(')?.0)) {
            let n = calls.iter().filter(|(known, _)| known == name).count() + 1;
            calls.push((name.to_owned(), n));
        }
        calls
    }

    /// Runs a command that is killed on entering the `n`-th call of a name.
    fn killed(&self, name: &str, n: usize, words: &[String]) -> Output {
        let expressions = [format!("trace={name}"), format!("inject={name}:signal=KILL:when={n}")];
        run(&mut self.traced(Path::new("/dev/null"), &expressions, words), b"")
    }

    fn directory(&self) -> Directory {
        self.zone.directory()
    }

    fn replacement(&self) -> Replacement {
        self.directory().replacement(self.role).expect("the authorities")
    }

    /// Copies what `renew` wrote to its place; how the authorities are then.
    fn delivered(&self, out: &str) -> Replacement {
        copy(&self.zone.beside(out).join("endpoint/e0"), &self.zone.beside("e0"));
        copy(&self.zone.beside(out).join("module-server/standby"), &self.zone.beside("standby"));
        self.replacement()
    }

    /// One authority, which was not there before, is known everywhere, and what it has signed is good.
    fn is_replaced(&self, before: &str) {
        let now = self.replacement();
        assert!(now.next.is_none() && now.former.is_empty(), "{now:?}");
        assert_ne!(now.signs.pem, before);
        let ours = self.directory().trust().expect("the trust document");
        let features = [(fields::FEATURES, TRUST_MERGE)];
        let answer = Client::member(&self.host, &self.zone).ask("GET", "/v1/trust", &features, b"");
        let theirs: Trust = answer.document();
        assert_eq!(digest(&ours), digest(&theirs));
        let anchors = match self.role {
            Role::Endpoint => theirs.anchors.endpoint,
            Role::ModuleServer => theirs.anchors.module_server,
            _ => self.directory().anchors(self.role).expect("anchors"),
        };
        assert_eq!(anchors, [now.signs.pem]);
        let files = std::fs::read_dir(self.zone.path().join("ca")).expect("ca").flatten();
        let left: Vec<_> = files.map(|file| file.file_name()).filter(|name| is_next(name)).collect();
        assert!(left.is_empty(), "{left:?}");
        let mut session = Session::connect(&self.zone, "e0:sealed");
        session.exchanges(b"end to end");
        session.end();
        assert!(session.ends().0.success());
    }
}

fn is_next(name: &std::ffi::OsStr) -> bool {
    name.to_string_lossy().contains(".next.")
}
