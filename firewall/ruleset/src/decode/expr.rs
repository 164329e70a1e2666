//! Expressions. One that is not known, or whose attributes are not as they have to be, becomes [`Expr::Unknown`]: what it does is
//! never guessed.

use super::registers::{ALL, slice};
use super::{xt_match, xt_target};
use crate::attributes::{Attributes, DecodeError, list, text};
use crate::model::{
    Bitwise, ByteOrder, Comparison, CtKey, Direction, Dynset, Expr, Family, Fib, Limit, LimitUnit, MetaKey,
    Name, Nat, PayloadBase, RegisterSlice, Reject, Verdict,
};
use crate::uapi;

/// `NFT_REG_VERDICT`, the register of the verdict.
const VERDICT: u32 = 0;

/// What an expression's meaning depends on beside its attributes.
pub(crate) trait Surroundings {
    /// The family of the table.
    fn family(&self) -> Family;
    /// The bytes of a set's keys and of its data, and whether the data are verdicts; `None` if there is no such set.
    fn set(&self, name: &Name) -> Option<SetShape>;
}

/// What a lookup has to know of a set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SetShape {
    pub(crate) key_len: usize,
    pub(crate) data_len: usize,
    pub(crate) verdicts: bool,
}

/// A rule's expressions, in order.
pub(crate) fn expressions(bytes: &[u8], around: &dyn Surroundings) -> Result<Vec<Expr>, DecodeError> {
    let mut exprs = Vec::with_capacity(list(bytes).count());
    for bytes in list(bytes) {
        exprs.push(expression(bytes?, around));
    }
    Ok(exprs)
}

/// The expressions of an element or of a dynset, in order. One that would contain others itself is not known there.
pub(crate) fn inner_expressions(
    single: Option<&[u8]>,
    several: Option<&[u8]>,
    around: &dyn Surroundings,
) -> Vec<Expr> {
    let mut exprs = Vec::new();
    for bytes in single.map(Ok).into_iter().chain(several.into_iter().flat_map(list)) {
        exprs.push(match bytes {
            Ok(bytes) => match named(bytes) {
                Some((b"dynset", _)) | None => unknown(b"dynset", &[]),
                Some(_) => expression(bytes, around),
            },
            Err(_) => unknown(b"", &[]),
        });
    }
    exprs
}

/// A value or a verdict, as elements and immediate expressions have it.
pub(crate) enum Data<'a> {
    Value(&'a [u8]),
    Verdict(Verdict),
}

/// `NFTA_DATA_*`.
pub(crate) fn data(bytes: &[u8]) -> Option<Data<'_>> {
    let data = uapi::data::attributes(bytes).ok()?;
    if let Some(value) = data.bytes(uapi::data::VALUE) {
        return Some(Data::Value(value));
    }
    let verdict = uapi::verdict::attributes(data.bytes(uapi::data::VERDICT)?).ok()?;
    let chain = || verdict.name(uapi::verdict::CHAIN);
    // The upper half of NF_QUEUE's and NF_DROP's code is a queue or an error.
    Some(Data::Verdict(match verdict.u32(uapi::verdict::CODE)?.cast_signed() {
        -1 => Verdict::Continue,
        -2 => Verdict::Break,
        -3 => Verdict::Jump(chain()?),
        -4 => Verdict::Goto(chain()?),
        -5 => Verdict::Return,
        code => match code & 0xff {
            0 => Verdict::Drop,
            1 => Verdict::Accept,
            3 => Verdict::Queue,
            _ => return None,
        },
    }))
}

/// Attributes that limits have, as expressions and as objects.
pub(crate) fn limit(bytes: &[u8]) -> Option<Limit> {
    let limit = uapi::limit::attributes(bytes).ok()?;
    Some(Limit {
        rate: limit.u64(uapi::limit::RATE)?,
        seconds: limit.u64(uapi::limit::UNIT)?,
        burst: limit.u32(uapi::limit::BURST).unwrap_or(0),
        unit: match limit.u32(uapi::limit::TYPE).unwrap_or(0) {
            0 => LimitUnit::Packets,
            1 => LimitUnit::Bytes,
            _ => return None,
        },
        over: limit.u32(uapi::limit::FLAGS).unwrap_or(0) & 1 != 0,
    })
}

