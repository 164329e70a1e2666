//! Revocations by two copies of a zone directory at two proxies, one of which goes down and comes back, against a model: a
//! set of denied names for each copy and each proxy, which grows by what its contacts know (docs/protocol.md, "Documents that
//! differ"). After each step, whom the real ports let in is just what the model says.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use zone_module::zone::Zone as Directory;
use zone_protocol::identity::Role;
use zone_tests::control::is_admitted;
use zone_tests::host::Host;
use zone_tests::process::{run, succeed};
use zone_tests::seeds::{Random, seeds};
use zone_tests::until;
use zone_tests::zone::Zone;

use super::super::hostile_relay::stop;
use super::{copy, denied, revoke};

/// What happens in one history.
const STEPS: usize = 4;
/// Revocations at the same time.
const AT_ONCE: usize = 8;
/// Histories with the same hosts, whose documents grow from each to the next.
const HISTORIES_OF_A_SCENE: usize = 25;
/// Scenes at the same time, where many histories are asked for.
const SCENES_AT_ONCE: usize = 6;
/// A relay stands still in one of so many steps, for it takes 10 s until a revocation does without it.
const STOPPED_ONE_IN: usize = 250;

type Names = BTreeSet<String>;

/// An endpoint, whether it is denied or not.
struct Party {
    name: String,
    certificate: String,
    key: String,
}

/// The real ones, and what the model says of each.
struct Scene {
    hosts: [Host; 2],
    zone: Zone,
    copies: [PathBuf; 2],
    /// Whether the second host is up.
    up: bool,
    /// What each copy of the directory denies.
    copies_deny: [Names; 2],
    /// What each proxy denies.
    proxies_deny: [Names; 2],
    parties: Vec<Party>,
    next: usize,
}

impl Scene {
    fn play() -> Self {
        let hosts = [Host::start(""), Host::start("")];
        let zone = Zone::with(&hosts[0]);
        let address = hosts[1].address.to_string();
        let mut provision = zone.cli(&["provision", "--name", "p2", "--listen", &address]);
        succeed(&mut provision, hosts[1].payload().as_bytes());
        let copies = [zone.path(), copy(&zone)];
        let (copies_deny, proxies_deny) = Default::default();
        Self { hosts, zone, copies, up: true, copies_deny, proxies_deny, parties: Vec::new(), next: 0 }
    }

    /// The proxies that can be reached.
    fn reached(&self) -> std::ops::Range<usize> {
        0..1 + usize::from(self.up)
    }

    /// A new endpoint with a certificate.
    fn party(&mut self) -> String {
        let name = format!("e{}", self.next);
        self.next += 1;
        let directory = Directory::open(&self.copies[0]).expect("a zone");
        let issued = directory.issue(Role::Endpoint, &name.parse().expect("a label"), None).expect("signed");
        let key = issued.key.to_string();
        self.parties.push(Party { name: name.clone(), certificate: issued.certificate, key });
        name
    }

    /// What the model says after a copy has been in contact with every proxy that can be reached.
    fn meet(&mut self, copy: usize) {
        let mut known = std::mem::take(&mut self.copies_deny[copy]);
        for proxy in self.reached() {
            known.extend(self.proxies_deny[proxy].iter().cloned());
        }
        for proxy in self.reached() {
            self.proxies_deny[proxy].clone_from(&known);
        }
        self.copies_deny[copy] = known;
    }

