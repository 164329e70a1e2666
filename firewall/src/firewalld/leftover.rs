//! What is in the kernel of our policies: whether packets come there, and what a firewalld that was stopped has left, which
//! with `CleanupOnExit=no` is all of it.

use std::collections::{BTreeMap, BTreeSet};

use nftables::schema::{Chain, FlushObject, NfCmd, NfListObject, NfObject, Rule};
use nftables::types::NfFamily;
use zone_ruleset::{Expr, Family, Name, Ruleset, Verdict};

use super::policy::Role;

/// The table that firewalld keeps.
const TABLE: &str = "firewalld";
/// What firewalld puts in front of a policy's name to name its chains, for a policy to the host itself.
const BEFORE: [&str; 5] =
    ["filter_IN_policy_", "filter_OUT_policy_", "nat_PRE_policy_", "nat_POST_policy_", "mangle_PRE_policy_"];
/// What it puts behind.
const BEHIND: [&str; 6] = ["", "_pre", "_log", "_deny", "_allow", "_post"];

/// The chains of our policies, and the rules that lead there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Leftover {
    /// Names of chains, each with its policy.
    chains: BTreeMap<String, Role>,
    /// Rules of other chains that lead there: chain, handle and policy.
    jumps: Vec<(String, u32, Role)>,
}

impl Leftover {
    /// What is left among these rules.
    pub(super) fn of(rules: &Ruleset) -> Self {
        let Some(table) = rules.table(Family::Inet, TABLE.as_bytes()) else { return Self::default() };
        let chains: BTreeMap<String, Role> = table
            .chains
            .iter()
            .filter_map(|chain| {
                let name = chain.name.as_str()?;
                Some((name.to_owned(), role_of(name)?))
            })
            .collect();
        let role = |name: &Name| name.as_str().and_then(|name| chains.get(name)).copied();
        let leads_to = |expr: &Expr| match expr {
            Expr::Verdict(Verdict::Jump(target) | Verdict::Goto(target)) => role(target),
            _ => None,
        };
        let others = table.chains.iter().filter(|chain| role(&chain.name).is_none());
        let rules = others.flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule)));
        let jumps = rules.filter_map(|(chain, rule)| {
            let role = rule.exprs.iter().find_map(leads_to)?;
            Some((chain.name.as_str()?.to_owned(), u32::try_from(rule.handle).ok()?, role))
        });
        Self { jumps: jumps.collect(), chains }
    }

    /// The policies that packets come to.
    pub(super) fn reached(&self) -> BTreeSet<Role> {
        self.jumps.iter().map(|(_, _, role)| *role).collect()
    }

    /// What will be done, one line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let left = Role::ALL.into_iter().filter(|role| self.chains.values().any(|of| of == role));
        left.map(|role| {
            format!(
                "remove the chains of policy {} that firewalld has left in table inet {TABLE}",
                role.name()
            )
        })
        .collect()
    }

    /// The one transaction that takes it away; nothing where nothing is left.
    pub(super) fn transaction(&self) -> Vec<NfObject<'static>> {
        let chain = |name: &String| Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.clone().into(),
            ..Chain::default()
        };
        let jumps = self.jumps.iter().map(|(chain, handle, _)| {
            NfCmd::Delete(NfListObject::Rule(Rule {
                family: NfFamily::INet,
                table: TABLE.into(),
                chain: chain.clone().into(),
                handle: Some(*handle),
                ..Rule::default()
            }))
        });
        let flushes = self.chains.keys().map(|name| NfCmd::Flush(FlushObject::Chain(chain(name))));
        let deletions = self.chains.keys().map(|name| NfCmd::Delete(NfListObject::Chain(chain(name))));
        jumps.chain(flushes).chain(deletions).map(NfObject::CmdObject).collect()
    }
}

/// Whether a rule of this chain is ours and says once more what a zone says.
pub(crate) fn says_what_a_zone_says(table: &Name, chain: &Name) -> bool {
    let deny = |chain: &str| role_of(chain).is_some() && chain.ends_with("_deny");
    table.as_bytes() == TABLE.as_bytes() && chain.as_str().is_some_and(deny)
}

