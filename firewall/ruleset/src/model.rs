//! What a ruleset consists of. Everything is as the kernel has it: names are bytes, numbers of expressions are in the
//! units and the byte order of nf_tables.h unless a field says otherwise.

mod expr;
mod family;
mod keys;
mod name;
mod xt;

pub use expr::{
    Bitwise, ByteOrder, Comparison, CtKey, Direction, Dynset, Expr, Fib, Limit, LimitUnit, MetaKey, Nat,
    PayloadBase, RegisterSlice, Reject, Verdict,
};
pub use family::Family;
pub use name::Name;
pub use xt::{Ports, XtMatch, XtTarget};

/// All rules of a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ruleset {
    /// The number of the last transaction that is in it (`NFTA_GEN_ID`): as long as the kernel says the same number, these
    /// are the rules.
    pub generation: u32,
    /// The tables, in the order of the kernel.
    pub tables: Vec<Table>,
    /// What is hooked in where, of all kinds, in the order in which packets pass it (nfnetlink_hook.h). Where the kernel
    /// can't tell (before Linux 5.14, or built without it), only what is there of iptables-legacy; nothing for a ruleset that is not
    /// a host's.
    pub hooked: Vec<Hooked>,
}

impl Ruleset {
    /// A table by family and name.
    #[must_use]
    pub fn table(&self, family: Family, name: &[u8]) -> Option<&Table> {
        self.tables.iter().find(|table| table.family == family && table.name.as_bytes() == name)
    }

    /// How many rules there are.
    #[must_use]
    pub fn rules(&self) -> usize {
        self.tables.iter().flat_map(|table| &table.chains).map(|chain| chain.rules.len()).sum()
    }
}

/// A table, with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: Name,
    /// The kernel's number for it.
    pub handle: u64,
    /// How it behaves.
    pub flags: TableFlags,
    /// The comment that nft stored with it.
    pub comment: Option<String>,
    /// Its chains, anonymous ones included.
    pub chains: Vec<Chain>,
    /// Its sets and maps, anonymous ones included.
    pub sets: Vec<Set>,
    /// Its stateful objects, such as counters.
    pub objects: Vec<Object>,
    /// The names of its flowtables, which take packets of connections that stand and never an opening.
    pub flowtables: Vec<Name>,
}

impl Table {
    /// A chain by name.
    #[must_use]
    pub fn chain(&self, name: &Name) -> Option<&Chain> {
        self.chains.iter().find(|chain| chain.name == *name)
    }

    /// A set or map by name.
    #[must_use]
    pub fn set(&self, name: &Name) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == *name)
    }
}

/// `NFT_TABLE_F_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableFlags {
    /// Its base chains see no packet.
    pub dormant: bool,
    /// It belongs to the process with this netlink port, and only that one may change it (`NFTA_TABLE_OWNER`).
    pub owner: Option<u32>,
    /// It stays when its owner goes.
    pub persist: bool,
}

/// A chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name; the kernel makes one for an anonymous chain.
    pub name: Name,
    /// The kernel's number for it.
    pub handle: u64,
    /// Where it is hooked in, if it is a base chain.
    pub hook: Option<Hook>,
    /// Whether it lives and dies with the rule that jumps to it (`NFT_CHAIN_BINDING`).
    pub anonymous: bool,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a base chain is hooked in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where packets come to it.
    pub point: HookPoint,
    /// Lower ones come first.
    pub priority: i32,
    /// What it is for.
    pub kind: ChainType,
    /// Whether what comes to the chain's end is dropped (`NFTA_CHAIN_POLICY`).
    pub policy_drops: bool,
    /// The devices, for ingress and egress; empty for all other points. `eth*` stands for all whose names begin so.
    pub devices: Vec<Name>,
}

/// A place on a packet's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HookPoint {
    /// As a device hands it over.
    Ingress,
    /// Before it is decided where it goes.
    Prerouting,
    /// It is for this host.
    Input,
    /// It goes on to another host.
    Forward,
    /// It comes from this host.
    Output,
    /// It is about to leave.
    Postrouting,
    /// As it is handed to a device.
    Egress,
}

impl HookPoint {
    /// As nft(8) calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
            Self::Egress => "egress",
        }
    }
}

/// The type of a base chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainType {
    /// It passes or drops.
    Filter,
    /// It sees the first packet of a connection, and may rewrite its addresses.
    Nat,
    /// A packet that it changes is routed anew.
    Route,
    /// A type of a newer kernel, by its name.
    Other(String),
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The kernel's number for it, unique in its table.
    pub handle: u64,
    /// Its comment: that of nft (in `NFTA_RULE_USERDATA`), or that of iptables' match of this name.
    pub comment: Option<String>,
    /// What is executed, in order.
    pub exprs: Vec<Expr>,
}

