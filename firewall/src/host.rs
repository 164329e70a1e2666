//! The rules of this host: read, changed in one transaction, read back, and undone if they are not as meant.

use std::io;
use std::path::{Path, PathBuf};

use nftables::schema::NfObject;
use serde_json::{Value, json};
use zone_firewall_protocol::{Finding, PortRule};

use crate::access::Accounts;
use crate::config::{Config, ConfigError};
use crate::desired::Desired;
use crate::firewalld::{self, FirewalldError, Presence};
use crate::listening;
use crate::nft::{self, NftError};
use crate::notes::{Device, notes};
use crate::plan::Plan;
use crate::record::{RecordError, Store};
use crate::ruleset::Ruleset;
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
    /// nftables can't be read or changed.
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
        lines.into_iter().chain(self.blocked()).collect()
    }

    /// What would be done, rule by rule, what somebody else's rules keep shut, and what may not be meant.
    pub(crate) fn diff(&self) -> Vec<String> {
        self.lines().into_iter().chain(self.blocked()).chain(self.notes.iter().cloned()).collect()
    }

    fn blocked(&self) -> Vec<String> {
        let blocked = self.plan.blocked.iter().cloned().chain(self.firewalld.denied());
        blocked.map(|finding| format!("blocked: {} ({})", finding.what, finding.help)).collect()
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
    let plan = Plan::new(desired, &nft::list()?);
    let firewalld = Presence::find()?.change(desired)?;
    let notes = notes(desired, Device::of_this_host);
    Ok(Preview { plan, firewalld, notes })
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
    let before = nft::list()?;
    let firewalld = Presence::find()?;
    let plan = settle(desired, &before)?;
    let done = firewalld.change(desired).and_then(|change| {
        if !change.is_empty() {
            firewalld.carry_out(&change)?;
        }
        Ok(change)
    });
    match done {
        Ok(change) => Ok(Preview { plan, firewalld: change, notes: Vec::new() }.report()),
        Err(error) => {
            undo(&before);
            Err(error.into())
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
    let mut live = nft::list()?;
    let first = Plan::removal(&live);
    for attempt in 1.. {
        let plan = Plan::removal(&live);
        if plan.is_empty() {
            break;
        }
        let nothing = Desired::new(&Config::default(), &[]);
        match nft::transact(plan.transaction(&nothing)) {
            Err(error) if attempt >= MAX_ATTEMPTS => return Err(error.into()),
            _ => live = nft::list()?,
        }
    }
    Ok(Preview { plan: first, firewalld: change, notes: Vec::new() }.report())
}

/// Transactions until the rules are as they should be; mostly one, or none. The kernel refuses one as a whole where
/// a rule that it names has gone meanwhile.
fn settle(desired: &Desired, before: &Ruleset) -> Result<Plan, HostError> {
    let first = Plan::new(desired, before);
    let mut plan = first.clone();
    let mut refused = None;
    for _ in 0..MAX_ATTEMPTS {
        if plan.is_empty() {
            // What is blocked is told as it is now.
            return Ok(Plan { blocked: plan.blocked, ..first });
        }
        refused = nft::transact(plan.transaction(desired)).err();
        plan = Plan::new(desired, &nft::list()?);
    }
    if plan.is_empty() {
        return Ok(Plan { blocked: plan.blocked, ..first });
    }
    undo(before);
    Err(match refused {
        Some(error) => error.into(),
        None => HostError::Mismatch(plan.lines().join("; ")),
    })
}

/// Takes back what we added since `before`.
fn undo(before: &Ruleset) {
    let undone = nft::list().and_then(|now| nft::transact_raw(&undo_commands(before, &now)));
    if let Err(error) = undone {
        tracing::error!(
            "the rules could not be undone: {error}; run 'zone-firewall remove', then 'zone-firewall apply'"
        );
    }
}

/// Our table as it was, and no rule of ours in a chain of others that was not there.
fn undo_commands(before: &Ruleset, now: &Ruleset) -> Value {
    let is_own = |family: &str, table: &str| family == table::FAMILY && table == table::TABLE;
    let mut commands: Vec<Value> = table::remove().iter().map(|command| json!(command)).collect();
    if before.has_table(table::FAMILY, table::TABLE) {
        let name = json!({ "family": table::FAMILY, "name": table::TABLE });
        commands.push(json!({ "add": { "table": name } }));
        for counter in before
            .others
            .iter()
            .filter(|other| is_own(&other.family, &other.table) && other.kind == "counter")
        {
            let mut body = counter.body.clone();
            body.as_object_mut().map(|body| body.remove("handle"));
            commands.push(json!({ "add": { "counter": body } }));
        }
        let chains = || before.chains.iter().filter(|chain| is_own(&chain.family, &chain.table));
        for chain in chains() {
            let mut body = json!({ "family": chain.family, "table": chain.table, "name": chain.name });
            if let Some(hook) = &chain.hook {
                body["type"] = json!(hook.kind);
                body["hook"] = json!(hook.hook);
                body["prio"] = json!(hook.priority);
                body["policy"] = json!(if hook.drops { "drop" } else { "accept" });
            }
            commands.push(json!({ "add": { "chain": body } }));
        }
        for (chain, rule) in chains().flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule))) {
            let mut body = json!({ "family": chain.family, "table": chain.table, "chain": chain.name, "expr": rule.expr });
            if let Some(comment) = &rule.comment {
                body["comment"] = json!(comment);
            }
            commands.push(json!({ "add": { "rule": body } }));
        }
    }
    let was_there = |chain: &[String; 3], handle: u64| {
        let [family, table, name] = chain;
        before
            .chain(family, table, name)
            .is_some_and(|chain| chain.rules.iter().any(|rule| rule.handle == handle && rule.is_ours()))
    };
    let mut added = Plan::removal(now);
    added.table = crate::plan::TableChange::Keep;
    added.delete.retain(|delete| !was_there(&delete.chain, delete.handle));
    let nothing = Desired::new(&Config::default(), &[]);
    commands.extend(added.transaction(&nothing).iter().map(|command: &NfObject<'_>| json!(command)));
    json!({ "nftables": commands })
}
