//! Suites, their cases, and what a case does and sees.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::command::{Cmd, Output, must};
use super::description::Topology;
use super::error::{Error, Result};
use super::process::Process;
use super::report::{CaseReport, Entry, Outcome};
use super::target::{Probe, Target};
use super::terminal::Terminal;
use super::world::World;

/// A subject and the cases that show it.
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for a person.
    pub about: &'static str,
    /// Its cases, each in hosts of its own.
    pub cases: Vec<Case>,
}

/// What a case does in its hosts.
pub type Play = Box<dyn Fn(&mut Scene<'_>) -> Result<()> + Send + Sync>;

/// A story in hosts of its own, told as a sentence.
pub struct Case {
    /// The sentence.
    pub name: String,
    /// Requirements (R-n) and what else it shows.
    pub shows: &'static [&'static str],
    /// Its hosts.
    pub topology: Topology,
    /// What must be there.
    pub needs: Vec<Need>,
    /// It runs only where long ones were asked for.
    pub long: bool,
    /// What it does.
    pub play: Play,
}

impl Case {
    /// A case with nothing special about it.
    pub fn new(
        name: impl Into<String>,
        topology: Topology,
        play: impl Fn(&mut Scene<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), shows: &[], topology, needs: Vec::new(), long: false, play: Box::new(play) }
    }

    /// Says what it shows.
    #[must_use]
    pub fn shows(mut self, what: &'static [&'static str]) -> Self {
        self.shows = what;
        self
    }

    /// Says what must be there. A case whose needs are not met is reported as not run, which fails a strict run.
    #[must_use]
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// Makes it run only where long ones were asked for.
    #[must_use]
    pub fn only_when_long(mut self) -> Self {
        self.long = true;
        self
    }
}

/// What a case can need that may not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A program of ours, built.
    Program(&'static str),
    /// A package of ours, by the beginning of its file name.
    Package(&'static str),
    /// A program of this machine.
    Tool(&'static str),
}

impl Need {
    /// Why it is not met, if it isn't.
    pub fn unmet(&self, places: &Places) -> Option<String> {
        let missing = |there: bool, what: String| (!there).then_some(what);
        match self {
            Self::Program(name) => {
                let path = places.program(name);
                missing(path.is_file(), format!("{} is not built", path.display()))
            }
            Self::Package(start) => missing(
                places.package(start).is_ok(),
                format!("no package {start}* in {}: run cargo xtask package", places.packages.display()),
            ),
            Self::Tool(name) => {
                let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
                let there = path.split(':').any(|dir| Path::new(dir).join(name).is_file());
                missing(there, format!("this machine has no {name}"))
            }
        }
    }
}

/// Where things of ours are on this machine.
#[derive(Debug, Clone)]
pub struct Places {
    /// The programs, as they ship.
    pub programs: PathBuf,
    /// The packages.
    pub packages: PathBuf,
    /// The lab's own directory: roots and reports.
    pub lab: PathBuf,
}

impl Places {
    /// The same things where every user of this machine can reach them, which a checkout need not be. Only for the
    /// lab's worker, whose mounts they are.
    pub fn open_to_all(&self) -> Result<Self> {
        Ok(Self {
            programs: super::cleanup::show(&self.programs, "programs")?,
            packages: super::cleanup::show(&self.packages, "packages")?,
            lab: self.lab.clone(),
        })
    }

    /// A program of ours.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The cached roots.
    pub fn roots(&self) -> PathBuf {
        self.lab.join("roots")
    }

    /// The one package whose file name begins so.
    pub fn package(&self, start: &str) -> Result<PathBuf> {
        let entries = std::fs::read_dir(&self.packages).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
            })
            .collect();
        found.sort();
        found.pop().ok_or_else(|| Error::other(format!("no package {start}* in {}", self.packages.display())))
    }
}

