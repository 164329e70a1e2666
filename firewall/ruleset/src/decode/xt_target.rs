//! The targets of iptables: the struct of each, as its header has it. Another revision or size than those here is a target that is
//! not known.

use super::fields::{Fields, extension};
use crate::model::{Expr, Family, XtTarget};

/// The expression `target`.
pub(crate) fn decode(bytes: &[u8], family: Family) -> Option<Expr> {
    let (name, revision, what) = extension(bytes, family, understood)?;
    Some(Expr::XtTarget { name, revision, what: what.unwrap_or(XtTarget::Other) })
}

fn understood(name: &str, revision: u32, info: &[u8], family: Family) -> Option<XtTarget> {
    match (name, revision) {
        ("REJECT", 0) => Some(XtTarget::Reject),
        ("MARK", 2) => {
            let info = Fields::of(info, 8)?;
            Some(XtTarget::Mark { mark: info.u32(0)?, mask: info.u32(4)? })
        }
        ("CONNMARK", 1 | 2) => connmark(revision, info),
        ("NOTRACK", 0) => Some(XtTarget::Notrack),
        ("CT", 0..=2) => ct(revision, info),
        (
            "LOG" | "NFLOG" | "ULOG" | "AUDIT" | "TRACE" | "TCPMSS" | "TCPOPTSTRIP" | "CHECKSUM" | "CLASSIFY"
            | "DSCP" | "TOS" | "ECN" | "TTL" | "HL" | "SET" | "TEE" | "SECMARK" | "CONNSECMARK" | "RATEEST"
            | "LED" | "IDLETIMER",
            _,
        ) => Some(XtTarget::Passes),
        ("DNAT", 0..=2) => {
            let range = Range::read(revision, info, family)?;
            Some(XtTarget::Dnat { address: range.address, ports: range.ports })
        }
        ("REDIRECT", 0) => {
            // IPv6's struct of this revision is that of revision 1 of the others.
            let range = Range::read(u32::from(family == Family::Ip6), info, family)?;
            Some(XtTarget::Redirect { ports: range.ports })
        }
        ("SNAT" | "MASQUERADE", _) => Some(XtTarget::Snat),
        ("NFQUEUE", 0..=3) => nfqueue(revision, info),
        ("SYNPROXY", 0) | ("TARPIT", _) => Some(XtTarget::Takes),
        ("TPROXY", 0 | 1) => Some(XtTarget::Tproxy),
        _ => None,
    }
}

/// `struct xt_connmark_tginfo1`, and `2` if it shifts nothing.
fn connmark(revision: u32, info: &[u8]) -> Option<XtTarget> {
    let info = Fields::of(info, 16)?;
    let mode = match revision {
        1 => info.u8(12)?,
        _ if info.u8(13)? == 0 => info.u8(14)?,
        _ => return None,
    };
    Some(XtTarget::ConnMark {
        mode: (mode <= 2).then_some(mode)?,
        mark: info.u32(0)?,
        mask: info.u32(4)?,
        packet_mask: info.u32(8)?,
    })
}

/// `struct xt_ct_target_info`, `struct xt_ct_target_info_v1`.
fn ct(revision: u32, info: &[u8]) -> Option<XtTarget> {
    const NOTRACK: u16 = 1;
    let info = Fields::of(info, if revision == 0 { 40 } else { 72 })?;
    Some(if info.u16(0)? & NOTRACK == 0 { XtTarget::Passes } else { XtTarget::Notrack })
}

/// `struct xt_NFQ_info`, `_v1` to `_v3`.
fn nfqueue(revision: u32, info: &[u8]) -> Option<XtTarget> {
    const BYPASS: u16 = 1;
    let info = Fields::of(info, 8)?;
    Some(XtTarget::Queue { bypass: revision >= 2 && info.u16(4)? & BYPASS != 0 })
}

/// Where to an address is rewritten.
struct Range {
    address: Option<std::net::IpAddr>,
    ports: Option<(u16, u16)>,
}

impl Range {
    /// `struct nf_nat_ipv4_multi_range_compat` (0), `struct nf_nat_range` (1), `struct nf_nat_range2` (2).
    fn read(revision: u32, info: &[u8], family: Family) -> Option<Self> {
        const MAP_IPS: u32 = 1 << 0;
        const PROTO_SPECIFIED: u32 = 1 << 1;
        let (size, flags, address, ports) = match revision {
            0 => (20, 4, 8, 16),
            1 => (40, 0, 4, 36),
            _ => (42, 0, 4, 36),
        };
        let info = Fields::of(info, size)?;
        let flags = info.u32(flags)?;
        Some(Self {
            address: if flags & MAP_IPS == 0 { None } else { Some(info.address(address, family)?) },
            ports: if flags & PROTO_SPECIFIED == 0 { None } else { Some(info.ports(ports)?) },
        })
    }
}