fn expression(bytes: &[u8], around: &dyn Surroundings) -> Expr {
    match named(bytes) {
        Some((name, attributes)) => {
            known(name, attributes, around).unwrap_or_else(|| unknown(name, attributes))
        }
        None => unknown(b"", &[]),
    }
}

/// The name of an expression, without its NUL, and its attributes.
fn named(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let expr = uapi::expr::attributes(bytes).ok()?;
    let name = expr.bytes(uapi::expr::NAME)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Some((name, expr.bytes(uapi::expr::DATA).unwrap_or_default()))
}

fn known(name: &[u8], bytes: &[u8], around: &dyn Surroundings) -> Option<Expr> {
    match name {
        b"immediate" => immediate(bytes),
        b"cmp" => compare(bytes),
        b"payload" => payload(bytes),
        b"meta" => meta(bytes),
        b"ct" => ct(bytes, around.family()),
        b"counter" => Some(Expr::Counter),
        b"lookup" => lookup(bytes, around),
        b"bitwise" => bitwise(bytes),
        b"match" => xt_match::decode(bytes, around.family()),
        b"target" => xt_target::decode(bytes, around.family()),
        b"range" => range(bytes),
        b"byteorder" => byteorder(bytes),
        b"limit" => limit(bytes).map(Expr::Limit),
        b"log" => log(bytes),
        b"reject" => reject(bytes),
        b"dynset" => dynset(bytes, around),
        b"objref" => objref(bytes, around),
        b"nat" => nat(bytes),
        b"masq" => Some(Expr::Masquerade),
        b"redir" => redirect(bytes),
        b"tproxy" => tproxy(bytes, around.family()),
        b"queue" => queue(bytes),
        b"notrack" => Some(Expr::Notrack),
        b"synproxy" => Some(Expr::Synproxy),
        b"quota" => quota(bytes),
        b"connlimit" => connlimit(bytes),
        b"last" => Some(Expr::Last),
        b"fib" => fib(bytes),
        b"socket" => socket(bytes),
        b"exthdr" => exthdr(bytes),
        b"numgen" => numgen(bytes),
        b"hash" => hash(bytes),
        _ => None,
    }
}

/// An expression of which no more than its name is known. Where the register that it loads is known, only that one may hold
/// anything; else all may, unless it is a kind that loads none.
fn unknown(name: &[u8], bytes: &[u8]) -> Expr {
    let destination = match name {
        b"rt" => uapi::rt::attributes(bytes)
            .ok()
            .and_then(|rt| slice(rt.u32(uapi::rt::DREG)?, if rt.u32(uapi::rt::KEY)? == 2 { 16 } else { 4 })),
        b"osf" => uapi::osf::attributes(bytes).ok().and_then(|osf| slice(osf.u32(uapi::osf::DREG)?, 16)),
        b"xfrm" => uapi::xfrm::attributes(bytes).ok().and_then(|xfrm| slice(xfrm.u32(uapi::xfrm::DREG)?, 16)),
        b"tunnel" => {
            uapi::tunnel::attributes(bytes).ok().and_then(|tunnel| slice(tunnel.u32(uapi::tunnel::DREG)?, 4))
        }
        b"dup" | b"fwd" | b"flow_offload" => return Expr::Unknown { name: text(name), destination: None },
        _ => None,
    };
    Expr::Unknown { name: text(name), destination: Some(destination.unwrap_or(ALL)) }
}

