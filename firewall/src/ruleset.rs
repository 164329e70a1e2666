//! The ruleset as nft lists it (libnftables-json(5)), read object by object: what isn't known here is left out of
//! account and never makes the rest unreadable.

use serde_json::Value;

/// The prefix of the comment of each rule of ours in a chain of others.
pub(crate) const TAG: &str = "zone-proxy: ";

/// Everything that is known of the live ruleset.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ruleset {
    /// Each table, as (family, name).
    pub(crate) tables: Vec<(String, String)>,
    /// Each chain, with its rules in order.
    pub(crate) chains: Vec<Chain>,
    /// The other objects of tables: counters, sets, and what isn't known.
    pub(crate) others: Vec<Other>,
}

/// A chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chain {
    /// The family of its table: `ip`, `ip6`, `inet`, ...
    pub(crate) family: String,
    /// Its table.
    pub(crate) table: String,
    /// Its name.
    pub(crate) name: String,
    /// If it is a base chain.
    pub(crate) hook: Option<Hook>,
    /// Its rules, in order.
    pub(crate) rules: Vec<Rule>,
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hook {
    /// `filter`, `nat` or `route`.
    pub(crate) kind: String,
    /// `input`, `forward`, ...
    pub(crate) hook: String,
    /// Lower ones come first.
    pub(crate) priority: i64,
    /// Whether its policy is `drop`.
    pub(crate) drops: bool,
}

/// A rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    /// The kernel's number for it, unique in its table.
    pub(crate) handle: u64,
    /// Its comment: that of nft, or the one that iptables-save prints.
    pub(crate) comment: Option<String>,
    /// Its statements.
    pub(crate) expr: Vec<Value>,
}

/// An object of a table that is neither chain nor rule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Other {
    /// `counter`, `set`, ...
    pub(crate) kind: String,
    /// The family of its table.
    pub(crate) family: String,
    /// Its table.
    pub(crate) table: String,
    /// Its name.
    pub(crate) name: String,
    /// All of it.
    pub(crate) body: Value,
}

impl Ruleset {
    /// From what `nft -j list ruleset` printed, or from the objects of an own transaction.
    pub(crate) fn parse(listing: &Value) -> Self {
        let mut live = Self::default();
        let objects = listing.get("nftables").and_then(Value::as_array);
        for object in objects.into_iter().flatten().filter_map(Value::as_object) {
            for (kind, body) in object {
                live.take(kind, body);
            }
        }
        live
    }

    fn take(&mut self, kind: &str, body: &Value) {
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        match kind {
            "metainfo" => {}
            "table" => self.tables.push((text("family"), text("name"))),
            "chain" => {
                let hook = body.get("hook").and_then(Value::as_str).map(|hook| Hook {
                    kind: text("type"),
                    hook: hook.to_owned(),
                    priority: body.get("prio").and_then(Value::as_i64).unwrap_or_default(),
                    drops: text("policy") == "drop",
                });
                self.chains.push(Chain {
                    family: text("family"),
                    table: text("table"),
                    name: text("name"),
                    hook,
                    rules: Vec::new(),
                });
            }
            "rule" => {
                let (family, table, name) = (text("family"), text("table"), text("chain"));
                let Some(chain) = self.chains.iter_mut().find(|c| c.is(&family, &table, &name)) else {
                    return;
                };
                chain.rules.push(Rule {
                    handle: body.get("handle").and_then(Value::as_u64).unwrap_or_default(),
                    comment: body.get("comment").and_then(Value::as_str).map(str::to_owned),
                    expr: body.get("expr").and_then(Value::as_array).cloned().unwrap_or_default(),
                });
            }
            _ => self.others.push(Other {
                kind: kind.to_owned(),
                family: text("family"),
                table: text("table"),
                name: text("name"),
                body: body.clone(),
            }),
        }
    }

    /// A chain by name.
    pub(crate) fn chain(&self, family: &str, table: &str, name: &str) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.is(family, table, name))
    }

    /// Whether there is such a table.
    pub(crate) fn has_table(&self, family: &str, name: &str) -> bool {
        self.tables.iter().any(|(f, n)| f == family && n == name)
    }
}

impl Chain {
    fn is(&self, family: &str, table: &str, name: &str) -> bool {
        self.family == family && self.table == table && self.name == name
    }

    /// As a person would name it.
    pub(crate) fn path(&self) -> String {
        format!("{} {} {}", self.family, self.table, self.name)
    }
}

impl Rule {
    /// Whether it has a match of iptables on kinds of addresses.
    pub(crate) fn is_about_addresses(&self) -> bool {
        self.expr.iter().any(|part| part.pointer("/xt/name").is_some_and(|name| name == "addrtype"))
    }

    /// Notes the kind of address that such a match is about.
    pub(crate) fn set_destination_kind(&mut self, kind: &str) {
        for part in &mut self.expr {
            if let Some(xt) = part.get_mut("xt").and_then(Value::as_object_mut)
                && xt.get("name").is_some_and(|name| name == "addrtype")
            {
                xt.insert("dst-type".to_owned(), kind.into());
            }
        }
    }

    /// Whether it bears our tag.
    pub(crate) fn is_ours(&self) -> bool {
        self.comment.as_deref().is_some_and(|comment| comment.starts_with(TAG))
    }

    /// Whether it could be a rule of ours that went through iptables-save and iptables-restore: those turn our
    /// comment into a match of iptables, whose text nft does not print.
    pub(crate) fn may_hide_a_comment(&self) -> bool {
        self.comment.is_none()
            && self.expr.iter().any(|part| part.pointer("/xt/name").is_some_and(|name| name == "comment"))
            && self.expr.iter().any(|part| part.get("accept").is_some())
            && self
                .expr
                .iter()
                .any(|part| part.pointer("/match/left/payload/field").is_some_and(|field| field == "dport"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_that_nobody_knows_do_not_hinder_the_reading_of_others() {
        let live = Ruleset::parse(&json!({"nftables": [
            {"metainfo": {"version": "9.9"}},
            {"table": {"family": "inet", "name": "t", "handle": 1}},
            {"teleport": {"family": "inet", "table": "t", "name": "x", "to": ["mars"]}},
            {"chain": {"family": "inet", "table": "t", "name": "in", "type": "filter", "hook": "input", "prio": 0,
                "policy": "drop"}},
            {"rule": {"family": "inet", "table": "t", "chain": "in", "handle": 7, "expr": [{"warp": 9}]}},
            null, 3, [],
        ]}));
        assert!(live.has_table("inet", "t"));
        assert_eq!(live.others[0].kind, "teleport");
        let chain = live.chain("inet", "t", "in").unwrap();
        assert!(chain.hook.as_ref().unwrap().drops);
        assert_eq!(chain.rules[0].handle, 7);
    }
}