/// A case while it runs: its hosts, and the record of what it did and saw.
pub struct Scene<'a> {
    world: &'a World,
    places: &'a Places,
    name: String,
    entries: Vec<Entry>,
}

impl<'a> Scene<'a> {
    /// A host.
    pub fn host(&self, name: &str) -> Result<&'a dyn Target> {
        self.world.host(name)
    }

    /// Where things of ours are on this machine.
    pub fn places(&self) -> &'a Places {
        self.places
    }

    /// Runs a command on a host and puts it on record.
    pub fn run(&mut self, host: &str, cmd: &Cmd) -> Result<Output> {
        let output = self.host(host)?.run(cmd)?;
        self.entries.push(Entry::Command {
            host: host.to_owned(),
            shown: cmd.to_string(),
            code: output.code(),
            said: discreet(&output.text()),
            time: output.time,
        });
        Ok(output)
    }

    /// Runs a command on a host that must end with 0, and puts it on record.
    pub fn must(&mut self, host: &str, cmd: &Cmd) -> Result<Output> {
        let output = self.run(host, cmd)?;
        must(host, &cmd.to_string(), output)
    }

    /// Starts a program on a host that goes on running.
    pub fn spawn(&mut self, host: &str, name: &str, cmd: &Cmd) -> Result<Process> {
        self.note(format!("{host}: started {cmd}"));
        self.host(host)?.spawn(name, cmd)
    }

    /// Starts a program at a terminal on a host.
    pub fn terminal(&mut self, host: &str, cmd: &Cmd) -> Result<Terminal> {
        self.note(format!("{host}: at a terminal: {cmd}"));
        self.host(host)?.terminal(cmd)
    }

    /// Puts a step on record, with how long it took. Its error ends the case unless it is handled.
    pub fn step<T>(&mut self, title: &str, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let begin = Instant::now();
        let at = self.entries.len();
        let outcome = work(self);
        let error = outcome.as_ref().err().map(ToString::to_string);
        self.entries.insert(at, Entry::Step { title: title.to_owned(), time: begin.elapsed(), error });
        outcome
    }

    /// Puts a check on record. A failed one does not end the case. Returns whether it held.
    pub fn check(&mut self, sentence: impl Into<String>, held: bool, seen: impl Into<String>) -> bool {
        let (sentence, seen) = (sentence.into(), discreet(&seen.into()));
        if !held {
            println!("   FAILED  {}: {sentence}: {}", self.name, one_line(&seen));
        }
        self.entries.push(Entry::Check { sentence, held, seen });
        held
    }

    /// Checks that two things are equal; the record tells the first difference of long ones.
    pub fn check_equal(&mut self, sentence: impl Into<String>, expected: &str, seen: &str) -> bool {
        let held = expected == seen;
        let told = if held { seen.to_owned() } else { super::check::difference(expected, seen) };
        self.check(sentence, held, told)
    }

    /// Checks what connections from a host meet, all at once: (address, port, what is expected).
    pub fn check_ports(
        &mut self,
        sentence: &str,
        from: &str,
        expected: &[(SocketAddr, Expected)],
    ) -> Result<bool> {
        let host = self.host(from)?;
        let addresses: Vec<_> = expected.iter().map(|(to, _)| *to).collect();
        let seen = super::check::probe_all(host, &addresses, super::check::PROBE);
        let held = expected.iter().zip(&seen).all(|((_, expected), (_, probe))| expected.is_met(*probe));
        let told: Vec<_> = expected
            .iter()
            .zip(&seen)
            .map(|((to, expected), (_, probe))| {
                let wrong =
                    if expected.is_met(*probe) { String::new() } else { format!(" (must be {expected})") };
                format!("{from} -> {to}: {probe}{wrong}")
            })
            .collect();
        Ok(self.check(sentence, held, told.join("\n")))
    }

    /// Puts a line on record.
    pub fn note(&mut self, text: impl Into<String>) {
        self.entries.push(Entry::Note(discreet(&text.into())));
    }

    /// Tries something until it holds, and returns whether it did in time. For what gives no event to wait for.
    pub fn until(&self, limit: Duration, mut held: impl FnMut() -> bool) -> bool {
        let deadline = Instant::now() + limit;
        while !held() {
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        true
    }
}