fn immediate(bytes: &[u8]) -> Option<Expr> {
    let immediate = uapi::immediate::attributes(bytes).ok()?;
    let register = immediate.u32(uapi::immediate::DREG)?;
    match data(immediate.bytes(uapi::immediate::DATA)?)? {
        Data::Verdict(verdict) => (register == VERDICT).then_some(Expr::Verdict(verdict)),
        Data::Value(value) => {
            Some(Expr::Immediate { destination: slice(register, value.len())?, value: value.into() })
        }
    }
}

fn compare(bytes: &[u8]) -> Option<Expr> {
    let cmp = uapi::cmp::attributes(bytes).ok()?;
    let value = value(cmp.bytes(uapi::cmp::DATA)?)?;
    Some(Expr::Compare {
        source: slice(cmp.u32(uapi::cmp::SREG)?, value.len())?,
        op: match cmp.u32(uapi::cmp::OP)? {
            0 => Comparison::Equal,
            1 => Comparison::NotEqual,
            2 => Comparison::Less,
            3 => Comparison::LessOrEqual,
            4 => Comparison::Greater,
            5 => Comparison::GreaterOrEqual,
            _ => return None,
        },
        value: value.into(),
    })
}

fn range(bytes: &[u8]) -> Option<Expr> {
    let range = uapi::range::attributes(bytes).ok()?;
    let from = value(range.bytes(uapi::range::FROM_DATA)?)?;
    let to = value(range.bytes(uapi::range::TO_DATA)?)?;
    if from.len() != to.len() {
        return None;
    }
    Some(Expr::Range {
        source: slice(range.u32(uapi::range::SREG)?, from.len())?,
        from: from.into(),
        to: to.into(),
        negated: flag(range.u32(uapi::range::OP)?)?,
    })
}

fn payload(bytes: &[u8]) -> Option<Expr> {
    let payload = uapi::payload::attributes(bytes).ok()?;
    let length = usize::try_from(payload.u32(uapi::payload::LEN)?).ok()?;
    let offset = payload.u32(uapi::payload::OFFSET)?;
    let base = match payload.u32(uapi::payload::BASE)? {
        0 => PayloadBase::Link,
        1 => PayloadBase::Network,
        2 => PayloadBase::Transport,
        3 => PayloadBase::Inner,
        _ => return None,
    };
    match (payload.u32(uapi::payload::DREG), payload.u32(uapi::payload::SREG)) {
        (Some(register), None) => Some(Expr::Payload { destination: slice(register, length)?, base, offset }),
        (None, Some(register)) => Some(Expr::PayloadWrite { source: slice(register, length)?, base, offset }),
        _ => None,
    }
}

fn meta(bytes: &[u8]) -> Option<Expr> {
    let meta = uapi::meta::attributes(bytes).ok()?;
    let key = MetaKey::from_number(meta.u32(uapi::meta::KEY)?);
    match (meta.u32(uapi::meta::DREG), meta.u32(uapi::meta::SREG)) {
        (Some(register), None) => {
            Some(Expr::Meta { destination: slice(register, key.length().into())?, key })
        }
        (None, Some(register)) => {
            Some(Expr::MetaSet { source: slice(register, key.length_to_set().into())?, key })
        }
        _ => None,
    }
}

fn ct(bytes: &[u8], family: Family) -> Option<Expr> {
    let ct = uapi::ct::attributes(bytes).ok()?;
    let key = CtKey::from_number(ct.u32(uapi::ct::KEY)?);
    let length = usize::from(key.length(family));
    match (ct.u32(uapi::ct::DREG), ct.u32(uapi::ct::SREG)) {
        (Some(register), None) => Some(Expr::Ct {
            destination: slice(register, length)?,
            key,
            direction: match ct.u8(uapi::ct::DIRECTION) {
                None => None,
                Some(0) => Some(Direction::Original),
                Some(1) => Some(Direction::Reply),
                Some(_) => return None,
            },
        }),
        (None, Some(register)) => Some(Expr::CtSet { source: slice(register, length)?, key }),
        _ => None,
    }
}

