//! The matches of iptables: the struct of each, as its header has it. Another revision or size than those here is a match that is
//! not known.

use super::fields::{Fields, extension};
use super::rates;
use crate::attributes::text;
use crate::model::{Expr, Family, Ports, XtMatch};

/// The expression `match`.
pub(crate) fn decode(bytes: &[u8], family: Family) -> Option<Expr> {
    let (name, revision, what) = extension(bytes, family, understood)?;
    Some(Expr::XtMatch { name, revision, what: what.unwrap_or(XtMatch::Other) })
}

fn understood(name: &str, revision: u32, info: &[u8], family: Family) -> Option<XtMatch> {
    match (name, revision) {
        ("comment", 0) => Some(XtMatch::Comment(text(info))),
        ("tcp", 0) => tcp(info),
        ("udp" | "udplite" | "icmp" | "icmp6" | "sctp" | "dccp" | "esp" | "ah" | "ipcomp" | "mh", _) => {
            Some(XtMatch::OtherProtocol)
        }
        ("multiport", 0 | 1) => multiport(revision, info),
        ("conntrack", 1..=3) => conntrack(revision, info),
        ("state", 0) => state(info),
        ("addrtype", 0 | 1) => addrtype(revision, info),
        ("mark", 1) => {
            let (mark, mask, negated) = mark(info)?;
            Some(XtMatch::Mark { mark, mask, negated })
        }
        ("connmark", 1) => {
            let (mark, mask, negated) = mark(info)?;
            Some(XtMatch::ConnMark { mark, mask, negated })
        }
        ("iprange", 1) => iprange(info, family),
        ("mac", 0) => {
            let info = Fields::of(info, 12)?;
            Some(XtMatch::Mac { address: info.array(0)?, negated: info.u32(8)? != 0 })
        }
        ("pkttype", 0) => {
            let info = Fields::of(info, 8)?;
            Some(XtMatch::PktType { kind: info.u32(0)?, negated: info.u32(4)? != 0 })
        }
        ("length", 0) => {
            let info = Fields::of(info, 6)?;
            Some(XtMatch::Length { min: info.u16(0)?, max: info.u16(2)?, negated: info.u8(4)? != 0 })
        }
        ("limit", _) => {
            Some(XtMatch::Limit { text: rates::limit(revision, info).unwrap_or_else(|| name.to_owned()) })
        }
        ("recent", 0 | 1) => rates::recent(revision, info).map(|text| XtMatch::Limit { text }),
        ("hashlimit", _) => {
            Some(XtMatch::Limit { text: rates::hashlimit(revision, info).unwrap_or_else(|| name.to_owned()) })
        }
        _ => None,
    }
}

/// `struct xt_tcp`.
fn tcp(info: &[u8]) -> Option<XtMatch> {
    let info = Fields::of(info, 12)?;
    let negated = info.u8(11)?;
    Some(XtMatch::Tcp {
        source: info.pair(0)?,
        source_negated: negated & 1 != 0,
        destination: info.pair(4)?,
        destination_negated: negated & 2 != 0,
        option: info.u8(8)?,
        flags_mask: info.u8(9)?,
        flags: info.u8(10)?,
        flags_negated: negated & 4 != 0,
        option_negated: negated & 8 != 0,
    })
}

/// `struct xt_multiport`, `struct xt_multiport_v1`: in the second, a flag says that a port and the next are a range.
fn multiport(revision: u32, info: &[u8]) -> Option<XtMatch> {
    const PORTS: usize = 15;
    let info = Fields::of(info, if revision == 0 { 32 } else { 48 })?;
    let count = usize::from(info.u8(1)?);
    let port = |index: usize| (index < PORTS).then(|| info.u16(2 + 2 * index)).flatten();
    let mut ranges = Vec::with_capacity(count);
    let mut index = 0;
    while index < count {
        let first = port(index)?;
        let is_range = revision == 1 && info.u8(32 + index)? != 0;
        index += usize::from(is_range);
        ranges.push((first, port(index)?));
        index += 1;
    }
    Some(XtMatch::Multiport {
        of: match info.u8(0)? {
            0 => Ports::Source,
            1 => Ports::Destination,
            2 => Ports::Either,
            _ => return None,
        },
        ranges: ranges.into(),
        negated: revision == 1 && info.u8(47)? != 0,
    })
}

/// `struct xt_conntrack_mtinfo1` to `3`, if they ask for the state alone.
fn conntrack(revision: u32, info: &[u8]) -> Option<XtMatch> {
    const STATE: u16 = 1 << 0;
    const STATE_ALIAS: u16 = 1 << 13;
    let info = Fields::of(info, [152, 156, 164][usize::try_from(revision).ok()?.checked_sub(1)?])?;
    let (asked, negated) = info.pair(146)?;
    if asked & !STATE_ALIAS != STATE || negated & !(STATE | STATE_ALIAS) != 0 {
        return None;
    }
    let mask = if revision == 1 { u32::from(info.u8(150)?) } else { u32::from(info.u16(150)?) };
    Some(XtMatch::CtState { mask, negated: negated & STATE != 0 })
}

/// `struct xt_state_info`, which has another bit for untracked packets than `conntrack` has.
fn state(info: &[u8]) -> Option<XtMatch> {
    const UNTRACKED: u32 = 64;
    const CONNTRACK_UNTRACKED: u32 = 256;
    let mask = Fields::of(info, 4)?.u32(0)?;
    let untracked = if mask & UNTRACKED == 0 { 0 } else { CONNTRACK_UNTRACKED };
    Some(XtMatch::CtState { mask: mask & !UNTRACKED | untracked, negated: false })
}

/// `struct xt_addrtype_info`, `struct xt_addrtype_info_v1`.
fn addrtype(revision: u32, info: &[u8]) -> Option<XtMatch> {
    const INVERT_SOURCE: u32 = 1;
    const INVERT_DEST: u32 = 2;
    const LIMIT_IFACE: u32 = 4 | 8;
    let info = Fields::of(info, if revision == 0 { 12 } else { 8 })?;
    let (source, destination) = info.pair(0)?;
    let flags = match revision {
        0 => (u32::from(info.u32(4)? != 0) * INVERT_SOURCE) | (u32::from(info.u32(8)? != 0) * INVERT_DEST),
        _ => info.u32(4)?,
    };
    Some(XtMatch::AddrType {
        source,
        source_negated: flags & INVERT_SOURCE != 0,
        destination,
        destination_negated: flags & INVERT_DEST != 0,
        on_interface: flags & LIMIT_IFACE != 0,
    })
}

/// `struct xt_mark_mtinfo1`, `struct xt_connmark_mtinfo1`.
fn mark(info: &[u8]) -> Option<(u32, u32, bool)> {
    let info = Fields::of(info, 12)?;
    Some((info.u32(0)?, info.u32(4)?, info.u8(8)? != 0))
}

/// `struct xt_iprange_mtinfo`.
fn iprange(info: &[u8], family: Family) -> Option<XtMatch> {
    const SRC: u8 = 1 << 0;
    const DST: u8 = 1 << 1;
    const SRC_INV: u8 = 1 << 4;
    const DST_INV: u8 = 1 << 5;
    let info = Fields::of(info, 68)?;
    let flags = info.u8(64)?;
    let range = |at| Some((info.address(at, family)?, info.address(at + 16, family)?));
    Some(XtMatch::IpRange {
        source: if flags & SRC == 0 { None } else { Some(range(0)?) },
        source_negated: flags & SRC_INV != 0,
        destination: if flags & DST == 0 { None } else { Some(range(32)?) },
        destination_negated: flags & DST_INV != 0,
    })
}
