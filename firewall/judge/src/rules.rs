//! The ruleset and the host as the walk looks things up in them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;

use zone_ruleset::{
    Chain, Comparison, Expr, Name, ObjectKind, PayloadBase, Rule, Ruleset, Set, Table, XtMatch,
};

use crate::host::{Host, Interface};
use crate::lookup::Index;

/// A ruleset of a host.
pub(crate) struct Rules<'a> {
    pub(crate) ruleset: &'a Ruleset,
    pub(crate) host: &'a Host,
    /// Its tables, in order.
    pub(crate) tables: Vec<TableRules<'a>>,
}

/// A table, with what was looked up in it so far.
pub(crate) struct TableRules<'a> {
    pub(crate) table: &'a Table,
    /// Some rule of it writes into packets, which may send them to another port.
    pub(crate) writes: bool,
    chains: HashMap<&'a [u8], ChainRules<'a>>,
    sets: HashMap<&'a [u8], (&'a Set, OnceCell<Index>)>,
}

/// A chain, and what its rules take for certain.
pub(crate) struct ChainRules<'a> {
    pub(crate) chain: &'a Chain,
    ports: OnceCell<Vec<Option<u16>>>,
}

impl<'a> ChainRules<'a> {
    fn new(chain: &'a Chain) -> Self {
        Self { chain, ports: OnceCell::new() }
    }

    /// The rules that may do something with a packet to a port: of thousands of rules, most are for others.
    pub(crate) fn rules_for(&self, port: Option<u16>) -> impl Iterator<Item = &'a Rule> {
        let ports = self.ports.get_or_init(|| self.chain.rules.iter().map(only_port).collect());
        let for_it = move |own: &Option<u16>| own.is_none() || port.is_none() || *own == port;
        self.chain.rules.iter().zip(ports).filter(move |(_, own)| for_it(own)).map(|(rule, _)| rule)
    }
}

/// The port without which a rule does nothing, if it asks for one before it does anything.
fn only_port(rule: &Rule) -> Option<u16> {
    let mut loaded = None;
    for expr in &rule.exprs {
        match expr {
            Expr::Payload { destination, base: PayloadBase::Transport, offset: 2 }
                if destination.length == 2 =>
            {
                loaded = Some(destination.offset);
            }
            Expr::Payload { destination, .. }
            | Expr::Meta { destination, .. }
            | Expr::Ct { destination, .. }
            | Expr::Bitwise { destination, .. } => {
                loaded = loaded.filter(|own| *own != destination.offset);
            }
            Expr::Compare { source, op: Comparison::Equal, value } if loaded == Some(source.offset) => {
                return <[u8; 2]>::try_from(&**value).ok().map(u16::from_be_bytes);
            }
            Expr::XtMatch {
                what: XtMatch::Tcp { destination: (first, last), destination_negated: false, .. },
                ..
            } if first == last => return Some(*first),
            Expr::Compare { .. } | Expr::Range { .. } | Expr::Counter | Expr::XtMatch { .. } => {}
            _ => return None,
        }
    }
    None
}

impl<'a> Rules<'a> {
    pub(crate) fn new(ruleset: &'a Ruleset, host: &'a Host) -> Self {
        Self { ruleset, host, tables: ruleset.tables.iter().map(TableRules::new).collect() }
    }

    /// The addresses of the host of one family. None while only the loopback device has some: then it is not known yet what is
    /// for this host.
    pub(crate) fn local_addresses(&self, v6: bool) -> Vec<IpAddr> {
        let of = |interface: &Interface| {
            interface.addresses.iter().copied().filter(|a| a.is_ipv6() == v6).collect()
        };
        let is_outside = |interface: &&Interface| !interface.is_loopback();
        let outside: Vec<Vec<IpAddr>> = self.host.interfaces.iter().filter(is_outside).map(of).collect();
        if outside.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        self.host.interfaces.iter().flat_map(|interface| -> Vec<IpAddr> { of(interface) }).collect()
    }
}

impl<'a> TableRules<'a> {
    fn new(table: &'a Table) -> Self {
        Self {
            table,
            writes: table
                .chains
                .iter()
                .flat_map(|chain| &chain.rules)
                .flat_map(|rule| &rule.exprs)
                .any(|expr| matches!(expr, Expr::PayloadWrite { .. })),
            chains: table
                .chains
                .iter()
                .map(|chain| (chain.name.as_bytes(), ChainRules::new(chain)))
                .collect(),
            sets: table.sets.iter().map(|set| (set.name.as_bytes(), (set, OnceCell::new()))).collect(),
        }
    }

    /// One of its chains.
    pub(crate) fn chain(&self, name: &Name) -> Option<&ChainRules<'a>> {
        self.chains.get(name.as_bytes())
    }

    /// One of its sets, as it is looked up.
    pub(crate) fn set(&self, name: &Name) -> Option<&Index> {
        let (set, index) = self.sets.get(name.as_bytes())?;
        Some(index.get_or_init(|| Index::new(set)))
    }

    /// One of its stateful objects. Objects of different kinds may have one name, and a rule names no more than that: then it is
    /// none.
    pub(crate) fn object(&self, name: &[u8]) -> Option<&'a ObjectKind> {
        let mut named = self.table.objects.iter().filter(|object| object.name.as_bytes() == name);
        let object = named.next()?;
        named.next().is_none().then_some(&object.kind)
    }
}
