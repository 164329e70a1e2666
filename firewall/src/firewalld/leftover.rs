//! What a firewalld that was stopped has left of our policies in the kernel: with `CleanupOnExit=no` all of it.

use std::collections::BTreeMap;

use nftables::schema::{Chain, FlushObject, NfCmd, NfListObject, NfObject, Rule};
use nftables::types::NfFamily;
use serde_json::Value;

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
    /// Rules of other chains: chain and handle.
    jumps: Vec<(String, u32)>,
}

impl Leftover {
    /// What is left, by what `nft -j list table inet firewalld` prints.
    pub(super) fn of(listing: &Value) -> Self {
        let objects = listing.get("nftables").and_then(Value::as_array);
        let objects: Vec<&Value> = objects.into_iter().flatten().collect();
        let text =
            |body: &Value, key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let chains: BTreeMap<String, Role> = objects
            .iter()
            .filter_map(|object| object.get("chain"))
            .filter_map(|body| {
                let name = text(body, "name");
                Some((name.clone(), role_of(&name)?))
            })
            .collect();
        let rules = objects.iter().filter_map(|object| object.get("rule"));
        let jumps = rules.filter(|body| !chains.contains_key(&text(body, "chain"))).filter_map(|body| {
            let expr = body.get("expr").and_then(Value::as_array)?;
            let target = expr.iter().find_map(|statement| statement.get("jump").or(statement.get("goto")))?;
            let handle = u32::try_from(body.get("handle")?.as_u64()?).ok()?;
            chains.contains_key(&text(target, "target")).then(|| (text(body, "chain"), handle))
        });
        Self { jumps: jumps.collect(), chains }
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
        let jumps = self.jumps.iter().map(|(chain, handle)| {
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

fn role_of(chain: &str) -> Option<Role> {
    let name = BEFORE.iter().find_map(|before| chain.strip_prefix(before))?;
    Role::ALL
        .into_iter()
        .find(|role| name.strip_prefix(role.name()).is_some_and(|behind| BEHIND.contains(&behind)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(chain: &str, handle: u64, target: &str) -> Value {
        json!({ "rule": { "family": "inet", "table": TABLE, "chain": chain, "handle": handle,
            "expr": [{ "jump": { "target": target } }] } })
    }

    #[test]
    fn the_chains_of_our_policies_go_with_the_rules_that_lead_there() {
        let chain =
            |name: &str| json!({ "chain": { "family": "inet", "table": TABLE, "name": name, "handle": 1 } });
        let left = Leftover::of(&json!({ "nftables": [
            chain("filter_INPUT_POLICIES_post"),
            chain("filter_IN_policy_zone-proxy"),
            chain("filter_IN_policy_zone-proxy_allow"),
            chain("filter_IN_policy_zone-proxy-drop"),
            chain("filter_IN_policy_zone-proxy-of-mine"),
            rule("filter_INPUT_POLICIES_post", 7, "filter_IN_policy_zone-proxy"),
            rule("filter_INPUT_POLICIES_post", 8, "filter_IN_policy_zone-proxy-of-mine"),
            rule("filter_INPUT_POLICIES_post", 9, "filter_IN_policy_zone-proxy-drop"),
            rule("filter_IN_policy_zone-proxy", 10, "filter_IN_policy_zone-proxy_allow"),
        ]}));
        assert_eq!(
            left.chains.keys().collect::<Vec<_>>(),
            [
                "filter_IN_policy_zone-proxy",
                "filter_IN_policy_zone-proxy-drop",
                "filter_IN_policy_zone-proxy_allow"
            ]
        );
        let from = "filter_INPUT_POLICIES_post".to_owned();
        assert_eq!(left.jumps, [(from.clone(), 7), (from, 9)]);
        assert_eq!(left.transaction().len(), 2 + 3 + 3);
        assert_eq!(left.lines().len(), 2);
    }

    #[test]
    fn where_nothing_is_left_there_is_nothing_to_do() {
        assert_eq!(Leftover::of(&Value::Null), Leftover::default());
        assert!(Leftover::default().transaction().is_empty());
    }
}
