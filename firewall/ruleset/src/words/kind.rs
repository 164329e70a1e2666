//! Kinds of values, and how nft writes a value of each.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::symbols::{self, Symbols};
use super::text::{printable, quoted};
use crate::model::Name;

/// For whom rules are put into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// For people: as nft prints them.
    Nft,
    /// For comparing, in one form for all versions of nft: without quotes, each property with its `meta`.
    Plain,
}

/// Of what kind a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An address of IPv4.
    Ipv4,
    /// An address of IPv6.
    Ipv6,
    /// A hardware address.
    Mac,
    /// A number that stands as it is.
    Number,
    /// A mark: a number in hexadecimal digits.
    Mark,
    /// A number that may have a name.
    Named(Symbols),
    /// The same, with the name in quotes.
    Quoted(Symbols),
    /// Bits with names.
    Flags(Symbols),
    /// The name of a device, which may stand for all that begin so.
    Device,
    /// The number of a device.
    DeviceIndex,
    /// Text, such as the name of a helper.
    Text,
    /// A class of traffic control.
    Class,
    /// Seconds since midnight, UTC.
    Hour,
    /// Nanoseconds since 1970.
    Time,
    /// A time span, in milliseconds.
    Duration,
    /// Bytes that nothing is known about.
    Raw,
}

/// The order of a number's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// The machine's.
    Host,
    /// The network's: the highest first.
    Network,
}

/// What is needed beside a value to write it.
#[derive(Clone, Copy)]
pub(super) struct Writer<'a> {
    /// For whom.
    pub(super) style: Style,
    /// The names of devices by their numbers.
    pub(super) devices: &'a dyn Fn(u32) -> Option<Name>,
}

impl Writer<'_> {
    /// A value.
    pub(super) fn value(&self, kind: Kind, order: Order, bytes: &[u8]) -> String {
        let number = number(bytes, order);
        let Some(value) = number else { return hexadecimal(bytes) };
        match kind {
            Kind::Ipv4 => match <[u8; 4]>::try_from(bytes) {
                Ok(octets) => Ipv4Addr::from(octets).to_string(),
                Err(_) => hexadecimal(bytes),
            },
            Kind::Ipv6 => match <[u8; 16]>::try_from(bytes) {
                Ok(octets) => Ipv6Addr::from(octets).to_string(),
                Err(_) => hexadecimal(bytes),
            },
            Kind::Mac => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"),
            Kind::Number => value.to_string(),
            Kind::Mark => format!("{value:#010x}"),
            Kind::Named(symbols) => {
                symbols::name(symbols, value).map_or_else(|| value.to_string(), str::to_owned)
            }
            Kind::Quoted(symbols) => {
                symbols::name(symbols, value).map_or_else(|| value.to_string(), |name| self.quoted(name))
            }
            Kind::Flags(symbols) => {
                symbols::bits(symbols, value).map_or_else(|| format!("{value:#x}"), |names| names.join(" | "))
            }
            Kind::Device => self.device_name(bytes),
            Kind::DeviceIndex => self.device_index(value),
            Kind::Text => self.quoted(&Name::new(bytes).to_string()),
            Kind::Class => match value {
                0 => "none".to_owned(),
                0xffff_ffff => "root".to_owned(),
                _ => format!("{:x}:{:x}", value >> 16, value & 0xffff),
            },
            Kind::Hour => format!("\"{}\"", time_of_day(value)),
            Kind::Time => format!("\"{}\"", time(value)),
            Kind::Duration => duration(u64::try_from(value).unwrap_or(u64::MAX)),
            Kind::Raw => format!("{value:#x}"),
        }
    }

    /// A range, both ends included; a network if it is one.
    pub(super) fn range(&self, kind: Kind, order: Order, first: &[u8], last: &[u8]) -> String {
        if first == last {
            return self.value(kind, order, first);
        }
        if let Some(length) = prefix_of_range(first, last) {
            match kind {
                Kind::Ipv4 | Kind::Ipv6 => return format!("{}/{length}", self.value(kind, order, first)),
                Kind::Device if length % 8 == 0 => {
                    return self.device_name(first.get(..length / 8).unwrap_or(first));
                }
                _ => {}
            }
        }
        format!("{}-{}", self.value(kind, order, first), self.value(kind, order, last))
    }

    /// A name in quotes, where they are wanted.
    pub(super) fn quoted(&self, text: &str) -> String {
        match self.style {
            Style::Nft => quoted(text),
            Style::Plain => printable(text),
        }
    }

    /// A name that fills all of its bytes without a NUL stands for all that begin so.
    fn device_name(&self, bytes: &[u8]) -> String {
        const MAX_DEVICE_NAME_BYTES: usize = 16;
        let name = Name::new(bytes).to_string();
        let all = !bytes.contains(&0) && bytes.len() < MAX_DEVICE_NAME_BYTES;
        self.quoted(&if all { format!("{name}*") } else { name })
    }

    fn device_index(&self, value: u128) -> String {
        let name = u32::try_from(value).ok().and_then(|index| (self.devices)(index));
        match name {
            Some(name) => self.quoted(&name.to_string()),
            // It has this number in every network namespace.
            None if value == 1 => self.quoted("lo"),
            None => value.to_string(),
        }
    }
}

