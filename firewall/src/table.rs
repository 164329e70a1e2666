//! Our own table, `inet zone_proxy`: it can close ports, limit and count, but open nothing past somebody else's drop.
//!
//! Only openings of connections are judged (SYN without ACK), and not by connection tracking: sessions of a relay that
//! drains on a port that was closed meanwhile go on, and nothing of a connection from this host outwards is touched
//! that happens to have one of these numbers at this end.
//!
//! Each open port has three chains: `port_N` asks where to, `port_N_from` where from, `port_N_limit` how often.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use nftables::expr::{
    BinaryOperation, Elem, Expression, Meta, MetaKey, NamedExpression, Payload, PayloadField, Prefix,
};
use nftables::schema::{Chain, Counter, NfCmd, NfListObject, NfObject, Rule, Table};
use nftables::stmt::{self, JumpTarget, Limit, Match, Meter, Operator, Statement};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::{Value, json};
use zone_firewall_protocol::{PortRule, Purpose};

use crate::config::Limits;
use crate::desired::{Desired, Family, listens};
use crate::ruleset::{Hook, Ruleset};
use crate::statement::{canonical, render};

/// The table's name.
pub(crate) const TABLE: &str = "zone_proxy";
/// The table's family, as nft lists it.
pub(crate) const FAMILY: &str = "inet";
/// Before the chains that hosts usually have (priority 0), so that what is refused here costs them nothing.
const PRIORITY: i32 = -10;
/// Seconds after which a source that opens no connections is forgotten. The bucket is full again long before.
const SOURCE_TIMEOUT_SECONDS: u32 = 60;
/// The part of an IPv6 address that stands for one source.
const SOURCE_MASK_V6: Ipv6Addr = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0xffff, 0, 0, 0, 0);

/// What becomes of an opening of a connection, as the counters have it.
const OUTCOMES: [&str; 3] = ["accepted", "refused", "limited"];

type Statements = Vec<Statement<'static>>;

/// The table as objects to add, tables first and rules last.
pub(crate) fn objects(desired: &Desired) -> Vec<NfListObject<'static>> {
    let mut build = Build { chains: Vec::new(), counters: Vec::new(), rules: Vec::new() };
    build.chain("input", true);
    build.rule("input", None, vec![matches(meta(MetaKey::Iifname), Operator::EQ, text("lo")), accept()]);
    build.rule("input", None, vec![no_opening(), accept()]);
    for (purpose, port) in &desired.closed {
        build.counter(*port, "refused");
        let statements = vec![dport(*port), count(*port, "refused"), Statement::Drop(None)];
        build.rule("input", Some(format!("{purpose}, not open")), statements);
    }
    for rule in &desired.open {
        build.open(rule, &desired.limits);
    }
    let table = NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None });
    [table].into_iter().chain(build.counters).chain(build.chains).chain(build.rules).collect()
}

/// The commands that put the table there in place of any older one.
pub(crate) fn replace(desired: &Desired) -> Vec<NfObject<'static>> {
    let mut commands = remove();
    commands.extend(objects(desired).into_iter().map(|object| NfObject::CmdObject(NfCmd::Add(object))));
    commands
}

/// The commands that remove the table, whether it is there or not.
pub(crate) fn remove() -> Vec<NfObject<'static>> {
    let table = || NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None });
    // Deleting what isn't there would fail the transaction; adding what is there changes nothing.
    vec![NfObject::CmdObject(NfCmd::Add(table())), NfObject::CmdObject(NfCmd::Delete(table()))]
}

struct Build {
    chains: Vec<NfListObject<'static>>,
    counters: Vec<NfListObject<'static>>,
    rules: Vec<NfListObject<'static>>,
}

impl Build {
    fn open(&mut self, rule: &PortRule, limits: &Limits) {
        let port = rule.port;
        for outcome in OUTCOMES {
            self.counter(port, outcome);
        }
        let to = format!("port_{port}");
        let from = format!("port_{port}_from");
        let limit = format!("port_{port}_limit");
        for chain in [&limit, &from, &to] {
            self.chain(chain, false);
        }
        self.rule("input", Some(rule.purpose.to_string()), vec![dport(port), goto(&to)]);

        for family in Family::ALL {
            match listens(rule, family).as_deref() {
                None => {}
                Some([]) => self.rule(&to, None, vec![is_family(family), goto(&from)]),
                Some(addresses) => {
                    for address in addresses {
                        self.rule(&to, None, vec![address_is(*address, "daddr"), goto(&from)]);
                    }
                }
            }
        }
        self.rule(&to, None, refuse(port));

        for network in &rule.balancers {
            let statements = vec![network_is(*network), count(port, "accepted"), accept()];
            self.rule(&from, Some("balancer".to_owned()), statements);
        }
        if rule.networks.is_empty() {
            self.rule(&from, None, vec![goto(&limit)]);
        } else {
            for network in &rule.networks {
                self.rule(&from, None, vec![network_is(*network), goto(&limit)]);
            }
            self.rule(&from, None, refuse(port));
        }

        if limits.new_connections_per_second > 0 {
            for family in Family::ALL {
                let statements =
                    vec![too_many(port, family, limits), count(port, "limited"), Statement::Drop(None)];
                self.rule(&limit, None, statements);
            }
        }
        self.rule(&limit, None, vec![count(port, "accepted"), accept()]);
    }