/// A set, or a map if it has data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name; `__set0` and such for an anonymous one.
    pub name: Name,
    /// The kernel's number for it.
    pub handle: u64,
    /// How it behaves.
    pub flags: SetFlags,
    /// The type of its keys as nft numbers types (`enum datatypes`; six bits for each field of a concatenation). The kernel does
    /// not use it.
    pub key_type: u32,
    /// Bytes of a key. Each field of a concatenation is padded to four bytes.
    pub key_len: u32,
    /// Bytes of each field of a concatenation, in order; empty for a key that is none, and where neither the kernel nor `key_type`
    /// tells them.
    pub fields: Vec<u32>,
    /// The type of its data as nft numbers types; `0xffffff00` for verdicts.
    pub data_type: u32,
    /// Bytes of an element's data.
    pub data_len: u32,
    /// Milliseconds after which an element goes, unless it says otherwise.
    pub timeout: Option<u64>,
    /// Its elements, in no certain order: of an interval without `key_end`, the end is an element of its own with `interval_end`.
    pub elements: Vec<Element>,
    /// Whether there were more elements than are read ([`crate::Reader`]'s limit): then it holds what nobody knows.
    pub cut: bool,
}

/// `NFT_SET_*`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the kernel's flags, each with a meaning of its own"
)]
pub struct SetFlags {
    /// It belongs to one rule.
    pub anonymous: bool,
    /// It can't be changed.
    pub constant: bool,
    /// It holds intervals.
    pub interval: bool,
    /// It is a map.
    pub map: bool,
    /// Elements go after a time.
    pub timeout: bool,
    /// Packets may add elements.
    pub eval: bool,
    /// It maps to stateful objects.
    pub object: bool,
    /// Its keys are concatenations.
    pub concat: bool,
}

/// An element of a set or map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// The key, [`Set::key_len`] bytes; empty for the element that catches all others.
    pub key: Box<[u8]>,
    /// The other end of an interval of concatenations, included.
    pub key_end: Option<Box<[u8]>>,
    /// It is the first key behind an interval (`NFT_SET_ELEM_INTERVAL_END`).
    pub interval_end: bool,
    /// It matches what no other element does (`NFT_SET_ELEM_CATCHALL`, `*` in nft).
    pub catch_all: bool,
    /// The data, of a map of values.
    pub data: Option<Box<[u8]>>,
    /// The verdict, of a map of verdicts.
    pub verdict: Option<Verdict>,
    /// The object, of a map of objects.
    pub object: Option<Name>,
    /// What must hold beside the key, or is counted: expressions that are executed when the element is found.
    pub exprs: Vec<Expr>,
    /// Milliseconds that are left to it.
    pub expires: Option<u64>,
}

/// A stateful object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: Name,
    /// The kernel's number for it.
    pub handle: u64,
    /// Its kind, with what it counts or limits.
    pub kind: ObjectKind,
}

/// The kind of a stateful object (`NFT_OBJECT_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectKind {
    /// It counts.
    Counter,
    /// It matches until, or from, so many bytes.
    Quota {
        /// Bytes at which it changes.
        bytes: u64,
        /// Bytes that were counted.
        used: u64,
        /// It matches behind the limit.
        over: bool,
    },
    /// A rate.
    Limit(Limit),
    /// So many connections.
    ConnLimit {
        /// How many connections there may be.
        count: u32,
        /// It matches above them.
        over: bool,
    },
    /// A conntrack helper, timeout or expectation, a tunnel, a synproxy, a security mark, or what a newer kernel has, by
    /// the name that nft has for it or its number.
    Other(String),
}

/// What is hooked in somewhere, of whatever kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hooked {
    /// The family of packets: [`Family::Ip`], [`Family::Ip6`], [`Family::Arp`], [`Family::Bridge`] or [`Family::Netdev`].
    pub family: Family,
    /// The place.
    pub point: HookPoint,
    /// The device, for ingress and egress.
    pub device: Option<Name>,
    /// Lower ones come first.
    pub priority: i32,
    /// The chain, function or program that is called.
    pub function: HookedFunction,
}

/// What is called for a packet at a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookedFunction {
    /// A base chain.
    Chain {
        /// The family of its table.
        family: Family,
        /// Its table.
        table: Name,
        /// Its name.
        chain: Name,
    },
    /// A function of the kernel, such as `ipt_do_table` of module `ip_tables` (which is iptables-legacy) or `ipv4_conntrack_in`.
    Kernel {
        /// The function.
        function: String,
        /// Its module, if it is of one.
        module: Option<String>,
    },
    /// A program of BPF, by its number.
    Bpf {
        /// `NFNLA_HOOK_BPF_ID`, or 0 where the kernel does not say.
        id: u32,
    },
    /// A flowtable.
    Flowtable,
}
