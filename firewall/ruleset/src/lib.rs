//! The rules that the kernel has: read over netlink as they are executed (nf_tables.h), and put into words.
//!
//! `nft -j` has more shapes for the same rules than the kernel has expressions, differs by version, hides anonymous chains
//! and the arguments of iptables' extensions, and breaks on names of odd bytes. What is executed is the same everywhere.
//!
//! `model` is what a ruleset consists of, `words` are a rule in the language of nft.

mod model;
pub mod words;

pub use model::{
    Bitwise, ByteOrder, Chain, ChainType, Comparison, CtKey, Direction, Dynset, Element, Expr, Family, Fib,
    Hook, HookPoint, Hooked, HookedFunction, Limit, LimitUnit, MetaKey, Name, Nat, Object, ObjectKind,
    PayloadBase, Ports, RegisterSlice, Reject, Rule, Ruleset, Set, SetFlags, Table, TableFlags, Verdict,
    XtMatch, XtTarget,
};
