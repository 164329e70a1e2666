//! Fields of headers: the name of what stands at an offset.

use super::kind::{Kind, Order};
use super::symbols;
use crate::model::{Family, PayloadBase};

/// A field of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    /// The header, as nft calls it.
    pub(super) header: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// The first bit, counted from the header's base.
    pub(super) offset: u32,
    /// How many bits it has.
    pub(super) length: u32,
    /// Of what kind it is.
    pub(super) kind: Kind,
}

impl Field {
    /// As nft has it.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.header, self.name)
    }

    /// The bit behind it.
    pub(super) fn end(&self) -> u32 {
        self.offset + self.length
    }
}

/// Values of fields stand in the network's order.
pub(super) const ORDER: Order = Order::Network;

/// What is known of a packet's headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Headers {
    /// The family of the network's header: `Ip`, `Ip6` or `Arp`.
    pub(super) network: Option<Family>,
    /// The protocol of the transport's.
    pub(super) transport: Option<u8>,
}

/// The field that begins at a bit of a header.
pub(super) fn field_at(base: PayloadBase, headers: Headers, offset: u32) -> Option<Field> {
    fields(base, headers).find(|field| field.offset == offset)
}

/// The field of exactly these bits.
pub(super) fn field(base: PayloadBase, headers: Headers, offset: u32, length: u32) -> Option<Field> {
    fields(base, headers).find(|field| field.offset == offset && field.length == length)
}

/// Bits that nobody has a name for.
pub(super) fn raw(base: PayloadBase, offset: u32, length: u32) -> String {
    let base = match base {
        PayloadBase::Link => "ll",
        PayloadBase::Network => "nh",
        PayloadBase::Transport => "th",
        PayloadBase::Inner => "ih",
    };
    format!("@{base},{offset},{length}")
}

fn fields(base: PayloadBase, headers: Headers) -> impl Iterator<Item = Field> {
    let (header, fields): (&'static str, &'static [Row]) = match base {
        PayloadBase::Link => ("ether", ETHER),
        PayloadBase::Network => match headers.network {
            Some(Family::Ip) => ("ip", IP),
            Some(Family::Ip6) => ("ip6", IP6),
            Some(Family::Arp) => ("arp", ARP),
            _ => ("", &[]),
        },
        PayloadBase::Transport => match headers.transport {
            Some(1) => ("icmp", ICMP),
            Some(2) => ("igmp", IGMP),
            Some(6) => ("tcp", TCP),
            Some(17) => ("udp", UDP),
            Some(33) => ("dccp", DCCP),
            Some(50) => ("esp", ESP),
            Some(51) => ("ah", AH),
            Some(58) => ("icmpv6", ICMPV6),
            Some(132) => ("sctp", SCTP),
            Some(136) => ("udplite", UDPLITE),
            Some(_) | None => ("th", PORTS),
        },
        PayloadBase::Inner => ("", &[]),
    };
    fields.iter().map(move |row| {
        // The tag of a VLAN stands behind the frame's own header.
        let header = if base == PayloadBase::Link && row.1 >= 112 { "vlan" } else { header };
        Field { header, name: row.0, offset: row.1, length: row.2, kind: row.3 }
    })
}

