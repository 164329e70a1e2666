//! Our own table, `inet zone_proxy`: it can close ports, limit and count, but open nothing past somebody else's drop.
//!
//! Only openings of connections are judged (SYN without ACK), and not by connection tracking: sessions of a relay that
//! drains on a port that was closed meanwhile go on, and nothing of a connection from this host outwards is touched
//! that happens to have one of these numbers at this end.
//!
//! Each open port has three chains: `port_N` asks where to, `port_N_from` where from, `port_N_limit` how often; and `port_N_in`
//! in front of them, which asks by which device, where root names some.
//!
//! What users zone-relay and zone-proxy send is judged, too: a socket that was accepted belongs to who accepted it, and one that
//! somebody has turned round opens a connection like any other. `output_USER` drops that.

use std::net::IpAddr;

use ipnet::IpNet;
use nftables::schema::{Chain, Counter, NfCmd, NfListObject, NfObject, Rule, Table};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use zone_firewall_protocol::PortRule;

use crate::config::{InterfaceName, Limits};
use crate::desired::{ConfinedUser, Desired, Family, listens};
pub(crate) use content::{Content, is_own};
use statements::{
    Statements, accept, address_is, comes_in_by, comes_in_by_slave, count, dport, drop_packet, goes_out_by,
    goto, is_family, is_opening, is_sent_by, is_tcp, network_is, no_opening, port_of, too_many,
};

mod content;
pub(crate) mod statements;

/// The table's name.
pub(crate) const TABLE: &str = "zone_proxy";
/// The table's family, as nft lists it.
pub(crate) const FAMILY: &str = "inet";
/// Before the chains that hosts usually have (priority 0), so that what is refused here costs them nothing.
const PRIORITY: i32 = -10;
/// The loopback device.
const LOOPBACK: &str = "lo";

/// What becomes of an opening of a connection, as the counters have it.
const OUTCOMES: [&str; 3] = ["accepted", "refused", "limited"];

/// The table as objects to add, tables first and rules last.
pub(crate) fn objects(desired: &Desired) -> Vec<NfListObject<'static>> {
    let mut build = Build { chains: Vec::new(), counters: Vec::new(), rules: Vec::new() };
    build.base_chain("input", NfHook::Input);
    build.rule("input", None, vec![comes_in_by(LOOPBACK), accept()]);
    build.rule("input", None, vec![no_opening(), accept()]);
    for (purpose, port) in &desired.closed {
        build.counter(counter_name(*port, "refused"));
        let statements = [vec![dport(*port)], refuse(*port)].concat();
        build.rule("input", Some(format!("{purpose}, not open")), statements);
    }
    for rule in &desired.open {
        build.open(rule, desired.interfaces(rule), &desired.limits);
    }
    if !desired.confined.is_empty() {
        build.base_chain("output", NfHook::Output);
    }
    for user in &desired.confined {
        build.confine(user);
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
    fn open(&mut self, rule: &PortRule, interfaces: &[InterfaceName], limits: &Limits) {
        let port = rule.port;
        for outcome in OUTCOMES {
            self.counter(counter_name(port, outcome));
        }
        let to = format!("port_{port}");
        let from = format!("port_{port}_from");
        let limit = format!("port_{port}_limit");
        for chain in [&limit, &from, &to] {
            self.chain(chain);
        }
        if interfaces.is_empty() {
            self.rule("input", Some(rule.purpose.to_string()), vec![dport(port), goto(&to)]);
        } else {
            let by = format!("port_{port}_in");
            self.chain(&by);
            self.rule("input", Some(rule.purpose.to_string()), vec![dport(port), goto(&by)]);
            for interface in interfaces {
                self.rule(&by, None, vec![comes_in_by(interface.as_str()), goto(&to)]);
                self.rule(&by, None, vec![comes_in_by_slave(interface), goto(&to)]);
            }
            self.rule(&by, None, refuse(port));
        }

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
            let statements = vec![network_is(*network), count(&counter_name(port, "accepted")), accept()];
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
                let limited = count(&counter_name(port, "limited"));
                let statements = vec![too_many(port, family, limits), limited, drop_packet()];
                self.rule(&limit, None, statements);
            }
        }
        self.rule(&limit, None, vec![count(&counter_name(port, "accepted")), accept()]);
    }

    /// A user's processes answer on connections that stand, whoever opened them and however old they are: so an opening is
    /// told by its flags and not by connection tracking, which forgets.
    fn confine(&mut self, user: &ConfinedUser) {
        let chain = format!("output_{}", user.name);
        let allowed = format!("{chain}_allowed");
        let refused = format!("{chain}_refused");
        let refuse = || vec![count(&refused), drop_packet()];
        self.chain(&chain);
        self.counter(refused.clone());
        self.rule("output", Some(user.name.to_owned()), vec![is_sent_by(user.uid), goto(&chain)]);
        if !user.destinations.is_empty() {
            self.counter(allowed.clone());
        }
        for to in &user.destinations {
            let there = [address_is(to.address, "daddr"), port_of(to.transport, to.port)];
            self.rule(&chain, None, [there.to_vec(), vec![count(&allowed), accept()]].concat());
        }
        self.rule(&chain, None, [vec![is_opening()], refuse()].concat());
        self.rule(&chain, None, vec![is_tcp(), accept()]);
        self.rule(&chain, None, vec![goes_out_by(LOOPBACK), accept()]);
        self.rule(&chain, None, refuse());
    }

    fn base_chain(&mut self, name: &str, hook: NfHook) {
        self.add_chain(name, Some(hook));
    }

    fn chain(&mut self, name: &str) {
        self.add_chain(name, None);
    }

    fn add_chain(&mut self, name: &str, hook: Option<NfHook>) {
        let chain = Chain {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.to_owned().into(),
            ..Chain::default()
        };
        self.chains.push(NfListObject::Chain(match hook {
            Some(hook) => Chain {
                _type: Some(NfChainType::Filter),
                hook: Some(hook),
                prio: Some(PRIORITY),
                policy: Some(NfChainPolicy::Accept),
                ..chain
            },
            None => chain,
        }));
    }

    fn counter(&mut self, name: String) {
        self.counters.push(NfListObject::Counter(Counter {
            family: NfFamily::INet,
            table: TABLE.into(),
            name: name.into(),
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
    interface: Option<&str>,
    source: Option<IpNet>,
    destination: Option<IpAddr>,
    port: u16,
) -> Statements {
    let mut statements = Vec::new();
    statements.extend(interface.map(comes_in_by));
    statements.extend(family.map(is_family));
    statements.extend(source.map(network_is));
    statements.extend(destination.map(|address| address_is(address, "daddr")));
    statements.push(dport(port));
    statements.push(accept());
    statements
}

fn counter_name(port: u16, outcome: &str) -> String {
    format!("port_{port}_{outcome}")
}

fn refuse(port: u16) -> Statements {
    vec![count(&counter_name(port, "refused")), drop_packet()]
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
