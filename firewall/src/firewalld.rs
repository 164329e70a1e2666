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
mod tool;
mod zones;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;
use serde_json::Value;

pub(crate) use change::Change;
use change::{Account, Current, Difference, PolicyChange, Removal};
use leftover::Leftover;
use listing::comparable;
use policy::{Policies, Policy, Role, TARGET, listed};
use tool::{Book, Mode, Tool};
use zones::Zones;

use crate::desired::Desired;
use crate::nft::{self, NftError};
use crate::run::{RunError, run};

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
    /// It is stopped, and what it will load when it starts can't be edited.
    #[error(
        "firewalld is stopped, and what it will load at its next start can't be read or edited, since \
         firewall-offline-cmd is missing: install it, or start firewalld, then try again ({})", .0.display()
    )]
    NoTool(PathBuf),
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
    #[cfg_attr(not(test), expect(dead_code, reason = "for the plan"))]
    pub(crate) fn keeps(&self, table: &str) -> bool {
        matches!(self, Self::Running(_)) && TABLES.contains(&table)
    }

    /// What makes our policies the desired ones.
    pub(crate) fn change(&self, desired: &Desired) -> Result<Change, FirewalldError> {
        let current = match self {
            Self::Running(firewalld) => firewalld.current()?,
            // Only root can read what is saved, or edit it.
            Self::Stopped { policy_files } if geteuid().is_root() => match policy_files.first() {
                Some(file) => Current { saved: account(&offline(file)?, Book::Saved)?, ..Current::default() },
                None => return Ok(Change::default()),
            },
            Self::Stopped { .. } | Self::Absent => return Ok(Change::default()),
        };
        Ok(Change::new(desired, &current))
    }

    /// What leaves firewalld as it was before we came.
    pub(crate) fn removal(&self) -> Result<Change, FirewalldError> {
        let copies = files("xml.old");
        let removal = match self {
            Self::Absent => Removal { files: copies, ..Removal::default() },
            Self::Running(firewalld) => {
                let current = firewalld.current()?;
                let live = current.live.unwrap_or_default().policies;
                let policies = current.saved.policies.into_keys().chain(live.into_keys()).collect();
                Removal { policies, files: copies, ..Removal::default() }
            }
            Self::Stopped { policy_files } => Removal {
                policies: BTreeSet::new(),
                files: [policy_files.clone(), copies].concat(),
                live: leftover()?,
            },
        };
        Ok(Change { removal, ..Change::default() })
    }

    /// Carries out a change.
    pub(crate) fn carry_out(&self, change: &Change) -> Result<(), FirewalldError> {
        if change.removal != Removal::default() {
            if let Self::Running(firewalld) = self {
                firewalld.remove(&change.removal.policies)?;
            }
            return remove_what_is_left(&change.removal);
        }
        match self {
            Self::Running(firewalld) => firewalld.carry_out(change),
            Self::Stopped { policy_files } => match policy_files.first() {
                Some(file) => save(&offline(file)?, &change.policies),
                None => Ok(()),
            },
            Self::Absent => Ok(()),
        }
    }
}

impl Firewalld {
    fn current(&self) -> Result<Current, FirewalldError> {
        Ok(Current {
            saved: account(&self.tool, Book::Saved)?,
            live: Some(account(&self.tool, Book::Live)?),
            panics: self.mode == Mode::Panics,
        })
    }

    fn carry_out(&self, change: &Change) -> Result<(), FirewalldError> {
        if change.reload {
            self.refuse_if_unsaved()?;
        }
        save(&self.tool, &change.policies)?;
        if change.reload {
            self.tool.ask(&["--reload"])?;
            return Ok(());
        }
        let rules = change.policies.iter().map(|change| (change.role, &change.live)).collect::<Vec<_>>();
        differ(&self.tool, Book::Live, &rules)
    }

    fn remove(&self, policies: &BTreeSet<Role>) -> Result<(), FirewalldError> {
        if policies.is_empty() {
            return Ok(());
        }
        // Closed at once, also if the reload below has to wait; the ports first, and then what is denied.
        for (role, policy) in our_policies(&self.tool, Book::Live)?.iter().rev() {
            self.tool.set_all(Book::Live, *role, "--remove-rich-rule", &policy.rules)?;
        }
        for role in our_policies(&self.tool, Book::Saved)?.keys().rev() {
            self.tool.ask_book(Book::Saved, &["--delete-policy", role.name()])?;
        }
        self.refuse_if_unsaved()?;
        self.tool.ask(&["--reload"])?;
        Ok(())
    }

