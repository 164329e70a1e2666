//! The rules that the kernel has: read over netlink as they are executed (nf_tables.h), and put into words.
//!
//! `nft -j` has more shapes for the same rules than the kernel has expressions, differs by version, hides anonymous chains
//! and the arguments of iptables' extensions, and breaks on names of odd bytes. What is executed is the same everywhere.
//!
//! `model` is what a ruleset consists of; `read` asks the kernel for one, by `netlink` and with the help of `hooks` and `legacy`;
//! `decode` puts it together from the kernel's messages; `subscribe` tells of changes. `attributes`, `request`, `generation` and
//! `uapi` are what messages consist of. `words` are a rule in the language of nft.

pub mod attributes;
mod decode;
mod error;
mod generation;
mod hooks;
mod legacy;
mod model;
pub mod netlink;
mod read;
mod request;
mod subscribe;
mod uapi;
pub mod words;

pub use attributes::DecodeError;
pub use decode::{Limits, decode};
pub use error::ReadError;
pub use generation::Generation;
pub use model::{
    Bitwise, ByteOrder, Chain, ChainType, Comparison, CtKey, Direction, Dynset, Element, Expr, Family, Fib,
    Hook, HookPoint, Hooked, HookedFunction, Limit, LimitUnit, MetaKey, Name, Nat, Object, ObjectKind,
    PayloadBase, Ports, RegisterSlice, Reject, Rule, Ruleset, Set, SetFlags, Table, TableFlags, Verdict,
    XtMatch, XtTarget,
};
pub use read::Reader;
pub use subscribe::{Changes, Subscription};