    fn chain(&mut self, name: &str, base: bool) {
        let chain = Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.to_owned().into(),
            ..Chain::default()
        };
        self.chains.push(NfListObject::Chain(if base {
            Chain {
                _type: Some(NfChainType::Filter),
                hook: Some(NfHook::Input),
                prio: Some(PRIORITY),
                policy: Some(NfChainPolicy::Accept),
                ..chain
            }
        } else {
            chain
        }));
    }

    fn counter(&mut self, port: u16, outcome: &str) {
        self.counters.push(NfListObject::Counter(Counter {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: counter_name(port, outcome).into(),
            ..Counter::default()
        }));
    }

    fn rule(&mut self, chain: &str, comment: Option<String>, expr: Statements) {
        self.rules.push(NfListObject::Rule(Rule {
            family: NfFamily::INet,
            table: TABLE.into(),
            chain: chain.to_owned().into(),
            expr: expr.into(),
            comment: comment.map(Into::into),
            ..Rule::default()
        }));
    }
}

/// A rule for a chain of somebody else's: plain matches and an accept, so that iptables-save prints it as it is.
pub(crate) fn accept_elsewhere(
    family: Option<Family>,
    source: Option<IpNet>,
    destination: Option<IpAddr>,
    port: u16,
) -> Statements {
    let mut statements = Vec::new();
    statements.extend(family.map(is_family));
    statements.extend(source.map(network_is));
    statements.extend(destination.map(|address| address_is(address, "daddr")));
    statements.push(dport(port));
    statements.push(accept());
    statements
}

/// The comment of a rule of ours in a chain of somebody else's.
pub(crate) fn tag(purpose: Purpose) -> String {
    format!("{}{purpose}", crate::ruleset::TAG)
}

fn counter_name(port: u16, outcome: &str) -> String {
    format!("port_{port}_{outcome}")
}

fn text(value: &str) -> Expression<'static> {
    Expression::String(value.to_owned().into())
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn payload(protocol: &str, field: &str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.to_owned().into(),
        field: field.to_owned().into(),
    })))
}

fn matches(left: Expression<'static>, op: Operator, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op })
}

fn accept() -> Statement<'static> {
    Statement::Accept(None)
}

fn goto(chain: &str) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: chain.to_owned().into() })
}

fn count(port: u16, outcome: &str) -> Statement<'static> {
    Statement::Counter(stmt::Counter::Named(counter_name(port, outcome).into()))
}

fn refuse(port: u16) -> Statements {
    vec![count(port, "refused"), Statement::Drop(None)]
}

fn dport(port: u16) -> Statement<'static> {
    matches(payload("tcp", "dport"), Operator::EQ, Expression::Number(port.into()))
}

/// TCP, and not the first packet of a connection.
fn no_opening() -> Statement<'static> {
    let or = |left, right| Expression::BinaryOperation(Box::new(BinaryOperation::OR(vec![left, right])));
    let judged = or(or(or(text("fin"), text("syn")), text("rst")), text("ack"));
    let flags = Expression::BinaryOperation(Box::new(BinaryOperation::AND(payload("tcp", "flags"), judged)));
    matches(flags, Operator::NEQ, text("syn"))
}

fn is_family(family: Family) -> Statement<'static> {
    matches(meta(MetaKey::Nfproto), Operator::EQ, text(family.as_str()))
}

fn address_is(address: IpAddr, field: &str) -> Statement<'static> {
    matches(payload(Family::of(address).header(), field), Operator::EQ, text(&address.to_string()))
}

fn network_is(network: IpNet) -> Statement<'static> {
    let family = Family::of(network.network());
    if network.prefix_len() == 0 {
        is_family(family)
    } else if network.prefix_len() == network.max_prefix_len() {
        address_is(network.network(), "saddr")
    } else {
        let prefix =
            Prefix { addr: Box::new(text(&network.network().to_string())), len: network.prefix_len().into() };
        let right = Expression::Named(NamedExpression::Prefix(prefix));
        matches(payload(family.header(), "saddr"), Operator::EQ, right)
    }
}

