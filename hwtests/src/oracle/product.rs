//! The whole of `zone-firewall` under random rulesets: apply, apply again, verify, packets, remove.
//!
//! What it says is held against what packets do. A packet counts as denied by somebody else's rule if the kernel stopped it before
//! anything was applied, and one of two says that this was meant: the judge, as the deciding rule or one on the way to it names a
//! source, a port, a device or a condition, and nothing undecided is in it; or, without the judge, the kernel's trace, as it
//! ends at a rule whose text, as nft prints it, asks for a source, a source's port or a port (unless chance or time has a part in
//! it). Such a packet must go on being stopped.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use zone_judge::Fate;
use zone_random_rulesets::{Destination, PORTS, Shape, generate};
use zone_ruleset::{Reader, Ruleset};

use crate::error::{Context, Error, Result};
use crate::ground::{self, Ground, Look, OWN_TABLE, Seen, Tracing, unwatch};
use crate::netlink::Traced;
use crate::opinion::{Opinions, Outcome, Standing, kernels};
use crate::syn::{self, Syn};

/// Packets for each ruleset: enough for each of three ports and two families.
const SYNS: usize = 240;
/// A port of a family says nothing with fewer packets.
const FEWEST: u64 = 10;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    pub(crate) rulesets: u64,
    pub(crate) seed: u64,
    /// The program `zone-firewall`.
    pub(crate) program: PathBuf,
    pub(crate) out: PathBuf,
    pub(crate) workers: usize,
}

/// What can be wrong, and how often it was.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// How many rulesets were tried.
    pub(crate) rulesets: u64,
    /// How many packets were denied on purpose before anything was applied.
    pub(crate) denied: u64,
    /// In how many of them `verify` had something to say.
    pub(crate) with_findings: u64,
    counts: BTreeMap<Fault, u64>,
    notes: Vec<String>,
}

/// What must not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    ContentAndShut,
    BlockedAndOpen,
    DeniedGetsIn,
    NotIdempotent,
    NotRestored,
    Failed,
}

impl Fault {
    const ALL: [Self; 6] = [
        Self::ContentAndShut,
        Self::BlockedAndOpen,
        Self::DeniedGetsIn,
        Self::NotIdempotent,
        Self::NotRestored,
        Self::Failed,
    ];

    fn words(self) -> &'static str {
        match self {
            Self::ContentAndShut => "verify 0 and nobody gets in",
            Self::BlockedAndOpen => "blocked and everybody gets in",
            Self::DeniedGetsIn => "a source that a foreign rule denied gets in",
            Self::NotIdempotent => "not idempotent",
            Self::NotRestored => "not restored",
            Self::Failed => "a command failed",
        }
    }
}

impl Faults {
    /// Whether there is nothing to mend.
    pub(crate) fn is_good(&self) -> bool {
        self.counts.is_empty()
    }

    /// All of it for a person.
    pub(crate) fn text(&self) -> String {
        let mut out = format!(
            "rulesets        {}, {} of them with findings; {} SYNs that a foreign rule denied\n",
            self.rulesets, self.with_findings, self.denied
        );
        for fault in Fault::ALL {
            let _ = writeln!(out, "{:>6}  {}", self.counts.get(&fault).unwrap_or(&0), fault.words());
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        out
    }

    fn add(&mut self, other: Self) {
        self.rulesets += other.rulesets;
        self.with_findings += other.with_findings;
        self.denied += other.denied;
        for (fault, count) in other.counts {
            *self.counts.entry(fault).or_default() += count;
        }
        self.notes.extend(other.notes);
    }
}

/// Runs all of it.
pub(crate) fn run(wishes: &Wishes) -> Result<Faults> {
    let next = AtomicU64::new(0);
    let total = Mutex::new(Faults::default());
    let mut ends = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..wishes.workers)
            .map(|processor| {
                let (next, total) = (&next, &total);
                scope.spawn(move || -> Result<()> {
                    let mut trial = Trial::new(wishes, processor)?;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= wishes.rulesets {
                            return Ok(());
                        }
                        let faults = trial.ruleset(wishes.seed.wrapping_add(number))?;
                        if let Ok(mut total) = total.lock() {
                            total.add(faults);
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            ends.push(worker.join().unwrap_or_else(|_| Err(Error::Thread("it panicked".to_owned()))));
        }
    });
    ends.into_iter().collect::<Result<()>>()?;
    total.into_inner().map_err(|_| Error::Thread("it panicked".to_owned()))
}

struct Trial<'a> {
    wishes: &'a Wishes,
    ground: Ground,
    reader: Reader,
    folder: tempfile::TempDir,
}

/// What a run of the program came to.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl<'a> Trial<'a> {
    fn new(wishes: &'a Wishes, processor: usize) -> Result<Self> {
        let ground = Ground::enter(processor)?;
        let folder = tempfile::tempdir().during(|| "can't make a directory".to_owned())?;
        std::fs::create_dir(folder.path().join("state")).during(|| "can't make a directory".to_owned())?;
        Ok(Self { wishes, ground, reader: Reader::open()?, folder })
    }