    /// A reload brings the saved configuration: what was changed only for the moment would be lost, such as what a program
    /// denies from minute to minute.
    fn refuse_if_unsaved(&self) -> Result<(), FirewalldError> {
        let unsaved = |saved: &BTreeSet<String>, live: &BTreeSet<String>| {
            live.symmetric_difference(saved)
                .next()
                .map_or(Ok(()), |line| Err(FirewalldError::Unsaved(line.clone())))
        };
        for list in ["--list-all-zones", "--list-all-policies"] {
            let of = |book| self.tool.ask_book(book, &[list]).map(|listing| comparable(&listing));
            unsaved(&of(Book::Saved)?, &of(Book::Live)?)?;
        }
        for list in ["--get-all-rules", "--get-all-passthroughs"] {
            let of = |book| {
                self.tool
                    .ask_book(book, &["--direct", list])
                    .map(|rules| rules.lines().map(|rule| format!("direct: {rule}")).collect())
            };
            unsaved(&of(Book::Saved)?, &of(Book::Live)?)?;
        }
        unsaved(&self.ipset_entries(Book::Saved)?, &self.ipset_entries(Book::Live)?)
    }

    fn ipset_entries(&self, book: Book) -> Result<BTreeSet<String>, FirewalldError> {
        let mut entries = BTreeSet::new();
        for name in self.tool.ask_book(book, &["--get-ipsets"])?.split_whitespace() {
            entries.insert(format!("ipset {name}"));
            // One whose entries go after a time is kept by somebody else; firewalld doesn't know them.
            if let Ok(listed) = self.tool.ask_book(book, &[&format!("--ipset={name}"), "--get-entries"]) {
                entries.extend(listed.lines().map(|entry| format!("ipset {name}: {entry}")));
            }
        }
        Ok(entries)
    }
}

/// The way to what a stopped firewalld has saved, in this file among others.
fn offline(file: &Path) -> Result<Tool, FirewalldError> {
    Tool::offline().ok_or_else(|| FirewalldError::NoTool(file.to_owned()))
}

/// What there is by one account.
fn account(tool: &Tool, book: Book) -> Result<Account, FirewalldError> {
    let zones = tool.ask_book(book, &["--list-all-zones"])?;
    // There is one default zone for both accounts.
    let default = tool.ask(&["--get-default-zone"])?;
    Ok(Account { policies: our_policies(tool, book)?, zones: Zones::new(&default, &zones) })
}

fn our_policies(tool: &Tool, book: Book) -> Result<Policies, FirewalldError> {
    Ok(listed(&tool.ask_book(book, &["--list-all-policies"])?))
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

fn make(tool: &Tool, role: Role, policy: &Policy) -> Result<(), FirewalldError> {
    tool.ask_book(Book::Saved, &["--new-policy", role.name()])?;
    tool.ask_policy(Book::Saved, role, &["--set-target", TARGET])?;
    tool.ask_policy(Book::Saved, role, &["--set-priority", &policy.head.priority])?;
    tool.set_all(Book::Saved, role, "--add-ingress-zone", &policy.head.ingress)?;
    tool.set_all(Book::Saved, role, "--add-egress-zone", &policy.head.egress)?;
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

/// What a stopped firewalld has left in the kernel.
fn leftover() -> Result<Leftover, FirewalldError> {
    let Some(nft) = zone_tool::find("nft") else { return Ok(Leftover::default()) };
    // It has left no such table, as a rule, and then nft ends with an error.
    let printed = run(&nft, &["-j", "list", "table", "inet", TABLES[0]], b"").unwrap_or_default();
    let listing: Value = serde_json::from_slice(&printed).unwrap_or_default();
    Ok(Leftover::of(&listing))
}

fn remove_what_is_left(removal: &Removal) -> Result<(), FirewalldError> {
    let live = removal.live.transaction();
    if !live.is_empty() {
        nft::transact(live)?;
    }
    // By now the copies of what was removed above are there as well.
    let copies = files("xml.old");
    for path in removal.files.iter().chain(&copies) {
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
