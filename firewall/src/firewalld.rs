//! firewalld hosts: policies of our own (`policy`), which no zone's file knows of.
//!
//! firewalld drops in a table of its own, which it rewrites at will; only it can be asked for an exception. It answers
//! through polkit: user zone-firewall needs the rule in `polkit/50-zone-firewall.rules`. `change` compares what it has
//! with what it should have; this file asks, and carries out. While firewalld is stopped, its files say what it will do
//! when it starts, and are held to the same.

mod change;
mod leftover;
mod listing;
mod policy;
mod policy_change;
mod tool;
mod zones;

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use zone_ruleset::{ReadError, Reader};

pub(crate) use change::Change;
use change::{Account, Current, Removal};
use leftover::Leftover;
pub(crate) use leftover::says_what_a_zone_says;
use listing::comparable;
use policy::{Policy, Role, listed};
use policy_change::{Difference, PolicyChange};
use tool::{Book, Mode, Tool};
use zones::{Denial, Zones};

use crate::desired::Desired;
use crate::nft::{self, NftError};
use crate::run::RunError;

/// The table that firewalld keeps, and the one that stands in for it while firewalld reloads or panics.
pub(crate) const TABLES: [&str; 2] = ["firewalld", "firewalld_policy_drop"];
/// Where policies are saved.
const DIRECTORY: &str = "/etc/firewalld/policies";

