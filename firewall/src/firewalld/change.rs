//! What has to be done about our policies: compared here, carried out elsewhere.

use std::collections::BTreeSet;
use std::path::PathBuf;

use zone_firewall_protocol::{Finding, FindingKind, Level};

use super::leftover::Leftover;
use super::policy::{Policies, Role, wanted};
use super::policy_change::PolicyChange;
use super::zones::Zones;
use crate::desired::Desired;

/// How many rules firewalld is asked to change one by one, which takes it some 50 ms each. For more, a reload is quicker.
const MAX_SINGLE_CHANGES: usize = 32;

/// One account of firewalld: our policies in it, and its zones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Our policies, as far as they are there.
    pub(super) policies: Policies,
    /// All zones.
    pub(super) zones: Zones,
    /// All settings of zones and of policies of others, a line each.
    pub(super) others: BTreeSet<String>,
}

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Current {
    /// What firewalld loads when it starts or reloads.
    pub(super) saved: Account,
    /// What it goes by; `None` while it is stopped.
    pub(super) live: Option<Account>,
    /// Whether it drops every packet.
    pub(super) panics: bool,
    /// The policies that it says it goes by, and that no packet comes to though a zone has an interface for them.
    pub(super) forgotten: BTreeSet<Role>,
}

impl Current {
    /// The first setting in which the accounts differ, so that a reload would change it.
    pub(super) fn unsaved(&self) -> Option<String> {
        let live = self.live.as_ref()?;
        live.others.symmetric_difference(&self.saved.others).next().cloned()
    }
}

/// What has to be done about our policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// The policies that are not as they should be, in their order.
    pub(super) policies: Vec<PolicyChange>,
    /// Whether firewalld has to load what is saved.
    pub(super) reload: bool,
    /// What goes for good.
    pub(super) removal: Removal,
    /// A setting of somebody else's that a reload would lose.
    pub(super) unsaved: Option<String>,
    /// Whether firewalld is stopped, so that only its files are changed.
    pub(super) stopped: bool,
    /// Whether it drops every packet. That is left as it is.
    pub(super) panics: bool,
}

/// What is left of us, and goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Removal {
    /// Policies that a firewalld which runs has saved.
    pub(super) saved: Policies,
    /// Policies that it goes by.
    pub(super) loaded: Policies,
    /// Files: policies of a stopped firewalld, and the copies that it keeps of what it changes.
    pub(super) files: Vec<PathBuf>,
    /// Rules that a stopped firewalld has left in the kernel.
    pub(super) live: Leftover,
}

impl Change {
    /// What makes firewalld's policies the desired ones.
    pub(super) fn new(desired: &Desired, current: &Current) -> Self {
        let stopped = current.live.is_none();
        let neither = Self { stopped, panics: current.panics, ..Self::default() };
        let live = current.live.as_ref().map(|live| &live.policies);
        let nothing_there = current.saved.policies.is_empty() && live.is_none_or(Policies::is_empty);
        // Where firewalld is stopped and knows nothing of us, its policies are made when it starts.
        if nothing_there && (stopped || desired.open.is_empty()) {
            return neither;
        }
        let should = wanted(desired, &current.saved.zones);
        let should_live = current.live.as_ref().map(|live| wanted(desired, &live.zones));
        let changes = Role::ALL.into_iter().map(|role| {
            let live = live.zip(should_live.as_ref()).map(|(is, should)| (is.get(&role), &should[&role]));
            let saved = (current.saved.policies.get(&role), &should[&role]);
            let (mut change, mut reload) = PolicyChange::new(role, saved, live);
            if current.forgotten.contains(&role) {
                change.why.push("firewalld has forgotten it: no packet comes to it".to_owned());
                reload = true;
            }
            (change, reload)
        });
        let (changes, reloads): (Vec<PolicyChange>, Vec<bool>) = changes.unzip();
        let singly: usize =
            changes.iter().map(|change| change.live.add.len() + change.live.delete.len()).sum();
        let reload = reloads.contains(&true) || singly > MAX_SINGLE_CHANGES;
        let policies = changes.into_iter().filter(|change| !change.is_empty()).collect();
        Self { policies, reload, unsaved: current.unsaved(), ..neither }
    }