fn bitwise(bytes: &[u8]) -> Option<Expr> {
    const MASK_XOR: u32 = 0;
    const LSHIFT: u32 = 1;
    const RSHIFT: u32 = 2;
    let bitwise = uapi::bitwise::attributes(bytes).ok()?;
    let length = usize::try_from(bitwise.u32(uapi::bitwise::LEN)?).ok()?;
    let shift = || {
        let shift = value(bitwise.bytes(uapi::bitwise::DATA)?)?;
        Some(u32::from_ne_bytes(shift.try_into().ok()?))
    };
    let op = match bitwise.u32(uapi::bitwise::OP).unwrap_or(MASK_XOR) {
        MASK_XOR => {
            let mask = value(bitwise.bytes(uapi::bitwise::MASK)?)?;
            let xor = value(bitwise.bytes(uapi::bitwise::XOR)?)?;
            if mask.len() != length || xor.len() != length {
                return None;
            }
            Bitwise::Mask { mask: mask.into(), xor: xor.into() }
        }
        LSHIFT => Bitwise::ShiftLeft(shift()?),
        RSHIFT => Bitwise::ShiftRight(shift()?),
        _ => Bitwise::Other,
    };
    Some(Expr::Bitwise {
        source: slice(bitwise.u32(uapi::bitwise::SREG)?, length)?,
        destination: slice(bitwise.u32(uapi::bitwise::DREG)?, length)?,
        op,
    })
}

fn byteorder(bytes: &[u8]) -> Option<Expr> {
    let byteorder = uapi::byteorder::attributes(bytes).ok()?;
    let length = usize::try_from(byteorder.u32(uapi::byteorder::LEN)?).ok()?;
    let size = byteorder.u32(uapi::byteorder::SIZE)?;
    Some(Expr::ByteOrder {
        source: slice(byteorder.u32(uapi::byteorder::SREG)?, length)?,
        destination: slice(byteorder.u32(uapi::byteorder::DREG)?, length)?,
        op: if flag(byteorder.u32(uapi::byteorder::OP)?)? { ByteOrder::ToNetwork } else { ByteOrder::ToHost },
        size: matches!(size, 2 | 4 | 8).then_some(size)?,
    })
}

fn lookup(bytes: &[u8], around: &dyn Surroundings) -> Option<Expr> {
    let lookup = uapi::lookup::attributes(bytes).ok()?;
    let set = lookup.name(uapi::lookup::SET)?;
    let shape = around.set(&set)?;
    let destination = lookup.u32(uapi::lookup::DREG);
    let verdict = destination == Some(VERDICT);
    if verdict && !shape.verdicts {
        return None;
    }
    Some(Expr::Lookup {
        source: slice(lookup.u32(uapi::lookup::SREG)?, shape.key_len)?,
        destination: match destination {
            None | Some(VERDICT) => None,
            Some(register) => Some(slice(register, shape.data_len)?),
        },
        set,
        verdict,
        negated: flag(lookup.u32(uapi::lookup::FLAGS).unwrap_or(0))?,
    })
}

fn dynset(bytes: &[u8], around: &dyn Surroundings) -> Option<Expr> {
    const UPDATE: u32 = 1;
    const DELETE: u32 = 2;
    const INV: u32 = 1;
    let dynset = uapi::dynset::attributes(bytes).ok()?;
    let set = dynset.name(uapi::dynset::SET_NAME)?;
    let shape = around.set(&set)?;
    let op = dynset.u32(uapi::dynset::OP)?;
    Some(Expr::Dynset(Dynset {
        key: slice(dynset.u32(uapi::dynset::SREG_KEY)?, shape.key_len)?,
        set,
        deletes: (op <= DELETE).then_some(op == DELETE)?,
        updates: op == UPDATE,
        negated: dynset.u32(uapi::dynset::FLAGS).unwrap_or(0) & INV != 0,
        timeout: dynset.u64(uapi::dynset::TIMEOUT).filter(|timeout| *timeout != 0),
        exprs: inner_expressions(
            dynset.bytes(uapi::dynset::EXPR),
            dynset.bytes(uapi::dynset::EXPRESSIONS),
            around,
        ),
    }))
}