    fn revoke_one(&mut self, copy: usize) {
        let name = self.party();
        let told = run(&mut revoke(&self.zone, &self.copies[copy], &name), b"");
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.success(), self.up, "it succeeds where every proxy has it: {said}");
        self.copies_deny[copy].insert(name);
        self.meet(copy);
    }

    fn revoke_at_once(&mut self) {
        let names: Vec<_> = (0..AT_ONCE).map(|_| self.party()).collect();
        thread::scope(|scope| {
            for (number, name) in names.iter().enumerate() {
                let mut command = revoke(&self.zone, &self.copies[number % 2], name);
                let up = self.up;
                scope.spawn(move || {
                    let told = run(&mut command, b"");
                    assert_eq!(told.status.success(), up, "{}", String::from_utf8_lossy(&told.stderr));
                });
            }
        });
        for (number, name) in names.into_iter().enumerate() {
            self.copies_deny[number % 2].insert(name);
        }
        // Which copy has heard of which at that moment is up to chance; what the proxies say is not.
        (0..2).for_each(|copy| self.meet(copy));
        (0..2).for_each(|copy| self.push(copy));
    }

    fn push(&mut self, copy: usize) {
        let mut command = Command::new(self.zone.cli(&[]).get_program());
        let told = run(command.arg("--zone").arg(&self.copies[copy]).args(["trust", "push"]), b"");
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.success(), self.up, "{said}");
        self.meet(copy);
    }

    fn second_host_goes_or_comes(&mut self) {
        if self.up {
            self.hosts[1].control.kill();
        } else {
            self.hosts[1].restart();
        }
        self.up = !self.up;
    }

    /// Whom the real ones let in and deny.
    fn compare(&self, what: &str) {
        for proxy in self.reached() {
            let host = &self.hosts[proxy];
            let denies: Names = denied(host, &self.zone).into_iter().collect();
            assert_eq!(denies, self.proxies_deny[proxy], "{what}: the document of proxy {proxy}");
            for party in &self.parties {
                let lets_in = is_admitted(host, &self.zone, 17486, (&party.certificate, &party.key));
                let expected = !self.proxies_deny[proxy].contains(&party.name);
                assert_eq!(lets_in, expected, "{what}: {} at proxy {proxy}", party.name);
            }
        }
        for (copy, expected) in self.copies.iter().zip(&self.copies_deny) {
            let trust = Directory::open(copy).and_then(|zone| zone.trust()).expect("its trust");
            assert_eq!(trust.deny.len(), expected.len(), "{what}: {}", copy.display());
        }
    }

    fn history(&mut self, seed: u64) {
        let mut random = Random::new(seed);
        let mut done = Vec::new();
        self.parties.clear();
        // Nobody denies this one.
        self.party();
        for _ in 0..STEPS {
            let copy = random.below(2);
            let stopped = random.one_in(STOPPED_ONE_IN).then(|| self.hosts[0].relay());
            stopped.into_iter().for_each(stop);
            let step = ["one", "one", "one", "at once", "push", "goes or comes"][random.below(6)];
            done.push(format!("{step} by copy {copy}, a relay stopped: {}", stopped.is_some()));
            match step {
                "one" => self.revoke_one(copy),
                "at once" => self.revoke_at_once(),
                "push" => self.push(copy),
                _ => self.second_host_goes_or_comes(),
            }
            if let Some(relay) = stopped {
                // A step that changed nothing left it as it was.
                let _ = nix::sys::signal::kill(relay, nix::sys::signal::Signal::SIGCONT);
                until("a relay serves", || self.hosts[0].relay_now().is_some());
            }
            self.compare(&format!("seed {seed}: {done:#?}"));
        }
        if !self.up {
            self.second_host_goes_or_comes();
            self.compare(&format!("seed {seed}: {done:#?}, and the second host is back"));
        }
    }
}

#[test]
fn whom_the_proxies_let_in_is_what_the_rules_say_whoever_revokes_and_whatever_is_down() {
    let all: Vec<_> = seeds(8).collect();
    let scenes = Mutex::new(all.chunks(HISTORIES_OF_A_SCENE));
    thread::scope(|scope| {
        for _ in 0..all.len().div_ceil(HISTORIES_OF_A_SCENE).min(SCENES_AT_ONCE) {
            scope.spawn(|| {
                while let Some(seeds) = { scenes.lock().expect("nobody panics in it").next() } {
                    let mut scene = Scene::play();
                    for seed in seeds {
                        scene.history(*seed);
                        println!("seed {seed} holds");
                    }
                }
            });
        }
    });
}
