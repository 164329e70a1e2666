//! Rules in nft's language, made from what the kernel executes.
//!
//! It is what `nft list` prints, in one line and without what changes with traffic, for all that nft has words for; and
//! for iptables' extensions the words that nft would have, which it does not print. What has no words is said:
//! ``xt match `recent`, not shown``. Whatever names and comments hold, nothing of it ends the line or moves a
//! terminal's cursor.
//!
//! Devices are named where a rule names them. A rule that has a device's number gets its name from
//! [`rule_with`]'s caller, because only the host knows it.

mod condition;
mod field;
mod kind;
mod load;
mod nat;
mod protocols;
mod set;
mod statement;
mod subject;
mod symbols;
#[cfg(test)]
mod tests;
mod text;
mod walk;
mod xt;

pub use text::{name, verdict};

use crate::model::{Chain, Family, Name, Rule, Table};
use kind::{Style, Writer};

/// A rule of a table in one line, as `nft -s list` prints it, without its handle.
///
/// ```
/// use zone_ruleset::{Expr, Family, Name, Rule, Table, TableFlags, Verdict, words};
///
/// let table = Table {
///     family: Family::Inet,
///     name: Name::from("filter"),
///     handle: 1,
///     flags: TableFlags::default(),
///     comment: None,
///     chains: Vec::new(),
///     sets: Vec::new(),
///     objects: Vec::new(),
///     flowtables: Vec::new(),
/// };
/// let exprs = vec![Expr::Counter, Expr::Verdict(Verdict::Drop)];
/// let rule = Rule { handle: 4, comment: Some("the rest".to_owned()), exprs };
/// assert_eq!(words::rule(&rule, &table), "counter drop comment \"the rest\"");
/// ```
#[must_use]
pub fn rule(rule: &Rule, table: &Table) -> String {
    rule_with(rule, table, &|_| None)
}

/// The same, with the names of devices by their numbers.
#[must_use]
pub fn rule_with(rule: &Rule, table: &Table, devices: &dyn Fn(u32) -> Option<Name>) -> String {
    walk::rule(rule, table, Writer { style: Style::Nft, devices })
}

/// A rule in one form for comparing: rules that do the same thing by the same expressions have the same words, whichever
/// version of nft, or of iptables, wrote them. It is what this program's own rules are known by.
#[must_use]
pub fn comparable(rule: &Rule, table: &Table) -> String {
    walk::rule(rule, table, Writer { style: Style::Plain, devices: &|_| None })
}

/// A chain by its place, such as `inet filter input`.
#[must_use]
pub fn chain(chain: &Chain, table: &Table) -> String {
    place(table.family, &table.name, &chain.name, None)
}

/// Where a base chain is hooked in, such as `hook input priority -10 policy drop`; nothing for any other chain.
#[must_use]
pub fn chain_header(chain: &Chain) -> String {
    let Some(hook) = &chain.hook else { return String::new() };
    let devices = match &hook.devices[..] {
        [] => String::new(),
        [device] => format!(" device {}", name(device)),
        devices => format!(" devices {}", devices.iter().map(name).collect::<Vec<_>>().join(",")),
    };
    let policy = if hook.policy_drops { "drop" } else { "accept" };
    format!("hook {}{devices} priority {} policy {policy}", hook.point.as_str(), hook.priority)
}

/// Where a chain or a rule is, such as `inet filter input` or `inet filter input handle 7`.
#[must_use]
pub fn place(family: Family, table: &Name, chain: &Name, handle: Option<u64>) -> String {
    let handle = handle.map(|handle| format!(" handle {handle}")).unwrap_or_default();
    format!("{family} {} {}{handle}", name(table), name(chain))
}
