//! firewalld hosts: a policy object of our own (ANY to HOST), which no zone's file knows of.
//!
//! firewalld drops in a table of its own, which it rewrites at will; only it can be asked for an exception. It answers
//! through polkit: user zone-firewall needs the rule in `polkit/50-zone-firewall.rules`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use zone_firewall_protocol::{Finding, FindingKind, PortRule};

use crate::desired::{Desired, Family, listens, sources};
use crate::run::{RunError, run};

/// The table that firewalld keeps; nothing in it is ours to change.
const TABLE: &str = "firewalld";
/// That one, and the one that stands in for it while firewalld reloads.
pub(crate) const TABLES: [&str; 2] = [TABLE, "firewalld_policy_drop"];
/// Our policy's name.
const POLICY: &str = "zone-proxy";
/// Before the zones' own rules (negative), and before other policies that stand at the usual -1.
const PRIORITY: &str = "-100";
/// What is left of our policy when firewalld deletes it.
const COPY: &str = "/etc/firewalld/policies/zone-proxy.xml.old";
/// What `firewall-cmd --state` ends with where no firewalld runs, and where there is no D-Bus either, as early at boot
/// (firewall-cmd(1): NOT_RUNNING, DBUS_ERROR).
const NOT_RUNNING: [i32; 2] = [252, 36];

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
}

/// A running firewalld.
#[derive(Debug, Clone)]
pub(crate) struct Firewalld {
    program: PathBuf,
}

/// Our policy as firewalld has it: its rich rules, or `None` where it has no such policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Current {
    permanent: Option<BTreeSet<String>>,
    runtime: Option<BTreeSet<String>>,
}

/// What has to be done about our policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    create: bool,
    remove: bool,
    permanent: Difference,
    runtime: Difference,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Difference {
    add: Vec<String>,
    delete: Vec<String>,
}

impl Change {
    /// What makes firewalld's policy the desired one.
    pub(crate) fn new(desired: &Desired, current: &Current) -> Self {
        let should = rich_rules(desired);
        let nobody_asks = should.is_empty() && current == &Current::default();
        // A policy that is only half there comes about by a crash, and is made anew.
        if !nobody_asks && (current.permanent.is_none() || current.runtime.is_none()) {
            let permanent = Difference::between(&should, current.permanent.as_ref());
            return Self { create: true, permanent, ..Self::default() };
        }
        Self {
            permanent: Difference::between(&should, current.permanent.as_ref()),
            runtime: Difference::between(&should, current.runtime.as_ref()),
            ..Self::default()
        }
    }

    /// What leaves firewalld as it was before we came.
    pub(crate) fn removal(current: &Current) -> Self {
        Self { remove: current != &Current::default(), ..Self::default() }
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// What will be done, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        if self.remove {
            return vec![format!("remove firewalld policy {POLICY}")];
        }
        let mut lines = Vec::new();
        if self.create {
            lines.push(format!("add firewalld policy {POLICY} (ANY to HOST)"));
        }
        for (sign, rule) in self.differences() {
            lines.push(format!("{sign} firewalld policy {POLICY}: {rule}"));
        }
        lines
    }

    /// The same as findings.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let finding = |kind, what: String| Finding {
            kind,
            port: None,
            what,
            help: "run 'zone-firewall apply' as root".to_owned(),
        };
        let mut findings = Vec::new();
        if self.create {
            findings.push(finding(FindingKind::Missing, format!("firewalld policy {POLICY} is not there")));
        }
        for (sign, rule) in self.differences() {
            let (kind, state) =
                if sign == '+' { (FindingKind::Missing, "lacks") } else { (FindingKind::Unexpected, "has") };
            findings.push(finding(kind, format!("firewalld policy {POLICY} {state} '{rule}'")));
        }
        findings
    }

    fn differences(&self) -> BTreeSet<(char, &String)> {
        let both = [&self.permanent, &self.runtime];
        let add = both.iter().flat_map(|difference| difference.add.iter().map(|rule| ('+', rule)));
        let delete = both.iter().flat_map(|difference| difference.delete.iter().map(|rule| ('-', rule)));
        add.chain(delete).collect()
    }
}