fn objref(bytes: &[u8], around: &dyn Surroundings) -> Option<Expr> {
    let objref = uapi::objref::attributes(bytes).ok()?;
    if let Some(name) = objref.name(uapi::objref::IMM_NAME) {
        return Some(Expr::Object(name));
    }
    let set = objref.name(uapi::objref::SET_NAME)?;
    let shape = around.set(&set)?;
    Some(Expr::ObjectMap { source: slice(objref.u32(uapi::objref::SET_SREG)?, shape.key_len)?, set })
}

fn quota(bytes: &[u8]) -> Option<Expr> {
    let quota = uapi::quota::attributes(bytes).ok()?;
    Some(Expr::Quota {
        bytes: quota.u64(uapi::quota::BYTES)?,
        over: quota.u32(uapi::quota::FLAGS).unwrap_or(0) & 1 != 0,
    })
}

fn connlimit(bytes: &[u8]) -> Option<Expr> {
    let connlimit = uapi::connlimit::attributes(bytes).ok()?;
    Some(Expr::ConnLimit {
        count: connlimit.u32(uapi::connlimit::COUNT)?,
        over: connlimit.u32(uapi::connlimit::FLAGS).unwrap_or(0) & 1 != 0,
    })
}

fn log(bytes: &[u8]) -> Option<Expr> {
    let log = uapi::log::attributes(bytes).ok()?;
    Some(Expr::Log {
        prefix: log.text(uapi::log::PREFIX),
        group: log.u16(uapi::log::GROUP),
        level: log.u32(uapi::log::LEVEL),
    })
}

fn reject(bytes: &[u8]) -> Option<Expr> {
    let reject = uapi::reject::attributes(bytes).ok()?;
    let code = || reject.u8(uapi::reject::ICMP_CODE);
    Some(Expr::Reject(match reject.u32(uapi::reject::TYPE)? {
        0 => Reject::Icmp(code()?),
        1 => Reject::TcpReset,
        2 => Reject::Icmpx(code()?),
        _ => return None,
    }))
}

fn nat(bytes: &[u8]) -> Option<Expr> {
    let nat = uapi::nat::attributes(bytes).ok()?;
    let family = Family::from_number(nat.u32(uapi::nat::FAMILY)?.try_into().ok()?)?;
    let address_length = if family == Family::Ip { 4 } else { 16 };
    Some(Expr::Nat(Nat {
        destination: flag(nat.u32(uapi::nat::TYPE)?)?,
        family,
        address: register(&nat, uapi::nat::REG_ADDR_MIN, address_length)?,
        address_max: register(&nat, uapi::nat::REG_ADDR_MAX, address_length)?,
        port: register(&nat, uapi::nat::REG_PROTO_MIN, 2)?,
        port_max: register(&nat, uapi::nat::REG_PROTO_MAX, 2)?,
        flags: nat.u32(uapi::nat::FLAGS).unwrap_or(0),
    }))
}

fn redirect(bytes: &[u8]) -> Option<Expr> {
    let redirect = uapi::redir::attributes(bytes).ok()?;
    Some(Expr::Redirect { port: register(&redirect, uapi::redir::REG_PROTO_MIN, 2)? })
}

fn tproxy(bytes: &[u8], table: Family) -> Option<Expr> {
    let tproxy = uapi::tproxy::attributes(bytes).ok()?;
    let family = match tproxy.u32(uapi::tproxy::FAMILY)? {
        0 | 1 => None,
        number => Some(Family::from_number(number.try_into().ok()?)?),
    };
    let address_length = if family.unwrap_or(table) == Family::Ip { 4 } else { 16 };
    Some(Expr::Tproxy {
        family,
        address: register(&tproxy, uapi::tproxy::REG_ADDR, address_length)?,
        port: register(&tproxy, uapi::tproxy::REG_PORT, 2)?,
    })
}

