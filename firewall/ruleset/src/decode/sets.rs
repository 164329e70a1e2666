//! Sets, and their elements.

use super::expr::{Data, Surroundings, data, inner_expressions, value};
use crate::attributes::{DecodeError, list};
use crate::model::{Element, Set, SetFlags};
use crate::uapi;

/// A set without its elements.
pub(crate) fn set(bytes: &[u8]) -> Result<Set, DecodeError> {
    let set = uapi::set::attributes(bytes)?;
    let missing = |attribute| DecodeError::Missing { about: "set", attribute };
    let key_type = set.u32(uapi::set::KEY_TYPE).unwrap_or(0);
    let key_len = set.u32(uapi::set::KEY_LEN).ok_or_else(|| missing("length of keys"))?;
    let mut fields = set.bytes(uapi::set::DESC).map_or_else(|| Ok(Vec::new()), fields)?;
    if fields.is_empty() {
        fields = fields_by_type(key_type, key_len).unwrap_or_default();
    }
    Ok(Set {
        name: set.name(uapi::set::NAME).ok_or_else(|| missing("name"))?,
        handle: set.u64(uapi::set::HANDLE).unwrap_or(0),
        flags: flags(set.u32(uapi::set::FLAGS).unwrap_or(0)),
        key_type,
        key_len,
        fields,
        data_type: set.u32(uapi::set::DATA_TYPE).unwrap_or(0),
        data_len: set.u32(uapi::set::DATA_LEN).unwrap_or(0),
        timeout: set.u64(uapi::set::TIMEOUT).filter(|timeout| *timeout != 0),
        elements: Vec::new(),
        cut: false,
    })
}

/// An element.
pub(crate) fn element(bytes: &[u8], around: &dyn Surroundings) -> Result<Element, DecodeError> {
    const INTERVAL_END: u32 = 1;
    const CATCH_ALL: u32 = 2;
    let element = uapi::element::attributes(bytes)?;
    let flags = element.u32(uapi::element::FLAGS).unwrap_or(0);
    let catch_all = flags & CATCH_ALL != 0;
    let key = element.bytes(uapi::element::KEY).and_then(value).filter(|key| !key.is_empty());
    let missing = DecodeError::Missing { about: "set element", attribute: "key" };
    let (mut mapped, mut verdict) = (None, None);
    match element.bytes(uapi::element::DATA).and_then(data) {
        Some(Data::Value(value)) => mapped = Some(value.into()),
        Some(Data::Verdict(code)) => verdict = Some(code),
        None => {}
    }
    Ok(Element {
        key: if catch_all { Box::default() } else { key.ok_or(missing)?.into() },
        key_end: element.bytes(uapi::element::KEY_END).and_then(value).map(Into::into),
        interval_end: flags & INTERVAL_END != 0,
        catch_all,
        data: mapped,
        verdict,
        object: element.name(uapi::element::OBJREF),
        exprs: inner_expressions(
            element.bytes(uapi::element::EXPR),
            element.bytes(uapi::element::EXPRESSIONS),
            around,
        ),
        expires: element.u64(uapi::element::EXPIRATION),
    })
}

/// `NFT_SET_*`.
fn flags(bits: u32) -> SetFlags {
    let has = |bit| bits & bit != 0;
    SetFlags {
        anonymous: has(0x1),
        constant: has(0x2),
        interval: has(0x4),
        map: has(0x8),
        timeout: has(0x10),
        eval: has(0x20),
        object: has(0x40),
        concat: has(0x80),
    }
}

/// The lengths of a concatenation's fields, from a set's description.
fn fields(bytes: &[u8]) -> Result<Vec<u32>, DecodeError> {
    let description = uapi::set_desc::attributes(bytes)?;
    let mut fields = Vec::new();
    for field in list(description.bytes(uapi::set_desc::CONCAT).unwrap_or_default()) {
        let field = uapi::set_field::attributes(field?)?;
        fields.push(
            field
                .u32(uapi::set_field::LEN)
                .ok_or(DecodeError::Missing { about: "set", attribute: "length of a field" })?,
        );
    }
    Ok(fields)
}

/// The lengths of a concatenation's fields, from the numbers that nft has for the types of data (`enum datatypes`), six bits for
/// each. The kernel tells the lengths of intervals only. Others than nft may number as they like: where the sum is not that
/// of the key, there are no fields.
fn fields_by_type(key_type: u32, key_len: u32) -> Option<Vec<u32>> {
    const BITS: u32 = 6;
    let mut fields = Vec::new();
    let mut rest = key_type;
    while rest != 0 {
        fields.push(match rest % (1 << BITS) {
            // Flags, protocols, ICMP's types and codes, DSCP, days and the like.
            2 | 12 | 14..=17 | 27 | 29 | 31..=34 | 36 | 37 | 39 | 42 | 45 => 1,
            // Ethernet's types, ARP's operations, ports, types of devices.
            10 | 11 | 13 | 21 => 2,
            // IPv4, marks, devices, realms, classes, users, states, groups, hours.
            7 | 19 | 20 | 22..=26 | 28 | 35 | 38 | 40 | 44 => 4,
            // Ethernet's addresses.
            9 => 6,
            // Times and control groups.
            18 | 43 | 46 => 8,
            // IPv6, labels, names of devices.
            8 | 30 | 41 => 16,
            _ => return None,
        });
        rest >>= BITS;
    }
    fields.reverse();
    let sum: u32 = fields.iter().map(|length: &u32| length.next_multiple_of(4)).sum();
    (fields.len() > 1 && sum == key_len).then_some(fields)
}