/// Name, first bit, bits, kind.
type Row = (&'static str, u32, u32, Kind);

const ETHER: &[Row] = &[
    ("daddr", 0, 48, Kind::Mac),
    ("saddr", 48, 48, Kind::Mac),
    ("type", 96, 16, Kind::Named(symbols::ETHER_TYPE)),
    ("pcp", 112, 3, Kind::Number),
    ("dei", 115, 1, Kind::Number),
    ("id", 116, 12, Kind::Number),
    ("type", 128, 16, Kind::Named(symbols::ETHER_TYPE)),
];
const IP: &[Row] = &[
    ("version", 0, 4, Kind::Number),
    ("hdrlength", 4, 4, Kind::Number),
    ("dscp", 8, 6, Kind::Named(symbols::DSCP)),
    ("ecn", 14, 2, Kind::Named(symbols::ECN)),
    ("length", 16, 16, Kind::Number),
    ("id", 32, 16, Kind::Number),
    ("frag-off", 48, 16, Kind::Number),
    ("ttl", 64, 8, Kind::Number),
    ("protocol", 72, 8, Kind::Named(symbols::PROTOCOL)),
    ("checksum", 80, 16, Kind::Number),
    ("saddr", 96, 32, Kind::Ipv4),
    ("daddr", 128, 32, Kind::Ipv4),
];
const IP6: &[Row] = &[
    ("version", 0, 4, Kind::Number),
    ("dscp", 4, 6, Kind::Named(symbols::DSCP)),
    ("ecn", 10, 2, Kind::Named(symbols::ECN)),
    ("flowlabel", 12, 20, Kind::Number),
    ("length", 32, 16, Kind::Number),
    ("nexthdr", 48, 8, Kind::Named(symbols::PROTOCOL)),
    ("hoplimit", 56, 8, Kind::Number),
    ("saddr", 64, 128, Kind::Ipv6),
    ("daddr", 192, 128, Kind::Ipv6),
];
const ARP: &[Row] = &[
    ("htype", 0, 16, Kind::Number),
    ("ptype", 16, 16, Kind::Named(symbols::ETHER_TYPE)),
    ("hlen", 32, 8, Kind::Number),
    ("plen", 40, 8, Kind::Number),
    ("operation", 48, 16, Kind::Named(symbols::ARP_OPERATION)),
    ("saddr ether", 64, 48, Kind::Mac),
    ("saddr ip", 112, 32, Kind::Ipv4),
    ("daddr ether", 144, 48, Kind::Mac),
    ("daddr ip", 192, 32, Kind::Ipv4),
];
const PORTS: &[Row] = &[("sport", 0, 16, Kind::Number), ("dport", 16, 16, Kind::Number)];
const TCP: &[Row] = &[
    ("sport", 0, 16, Kind::Number),
    ("dport", 16, 16, Kind::Number),
    ("sequence", 32, 32, Kind::Number),
    ("ackseq", 64, 32, Kind::Number),
    ("doff", 96, 4, Kind::Number),
    ("reserved", 100, 4, Kind::Number),
    ("flags", 104, 8, Kind::Flags(symbols::TCP_FLAGS)),
    ("window", 112, 16, Kind::Number),
    ("checksum", 128, 16, Kind::Number),
    ("urgptr", 144, 16, Kind::Number),
];
const UDP: &[Row] = &[
    ("sport", 0, 16, Kind::Number),
    ("dport", 16, 16, Kind::Number),
    ("length", 32, 16, Kind::Number),
    ("checksum", 48, 16, Kind::Number),
];
const UDPLITE: &[Row] = &[
    ("sport", 0, 16, Kind::Number),
    ("dport", 16, 16, Kind::Number),
    ("csumcov", 32, 16, Kind::Number),
    ("checksum", 48, 16, Kind::Number),
];
const SCTP: &[Row] = &[
    ("sport", 0, 16, Kind::Number),
    ("dport", 16, 16, Kind::Number),
    ("vtag", 32, 32, Kind::Number),
    ("checksum", 64, 32, Kind::Number),
];
const DCCP: &[Row] =
    &[("sport", 0, 16, Kind::Number), ("dport", 16, 16, Kind::Number), ("type", 65, 4, Kind::Number)];
const ICMP: &[Row] = &[
    ("type", 0, 8, Kind::Named(symbols::ICMP_TYPE)),
    ("code", 8, 8, Kind::Named(symbols::ICMP_CODE)),
    ("checksum", 16, 16, Kind::Number),
    ("id", 32, 16, Kind::Number),
    ("sequence", 48, 16, Kind::Number),
    ("gateway", 32, 32, Kind::Number),
];
const ICMPV6: &[Row] = &[
    ("type", 0, 8, Kind::Named(symbols::ICMPV6_TYPE)),
    ("code", 8, 8, Kind::Named(symbols::ICMPV6_CODE)),
    ("checksum", 16, 16, Kind::Number),
    ("id", 32, 16, Kind::Number),
    ("sequence", 48, 16, Kind::Number),
    ("packet-too-big", 32, 32, Kind::Number),
];
const IGMP: &[Row] = &[
    ("type", 0, 8, Kind::Named(symbols::IGMP_TYPE)),
    ("mrt", 8, 8, Kind::Number),
    ("checksum", 16, 16, Kind::Number),
    ("group", 32, 32, Kind::Ipv4),
];
const AH: &[Row] =
    &[("hdrlength", 8, 8, Kind::Number), ("spi", 32, 32, Kind::Number), ("sequence", 64, 32, Kind::Number)];
const ESP: &[Row] = &[("spi", 0, 32, Kind::Number), ("sequence", 32, 32, Kind::Number)];