/// Bytes as a number; `None` for more than there is a number for.
pub(super) fn number(bytes: &[u8], order: Order) -> Option<u128> {
    let add = |sum: u128, byte: &u8| sum << 8 | u128::from(*byte);
    match order {
        _ if bytes.len() > 16 => None,
        Order::Host if cfg!(target_endian = "little") => Some(bytes.iter().rev().fold(0, add)),
        Order::Host | Order::Network => Some(bytes.iter().fold(0, add)),
    }
}

/// A number of the network's order, shifted to the right.
pub(super) fn shifted(value: &[u8], by: u32) -> Vec<u8> {
    match number(value, Order::Network) {
        Some(bits) if by > 0 => {
            bits.checked_shr(by).unwrap_or_default().to_be_bytes()[16 - value.len()..].to_vec()
        }
        _ => value.to_vec(),
    }
}

/// How many bits a mask has in front, if it has none behind a gap.
pub(super) fn prefix_of_mask(mask: &[u8]) -> Option<usize> {
    let mask = number(mask, Order::Network).map(|value| (value, mask.len() * 8))?;
    let (value, width) = mask;
    let ones = value.count_ones() as usize;
    (value.trailing_zeros().min(u32::try_from(width).unwrap_or(u32::MAX)) as usize + ones == width)
        .then_some(ones)
}

fn prefix_of_range(first: &[u8], last: &[u8]) -> Option<usize> {
    if first.len() != last.len() {
        return None;
    }
    let differing: Vec<u8> = first.iter().zip(last).map(|(first, last)| first ^ last).collect();
    let mask: Vec<u8> = differing.iter().map(|byte| !byte).collect();
    let length = prefix_of_mask(&mask)?;
    first.iter().zip(&differing).all(|(byte, open)| byte & open == 0).then_some(length)
}