/// firewalld was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirewalldError {
    /// It said no.
    #[error("firewalld: {0}")]
    Refused(#[from] RunError),
    /// A policy takes a reload, and that would lose what somebody has changed for the moment.
    #[error(
        "firewalld runs with changes that are not saved ({0}), and a reload would lose them: save them with \
         'firewall-cmd --runtime-to-permanent' or drop them with 'firewall-cmd --reload', then try again"
    )]
    Unsaved(String),
    /// The file that a new policy is made from can't be written.
    #[error("a file for firewall-cmd can't be written in the directory for temporary files: {0}")]
    Draft(io::Error),
    /// It is stopped, and a file of ours stays.
    #[error(
        "firewalld is stopped, and {}, which it would load at its next start, can't be removed: {source}; remove it, then try \
         again", path.display()
    )]
    FileStays {
        /// The file.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
    /// What it has in the kernel of our policies, or has left there, can't be told.
    #[error("firewalld's rules in the kernel can't be read: {0}")]
    LeftUnread(#[from] ReadError),
    /// It is stopped, and rules of our policies stay in the kernel.
    #[error("rules that firewalld has left when it stopped can't be removed: {0}")]
    RulesStay(#[from] NftError),
}

/// Whether there is a firewalld on this host, and whether it runs.
#[derive(Debug, Clone)]
pub(crate) enum Presence {
    /// None is installed, and nothing is left of one.
    Absent,
    /// One is installed, or was, and does not run.
    Stopped {
        /// The files that are left of our policies, and that it will load at its next start. None is known of where the
        /// directory can't be read, as by any user but root.
        policy_files: Vec<PathBuf>,
    },
    /// It runs.
    Running(Firewalld),
}

/// A running firewalld.
#[derive(Debug, Clone)]
pub(crate) struct Firewalld {
    tool: Tool,
    mode: Mode,
}

impl Presence {
    /// Of this host.
    pub(crate) fn find() -> Result<Self, FirewalldError> {
        let tool = Tool::online();
        if let Some(tool) = &tool
            && let Some(mode) = tool.mode()?
        {
            return Ok(Self::Running(Firewalld { tool: tool.clone(), mode }));
        }
        let policy_files = files("xml");
        Ok(if tool.is_none() && policy_files.is_empty() {
            Self::Absent
        } else {
            Self::Stopped { policy_files }
        })
    }

    /// Whether a table of this name (family `inet`) is kept by firewalld, so that no rule of ours may be put there. One that a
    /// firewalld has left behind which no longer runs is a table like any other.
    pub(crate) fn keeps(&self, table: &str) -> bool {
        matches!(self, Self::Running(_)) && TABLES.contains(&table)
    }

    /// What makes our policies the desired ones.
    pub(crate) fn change(&self, desired: &Desired) -> Result<Change, FirewalldError> {
        match self {
            Self::Running(firewalld) => Ok(Change::new(desired, &firewalld.current()?)),
            // Only root can read what is saved, or edit it.
            Self::Stopped { policy_files } if !policy_files.is_empty() && geteuid().is_root() => {
                stopped(desired, policy_files)
            }
            Self::Stopped { .. } | Self::Absent => Ok(Change::default()),
        }
    }

    /// What leaves firewalld as it was before we came.
    pub(crate) fn removal(&self) -> Result<Change, FirewalldError> {
        let copies = files("xml.old");
        match self {
            Self::Absent => Ok(Change::removal(Removal { files: copies, ..Removal::default() })),
            Self::Running(firewalld) => {
                let current = firewalld.current()?;
                let unsaved = current.unsaved();
                let loaded = current.live.unwrap_or_default().policies;
                let removal =
                    Removal { saved: current.saved.policies, loaded, files: copies, ..Removal::default() };
                Ok(Change { unsaved, ..Change::removal(removal) })
            }
            Self::Stopped { policy_files } => {
                let files = [policy_files.clone(), copies].concat();
                Ok(Change::removal(Removal { files, live: left_in_the_kernel()?, ..Removal::default() }))
            }
        }
    }

    /// Carries out a change.
    pub(crate) fn carry_out(&self, change: &Change) -> Result<(), FirewalldError> {
        match self {
            Self::Running(firewalld) if change.removal == Removal::default() => {
                firewalld.carry_out(change)?;
            }
            Self::Running(firewalld) => firewalld.remove(change)?,
            Self::Stopped { .. } => {
                if let Some(tool) = Tool::offline() {
                    save(&tool, &change.policies)?;
                }
            }
            Self::Absent => {}
        }
        remove_what_is_left(&change.removal)
    }
}

/// What the saved policies of a stopped firewalld need.
fn stopped(desired: &Desired, policy_files: &[PathBuf]) -> Result<Change, FirewalldError> {
    let Some(tool) = Tool::offline() else {
        // It is not installed any more.
        return Ok(Change::removal(Removal { files: policy_files.to_vec(), ..Removal::default() }));
    };
    let saved = account(&tool, Book::Saved, &default_zone(&tool)?)?;
    let mut change = Change::new(desired, &Current { saved, ..Current::default() });
    if change.makes_anew() {
        // firewalld (1.3) does not clear what it has left in the kernel when it starts: the old policy would stand beside
        // the new one.
        change.removal.live = left_in_the_kernel()?;
    }
    Ok(change)
}

impl Firewalld {
    fn current(&self) -> Result<Current, FirewalldError> {
        let default = default_zone(&self.tool)?;
        let live = account(&self.tool, Book::Live, &default)?;
        Ok(Current {
            saved: account(&self.tool, Book::Saved, &default)?,
            forgotten: forgotten(&live)?,
            live: Some(live),
            panics: self.mode == Mode::Panics,
        })
    }

    fn carry_out(&self, change: &Change) -> Result<(), FirewalldError> {
        if change.reload {
            self.refuse_if_unsaved(change)?;
        }
        save(&self.tool, &change.policies)?;
        if change.reload {
            self.tool.ask(&["--reload"])?;
            return Ok(());
        }
        let rules = change.policies.iter().map(|change| (change.role, &change.live)).collect::<Vec<_>>();
        differ(&self.tool, Book::Live, &rules)
    }

    fn remove(&self, change: &Change) -> Result<(), FirewalldError> {
        let removal = &change.removal;
        if removal.saved.is_empty() && removal.loaded.is_empty() {
            return Ok(());
        }
        // Closed at once, also if the reload below has to wait; the ports first, and then what is denied.
        for (role, policy) in removal.loaded.iter().rev() {
            self.tool.set_all(Book::Live, *role, "--remove-rich-rule", &policy.rules)?;
        }
        for role in removal.saved.keys().rev() {
            self.tool.ask_book(Book::Saved, &["--delete-policy", role.name()])?;
        }
        self.refuse_if_unsaved(change)?;
        self.tool.ask(&["--reload"])?;
        // By now the copies of what was deleted are there as well.
        remove_files(&files("xml.old"))
    }

    /// A reload brings the saved configuration: what was changed only for the moment would be lost, such as what a program
    /// denies from minute to minute.
    fn refuse_if_unsaved(&self, change: &Change) -> Result<(), FirewalldError> {
        let refuse = |line: Option<String>| line.map_or(Ok(()), |line| Err(FirewalldError::Unsaved(line)));
        refuse(change.unsaved.clone())?;
        for list in ["--get-all-rules", "--get-all-passthroughs"] {
            refuse(first_unsaved(|book| {
                let rules = self.tool.ask_book(book, &["--direct", list])?;
                Ok(rules.lines().map(|rule| format!("direct: {rule}")).collect())
            })?)?;
        }
        refuse(first_unsaved(|book| self.ipset_entries(book))?)
    }

    fn ipset_entries(&self, book: Book) -> Result<BTreeSet<String>, FirewalldError> {
        let mut entries = BTreeSet::new();
        for name in self.tool.ask_book(book, &["--get-ipsets"])?.split_whitespace() {
            // One whose entries go after a time is kept by somebody else; firewalld doesn't know them.
            if let Ok(listed) = self.tool.ask_book(book, &[&format!("--ipset={name}"), "--get-entries"]) {
                entries.extend(listed.lines().map(|entry| format!("ipset {name}: {entry}")));
            }
        }
        Ok(entries)
    }
}

/// The first line that firewalld goes by and has not saved.
fn first_unsaved(
    lines: impl Fn(Book) -> Result<BTreeSet<String>, FirewalldError>,
) -> Result<Option<String>, FirewalldError> {
    let live = lines(Book::Live)?;
    // It is seldom that there are any.
    let saved = if live.is_empty() { BTreeSet::new() } else { lines(Book::Saved)? };
    Ok(live.difference(&saved).next().cloned())
}

/// The policies that no packet comes to, though a zone has an interface for them: firewalld (1.3) takes a policy out
/// when its zone loses its last source, whatever else the zone holds.
fn forgotten(live: &Account) -> Result<BTreeSet<Role>, FirewalldError> {
    let needed = [(Role::Drop, Denial::Drop), (Role::Reject, Denial::Reject)];
    let needed: BTreeSet<Role> = needed
        .into_iter()
        .filter(|(role, denial)| live.policies.contains_key(role) && live.zones.shuts_an_interface(*denial))
        .map(|(role, _)| role)
        .collect();
    if needed.is_empty() {
        return Ok(needed);
    }
    let reached = left_in_the_kernel()?.reached();
    // Where not even that is found, firewalld's rules are of another kind than those that are known here.
    let is_known = reached.contains(&Role::Open);
    Ok(needed.into_iter().filter(|role| is_known && !reached.contains(role)).collect())
}

/// The default zone, of which there is one for both accounts.
fn default_zone(tool: &Tool) -> Result<String, FirewalldError> {
    Ok(tool.ask(&["--get-default-zone"])?)
}

/// What there is by one account.
fn account(tool: &Tool, book: Book, default: &str) -> Result<Account, FirewalldError> {
    let zones = tool.ask_book(book, &["--list-all-zones"])?;
    let policies = tool.ask_book(book, &["--list-all-policies"])?;
    let is_ours = |name: &str| Role::of(name).is_some();
    let others =
        [comparable(&zones, is_ours), comparable(&policies, is_ours)].into_iter().flatten().collect();
    Ok(Account { policies: listed(&policies), zones: Zones::new(default, &zones), others })
}

/// Changes what is saved.
fn save(tool: &Tool, changes: &[PolicyChange]) -> Result<(), FirewalldError> {
    for change in changes {
        if let Some(policy) = &change.anew {
            if change.replaces {
                tool.ask_book(Book::Saved, &["--delete-policy", change.role.name()])?;
            }
            make(tool, change.role, policy)?;
        }
    }
    let kept = changes.iter().filter(|change| change.anew.is_none());
    differ(tool, Book::Saved, &kept.map(|change| (change.role, &change.saved)).collect::<Vec<_>>())
}

/// Makes a saved policy.
fn make(tool: &Tool, role: Role, policy: &Policy) -> Result<(), FirewalldError> {
    // firewall-cmd takes a file by its name, which has to be one that a policy could have.
    let mut file =
        tempfile::Builder::new().prefix("zone").suffix(".xml").tempfile().map_err(FirewalldError::Draft)?;
    file.write_all(policy.head.to_xml().as_bytes()).map_err(FirewalldError::Draft)?;
    let from_file = format!("--new-policy-from-file={}", file.path().display());
    tool.ask_book(Book::Saved, &[&from_file, &format!("--name={}", role.name())])?;
    tool.set_all(Book::Saved, role, "--add-rich-rule", &policy.rules)?;
    Ok(())
}

/// Adds rules and deletes others, so that at no moment a port is open to those that are denied.
fn differ(tool: &Tool, book: Book, policies: &[(Role, &Difference)]) -> Result<(), FirewalldError> {
    for (role, difference) in policies {
        // Those that deny a source first.
        let (opening, denying): (Vec<_>, Vec<_>) =
            difference.add.iter().partition(|rule| rule.ends_with(" accept"));
        tool.set_all(book, *role, "--add-rich-rule", denying.into_iter().chain(opening))?;
    }
    for (role, difference) in policies.iter().rev() {
        let (opening, denying): (Vec<_>, Vec<_>) =
            difference.delete.iter().partition(|rule| rule.ends_with(" accept"));
        tool.set_all(book, *role, "--remove-rich-rule", opening.into_iter().chain(denying))?;
    }
    Ok(())
}

/// What is in the kernel of our policies.
fn left_in_the_kernel() -> Result<Leftover, FirewalldError> {
    Ok(Leftover::of(&Reader::open()?.ruleset()?))
}

fn remove_what_is_left(removal: &Removal) -> Result<(), FirewalldError> {
    let live = removal.live.transaction();
    if !live.is_empty() {
        nft::transact(live)?;
    }
    remove_files(&removal.files)
}

fn remove_files(paths: &[PathBuf]) -> Result<(), FirewalldError> {
    for path in paths {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(FirewalldError::FileStays { path: path.clone(), source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The files of our policies that are there, by what their names end with.
fn files(extension: &str) -> Vec<PathBuf> {
    let all = Role::ALL.map(|role| Path::new(DIRECTORY).join(format!("{}.{extension}", role.name())));
    all.into_iter().filter(|path| path.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_named_firewalld_is_firewallds_only_while_it_runs() {
        let running =
            Presence::Running(Firewalld { tool: Tool::of("/usr/bin/firewall-cmd"), mode: Mode::Filters });
        assert!(running.keeps("firewalld") && running.keeps("firewalld_policy_drop"));
        assert!(!running.keeps("filter"));
        let stopped = Presence::Stopped { policy_files: Vec::new() };
        assert!(!stopped.keeps("firewalld") && !Presence::Absent.keeps("firewalld"));
    }
}
