//! What is asked of a packet: the left side of a condition, as registers hold it.

use super::kind::{Kind, Order};
use super::symbols;
use crate::model::{CtKey, Direction, MetaKey, PayloadBase, RegisterSlice};

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// Bytes of a header.
    Header {
        /// Which one.
        base: PayloadBase,
        /// The first byte.
        offset: u32,
        /// How many.
        length: u32,
    },
    /// A property of the packet.
    Meta(MetaKey),
    /// A constant.
    Constant(Box<[u8]>),
    /// `(of & mask) ^ xor`
    Bits {
        /// Of what.
        of: Box<Subject>,
        /// The bits that count.
        mask: Box<[u8]>,
        /// The bits that are turned round.
        xor: Box<[u8]>,
    },
    /// What has its words already.
    Words {
        /// What nft calls it, or why it has no name.
        text: String,
        /// Of what kind its value is.
        kind: Kind,
    },
}

/// A part of the registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    /// The first byte.
    pub(super) at: u8,
    /// How many.
    pub(super) length: u8,
    /// What is there.
    pub(super) subject: Subject,
    /// The order of its bytes.
    pub(super) order: Order,
}

/// What the registers hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Registers {
    held: Vec<Held>,
}

impl Registers {
    /// Something is loaded.
    pub(super) fn load(&mut self, slice: RegisterSlice, subject: Subject, order: Order) {
        let (from, to) = (u16::from(slice.offset), end(slice.offset, slice.length));
        self.held.retain(|held| end(held.at, held.length) <= from || to <= u16::from(held.at));
        self.held.push(Held { at: slice.offset, length: slice.length, subject, order });
    }

    /// What a slice consists of: one part, or those of a concatenation, of which each begins at a multiple of four.
    pub(super) fn parts(&self, slice: RegisterSlice) -> Vec<Held> {
        let mut parts = Vec::new();
        let (mut at, end) = (u16::from(slice.offset), end(slice.offset, slice.length));
        while at < end {
            let left = u8::try_from(end - at).unwrap_or(u8::MAX);
            let held = self.held.iter().find(|held| u16::from(held.at) == at && held.length > 0);
            let mut part = held.cloned().unwrap_or_else(|| Held {
                at: u8::try_from(at).unwrap_or(u8::MAX),
                length: left,
                subject: Subject::Words { text: "a register that nothing loads".to_owned(), kind: Kind::Raw },
                order: Order::Network,
            });
            part.length = part.length.min(left);
            at += u16::from(part.length).next_multiple_of(4);
            parts.push(part);
        }
        parts
    }

    /// Whether the same thing that begins at `first` goes on at `second`, such as the value of a map.
    pub(super) fn continues(&self, first: RegisterSlice, second: RegisterSlice) -> bool {
        self.held.iter().any(|held| {
            held.at == first.offset
                && held.at < second.offset
                && u16::from(second.offset) < end(held.at, held.length)
        })
    }
}

fn end(at: u8, length: u8) -> u16 {
    u16::from(at) + u16::from(length)
}