impl Difference {
    fn between(should: &BTreeSet<String>, is: Option<&BTreeSet<String>>) -> Self {
        let none = BTreeSet::new();
        let is = is.unwrap_or(&none);
        Self {
            add: should.difference(is).cloned().collect(),
            delete: is.difference(should).cloned().collect(),
        }
    }
}

/// The open ports as rich rules, in the form that firewalld itself prints.
fn rich_rules(desired: &Desired) -> BTreeSet<String> {
    desired
        .open
        .iter()
        .flat_map(|rule| Family::ALL.into_iter().flat_map(|family| rich_rules_of(rule, family)))
        .collect()
}

fn rich_rules_of(rule: &PortRule, family: Family) -> Vec<String> {
    fn texts<T: ToString>(list: Option<Vec<T>>, before: &str) -> Vec<String> {
        match list {
            None => Vec::new(),
            Some(all) if all.is_empty() => vec![String::new()],
            Some(some) => {
                some.iter().map(|one| format!(" {before} address=\"{}\"", one.to_string())).collect()
            }
        }
    }
    let from = texts::<IpNet>(sources(rule, family), "source");
    let to = texts::<IpAddr>(listens(rule, family), "destination");
    let port = rule.port;
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
    let family = family.as_str();
    pairs
        .map(|(from, to)| {
            format!("rule family=\"{family}\"{from}{to} port port=\"{port}\" protocol=\"tcp\" accept")
        })
        .collect()
}

