//! The rules of this host: read, changed in one transaction, read back, and undone if they are not as meant.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zone_firewall_protocol::{Finding, PortRule};
use zone_ruleset::{Family, ReadError, Reader, Table};

use crate::access::Accounts;
use crate::config::{Config, ConfigError};
use crate::desired::Desired;
use crate::firewalld::{self, FirewalldError, Presence};
use crate::listening;
use crate::nft::{self, NftError};
use crate::notes::{Device, notes};
use crate::placement::ChainPath;
use crate::plan::Plan;
use crate::record::{RecordError, Store};
use crate::table;

/// How often a change is tried when others change rules at the same time.
const MAX_ATTEMPTS: usize = 5;

/// The rules were not read, or not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostError {
    /// Root's file can't be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The record of relay ports can't be used.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is not known which users there are.
    #[error("/etc/passwd or /etc/group can't be read: {0}; the rules for what users send are made from them")]
    Accounts(io::Error),
    /// The kernel's rules can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The host's devices can't be read.
    #[error(transparent)]
    Devices(#[from] zone_judge::HostError),
    /// nft can't change the rules.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// firewalld can't be asked or changed.
    #[error(transparent)]
    Firewalld(#[from] FirewalldError),
    /// Others change rules as fast as we do, or the kernel took something else than was meant.
    #[error(
        "the rules that were loaded are not as meant, and were undone: {0}; see 'zone-firewall plan', then try again"
    )]
    Mismatch(String),
}

/// The rules of this host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    config: PathBuf,
    store: Store,
}

/// What there is, and what would be done about it.
#[derive(Debug, Clone)]
pub(crate) struct Preview {
    plan: Plan,
    firewalld: firewalld::Change,
    notes: Vec<String>,
}

impl Preview {
    /// One line for each change.
    pub(crate) fn lines(&self) -> Vec<String> {
        [self.plan.lines(), self.firewalld.lines()].concat()
    }

    /// What is not as it should be.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        [self.plan.findings(), self.firewalld.findings()].concat()
    }

    /// What was done, in few words, and what somebody else's rules still keep shut.
    pub(crate) fn report(&self) -> Vec<String> {
        let lines = [self.plan.brief(), self.firewalld.lines()].concat();
        lines.into_iter().chain(self.blocked(|_| true)).collect()
    }

    /// What would be done, rule by rule, what somebody else's rules keep shut, and what may not be meant.
    pub(crate) fn diff(&self) -> Vec<String> {
        let blocked = self.blocked(|finding| !self.firewalld.may_open(finding));
        self.lines().into_iter().chain(blocked).chain(self.notes.iter().cloned()).collect()
    }

    fn blocked(&self, told: impl Fn(&Finding) -> bool) -> Vec<String> {
        let blocked = self.plan.blocked.iter().cloned().chain(self.firewalld.denied()).filter(told);
        blocked.map(|finding| format!("{}: {} ({})", finding.level, finding.what, finding.help)).collect()
    }
}

impl Host {
    /// With root's file and the broker's directory at these places.
    pub(crate) fn new(config: &Path, state_dir: &Path) -> Self {
        Self { config: config.to_owned(), store: Store::new(state_dir) }
    }

    /// Root's file, read anew.
    pub(crate) fn config(&self) -> Result<Config, HostError> {
        Ok(Config::read(&self.config)?)
    }

    /// The record of relay ports.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// What should be, by root's file and the record.
    pub(crate) fn desired(&self) -> Result<Desired, HostError> {
        desired_with(&self.config()?, &self.recorded())
    }

    /// The relay's ports by the record. A damaged one opens nothing; zone-proxy asks for its ports at its next start.
    pub(crate) fn recorded(&self) -> Vec<PortRule> {
        self.store.load().unwrap_or_else(|error| {
            tracing::warn!("{error}");
            Vec::new()
        })
    }
}

/// What should be, by root's file, with these relay ports and on a host with these users.
pub(crate) fn desired_with(config: &Config, ports: &[PortRule]) -> Result<Desired, HostError> {
    let accounts = Accounts::of_this_host().map_err(HostError::Accounts)?;
    Ok(Desired::new(config, ports).confine(config, &accounts))
}

/// Looks at the live rules, and says what would be done about them.
pub(crate) fn preview(desired: &Desired) -> Result<Preview, HostError> {
    let presence = Presence::find()?;
    let (plan, _) = plan(desired, &presence)?;
    let notes = notes(desired, Device::of_this_host);
    Ok(Preview { plan, firewalld: presence.change(desired)?, notes })
}

/// What is to be done about the rules as they are now, and the number of the last change in them.
fn plan(desired: &Desired, presence: &Presence) -> Result<(Plan, u32), HostError> {
    let rules = Reader::open()?.ruleset()?;
    let generation = rules.generation;
    let host = zone_judge::Host::read()?;
    let keeps = |table: &Table| {
        table.family == Family::Inet && table.name.as_str().is_some_and(|name| presence.keeps(name))
    };
    Ok((Plan::new(desired, rules, &host, &keeps), generation))
}

/// What is not as it should be, ports that nobody listens on included.
pub(crate) fn verify(desired: &Desired) -> Result<Vec<Finding>, HostError> {
    let mut findings = preview(desired)?.findings();
    match listening::listeners() {
        Ok(listeners) => findings.extend(listening::not_listening(&desired.open, &listeners)),
        Err(error) => tracing::warn!("who listens can't be told: /proc/net/tcp: {error}"),
    }
    Ok(findings)
}