/// A duration, given in milliseconds, as nft has it: `1d2h3m4s5ms`.
pub(super) fn duration(milliseconds: u64) -> String {
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let parts = [
        (seconds / 86400, "d"),
        (seconds / 3600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (rest, "ms"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let words: Vec<String> = parts.map(|(count, unit)| format!("{count}{unit}")).collect();
    if words.is_empty() { "0s".to_owned() } else { words.concat() }
}

fn hexadecimal(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{}", digits.concat())
}

fn time_of_day(seconds: u128) -> String {
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match second {
        0 => format!("{hour:02}:{minute:02}"),
        _ => format!("{hour:02}:{minute:02}:{second:02}"),
    }
}

/// The civil calendar of days since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn time(nanoseconds: u128) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let (days, rest) = (seconds / 86400 + 719_468, seconds % 86400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u128::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

/// The kinds of the fields of a type, as nft numbers types (`enum datatypes`), and the bytes that each takes.
pub(super) fn kinds_of_type(number: u32) -> Vec<(Kind, Order, usize)> {
    let mut kinds = Vec::new();
    let mut rest = number;
    while rest > 0 {
        kinds.push(kind_of_type(rest & 0x3f));
        rest >>= 6;
    }
    kinds.reverse();
    kinds
}

fn kind_of_type(number: u32) -> (Kind, Order, usize) {
    use Kind::{
        Class, Device, DeviceIndex, Duration, Flags, Hour, Ipv4, Ipv6, Mac, Mark, Named, Number, Raw, Text,
        Time,
    };
    use Order::{Host, Network};
    match number {
        2 => (Named(symbols::NETWORK), Network, 1),
        5 => (Text, Host, 16),
        6 | 9 => (Mac, Network, 6),
        7 => (Ipv4, Network, 4),
        8 => (Ipv6, Network, 16),
        10 => (Named(symbols::ETHER_TYPE), Network, 2),
        11 => (Named(symbols::ARP_OPERATION), Network, 2),
        12 => (Named(symbols::PROTOCOL), Network, 1),
        13 => (Number, Network, 2),
        14 => (Named(symbols::ICMP_TYPE), Network, 1),
        15 => (Flags(symbols::TCP_FLAGS), Network, 1),
        18 => (Duration, Host, 8),
        19 => (Mark, Host, 4),
        20 => (DeviceIndex, Host, 4),
        21 => (Named(symbols::DEVICE_TYPE), Host, 2),
        22 | 24 | 25 | 46 => (Number, Host, 4),
        23 => (Class, Host, 4),
        26 => (Flags(symbols::CT_STATE), Host, 4),
        27 => (Named(symbols::CT_DIRECTION), Host, 1),
        28 => (Flags(symbols::CT_STATUS), Host, 4),
        29 => (Named(symbols::ICMPV6_TYPE), Network, 1),
        31 => (Named(symbols::PKT_TYPE), Host, 1),
        32 => (Named(symbols::ICMP_CODE), Network, 1),
        33 => (Named(symbols::ICMPV6_CODE), Network, 1),
        34 => (Named(symbols::ICMPX_CODE), Network, 1),
        35 => (Kind::Quoted(symbols::DEVICE_GROUP), Host, 4),
        36 => (Named(symbols::DSCP), Network, 1),
        37 => (Named(symbols::ECN), Network, 1),
        38 => (Named(symbols::ADDRESS_TYPE), Host, 4),
        39 => (Named(symbols::PRESENCE), Host, 1),
        41 => (Device, Host, 16),
        42 => (Named(symbols::IGMP_TYPE), Network, 1),
        43 => (Time, Host, 8),
        44 => (Hour, Host, 4),
        45 => (Kind::Quoted(symbols::WEEKDAY), Host, 1),
        _ => (Raw, Network, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nft() -> Writer<'static> {
        Writer { style: Style::Nft, devices: &|_| None }
    }

    #[test]
    fn values_read_as_nft_writes_them() {
        let value = |kind, bytes: &[u8]| nft().value(kind, Order::Network, bytes);
        assert_eq!(value(Kind::Ipv6, &[0; 16]), "::");
        assert_eq!(value(Kind::Mark, &[1, 0xff]), "0x000001ff");
        assert_eq!(value(Kind::Named(symbols::ICMP_TYPE), &[8]), "echo-request");
        assert_eq!(value(Kind::Named(symbols::ICMP_TYPE), &[99]), "99");
        assert_eq!(value(Kind::Flags(symbols::TCP_FLAGS), &[0x12]), "syn | ack");
        assert_eq!(value(Kind::Device, b"eth0\0\0\0\0\0\0\0\0\0\0\0\0"), "\"eth0\"");
        assert_eq!(value(Kind::Device, b"eth"), "\"eth*\"");
        assert_eq!(value(Kind::DeviceIndex, &[0, 0, 0, 1]), "\"lo\"");
        assert_eq!(value(Kind::DeviceIndex, &[0, 0, 0, 7]), "7");
        assert_eq!(value(Kind::Hour, &[0, 0, 0x7e, 0x90]), "\"09:00\"");
        assert_eq!(
            value(Kind::Time, &1_591_455_600_000_000_000_u64.to_be_bytes()),
            "\"2020-06-06 15:00:00\""
        );
        assert_eq!(value(Kind::Ipv4, &[1, 2, 3]), "0x010203");
    }

    #[test]
    fn a_range_is_a_network_where_it_is_one() {
        let range = |kind, first: &[u8], last: &[u8]| nft().range(kind, Order::Network, first, last);
        assert_eq!(range(Kind::Ipv4, &[10, 0, 0, 0], &[10, 255, 255, 255]), "10.0.0.0/8");
        assert_eq!(range(Kind::Ipv4, &[10, 0, 0, 1], &[10, 255, 255, 255]), "10.0.0.1-10.255.255.255");
        assert_eq!(range(Kind::Ipv4, &[0; 4], &[255; 4]), "0.0.0.0/0");
        assert_eq!(range(Kind::Number, &[0, 16], &[0, 31]), "16-31");
        assert_eq!(range(Kind::Device, b"eth\0", b"eth\xff"), "\"eth*\"");
    }

    #[test]
    fn durations_have_the_units_of_nft() {
        assert_eq!(duration(60_000), "1m");
        assert_eq!(duration(90_061_001), "1d1h1m1s1ms");
    }

    #[test]
    fn types_of_concatenations_have_one_kind_for_each_field() {
        let kinds: Vec<_> = kinds_of_type((0x7 << 6) | 0xd).into_iter().map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, [Kind::Ipv4, Kind::Number]);
    }
}