fn role_of(chain: &str) -> Option<Role> {
    let name = BEFORE.iter().find_map(|before| chain.strip_prefix(before))?;
    Role::ALL
        .into_iter()
        .find(|role| name.strip_prefix(role.name()).is_some_and(|behind| BEHIND.contains(&behind)))
}

#[cfg(test)]
mod tests {
    use zone_ruleset::{Chain, Rule, Table, TableFlags};

    use super::{
        BTreeSet, Expr, Family, Leftover, Name, Role, Ruleset, TABLE, Verdict, says_what_a_zone_says,
    };

    /// A chain whose rules jump to these, with handles from the given one on.
    fn chain(name: &str, first: u64, targets: &[&str]) -> Chain {
        let rule = |(handle, target): (u64, &&str)| Rule {
            handle,
            comment: None,
            exprs: vec![Expr::Verdict(Verdict::Jump(Name::from(*target)))],
        };
        Chain {
            name: Name::from(name),
            handle: 1,
            hook: None,
            anonymous: false,
            rules: (first..).zip(targets).map(rule).collect(),
        }
    }

    fn rules(table: &str, chains: Vec<Chain>) -> Ruleset {
        let table = Table {
            family: Family::Inet,
            name: Name::from(table),
            handle: 1,
            flags: TableFlags::default(),
            comment: None,
            chains,
            sets: Vec::new(),
            objects: Vec::new(),
            flowtables: Vec::new(),
        };
        Ruleset { tables: vec![table], ..Ruleset::default() }
    }

    #[test]
    fn the_chains_of_our_policies_go_with_the_rules_that_lead_there() {
        let chains = || {
            let targets = ["zone-proxy", "zone-proxy-of-mine", "zone-proxy-drop"];
            let targets = targets.map(|policy| format!("filter_IN_policy_{policy}"));
            let targets: Vec<_> = targets.iter().map(String::as_str).collect();
            vec![
                chain("filter_INPUT_POLICIES_post", 7, &targets),
                chain("filter_IN_policy_zone-proxy", 10, &["filter_IN_policy_zone-proxy_allow"]),
                chain("filter_IN_policy_zone-proxy_allow", 0, &[]),
                chain("filter_IN_policy_zone-proxy-drop", 0, &[]),
                chain("filter_IN_policy_zone-proxy-of-mine", 0, &[]),
            ]
        };
        let left = Leftover::of(&rules(TABLE, chains()));
        assert_eq!(
            left.chains.keys().collect::<Vec<_>>(),
            [
                "filter_IN_policy_zone-proxy",
                "filter_IN_policy_zone-proxy-drop",
                "filter_IN_policy_zone-proxy_allow"
            ]
        );
        let from = "filter_INPUT_POLICIES_post".to_owned();
        assert_eq!(left.jumps, [(from.clone(), 7, Role::Open), (from, 9, Role::Drop)]);
        assert_eq!(left.reached(), BTreeSet::from([Role::Drop, Role::Open]));
        assert_eq!(left.transaction().len(), 2 + 3 + 3);
        assert_eq!(left.lines().len(), 2);
        assert_eq!(Leftover::of(&rules("mine", chains())), Leftover::default());
    }

    #[test]
    fn what_our_policies_deny_is_what_a_zone_denies() {
        let says = |table: &str, chain: &str| says_what_a_zone_says(&Name::from(table), &Name::from(chain));
        assert!(says(TABLE, "filter_IN_policy_zone-proxy-drop_deny"));
        assert!(says(TABLE, "filter_IN_policy_zone-proxy_deny"));
        assert!(!says(TABLE, "filter_IN_public_deny"));
        assert!(!says("office", "filter_IN_policy_zone-proxy_deny"));
    }

    #[test]
    fn where_nothing_is_left_there_is_nothing_to_do() {
        assert_eq!(Leftover::of(&Ruleset::default()), Leftover::default());
        assert!(Leftover::default().transaction().is_empty());
    }
}