    fn ruleset(&mut self, seed: u64) -> Result<Faults> {
        let made = generate(seed, Shape::Alone);
        let to = Destination::of(1);
        let text = made.ruleset.to_nft(&to);
        let mut faults = Faults { rulesets: 1, ..Faults::default() };
        let mut found: BTreeMap<Fault, String> = BTreeMap::new();
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5359_4e53);
        // Rules may name the first address, and the host has others.
        let mut used = HashSet::new();
        let mut syns = syn::choose(&mut rng, &made, &to, SYNS, &mut used);
        syns.extend(syn::choose(&mut rng, &made, &Destination::of(2), SYNS / 4, &mut used));
        // Where rules of others stand in the way of answers, somebody gets in who is answered.
        let look = Look { answers: made.ruleset.has_replies(), ..Look::ARRIVALS };
        let traced = Look { tracing: Tracing::On, ..look };
        self.ground.load(&text, traced)?;
        let naming = naming_rules(&ground::output("nft", &["-a", "list", "ruleset"])?);
        let standing = Standing::read(&mut self.reader)?;
        let mut opinions = Opinions::new(&standing);
        let before = self.ground.send(&syns, traced)?;
        let mut is_meant = |syn: &Syn| {
            let steps = before.traces.get(&(syn.source, syn.source_port));
            let last = steps.and_then(|steps| steps.iter().rfind(|step| step.table != OWN_TABLE.as_bytes()));
            let by_trace = last.and_then(rule_of).is_some_and(|rule| naming.contains(&rule));
            is_denied(&mut opinions, syn) || (by_trace && is_certain(&mut opinions, syn))
        };
        let denied: Vec<_> =
            syns.iter().filter(|syn| !through(&before, syn, look) && is_meant(syn)).collect();
        faults.denied = denied.len() as u64;
        // Once more, so that nothing that packets left is there.
        self.ground.load(&text, Look::ARRIVALS)?;
        unwatch()?;
        let own = bare(self.reader.ruleset()?);

        self.configure()?;
        let applied = self.program(&["apply"])?;
        if applied.code != Some(0) {
            found.insert(Fault::Failed, format!("apply: {}", applied.err.trim()));
        }
        let generation = self.reader.generation()?.number;
        let again = self.program(&["apply"])?;
        if applied.code == Some(0) && self.reader.generation()?.number != generation {
            found.insert(Fault::NotIdempotent, format!("{}{}", again.out.trim(), again.err.trim()));
        }
        let verified = self.program(&["verify", "--json"])?;
        let findings = findings(&verified);
        faults.with_findings = u64::from(!findings.is_empty());
        if !matches!(verified.code, Some(0 | 1)) {
            found.insert(Fault::Failed, format!("verify: {}", verified.err.trim()));
        }
        self.ground.watch(look)?;
        let after = self.ground.send(&syns, look)?;
        unwatch()?;