    /// What takes this away.
    pub(super) fn removal(removal: Removal) -> Self {
        Self { removal, ..Self::default() }
    }

    /// Whether a policy is made anew.
    pub(super) fn makes_anew(&self) -> bool {
        self.policies.iter().any(|change| change.anew.is_some())
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.is_empty() && !self.reload && self.removal == Removal::default()
    }

    /// What will be done, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = self.removal.lines();
        for change in &self.policies {
            let policy = self.policy(change.role);
            match &change.anew {
                Some(anew) if change.replaces => {
                    lines.push(format!("change {policy} ({}): {}", anew.head, change.why.join("; ")));
                }
                Some(anew) => lines.push(format!("add {policy} ({})", anew.head)),
                None if !change.why.is_empty() => {
                    lines.push(format!("load {policy}: {}", change.why.join("; ")));
                }
                None => {}
            }
            lines.extend(change.rules().iter().map(|(sign, rule)| format!("{sign} {policy}: {rule}")));
        }
        lines
    }

    /// The same as findings, and what firewalld keeps shut altogether.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let finding = |kind, what: String| {
            Finding::drift(kind, None, "firewalld", what, "run 'zone-firewall apply' as root")
        };
        let mut findings = Vec::new();
        for change in &self.policies {
            let policy = self.policy(change.role);
            if change.anew.is_some() && !change.replaces {
                findings.push(finding(FindingKind::Missing, format!("{policy} is not there")));
                // Nor are its rules.
                continue;
            }
            findings.extend(
                change.why.iter().map(|why| finding(FindingKind::Altered, format!("{policy}: {why}"))),
            );
            for (sign, rule) in change.rules() {
                let (kind, state) = if sign == '+' {
                    (FindingKind::Missing, "lacks")
                } else {
                    (FindingKind::Unexpected, "has")
                };
                findings.push(finding(kind, format!("{policy} {state} '{rule}'")));
            }
        }
        let left = self
            .removal
            .files
            .iter()
            .map(|file| format!("{} is there, for a firewalld that is not installed", file.display()));
        findings.extend(left.map(|what| finding(FindingKind::Unexpected, what)));
        findings.extend(self.denied());
        findings
    }

    /// What firewalld keeps shut whatever its rules say.
    pub(crate) fn denied(&self) -> Option<Finding> {
        self.panics.then(|| Finding {
            id: format!("{}:firewalld:panic", Level::Closed),
            level: Level::Closed,
            kind: FindingKind::Blocked,
            port: None,
            what: "firewalld is in panic mode, in which it drops every packet".to_owned(),
            help: "end it with 'firewall-cmd --panic-off'".to_owned(),
        })
    }

    /// Whether something is shut only because firewalld has not yet taken up what this adds.
    pub(crate) fn may_open(&self, finding: &Finding) -> bool {
        let opens = |change: &PolicyChange| {
            change.role == Role::Open && (change.anew.is_some() || !change.live.add.is_empty())
        };
        finding.level == Level::Closed
            && finding.id.contains(":inet/firewalld/")
            && (self.reload || self.policies.iter().any(opens))
    }

    fn policy(&self, role: Role) -> String {
        let name = role.name();
        if self.stopped {
            format!("saved policy {name} of a stopped firewalld")
        } else {
            format!("firewalld policy {name}")
        }
    }
}

