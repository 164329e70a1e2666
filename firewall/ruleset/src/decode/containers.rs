//! Tables, chains, rules and stateful objects: what others refer to by name or number.

use netlink_packet_core::NlasIterator;

use super::expr::{Surroundings, expressions, limit};
use crate::attributes::{DecodeError, text};
use crate::model::{
    Chain, ChainType, Expr, Family, Hook, HookPoint, Name, Object, ObjectKind, Rule, Table, TableFlags,
    XtMatch,
};
use crate::uapi;

/// A table with nothing in it.
pub(crate) fn table(family: Family, bytes: &[u8]) -> Result<Table, DecodeError> {
    const DORMANT: u32 = 1;
    const OWNER: u32 = 2;
    const PERSIST: u32 = 4;
    let table = uapi::table::attributes(bytes)?;
    let flags = table.u32(uapi::table::FLAGS).unwrap_or(0);
    Ok(Table {
        family,
        name: table
            .name(uapi::table::NAME)
            .ok_or(DecodeError::Missing { about: "table", attribute: "name" })?,
        handle: table.u64(uapi::table::HANDLE).unwrap_or(0),
        flags: TableFlags {
            dormant: flags & DORMANT != 0,
            owner: (flags & OWNER != 0).then(|| table.u32(uapi::table::OWNER).unwrap_or(0)),
            persist: flags & PERSIST != 0,
        },
        comment: table.bytes(uapi::table::USERDATA).and_then(comment),
        chains: Vec::new(),
        sets: Vec::new(),
        objects: Vec::new(),
        flowtables: Vec::new(),
    })
}

/// A chain without its rules.
pub(crate) fn chain(family: Family, bytes: &[u8]) -> Result<Chain, DecodeError> {
    const BINDING: u32 = 4;
    const NF_DROP: u32 = 0;
    let chain = uapi::chain::attributes(bytes)?;
    let missing = |attribute| DecodeError::Missing { about: "chain", attribute };
    let hook = match chain.bytes(uapi::chain::HOOK) {
        None => None,
        Some(bytes) => {
            let hook = uapi::hook::attributes(bytes)?;
            let number = hook.u32(uapi::hook::HOOKNUM).ok_or_else(|| missing("hook"))?;
            Some(Hook {
                point: hook_point(family, number).ok_or_else(|| missing("hook that is known"))?,
                priority: hook.u32(uapi::hook::PRIORITY).ok_or_else(|| missing("priority"))?.cast_signed(),
                kind: match chain.text(uapi::chain::TYPE).ok_or_else(|| missing("type"))? {
                    name if name == "filter" => ChainType::Filter,
                    name if name == "nat" => ChainType::Nat,
                    name if name == "route" => ChainType::Route,
                    name => ChainType::Other(name),
                },
                policy_drops: chain.u32(uapi::chain::POLICY) == Some(NF_DROP),
                devices: devices(hook.bytes(uapi::hook::DEV), hook.bytes(uapi::hook::DEVS))?,
            })
        }
    };
    Ok(Chain {
        name: chain.name(uapi::chain::NAME).ok_or_else(|| missing("name"))?,
        handle: chain.u64(uapi::chain::HANDLE).unwrap_or(0),
        hook,
        anonymous: chain.u32(uapi::chain::FLAGS).unwrap_or(0) & BINDING != 0,
        rules: Vec::new(),
    })
}

/// A rule.
pub(crate) fn rule(bytes: &[u8], around: &dyn Surroundings) -> Result<Rule, DecodeError> {
    let rule = uapi::rule::attributes(bytes)?;
    let exprs = expressions(rule.bytes(uapi::rule::EXPRESSIONS).unwrap_or_default(), around)?;
    let of_iptables = || {
        exprs.iter().find_map(|expr| match expr {
            Expr::XtMatch { what: XtMatch::Comment(comment), .. } => Some(comment.clone()),
            _ => None,
        })
    };
    Ok(Rule {
        handle: rule
            .u64(uapi::rule::HANDLE)
            .ok_or(DecodeError::Missing { about: "rule", attribute: "handle" })?,
        comment: rule.bytes(uapi::rule::USERDATA).and_then(comment).or_else(of_iptables),
        exprs,
    })
}

