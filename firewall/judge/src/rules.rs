//! The ruleset and the host as the walk looks things up in them.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::net::IpAddr;

use zone_ruleset::{Chain, Name, ObjectKind, Ruleset, Set, Table};

use crate::host::Host;
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
    chains: HashMap<&'a [u8], &'a Chain>,
    sets: HashMap<&'a [u8], (&'a Set, OnceCell<Index>)>,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(ruleset: &'a Ruleset, host: &'a Host) -> Self {
        Self { ruleset, host, tables: ruleset.tables.iter().map(TableRules::new).collect() }
    }

    /// All addresses of the host.
    pub(crate) fn local_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.host.interfaces.iter().flat_map(|interface| interface.addresses.iter().copied())
    }
}

impl<'a> TableRules<'a> {
    fn new(table: &'a Table) -> Self {
        Self {
            table,
            chains: table.chains.iter().map(|chain| (chain.name.as_bytes(), chain)).collect(),
            sets: table.sets.iter().map(|set| (set.name.as_bytes(), (set, OnceCell::new()))).collect(),
        }
    }

    /// One of its chains.
    pub(crate) fn chain(&self, name: &Name) -> Option<&'a Chain> {
        self.chains.get(name.as_bytes()).copied()
    }

    /// One of its sets, as it is looked up.
    pub(crate) fn set(&self, name: &Name) -> Option<&Index> {
        let (set, index) = self.sets.get(name.as_bytes())?;
        Some(index.get_or_init(|| Index::new(set)))
    }

    /// One of its stateful objects.
    pub(crate) fn object(&self, name: &[u8]) -> Option<&'a ObjectKind> {
        self.table.objects.iter().find(|object| object.name.as_bytes() == name).map(|object| &object.kind)
    }
}