impl Removal {
    fn lines(&self) -> Vec<String> {
        let roles: BTreeSet<Role> = self.saved.keys().chain(self.loaded.keys()).copied().collect();
        let mut lines: Vec<String> =
            roles.iter().map(|role| format!("remove firewalld policy {}", role.name())).collect();
        if roles.is_empty() {
            lines.extend(self.files.iter().map(|file| format!("remove {}", file.display())));
        }
        lines.extend(self.live.lines());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::super::policy::listed;
    use super::*;
    use crate::config::Config;

    const ZONES: &str = "block\n  target: %%REJECT%%\ndrop\n  target: DROP\npublic\n  target: default\n";

    fn desired() -> Desired {
        Desired::new(&Config::parse("[control]\nopen = true\n", "test").unwrap(), &[])
    }

    fn nothing() -> Desired {
        Desired::new(&Config::default(), &[])
    }

    fn zones() -> Zones {
        Zones::new("public", ZONES)
    }

    fn account(policies: Policies) -> Account {
        Account { policies, zones: zones(), others: BTreeSet::new() }
    }

    /// Both accounts are alike.
    fn running(policies: &Policies) -> Current {
        Current {
            saved: account(policies.clone()),
            live: Some(account(policies.clone())),
            panics: false,
            forgotten: BTreeSet::new(),
        }
    }

    fn right() -> Policies {
        wanted(&desired(), &zones())
    }

    /// What earlier versions of this program have left.
    fn of_an_earlier_version() -> Policies {
        listed(
            "zone-proxy (active)\n  priority: -100\n  target: CONTINUE\n  ingress-zones: ANY\n  egress-zones: HOST\n  \
             rich rules: \n\trule family=\"ipv4\" port port=\"17488\" protocol=\"tcp\" accept\n",
        )
    }

    #[test]
    fn policies_that_are_as_they_should_be_are_left_alone() {
        assert!(Change::new(&desired(), &running(&right())).is_empty());
        assert!(Change::new(&nothing(), &running(&Policies::new())).is_empty());
        assert_eq!(Change::new(&desired(), &running(&right())).findings(), []);
    }

    #[test]
    fn policies_that_are_not_there_are_made_the_ones_that_deny_first() {
        let change = Change::new(&desired(), &running(&Policies::new()));
        assert!(change.reload);
        let roles: Vec<_> = change.policies.iter().map(|change| change.role).collect();
        assert_eq!(roles, [Role::Drop, Role::Reject, Role::Open]);
        let findings = change.findings();
        assert_eq!(findings.len(), 3);
        assert!(findings.iter().all(|finding| finding.what.ends_with(" is not there")), "{findings:?}");
        assert_eq!(
            change.lines(),
            [
                "add firewalld policy zone-proxy-drop (drop to HOST, priority 32766)",
                r#"+ firewalld policy zone-proxy-drop: rule family="ipv4" port port="17486-17488" protocol="tcp" drop"#,
                r#"+ firewalld policy zone-proxy-drop: rule family="ipv6" port port="17486-17488" protocol="tcp" drop"#,
                "add firewalld policy zone-proxy-reject (block to HOST, priority 32766)",
                r#"+ firewalld policy zone-proxy-reject: rule family="ipv4" port port="17486-17488" protocol="tcp" reject type="icmp-admin-prohibited""#,
                r#"+ firewalld policy zone-proxy-reject: rule family="ipv6" port port="17486-17488" protocol="tcp" reject type="icmp6-adm-prohibited""#,
                "add firewalld policy zone-proxy (ANY to HOST, priority 32767)",
                r#"+ firewalld policy zone-proxy: rule family="ipv4" port port="17488" protocol="tcp" accept"#,
            ]
        );
    }

    #[test]
    fn what_firewalld_drops_for_want_of_our_policy_is_no_obstacle() {
        let shut = |table: &str| Finding {
            id: format!("closed:17488:ipv4:{table}/chain"),
            level: Level::Closed,
            kind: FindingKind::Blocked,
            port: Some(17488),
            what: String::new(),
            help: String::new(),
        };
        let change = Change::new(&desired(), &running(&Policies::new()));
        assert!(change.may_open(&shut("inet/firewalld")));
        assert!(!change.may_open(&shut("inet/office")));
        assert!(!Change::new(&desired(), &running(&right())).may_open(&shut("inet/firewalld")));
    }

    #[test]
    fn the_policy_of_an_earlier_version_moves_behind_those_that_deny_in_one_reload() {
        let change = Change::new(&desired(), &running(&of_an_earlier_version()));
        assert!(change.reload);
        assert_eq!(change.policies.len(), 3);
        let last = change.policies.last().unwrap();
        assert!(last.replaces && last.anew.is_some());
        assert_eq!(
            change.lines().last().unwrap(),
            "change firewalld policy zone-proxy (ANY to HOST, priority 32767): priority is -100 and should be 32767"
        );
    }

    #[test]
    fn a_change_that_is_saved_and_not_loaded_takes_a_reload_and_nothing_else() {
        let saved_only = Current {
            saved: account(right()),
            live: Some(account(of_an_earlier_version())),
            panics: false,
            forgotten: BTreeSet::new(),
        };
        let change = Change::new(&desired(), &saved_only);
        assert!(change.reload);
        assert!(change.policies.iter().all(|change| change.anew.is_none()));
        assert!(change.findings().iter().any(|finding| {
            finding.what == "firewalld policy zone-proxy: priority is -100 and should be 32767"
        }));
    }

    #[test]
    fn rules_that_nobody_asks_for_any_more_go_from_both_accounts_without_a_reload() {
        let change = Change::new(&nothing(), &running(&right()));
        assert!(!change.reload);
        let [open] = change.policies.as_slice() else { panic!("the others stay: {change:?}") };
        assert_eq!((open.role, open.saved.delete.len(), open.live.delete.len()), (Role::Open, 1, 1));
        assert_eq!(change.findings().len(), 1);
    }

    #[test]
    fn many_rules_are_loaded_at_once_and_few_one_by_one() {
        let reloads = |sources: usize| {
            let listed: Vec<_> = (0..sources).map(|source| format!("10.0.0.{source}")).collect();
            let listing = format!("strict\n  target: DROP\n  sources: {}\n", listed.join(" "));
            let zones = Zones::new("public", &(ZONES.to_owned() + &listing));
            let account = |policies| Account { policies, zones: zones.clone(), others: BTreeSet::new() };
            let current = Current {
                saved: account(right()),
                live: Some(account(right())),
                panics: false,
                forgotten: BTreeSet::new(),
            };
            let change = Change::new(&desired(), &current);
            assert!(!change.is_empty());
            change.reload
        };
        assert!(!reloads(MAX_SINGLE_CHANGES));
        assert!(reloads(MAX_SINGLE_CHANGES + 1));
    }

    #[test]
    fn what_somebody_has_put_into_a_policy_of_ours_is_named_and_goes() {
        let mut policies = right();
        policies.get_mut(&Role::Open).unwrap().head.foreign.insert("ports: 1-65535/tcp".to_owned());
        let change = Change::new(&desired(), &running(&policies));
        assert!(change.reload);
        let what: Vec<_> = change.findings().into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            what,
            ["firewalld policy zone-proxy: it has 'ports: 1-65535/tcp', which nothing asks for"]
        );
    }

