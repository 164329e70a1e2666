//! What a case does and sees in its hosts.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::command::{Cmd, Output, must};
use super::error::Result;
use super::places::Places;
use super::process::Process;
use super::record::Entry;
use super::target::{Probe, Target};
use super::terminal::Terminal;
use super::world::World;

/// A case while it runs: its hosts, and the record of what it did and saw.
pub struct Scene<'a> {
    world: &'a World,
    places: &'a Places,
    name: String,
    entries: Vec<Entry>,
}

impl<'a> Scene<'a> {
    /// A case whose hosts are up and that has done nothing yet. `name` is what the screen calls it.
    pub(crate) fn new(world: &'a World, places: &'a Places, name: String) -> Self {
        Self { world, places, name, entries: Vec::new() }
    }

    /// What was put on record.
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

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
        let seen = super::check::probe_all(host, &addresses, super::check::PROBE_TIMEOUT);
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
    /// Something that accepts, [`Probe::Open`].
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