/// What a connection attempt is expected to meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// [`Probe::Open`].
    Open,
    /// Anything but open.
    Closed,
    /// Just this.
    Exactly(Probe),
}

impl Expected {
    fn is_met(self, probe: Probe) -> bool {
        match self {
            Self::Open => probe == Probe::Open,
            Self::Closed => probe != Probe::Open,
            Self::Exactly(wanted) => probe == wanted,
        }
    }
}

impl std::fmt::Display for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => f.write_str("open"),
            Self::Closed => f.write_str("closed"),
            Self::Exactly(probe) => probe.fmt(f),
        }
    }
}

/// Text without the secret of a provisioning token. The lab's tokens open nothing, but reports are passed on.
fn discreet(text: &str) -> String {
    const START: &str = "zp1-";
    let mut pieces = text.split(START);
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let hidden = if rest.len() == piece.len() { "" } else { "(hidden)" };
        text + START + hidden + rest
    })
}

fn one_line(text: &str) -> String {
    text.trim().replace('\n', "; ").chars().take(600).collect()
}

/// Plays a case from its first host to its last. `name` is used once in a run; `after` sees the hosts at the end.
pub(crate) fn play(
    suite: &'static str,
    case: &Case,
    name: &str,
    places: &Places,
    after: impl FnOnce(&World),
) -> CaseReport {
    let begin = Instant::now();
    let mut entries = Vec::new();
    let error = match World::up(name, &case.topology, &places.roots()) {
        Err(error) => Some(error),
        Ok(world) => {
            let mut scene =
                Scene { world: &world, places, name: format!("{suite}: {}", case.name), entries: Vec::new() };
            scene.note(format!("all hosts are up after {:.1} s", begin.elapsed().as_secs_f32()));
            let outcome = (case.play)(&mut scene);
            entries = scene.entries;
            let failed = outcome.is_err() || entries.iter().any(Entry::is_failed);
            if failed {
                entries.extend(last_words(&world));
            }
            after(&world);
            outcome.err()
        }
    };
    let outcome = match error {
        Some(error) => {
            println!("   FAILED  {suite}: {}: {error}", case.name);
            Outcome::Failed(error.to_string())
        }
        None if entries.iter().any(Entry::is_failed) => Outcome::Failed("checks failed".to_owned()),
        None => Outcome::Passed,
    };
    CaseReport::new(suite, case, entries, outcome, begin.elapsed())
}

/// The end of every log, for whoever looks into a failure.
fn last_words(world: &World) -> Vec<Entry> {
    const LINES: usize = 40;
    let mut words = Vec::new();
    for host in world.hosts() {
        let dir = world.dir().join(host.name()).join("log");
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let text = super::terminal::plain(&bytes);
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
            let log = entry.file_name();
            words.push(Entry::Note(format!("{}: end of {}:\n{tail}", host.name(), log.display())));
        }
        let journal =
            "command -v journalctl >/dev/null && journalctl -b -p 6 -n 60 --no-pager -o short-precise";
        if let Ok(output) = host.run(&Cmd::sh(journal))
            && output.ok()
            && !output.stdout.is_empty()
        {
            words.push(Entry::Note(format!("{}: end of the journal:\n{}", host.name(), output.stdout)));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_tells_no_token() {
        let text = "{\"token\": \"zp1-tvc4qdipm5fv\", \"version\": 1} and zp1-abc2";
        assert_eq!(discreet(text), "{\"token\": \"zp1-(hidden)\", \"version\": 1} and zp1-(hidden)");
        assert_eq!(discreet("nothing, zp1- alone"), "nothing, zp1- alone");
    }
}