    #[test]
    fn of_a_stopped_firewalld_a_policy_that_is_saved_is_held_to_what_is_desired() {
        let stopped = |policies| Current {
            saved: account(policies),
            live: None,
            panics: false,
            forgotten: BTreeSet::new(),
        };
        let change = Change::new(&nothing(), &stopped(right()));
        assert!(!change.reload);
        assert!(change.findings()[0].what.starts_with("saved policy zone-proxy of a stopped firewalld has "));
        assert!(Change::new(&desired(), &stopped(right())).is_empty());
        // It is made when firewalld starts.
        assert!(Change::new(&desired(), &stopped(Policies::new())).is_empty());
    }

    #[test]
    fn what_a_reload_would_lose_is_known_before_it() {
        let mut current = running(&Policies::new());
        let line = "public: ports: 8080/tcp".to_owned();
        current.live.as_mut().unwrap().others.insert(line.clone());
        assert_eq!(Change::new(&desired(), &current).unsaved, Some(line));
    }

    #[test]
    fn a_policy_that_firewalld_has_forgotten_is_named_and_takes_a_reload() {
        let forgotten = BTreeSet::from([Role::Drop]);
        let change = Change::new(&desired(), &Current { forgotten, ..running(&right()) });
        assert!(change.reload);
        let what: Vec<_> = change.findings().into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            what,
            ["firewalld policy zone-proxy-drop: firewalld has forgotten it: no packet comes to it"]
        );
    }

    #[test]
    fn panic_mode_is_a_finding_and_no_change() {
        let change = Change::new(&desired(), &Current { panics: true, ..running(&right()) });
        assert!(change.is_empty());
        assert_eq!(change.findings().len(), 1);
        assert!(change.findings()[0].what.starts_with("firewalld is in panic mode"));
    }
}
