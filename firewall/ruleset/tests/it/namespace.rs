//! A network namespace of its own, with rules that nft or iptables loads.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use zone_ruleset::{Reader, Rule, Ruleset};

/// A network namespace, removed with everything in it.
pub(crate) struct Namespace {
    name: String,
}

/// A namespace, or `None` where there can be none here: then that was said.
pub(crate) fn namespace(test: &str) -> Option<Namespace> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "network namespaces take root");
    }
    for tool in ["/usr/sbin/nft", "/usr/sbin/ip"] {
        if !Path::new(tool).exists() {
            return skip(test, &format!("{tool} is missing: apt-get install nftables iproute2"));
        }
    }
    let name = format!("ruleset-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let made = Command::new("ip").args(["netns", "add", &name]).output().expect("ip runs");
    if !made.status.success() {
        let why = String::from_utf8_lossy(&made.stderr);
        return skip(test, &format!("no network namespace: {}", why.trim()));
    }
    Some(Namespace { name })
}

/// Says that a test could not run here, in the way that the whole suite collects.
pub(crate) fn skip(test: &str, why: &str) -> Option<Namespace> {
    eprintln!("SKIPPED: {test}: {why}");
    None
}

impl Namespace {
    /// A command in the namespace.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Gives a program its input, and takes nothing but success.
    pub(crate) fn feed(&self, program: &str, arguments: &[&str], input: &str) {
        let mut command = self.command(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ip runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}\n{input:.2000}");
    }

    /// Loads rules in nft's language. nft wants a line's end around a closing brace, which `; }` and `} }` stand for here.
    pub(crate) fn nft(&self, rules: &str) {
        let rules = rules.replace("; }", ";\n}\n").replace(" } }", " }\n}\n");
        self.feed("nft", &["-f", "-"], &format!("{rules}\n"));
    }

    /// Runs something in a thread that is in the namespace.
    pub(crate) fn inside<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let namespace = File::open(Path::new("/run/netns").join(&self.name)).expect("a namespace");
                setns(namespace, CloneFlags::CLONE_NEWNET).expect("root may enter it");
                run()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Its rules.
    pub(crate) fn ruleset(&self) -> Ruleset {
        self.inside(|| Reader::open().expect("a reader").ruleset().expect("rules"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

/// The rules of the first chain of this name.
pub(crate) fn rules<'a>(ruleset: &'a Ruleset, chain: &str) -> &'a [Rule] {
    let chains = ruleset.tables.iter().flat_map(|table| &table.chains);
    let found = chains.clone().find(|candidate| candidate.name == *chain);
    &found.unwrap_or_else(|| panic!("no chain {chain} in {ruleset:?}")).rules
}