        if let Some(syn) = denied.into_iter().find(|syn| through(&after, syn, look)) {
            found.insert(Fault::DeniedGetsIn, format!("SYN {syn}"));
        }
        if applied.code == Some(0) {
            let groups = groups(&syns, &after, look);
            if let Some(((port, v6), _)) =
                groups.iter().find(|(_, (sent, came))| *sent >= FEWEST && *came == 0)
                && findings.is_empty()
            {
                let family = if *v6 { "IPv6" } else { "IPv4" };
                found.insert(Fault::ContentAndShut, format!("port {port}, {family}"));
            }
            for finding in findings.iter().filter(|finding| is_closed(finding)) {
                let about: Vec<_> =
                    groups.iter().filter(|((port, v6), _)| is_about(finding, *port, *v6)).collect();
                if !about.is_empty() && about.iter().all(|(_, (sent, came))| sent == came) {
                    found.insert(Fault::BlockedAndOpen, finding.to_string());
                }
            }
        }
        let removed = self.program(&["remove"])?;
        if removed.code != Some(0) {
            found.insert(Fault::Failed, format!("remove: {}", removed.err.trim()));
        }
        let left = bare(self.reader.ruleset()?);
        if left != own {
            found.insert(Fault::NotRestored, difference(&own, &left));
        }
        if !found.is_empty() {
            let path = self.write(seed, &text, &found, &findings)?;
            for (fault, what) in found {
                *faults.counts.entry(fault).or_default() += 1;
                let first = what.lines().next().unwrap_or_default();
                faults.notes.push(format!("{}: {first} ({})", fault.words(), path.display()));
            }
        }
        Ok(faults)
    }

    /// The three ports are to be open to everybody.
    fn configure(&self) -> Result<()> {
        let config = "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n";
        let rule = |purpose: &str, port: u16| json!({"purpose": purpose, "port": port, "listen": ["0.0.0.0", "::"], "networks": []});
        let record =
            json!({"version": 1, "ports": [rule("endpoint", PORTS[0]), rule("module-server", PORTS[1])]});
        let write = |name: &str, text: String| {
            let path = self.folder.path().join(name);
            std::fs::write(&path, text).during(|| format!("can't write {}", path.display()))
        };
        write("firewall.toml", config.to_owned())?;
        write("state/relay-ports.json", record.to_string())
    }

    fn program(&self, words: &[&str]) -> Result<Said> {
        let at = |name: &str| self.folder.path().join(name);
        let output = Command::new(&self.wishes.program)
            .arg("--config")
            .arg(at("firewall.toml"))
            .arg("--state")
            .arg(at("state"))
            .arg("--socket")
            .arg(at("socket"))
            .args(words)
            .output()
            .during(|| format!("can't start {}", self.wishes.program.display()))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) })
    }

    fn write(
        &self,
        seed: u64,
        text: &str,
        found: &BTreeMap<Fault, String>,
        findings: &[Value],
    ) -> Result<PathBuf> {
        let mut out = format!("# seed {seed}\n");
        for (fault, what) in found {
            for line in format!("{}: {what}", fault.words()).lines() {
                let _ = writeln!(out, "# {line}");
            }
        }
        for finding in findings {
            let _ = writeln!(out, "# verify: {finding}");
        }
        let folder: &Path = &self.wishes.out;
        let path = folder.join(format!("product-{seed}.nft"));
        std::fs::create_dir_all(folder).during(|| format!("can't make {}", folder.display()))?;
        std::fs::write(&path, out + text).during(|| format!("can't write {}", path.display()))?;
        Ok(path)
    }
}

fn through(seen: &Seen, syn: &Syn, look: Look) -> bool {
    // All addresses are listened on.
    matches!(kernels(syn, seen, look), Outcome::Arrives | Outcome::SamePort)
}

/// Whether a rule that names something stops it, and nothing undecided is in it.
fn is_denied(opinions: &mut Opinions<'_>, syn: &Syn) -> bool {
    let cases = opinions.cases(syn);
    cases.len() == 1
        && cases.iter().all(|case| {
            case.named && case.conditions.is_empty() && matches!(case.fate, Fate::Dropped | Fate::Rejected)
        })
}

/// A rule as the kernel's traces and nft name it: table, chain, handle.
type NamedRule = (Vec<u8>, Vec<u8>, u64);