/// Makes the live rules the desired ones, and says what was done. On failure nothing stays changed.
pub(crate) fn apply(desired: &Desired) -> Result<Vec<String>, HostError> {
    let presence = Presence::find()?;
    let before = Before::now()?;
    let plan = settle(desired, &presence, &before)?;
    let done = presence.change(desired).and_then(|change| {
        if !change.is_empty() {
            presence.carry_out(&change)?;
        }
        Ok(change)
    });
    match done {
        Ok(change) => {
            let blocked = blocked_now(desired, &presence, &change, &plan);
            Ok(Preview { plan: Plan { blocked, ..plan }, firewalld: change, notes: Vec::new() }.report())
        }
        Err(error) => {
            before.restore();
            Err(error.into())
        }
    }
}

/// What others keep shut once firewalld has taken up its part, which is after the rules were looked at.
fn blocked_now(
    desired: &Desired,
    presence: &Presence,
    change: &firewalld::Change,
    settled: &Plan,
) -> Vec<Finding> {
    if change.is_empty() {
        return settled.blocked.clone();
    }
    match plan(desired, presence) {
        Ok((plan, _)) => plan.blocked,
        Err(error) => {
            tracing::warn!("what others keep shut can't be told: {error}");
            Vec::new()
        }
    }
}

/// Leaves the rules as they were before we came, and says what was done.
pub(crate) fn remove() -> Result<Vec<String>, HostError> {
    // First: if it fails, our table still keeps closed ports closed.
    let firewalld = Presence::find()?;
    let change = firewalld.removal()?;
    if !change.is_empty() {
        firewalld.carry_out(&change)?;
    }
    let first = Plan::removal(&Reader::open()?.ruleset()?);
    let mut plan = first.clone();
    for attempt in 1.. {
        if plan.is_empty() {
            break;
        }
        let nothing = Desired::new(&Config::default(), &[]);
        match nft::transact(plan.transaction(&nothing)) {
            Err(error) if attempt >= MAX_ATTEMPTS => return Err(error.into()),
            _ => plan = Plan::removal(&Reader::open()?.ruleset()?),
        }
    }
    Ok(Preview { plan: first, firewalld: change, notes: Vec::new() }.report())
}

/// Transactions until the rules are as they should be; mostly one, or none. Nothing that was found out about older rules is carried
/// out: if somebody has changed them meanwhile, it is found out again. The kernel refuses a transaction as a whole where a
/// rule that it names has gone.
fn settle(desired: &Desired, presence: &Presence, before: &Before) -> Result<Plan, HostError> {
    let (first, begun) = plan(desired, presence)?;
    let (mut next, mut generation) = (first.clone(), begun);
    let mut refused = None;
    for _ in 0..MAX_ATTEMPTS {
        if next.is_empty() {
            break;
        }
        if Reader::open()?.generation()?.number == generation {
            refused = nft::transact(next.transaction(desired)).err();
        }
        (next, generation) = plan(desired, presence)?;
    }
    if next.is_empty() {
        // What is blocked is told as it is now.
        return Ok(Plan { blocked: next.blocked, ..first });
    }
    // Where no transaction took effect, there is nothing to take back.
    if generation != begun {
        before.restore();
    }
    Err(match refused {
        Some(error) => error.into(),
        None => HostError::Mismatch(next.lines().join("; ")),
    })
}

/// The rules of ours as they are before a change.
struct Before {
    table: OldTable,
    /// Those in chains of others.
    rules: BTreeSet<(ChainPath, u64)>,
}

/// Our table as it was.
enum OldTable {
    Missing,
    /// As nft lists it.
    Listed(Value),
    /// nft can't list it, as where it has flags that nobody of us has set: then the new one stays, which is what is desired.
    NotListed,
}

impl Before {
    fn now() -> Result<Self, HostError> {
        let rules = Reader::open()?.ruleset()?;
        let table = if rules.tables.iter().any(table::is_own) {
            match nft::list_table(table::FAMILY, table::TABLE) {
                Ok(listing) => OldTable::Listed(listing),
                Err(NftError::Unreadable(_)) => OldTable::NotListed,
                Err(error) => return Err(error.into()),
            }
        } else {
            OldTable::Missing
        };
        let own = Plan::removal(&rules).delete.into_iter().map(|rule| (rule.chain, rule.handle));
        Ok(Self { table, rules: own.collect() })
    }

    /// Takes back what was added since.
    fn restore(&self) {
        if let Err(error) = self.try_restore() {
            tracing::error!(
                "the rules could not be undone: {error}; run 'zone-firewall remove', then 'zone-firewall apply'"
            );
        }
    }

    /// Our table as it was, and no rule of ours in a chain of others that was not there.
    fn try_restore(&self) -> Result<(), HostError> {
        let mut added = Plan::removal(&Reader::open()?.ruleset()?);
        added.table = crate::plan::TableChange::Keep;
        added.delete.retain(|rule| !self.rules.contains(&(rule.chain.clone(), rule.handle)));
        let nothing = Desired::new(&Config::default(), &[]);
        let mut commands: Vec<Value> = match self.table {
            OldTable::NotListed => Vec::new(),
            _ => table::remove().iter().map(|command| json!(command)).collect(),
        };
        if let OldTable::Listed(listing) = &self.table {
            commands.extend(listing["nftables"].as_array().into_iter().flatten().filter_map(as_command));
        }
        commands.extend(added.transaction(&nothing).iter().map(|command| json!(command)));
        Ok(nft::transact_raw(&json!({ "nftables": commands }))?)
    }
}

/// An object that nft has listed, as a command that adds it. What a meter remembers comes back with the rule that it is of.
fn as_command(object: &Value) -> Option<Value> {
    let (kind, body) = object.as_object()?.iter().next()?;
    if !matches!(kind.as_str(), "table" | "chain" | "rule" | "counter") {
        return None;
    }
    let mut body = body.clone();
    body.as_object_mut()?.remove("handle");
    Some(json!({ "add": { kind: body } }))
}