fn queue(bytes: &[u8]) -> Option<Expr> {
    let queue = uapi::queue::attributes(bytes).ok()?;
    Some(Expr::Queue {
        number: queue.u16(uapi::queue::NUM),
        bypass: queue.u16(uapi::queue::FLAGS).unwrap_or(0) & 1 != 0,
    })
}

fn fib(bytes: &[u8]) -> Option<Expr> {
    const PRESENT: u32 = 1 << 5;
    let fib = uapi::fib::attributes(bytes).ok()?;
    let (result, flags) = (fib.u32(uapi::fib::RESULT)?, fib.u32(uapi::fib::FLAGS)?);
    let length = match result {
        1 | 2 if flags & PRESENT != 0 => 1,
        1 | 3 => 4,
        2 => 16,
        _ => return None,
    };
    Some(Expr::Fib(Fib { destination: slice(fib.u32(uapi::fib::DREG)?, length)?, result, flags }))
}

fn socket(bytes: &[u8]) -> Option<Expr> {
    let socket = uapi::socket::attributes(bytes).ok()?;
    let key = socket.u32(uapi::socket::KEY)?;
    let length = match key {
        0 | 2 => 1,
        1 => 4,
        3 => 8,
        _ => return None,
    };
    Some(Expr::Socket { destination: slice(socket.u32(uapi::socket::DREG)?, length)?, key })
}

fn exthdr(bytes: &[u8]) -> Option<Expr> {
    const PRESENT: u32 = 1;
    let exthdr = uapi::exthdr::attributes(bytes).ok()?;
    let presence = exthdr.u32(uapi::exthdr::FLAGS).unwrap_or(0) & PRESENT != 0;
    let length = if presence { 1 } else { usize::try_from(exthdr.u32(uapi::exthdr::LEN)?).ok()? };
    Some(Expr::ExtHdr {
        destination: register(&exthdr, uapi::exthdr::DREG, length)?,
        kind: exthdr.u8(uapi::exthdr::TYPE)?,
        offset: exthdr.u32(uapi::exthdr::OFFSET).unwrap_or(0),
        op: exthdr.u32(uapi::exthdr::OP).unwrap_or(0),
        presence,
    })
}

fn numgen(bytes: &[u8]) -> Option<Expr> {
    let numgen = uapi::numgen::attributes(bytes).ok()?;
    Some(Expr::Numgen {
        destination: slice(numgen.u32(uapi::numgen::DREG)?, 4)?,
        modulus: numgen.u32(uapi::numgen::MODULUS)?,
        random: flag(numgen.u32(uapi::numgen::TYPE)?)?,
        offset: numgen.u32(uapi::numgen::OFFSET).unwrap_or(0),
    })
}

fn hash(bytes: &[u8]) -> Option<Expr> {
    let hash = uapi::hash::attributes(bytes).ok()?;
    Some(Expr::Hash {
        destination: slice(hash.u32(uapi::hash::DREG)?, 4)?,
        modulus: hash.u32(uapi::hash::MODULUS)?,
        offset: hash.u32(uapi::hash::OFFSET).unwrap_or(0),
    })
}

/// A value, where nothing else makes sense.
pub(crate) fn value(bytes: &[u8]) -> Option<&[u8]> {
    match data(bytes)? {
        Data::Value(value) => Some(value),
        Data::Verdict(_) => None,
    }
}

/// A register that need not be given: `Some(None)` if it is not, `None` if it is no register.
#[expect(clippy::option_option, reason = "the outer one is for `?`: the expression is not as it should be")]
fn register<const N: usize>(
    attributes: &Attributes<'_, N>,
    number: usize,
    length: usize,
) -> Option<Option<RegisterSlice>> {
    match attributes.u32(number) {
        Some(register) => slice(register, length).map(Some),
        None => Some(None),
    }
}

/// A number of which only 0 and 1 are known.
fn flag(number: u32) -> Option<bool> {
    match number {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