fn rule_of(step: &Traced) -> Option<NamedRule> {
    Some((step.table.clone(), step.chain.clone(), step.handle?))
}

/// The rules in nft's list that ask for a source or a port. Anonymous chains are listed without names, and left out.
fn naming_rules(list: &str) -> HashSet<NamedRule> {
    let (mut table, mut chain) = (String::new(), None);
    let mut out = HashSet::new();
    for line in list.lines().map(str::trim) {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["table", _, name, ..] => name.clone_into(&mut table),
            ["chain", name, "{", ..] => chain = Some(name.to_owned()),
            ["set" | "map", ..] => chain = None,
            [.., "#", "handle", handle]
                if line.contains("saddr") || line.contains("sport") || line.contains("dport") =>
            {
                if let (Some(chain), Ok(handle)) = (&chain, handle.parse()) {
                    out.insert((table.clone().into_bytes(), chain.clone().into_bytes(), handle));
                }
            }
            _ => {}
        }
    }
    out
}

/// Whether nothing that is left to chance or time has a part in what becomes of it.
fn is_certain(opinions: &mut Opinions<'_>, syn: &Syn) -> bool {
    opinions.cases(syn).iter().all(|case| case.conditions.is_empty())
}

/// What `verify` found, but for what is not of rules.
fn findings(said: &Said) -> Vec<Value> {
    let document: Value = serde_json::from_str(&said.out).unwrap_or_default();
    let all = document["findings"].as_array().cloned().unwrap_or_default();
    all.into_iter().filter(|finding| finding["kind"] != "not-listening").collect()
}

/// Whether a finding says that nobody gets in.
fn is_closed(finding: &Value) -> bool {
    finding["level"] == "closed" || (finding["level"].is_null() && finding["kind"] == "blocked")
}

fn is_about(finding: &Value, port: u16, v6: bool) -> bool {
    // An id is `closed:17488:ipv4:...`.
    let family = if v6 { ":ipv6:" } else { ":ipv4:" };
    let id = finding["id"].as_str().unwrap_or_default();
    let of_family = id.contains(family) || !(id.contains(":ipv4:") || id.contains(":ipv6:"));
    of_family && finding["port"].as_u64().is_none_or(|about| about == u64::from(port))
}

/// For each port and family, how many packets were sent and how many came through.
fn groups(syns: &[Syn], seen: &Seen, look: Look) -> BTreeMap<(u16, bool), (u64, u64)> {
    let mut out: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for syn in syns {
        let group = out.entry((syn.port, syn.source.is_ipv6())).or_default();
        group.0 += 1;
        group.1 += u64::from(through(seen, syn, look));
    }
    out
}

/// Without what changes by itself or by packets.
fn bare(mut rules: Ruleset) -> Ruleset {
    rules.generation = 0;
    rules.hooked.clear();
    for set in rules.tables.iter_mut().flat_map(|table| &mut table.sets) {
        if set.flags.eval {
            set.elements.clear();
        }
        for element in &mut set.elements {
            element.expires = None;
        }
    }
    rules
}

/// The first table or chain that differs.
fn difference(own: &Ruleset, left: &Ruleset) -> String {
    for table in &own.tables {
        let Some(other) = left.table(table.family, table.name.as_bytes()) else {
            return format!("table {} is gone", table.name);
        };
        for chain in &table.chains {
            if other.chain(&chain.name) != Some(chain) {
                return format!("chain {} {} is another one", table.name, chain.name);
            }
        }
        if table != other {
            return format!("table {} is another one", table.name);
        }
    }
    "there are more tables, or in another order".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_ask_for_sources_or_ports_are_found_in_a_list() {
        let list = "table inet f { # handle 1\n\tset bad { # handle 2\n\t\ttype ipv4_addr\n\t}\n\n\tchain in { # handle 3\n\
            \t\ttype filter hook input priority filter; policy drop;\n\t\tip saddr @bad drop # handle 4\n\
            \t\tmeta l4proto tcp drop # handle 5\n\t}\n}\n";
        let rule = (b"f".to_vec(), b"in".to_vec(), 4);
        assert_eq!(naming_rules(list), HashSet::from([rule]));
    }
}