/// A stateful object.
pub(crate) fn object(bytes: &[u8]) -> Result<Object, DecodeError> {
    let object = uapi::object::attributes(bytes)?;
    let missing = |attribute| DecodeError::Missing { about: "stateful object", attribute };
    let data = object.bytes(uapi::object::DATA).unwrap_or_default();
    let number = object.u32(uapi::object::TYPE).ok_or_else(|| missing("type"))?;
    let kind = match number {
        1 => Some(ObjectKind::Counter),
        2 => quota(data),
        4 => limit(data).map(ObjectKind::Limit),
        5 => connlimit(data),
        _ => None,
    };
    Ok(Object {
        name: object.name(uapi::object::NAME).ok_or_else(|| missing("name"))?,
        handle: object.u64(uapi::object::HANDLE).unwrap_or(0),
        kind: kind.unwrap_or_else(|| {
            ObjectKind::Other(match number {
                3 => "ct helper".to_owned(),
                6 => "tunnel".to_owned(),
                7 => "ct timeout".to_owned(),
                8 => "secmark".to_owned(),
                9 => "ct expectation".to_owned(),
                10 => "synproxy".to_owned(),
                number => number.to_string(),
            })
        }),
    })
}

/// The place on a packet's way that a family calls by this number (`NF_INET_*`, `NF_ARP_*`, `NF_NETDEV_*`).
pub(crate) fn hook_point(family: Family, number: u32) -> Option<HookPoint> {
    Some(match (family, number) {
        (Family::Netdev, 0) | (Family::Inet, 5) => HookPoint::Ingress,
        (Family::Netdev, 1) => HookPoint::Egress,
        (Family::Arp, 0) => HookPoint::Input,
        (Family::Arp, 1) => HookPoint::Output,
        (Family::Arp, 2) => HookPoint::Forward,
        (Family::Netdev | Family::Arp, _) => return None,
        (_, 0) => HookPoint::Prerouting,
        (_, 1) => HookPoint::Input,
        (_, 2) => HookPoint::Forward,
        (_, 3) => HookPoint::Output,
        (_, 4) => HookPoint::Postrouting,
        _ => return None,
    })
}

fn quota(bytes: &[u8]) -> Option<ObjectKind> {
    let quota = uapi::quota::attributes(bytes).ok()?;
    Some(ObjectKind::Quota {
        bytes: quota.u64(uapi::quota::BYTES)?,
        used: quota.u64(uapi::quota::CONSUMED).unwrap_or(0),
        over: quota.u32(uapi::quota::FLAGS).unwrap_or(0) & 1 != 0,
    })
}

fn connlimit(bytes: &[u8]) -> Option<ObjectKind> {
    let connlimit = uapi::connlimit::attributes(bytes).ok()?;
    Some(ObjectKind::ConnLimit {
        count: connlimit.u32(uapi::connlimit::COUNT)?,
        over: connlimit.u32(uapi::connlimit::FLAGS).unwrap_or(0) & 1 != 0,
    })
}

/// The devices of a hook: a single one, or a list (`NFTA_DEVICE_NAME`, and `NFTA_DEVICE_PREFIX` since Linux 6.16).
fn devices(single: Option<&[u8]>, several: Option<&[u8]>) -> Result<Vec<Name>, DecodeError> {
    const NAME: u16 = 1;
    const PREFIX: u16 = 2;
    let Some(bytes) = several else { return Ok(single.map(Name::new).into_iter().collect()) };
    NlasIterator::new(bytes)
        .map(|device| {
            let device = device?;
            let (kind, length) = (device.kind(), usize::from(device.length()));
            let name = Name::new(device.into_inner().get(4..length).unwrap_or_default());
            match kind {
                NAME => Ok(name),
                PREFIX => Ok(Name::new(&[name.as_bytes(), b"*"].concat())),
                _ => Err(DecodeError::Missing { about: "chain", attribute: "device that is known" }),
            }
        })
        .collect()
}

/// The comment that nft keeps beside a table or rule: type (0 for a comment), length and text, one after the other
/// (`NFTNL_UDATA_RULE_COMMENT`, `NFTNL_UDATA_TABLE_COMMENT`).
fn comment(mut userdata: &[u8]) -> Option<String> {
    const COMMENT: u8 = 0;
    while let [kind, length, rest @ ..] = userdata {
        let (value, behind) = rest.split_at_checked(usize::from(*length))?;
        if *kind == COMMENT {
            return Some(text(value));
        }
        userdata = behind;
    }
    None
}