/// A meter and not a set: the crate's set statement would lose the limit, and "drop above 500" become "drop".
fn too_many(port: u16, family: Family, limits: &Limits) -> Statement<'static> {
    let source = payload(family.header(), "saddr");
    let source = match family {
        Family::V4 => source,
        Family::V6 => Expression::BinaryOperation(Box::new(BinaryOperation::AND(
            source,
            text(&SOURCE_MASK_V6.to_string()),
        ))),
    };
    let key = Elem {
        val: Box::new(source),
        timeout: Some(SOURCE_TIMEOUT_SECONDS),
        expires: None,
        comment: None,
        counter: None,
    };
    let limit = Limit {
        rate: limits.new_connections_per_second,
        rate_unit: None,
        per: Some("second".into()),
        burst: Some(limits.burst),
        burst_unit: None,
        inv: Some(true),
    };
    Statement::Meter(Meter {
        name: format!("port_{port}_{}", family.as_str()).into(),
        key: Expression::Named(NamedExpression::Elem(key)),
        stmt: Box::new(Statement::Limit(limit)),
    })
}

/// The table's content in one form, whether it was built here or listed by nft: what two tables are compared by.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Content {
    chains: BTreeMap<String, (Option<Hook>, Vec<Value>)>,
    counters: BTreeSet<String>,
    others: BTreeSet<String>,
}

impl Content {
    /// What should be in the table.
    pub(crate) fn desired(desired: &Desired) -> Self {
        let objects: Vec<_> = objects(desired).into_iter().map(NfObject::ListObject).collect();
        Self::of(&Ruleset::parse(&json!({ "nftables": objects }))).unwrap_or_default()
    }

    /// What is in the table, if it is there.
    pub(crate) fn of(live: &Ruleset) -> Option<Self> {
        if !live.has_table(FAMILY, TABLE) {
            return None;
        }
        let mut content = Self::default();
        for chain in live.chains.iter().filter(|chain| chain.family == FAMILY && chain.table == TABLE) {
            let rules = chain.rules.iter().map(|rule| {
                let expr: Vec<_> = rule.expr.iter().map(canonical).collect();
                json!({ "expr": expr, "comment": rule.comment })
            });
            content.chains.insert(chain.name.clone(), (chain.hook.clone(), rules.collect()));
        }
        for other in live.others.iter().filter(|other| other.family == FAMILY && other.table == TABLE) {
            match other.kind.as_str() {
                "counter" => drop(content.counters.insert(other.name.clone())),
                // What a meter remembers is listed as a set by some versions of nft.
                "set" | "meter" if other.name.starts_with("port_") => {}
                kind => drop(content.others.insert(format!("{kind} {}", other.name))),
            }
        }
        Some(content)
    }

    /// One line for each thing, in a form that can be read and compared.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, (hook, rules)) in &self.chains {
            let hook = hook.as_ref().map(|hook| {
                let policy = if hook.drops { "drop" } else { "accept" };
                format!(" hook {} priority {} policy {policy}", hook.hook, hook.priority)
            });
            lines.push(format!("chain {name}{}", hook.unwrap_or_default()));
            lines.extend(rules.iter().map(|rule| format!("chain {name}: {}", render(rule))));
        }
        lines.extend(self.counters.iter().map(|name| format!("counter {name}")));
        lines.extend(self.others.iter().cloned());
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn desired() -> Desired {
        let config = Config::parse(
            "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\nnetworks = [\"10.0.0.0/8\"]\n",
            "test",
        );
        Desired::new(&config.unwrap(), &[])
    }

    #[test]
    fn the_table_reads_like_the_rules_that_nft_would_print() {
        let lines = Content::desired(&desired()).lines();
        for line in [
            "chain input hook input priority -10 policy accept",
            "chain input: meta iifname lo accept",
            "chain input: tcp flags & fin,syn,rst,ack != syn accept",
            "chain input: tcp dport 17486 counter port_17486_refused drop comment \"endpoint, not open\"",
            "chain input: tcp dport 17488 goto port_17488 comment \"control\"",
            "chain port_17488: meta nfproto ipv4 goto port_17488_from",
            "chain port_17488_from: ip saddr 10.0.0.0/8 goto port_17488_limit",
            "chain port_17488_from: counter port_17488_refused drop",
            "chain port_17488_limit: meter port_17488_ipv6 { ip6 saddr & ffff:ffff:ffff:ffff:: timeout 60s limit over \
             500/second burst 4096 } counter port_17488_limited drop",
            "counter port_17488_accepted",
        ] {
            assert!(lines.iter().any(|found| found == line), "{line} is missing in {lines:#?}");
        }
    }
}