/// A property of packets, as nft has it, and of what kind it is.
pub(super) fn meta(key: MetaKey) -> (String, Kind) {
    use Kind::{Class, Device, DeviceIndex, Hour, Mark, Named, Number, Text, Time};
    let (name, kind) = match key {
        MetaKey::Iif => return ("iif".to_owned(), DeviceIndex),
        MetaKey::Oif => return ("oif".to_owned(), DeviceIndex),
        MetaKey::IifName => return ("iifname".to_owned(), Device),
        MetaKey::OifName => return ("oifname".to_owned(), Device),
        MetaKey::IifGroup => return ("iifgroup".to_owned(), Kind::Quoted(symbols::DEVICE_GROUP)),
        MetaKey::OifGroup => return ("oifgroup".to_owned(), Kind::Quoted(symbols::DEVICE_GROUP)),
        MetaKey::Length => ("length", Number),
        MetaKey::Protocol => ("protocol", Named(symbols::ETHER_TYPE)),
        MetaKey::Priority => ("priority", Class),
        MetaKey::Mark => ("mark", Mark),
        MetaKey::IifType => ("iiftype", Named(symbols::DEVICE_TYPE)),
        MetaKey::OifType => ("oiftype", Named(symbols::DEVICE_TYPE)),
        MetaKey::SkUid => ("skuid", Number),
        MetaKey::SkGid => ("skgid", Number),
        MetaKey::NfTrace => ("nftrace", Number),
        MetaKey::RtClassId => ("rtclassid", Number),
        MetaKey::SecMark => ("secmark", Number),
        MetaKey::NfProto => ("nfproto", Named(symbols::NETWORK)),
        MetaKey::L4Proto => ("l4proto", Named(symbols::PROTOCOL)),
        MetaKey::BridgeIifName => ("ibrname", Device),
        MetaKey::BridgeOifName => ("obrname", Device),
        MetaKey::PktType => ("pkttype", Named(symbols::PKT_TYPE)),
        MetaKey::Cpu => ("cpu", Number),
        MetaKey::Cgroup => ("cgroup", Number),
        MetaKey::Random => ("random", Number),
        MetaKey::SecPath => ("ipsec", Named(symbols::PRESENCE)),
        MetaKey::IifKind => ("iifkind", Text),
        MetaKey::OifKind => ("oifkind", Text),
        MetaKey::Time => ("time", Time),
        MetaKey::Day => ("day", Kind::Quoted(symbols::WEEKDAY)),
        MetaKey::Hour => ("hour", Hour),
        MetaKey::SdIif => ("sdif", DeviceIndex),
        MetaKey::SdIifName => ("sdifname", Device),
        MetaKey::Other(number) => return (format!("meta `{number}`"), Kind::Raw),
    };
    (format!("meta {name}"), kind)
}

/// The order of a property's bytes.
pub(super) fn meta_order(key: MetaKey) -> Order {
    // The protocol of the frame is as it stands there, and nft takes what is random so.
    if matches!(key, MetaKey::Protocol | MetaKey::Random) { Order::Network } else { Order::Host }
}

/// A property of connections, as nft has it, of what kind it is, and the order of its bytes.
pub(super) fn ct(key: CtKey, direction: Option<Direction>) -> (String, Kind, Order) {
    use Kind::{Duration, Flags, Ipv4, Ipv6, Mark, Named, Number, Raw, Text};
    use Order::{Host, Network};
    let (name, kind, order) = match key {
        CtKey::State => ("state", Flags(symbols::CT_STATE), Host),
        CtKey::Direction => ("direction", Named(symbols::CT_DIRECTION), Host),
        CtKey::Status => ("status", Flags(symbols::CT_STATUS), Host),
        CtKey::Mark => ("mark", Mark, Host),
        CtKey::SecMark => ("secmark", Number, Host),
        CtKey::Expiration => ("expiration", Duration, Host),
        CtKey::Helper => ("helper", Text, Host),
        CtKey::L3Proto => ("l3proto", Named(symbols::NETWORK), Host),
        CtKey::Saddr => ("saddr", Raw, Network),
        CtKey::Daddr => ("daddr", Raw, Network),
        CtKey::Protocol => ("protocol", Named(symbols::PROTOCOL), Network),
        CtKey::ProtoSrc => ("proto-src", Number, Network),
        CtKey::ProtoDst => ("proto-dst", Number, Network),
        CtKey::Labels => ("label", Raw, Host),
        CtKey::Packets => ("packets", Number, Host),
        CtKey::Bytes => ("bytes", Number, Host),
        CtKey::AvgPkt => ("avgpkt", Number, Host),
        CtKey::Zone => ("zone", Number, Host),
        CtKey::EventMask => ("event", Flags(symbols::CT_EVENT), Host),
        CtKey::SaddrIp => ("ip saddr", Ipv4, Network),
        CtKey::DaddrIp => ("ip daddr", Ipv4, Network),
        CtKey::SaddrIp6 => ("ip6 saddr", Ipv6, Network),
        CtKey::DaddrIp6 => ("ip6 daddr", Ipv6, Network),
        CtKey::Id => ("id", Number, Network),
        CtKey::Other(number) => return (format!("ct `{number}`"), Raw, Host),
    };
    let direction = match direction {
        Some(Direction::Original) => "original ",
        Some(Direction::Reply) => "reply ",
        None => "",
    };
    (format!("ct {direction}{name}"), kind, order)
}