impl Firewalld {
    /// The one that runs on this host, if any.
    pub(crate) fn running() -> Result<Option<Self>, FirewalldError> {
        let Some(program) = zone_tool::find("firewall-cmd") else { return Ok(None) };
        match run(&program, &["--state"], b"") {
            Ok(_) => Ok(Some(Self { program })),
            Err(RunError::Failed { code: Some(code), .. }) if NOT_RUNNING.contains(&code) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Our policy as it is.
    pub(crate) fn current(&self) -> Result<Current, FirewalldError> {
        Ok(Current { permanent: self.policy(true)?, runtime: self.policy(false)? })
    }

    /// Carries out a change.
    pub(crate) fn carry_out(&self, change: &Change) -> Result<(), FirewalldError> {
        if change.remove {
            return self.remove();
        }
        if change.create {
            self.refuse_if_unsaved()?;
            if self.policy(true)?.is_none() {
                self.permanent(&["--new-policy", POLICY])?;
            }
            self.of_policy(true, &["--set-target", "CONTINUE"])?;
            self.of_policy(true, &["--set-priority", PRIORITY])?;
            self.of_policy(true, &["--add-ingress-zone", "ANY"])?;
            self.of_policy(true, &["--add-egress-zone", "HOST"])?;
            self.differ(true, &change.permanent)?;
            self.ask(&["--reload"])?;
            return Ok(());
        }
        self.differ(true, &change.permanent)?;
        self.differ(false, &change.runtime)
    }

    fn remove(&self) -> Result<(), FirewalldError> {
        if let Some(rules) = self.policy(false)? {
            // Closed at once, also if the reload below has to wait.
            self.differ(false, &Difference { add: Vec::new(), delete: rules.into_iter().collect() })?;
        }
        if self.policy(true)?.is_some() {
            self.permanent(&["--delete-policy", POLICY])?;
        }
        // firewalld keeps a copy of what it deletes. Only root may, and only root removes.
        let _ = std::fs::remove_file(COPY);
        self.refuse_if_unsaved()?;
        self.ask(&["--reload"])?;
        Ok(())
    }

    fn policy(&self, permanent: bool) -> Result<Option<BTreeSet<String>>, FirewalldError> {
        let names =
            if permanent { self.permanent(&["--get-policies"])? } else { self.ask(&["--get-policies"])? };
        if !names.split_whitespace().any(|name| name == POLICY) {
            return Ok(None);
        }
        let rules = self.of_policy(permanent, &["--list-rich-rules"])?;
        Ok(Some(rules.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()))
    }

    fn differ(&self, permanent: bool, difference: &Difference) -> Result<(), FirewalldError> {
        let options = |option: &str, rules: &[String]| -> Vec<String> {
            rules.iter().map(|rule| format!("{option}={rule}")).collect()
        };
        for list in
            [options("--add-rich-rule", &difference.add), options("--remove-rich-rule", &difference.delete)]
        {
            if !list.is_empty() {
                self.of_policy(permanent, &list.iter().map(String::as_str).collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }

    /// A reload brings the saved configuration: what was changed only for the moment would be lost.
    fn refuse_if_unsaved(&self) -> Result<(), FirewalldError> {
        for list in ["--list-all-zones", "--list-all-policies"] {
            let saved = comparable(&self.permanent(&[list])?);
            let live = comparable(&self.ask(&[list])?);
            if let Some(line) = live.symmetric_difference(&saved).next() {
                return Err(FirewalldError::Unsaved(line.clone()));
            }
        }
        Ok(())
    }

    fn of_policy(&self, permanent: bool, options: &[&str]) -> Result<String, FirewalldError> {
        let policy = format!("--policy={POLICY}");
        let options = [&[policy.as_str()], options].concat();
        if permanent { self.permanent(&options) } else { self.ask(&options) }
    }

    fn permanent(&self, options: &[&str]) -> Result<String, FirewalldError> {
        self.ask(&[&["--permanent"], options].concat())
    }

    fn ask(&self, options: &[&str]) -> Result<String, FirewalldError> {
        let printed = run(&self.program, options, b"")?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }
}

/// The lines of all zones or policies, each with the name it belongs to, without what a reload keeps anyway (which
/// interface is in which zone) and without our own policy.
fn comparable(listing: &str) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut section = "";
    for line in listing.lines().filter(|line| !line.trim().is_empty()) {
        if !line.starts_with(char::is_whitespace) {
            section = line.split_whitespace().next().unwrap_or_default();
        } else if section != POLICY && !line.trim_start().starts_with("interfaces:") {
            lines.insert(format!("{section}: {}", line.trim()));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn desired() -> Desired {
        let config = "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"fd00::1\"]\nnetworks = [\"10.0.0.0/8\", \"fd00::/8\"]";
        Desired::new(&Config::parse(config, "test").unwrap(), &[])
    }

    fn rules() -> BTreeSet<String> {
        BTreeSet::from([
            r#"rule family="ipv4" source address="10.0.0.0/8" port port="17488" protocol="tcp" accept"#.to_owned(),
            r#"rule family="ipv6" source address="fd00::/8" destination address="fd00::1" port port="17488" protocol="tcp" accept"#
                .to_owned(),
        ])
    }

    #[test]
    fn ports_become_rich_rules() {
        assert_eq!(rich_rules(&desired()), rules());
    }

    #[test]
    fn a_policy_that_is_as_it_should_be_is_left_alone() {
        let current = Current { permanent: Some(rules()), runtime: Some(rules()) };
        assert!(Change::new(&desired(), &current).is_empty());
        assert!(Change::new(&Desired::new(&Config::default(), &[]), &Current::default()).is_empty());
    }

    #[test]
    fn a_policy_that_is_not_there_is_made_with_all_its_rules() {
        let change = Change::new(&desired(), &Current::default());
        assert_eq!(change.lines().len(), 3);
        assert!(change.lines()[0].starts_with("add firewalld policy zone-proxy"));
    }

    #[test]
    fn rules_that_nobody_asks_for_any_more_go_from_both_accounts() {
        let current = Current { permanent: Some(rules()), runtime: Some(rules()) };
        let change = Change::new(&Desired::new(&Config::default(), &[]), &current);
        assert_eq!((change.permanent.delete.len(), change.runtime.delete.len()), (2, 2));
        assert_eq!(change.findings().len(), 2);
    }

    #[test]
    fn interfaces_and_our_own_policy_are_no_unsaved_changes() {
        let live = "public (active)\n  target: default\n  interfaces: eth0\n\nzone-proxy\n  ports: 1/tcp\n";
        let saved = "public\n  target: default\n  interfaces: \n";
        assert_eq!(comparable(live), comparable(saved));
        assert_ne!(comparable(live), comparable("public\n  target: DROP\n"));
    }
}
