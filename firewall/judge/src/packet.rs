//! The first packet of a TCP connection, as far as it is known, and what rules have done to it so far.

use std::net::IpAddr;

use zone_ruleset::{CtKey, Direction, Family, MetaKey, Name, PayloadBase};

use crate::bytes::{Byte, known, values};
use crate::device::{Device, INTERFACE};
use crate::host::Interface;
use crate::question::Question;
use crate::region::Dimension;

/// IPPROTO_TCP.
const TCP: u8 = 6;
/// The flag SYN of TCP, and SYN with ACK.
const SYN: u8 = 0x02;
const SYN_ACK: u8 = 0x12;
/// `NF_CT_STATE_*` (nf_conntrack_common.h).
const STATE_INVALID: u32 = 1;
const STATE_ESTABLISHED: u32 = 2;
const STATE_NEW: u32 = 8;
const STATE_UNTRACKED: u32 = 64;
/// `IPS_DST_NAT`: its destination is rewritten.
const STATUS_REWRITTEN: u32 = 1 << 5;
/// The bits of a new connection's status (`IPS_*`) that are known: whether addresses were looked at for rewriting
/// (`IPS_SRC_NAT_DONE`, `IPS_DST_NAT_DONE`) is not followed.
const STATUS_KNOWN: u32 = !(1 << 7 | 1 << 8);
/// Where the addresses are in the headers.
const V4_SOURCE: usize = 12;
const V4_DESTINATION: usize = 16;
const V6_SOURCE: usize = 8;
const V6_DESTINATION: usize = 24;

/// Whether the connection of a packet is known to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracking {
    /// It was not looked at yet.
    NotYet,
    /// It is a new one.
    New,
    /// It is the answer to a packet that was let in.
    Answer,
    /// A rule said that it is not to be kept.
    Untracked,
}

/// Everything of a packet but what is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Whether it is of IPv6.
    pub(crate) v6: bool,
    link: [Byte; 14],
    network: [Byte; 40],
    transport: [Byte; 20],
    /// The device that it comes in by; nothing for an answer.
    input: Option<Device>,
    /// The device that it leaves by; nothing for what comes in.
    output: Option<Device>,
    mark: [Byte; 4],
    priority: [Byte; 4],
    /// Its connection.
    pub(crate) tracking: Tracking,
    /// It is not kept because of its port, its address or the like.
    pub(crate) untracked_by_name: bool,
    connection_mark: [Byte; 4],
    /// Where it was to go before a rule rewrote that.
    pub(crate) rewritten: bool,
    /// Sets that it was added to on its way.
    pub(crate) touched: Vec<(Family, Name, Name)>,
}

/// What a rule finds where it looks.
pub(crate) enum Read {
    /// These bytes.
    Bytes(Vec<Byte>),
    /// Nothing: the rule does not match.
    Nothing,
}

impl Packet {
    /// The packets that a question is about, coming in by a device of the host, or by one that is not known.
    pub(crate) fn new(question: &Question, interface: Option<&Interface>) -> Self {
        let mut packet = Self {
            v6: question.v6,
            link: [Byte::unknown("ether"); 14],
            network: [Byte::known(0); 40],
            transport: [Byte::known(0); 20],
            input: Some(Device::new(interface)),
            output: None,
            mark: known(question.mark.to_ne_bytes()),
            priority: [Byte::unknown("meta priority"); 4],
            tracking: Tracking::NotYet,
            untracked_by_name: false,
            connection_mark: known([0; 4]),
            rewritten: false,
            touched: Vec::new(),
        };
        for (index, byte) in packet.link.iter_mut().enumerate() {
            *byte = match (index, question.mac) {
                (0..6, _) => Byte::unknown("ether daddr"),
                (6..12, Some(mac)) => Byte::known(mac[index - 6]),
                (6..12, None) => Byte::unknown("ether saddr"),
                (12, _) => Byte::known(if question.v6 { 0x86 } else { 0x08 }),
                _ => Byte::known(if question.v6 { 0xdd } else { 0x00 }),
            }
            .naming();
        }
        packet.fill_network();
        packet.fill_transport(question);
        packet
    }

    fn fill_network(&mut self) {
        let network = &mut self.network;
        if self.v6 {
            network[0] = Byte::partly(0x60, 0xf0, "ip6 dscp");
            network[1..4].fill(Byte::unknown("ip6 flowlabel"));
            network[4..6].fill(Byte::unknown("ip6 length"));
            network[6] = Byte::known(TCP);
            network[7] = Byte::unknown("ip6 hoplimit");
            for index in 0..16 {
                network[V6_SOURCE + usize::from(index)] = Byte::open(Dimension::Source, index, "ip6 saddr");
                network[V6_DESTINATION + usize::from(index)] =
                    Byte::open(Dimension::Destination, index, "ip6 daddr");
            }
            return;
        }
        network[0] = Byte::known(0x45);
        network[1] = Byte::unknown("ip dscp");
        network[2] = Byte::open(Dimension::Length, 0, "ip length");
        network[3] = Byte::open(Dimension::Length, 1, "ip length");
        network[4..6].fill(Byte::unknown("ip id"));
        // Whether it may be broken up is not known; it is no fragment.
        network[6] = Byte::partly(0, 0xbf, "ip frag-off");
        network[7] = Byte::known(0);
        network[8] = Byte::unknown("ip ttl");
        network[9] = Byte::known(TCP);
        network[10..12].fill(Byte::unknown("ip checksum"));
        for index in 0..4 {
            network[V4_SOURCE + usize::from(index)] = Byte::open(Dimension::Source, index, "ip saddr");
            network[V4_DESTINATION + usize::from(index)] =
                Byte::open(Dimension::Destination, index, "ip daddr");
        }
    }

    fn fill_transport(&mut self, question: &Question) {
        let transport = &mut self.transport;
        for index in 0..2 {
            transport[usize::from(index)] = Byte::open(Dimension::SourcePort, index, "tcp sport");
        }
        let [high, low] = question.port.to_be_bytes();
        transport[2] = Byte::known(high).naming();
        transport[3] = Byte::known(low).naming();
        transport[4..8].fill(Byte::unknown("tcp sequence"));
        transport[8..12].fill(Byte::unknown("tcp ackseq"));
        transport[12] = Byte::partly(0, 0x0f, "tcp doff");
        transport[13] = Byte::known(SYN);
        transport[14..16].fill(Byte::unknown("tcp window"));
        transport[16..18].fill(Byte::unknown("tcp checksum"));
        transport[18..20].fill(Byte::unknown("tcp urgptr"));
    }

    /// The answer to it, on its way out.
    pub(crate) fn answer(&self) -> Self {
        let mut answer = self.clone();
        let (source, destination, length) = self.address_fields();
        for index in 0..length {
            answer.network[source + index] = self.network[destination + index];
            answer.network[destination + index] = self.network[source + index];
        }
        answer.transport[0..2].copy_from_slice(&self.transport[2..4]);
        answer.transport[2..4].copy_from_slice(&self.transport[0..2]);
        answer.transport[13] = Byte::known(SYN_ACK);
        answer.link = [Byte::unknown("ether"); 14];
        answer.network[if self.v6 { 4 } else { 2 }..if self.v6 { 6 } else { 4 }]
            .fill(Byte::unknown("the length of the answer"));
        answer.output = answer.input.take();
        answer.mark = known([0; 4]);
        answer.tracking =
            if self.tracking == Tracking::Untracked { Tracking::Untracked } else { Tracking::Answer };
        answer
    }

    fn address_fields(&self) -> (usize, usize, usize) {
        if self.v6 { (V6_SOURCE, V6_DESTINATION, 16) } else { (V4_SOURCE, V4_DESTINATION, 4) }
    }

    /// The address that it goes to.
    pub(crate) fn destination(&self) -> &[Byte] {
        let (_, at, length) = self.address_fields();
        &self.network[at..at + length]
    }

    /// The address that it comes from.
    pub(crate) fn source(&self) -> &[Byte] {
        let (at, _, length) = self.address_fields();
        &self.network[at..at + length]
    }

    /// The port that it goes to.
    pub(crate) fn port(&self) -> &[Byte] {
        &self.transport[2..4]
    }

    /// The port that it comes from.
    pub(crate) fn source_port(&self) -> &[Byte] {
        &self.transport[0..2]
    }

    /// The flags of TCP.
    pub(crate) fn flags(&self) -> Byte {
        self.transport[13]
    }

    /// Its mark, in the machine's order.
    pub(crate) fn mark(&self) -> [Byte; 4] {
        self.mark
    }

    /// Sets its mark.
    pub(crate) fn set_mark(&mut self, mark: [Byte; 4]) {
        self.mark = mark;
    }

    /// Its connection's mark, if it has a connection.
    pub(crate) fn connection_mark(&self) -> Option<[Byte; 4]> {
        matches!(self.tracking, Tracking::New | Tracking::Answer).then_some(self.connection_mark)
    }

    /// Sets its connection's mark.
    pub(crate) fn set_connection_mark(&mut self, mark: [Byte; 4]) {
        self.connection_mark = mark;
    }

    /// No connection is kept for it, from before it is looked at on.
    pub(crate) fn untrack(&mut self, named: bool) {
        if self.tracking == Tracking::NotYet {
            self.tracking = Tracking::Untracked;
            self.untracked_by_name = named;
        }
    }

    /// The hardware address that it comes from.
    pub(crate) fn hardware_source(&self) -> &[Byte] {
        &self.link[6..12]
    }

    /// Sends it elsewhere.
    pub(crate) fn rewrite_destination(&mut self, address: Option<&[Byte]>, port: Option<&[Byte]>) {
        let (_, at, length) = self.address_fields();
        if let Some(address) = address.filter(|address| address.len() == length) {
            self.network[at..at + length].copy_from_slice(address);
        }
        if let Some(port) = port.filter(|port| port.len() == 2) {
            self.transport[2..4].copy_from_slice(port);
        }
        self.rewritten = true;
    }

    /// The addresses of the device that it comes in by, of its family.
    pub(crate) fn own_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let addresses = self.input.iter().flat_map(|device| &device.addresses);
        addresses.copied().filter(|address| address.is_ipv6() == self.v6)
    }

    /// Whether the device that it comes in by is known.
    pub(crate) fn device_is_known(&self) -> bool {
        self.input.as_ref().is_none_or(|device| device.is_known)
    }

    /// The name of the device that it comes in by.
    pub(crate) fn is_from_device(&self, name: &Name) -> bool {
        let Some(device) = &self.input else { return false };
        let own = Name::new(&values(&device.name).unwrap_or_default());
        match name.as_bytes().strip_suffix(b"*") {
            Some(beginning) => own.as_bytes().starts_with(beginning),
            None => own == *name,
        }
    }

    /// Bytes of a header.
    pub(crate) fn payload(&self, base: PayloadBase, offset: u32, length: u8) -> Read {
        let (header, size): (&[Byte], usize) = match base {
            PayloadBase::Link if self.input.is_some() => (&self.link, 14),
            PayloadBase::Link => return Read::Nothing,
            PayloadBase::Network => (&self.network, if self.v6 { 40 } else { 20 }),
            PayloadBase::Transport => (&self.transport, 20),
            PayloadBase::Inner => (&[], 0),
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = offset.saturating_add(usize::from(length));
        match header.get(offset..end.min(size)) {
            Some(bytes) if end <= size => Read::Bytes(bytes.to_vec()),
            // Options, data, and whatever an odd offset leads to.
            _ => Read::Bytes(vec![Byte::unknown("the rest of the packet"); usize::from(length)]),
        }
    }

    /// Writes bytes into a header.
    pub(crate) fn write_payload(&mut self, base: PayloadBase, offset: u32, bytes: &[Byte]) {
        if base == PayloadBase::Inner {
            return;
        }
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let (_, destination, length) = self.address_fields();
        let is_destination = match base {
            PayloadBase::Network => offset < destination + length && offset + bytes.len() > destination,
            PayloadBase::Transport => offset < 4 && offset + bytes.len() > 2,
            _ => false,
        };
        let header: &mut [Byte] = match base {
            PayloadBase::Link => &mut self.link,
            PayloadBase::Network => &mut self.network,
            _ => &mut self.transport,
        };
        for (to, from) in header.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
        self.rewritten |= is_destination;
    }

    /// A property of the packet.
    pub(crate) fn meta(&self, key: MetaKey) -> Read {
        let zero = Read::Bytes(known([0; 4]).to_vec());
        let unknown = |length: usize, what| Read::Bytes(vec![Byte::unknown(what); length]);
        let device = self.input.as_ref();
        let out = self.output.as_ref();
        let of = |device: Option<&Device>, get: fn(&Device) -> Vec<Byte>| device.map(get);
        match key {
            MetaKey::Length if out.is_some() => unknown(4, "the length of the answer"),
            MetaKey::Length => {
                let open = |index| Byte::open(Dimension::Length, index, "meta length");
                let mut bytes = [Byte::known(0), Byte::known(0), open(0), open(1)];
                if cfg!(target_endian = "little") {
                    bytes.reverse();
                }
                Read::Bytes(bytes.to_vec())
            }
            MetaKey::Protocol => {
                Read::Bytes(known(if self.v6 { [0x86, 0xdd] } else { [0x08, 0x00] }).to_vec())
            }
            MetaKey::NfProto => Read::Bytes(vec![Byte::known(if self.v6 { 10 } else { 2 })]),
            MetaKey::L4Proto => Read::Bytes(vec![Byte::known(TCP)]),
            MetaKey::Mark => Read::Bytes(self.mark.to_vec()),
            MetaKey::Priority => Read::Bytes(self.priority.to_vec()),
            MetaKey::Iif => of(device, |d| d.index.to_vec()).map_or(zero, Read::Bytes),
            MetaKey::Oif => of(out, |d| d.index.to_vec()).map_or(zero, Read::Bytes),
            MetaKey::IifName => {
                Read::Bytes(of(device, |d| d.name.to_vec()).unwrap_or_else(|| known([0; 16]).to_vec()))
            }
            MetaKey::OifName => {
                Read::Bytes(of(out, |d| d.name.to_vec()).unwrap_or_else(|| known([0; 16]).to_vec()))
            }
            MetaKey::IifGroup => of(device, |d| d.group.to_vec()).map_or(Read::Nothing, Read::Bytes),
            MetaKey::OifGroup => of(out, |d| d.group.to_vec()).map_or(Read::Nothing, Read::Bytes),
            MetaKey::IifType => of(device, |d| d.kind.to_vec()).map_or(Read::Nothing, Read::Bytes),
            MetaKey::OifType => of(out, |d| d.kind.to_vec()).map_or(Read::Nothing, Read::Bytes),
            MetaKey::IifKind => Self::kind_of(device),
            MetaKey::OifKind => Self::kind_of(out),
            MetaKey::PktType if out.is_none() => Read::Bytes(vec![Byte::known(0)]),
            MetaKey::PktType => unknown(1, "meta pkttype"),
            MetaKey::SkUid | MetaKey::SkGid if out.is_some() => unknown(4, "the user whose socket it is"),
            MetaKey::SkUid | MetaKey::SkGid | MetaKey::BridgeIifName | MetaKey::BridgeOifName => {
                Read::Nothing
            }
            MetaKey::Hour => unknown(4, "meta hour"),
            MetaKey::Day => unknown(1, "meta day"),
            MetaKey::Time => unknown(8, "meta time"),
            MetaKey::SecPath => Read::Bytes(vec![Byte::known(0)]),
            // A device that is known is of no VRF.
            MetaKey::SdIif if self.device_is_known() => zero,
            MetaKey::SdIifName if self.device_is_known() => Read::Bytes(known([0; 16]).to_vec()),
            MetaKey::SdIif => unknown(4, "meta sdif"),
            MetaKey::SdIifName => unknown(16, "meta sdifname"),
            MetaKey::Cpu => unknown(4, "meta cpu"),
            MetaKey::Random => unknown(4, "meta random"),
            MetaKey::Cgroup => unknown(4, "meta cgroup"),
            MetaKey::RtClassId => unknown(4, "meta rtclassid"),
            MetaKey::SecMark => unknown(4, "meta secmark"),
            MetaKey::NfTrace => unknown(1, "meta nftrace"),
            MetaKey::Other(_) => unknown(16, "a property that is not known here"),
        }
    }

    fn kind_of(device: Option<&Device>) -> Read {
        match device {
            None => Read::Nothing,
            Some(device) if !device.is_known => Read::Bytes(vec![Byte::unknown(INTERFACE).naming(); 16]),
            Some(device) => match &device.virtual_kind {
                None => Read::Nothing,
                Some(kind) => {
                    let mut bytes = [0; 16];
                    for (to, from) in bytes.iter_mut().zip(kind.as_bytes()) {
                        *to = *from;
                    }
                    Read::Bytes(known(bytes).map(Byte::naming).to_vec())
                }
            },
        }
    }

    /// Sets a property of the packet; those that no rule's outcome is followed for are left out of account.
    pub(crate) fn set_meta(&mut self, key: MetaKey, bytes: &[Byte]) {
        let four =
            || <[Byte; 4]>::try_from(bytes).unwrap_or([Byte::unknown("a value that a rule has set"); 4]);
        match key {
            MetaKey::Mark => self.mark = four(),
            MetaKey::Priority => self.priority = four(),
            _ => {}
        }
    }

    /// A property of the packet's connection.
    pub(crate) fn connection(&self, key: CtKey, direction: Option<Direction>) -> Read {
        let unknown = |length: usize, what| Read::Bytes(vec![Byte::unknown(what); length]);
        if key == CtKey::State {
            let state = known(match self.tracking {
                Tracking::NotYet => STATE_INVALID.to_ne_bytes(),
                Tracking::New => STATE_NEW.to_ne_bytes(),
                Tracking::Answer => STATE_ESTABLISHED.to_ne_bytes(),
                Tracking::Untracked => STATE_UNTRACKED.to_ne_bytes(),
            });
            let state = if self.untracked_by_name { state.map(Byte::naming) } else { state };
            return Read::Bytes(state.to_vec());
        }
        if matches!(self.tracking, Tracking::NotYet | Tracking::Untracked) {
            return Read::Nothing;
        }
        let is_original =
            direction == Some(Direction::Original) && self.tracking == Tracking::New && !self.rewritten;
        match key {
            CtKey::Direction => Read::Bytes(vec![Byte::known(u8::from(self.tracking == Tracking::Answer))]),
            CtKey::Status if self.tracking == Tracking::New => {
                // One that is rewritten to what it was has no such bit, and what it is rewritten to is not always known.
                let unknown = if self.rewritten { STATUS_REWRITTEN } else { 0 };
                let bytes = [0; 4].into_iter().zip((STATUS_KNOWN & !unknown).to_ne_bytes());
                Read::Bytes(bytes.map(|(value, known)| Byte::partly(value, known, "ct status")).collect())
            }
            CtKey::Status => unknown(4, "ct status"),
            CtKey::Mark => Read::Bytes(self.connection_mark.to_vec()),
            CtKey::L3Proto => Read::Bytes(vec![Byte::known(if self.v6 { 10 } else { 2 })]),
            CtKey::Protocol => Read::Bytes(vec![Byte::known(TCP)]),
            CtKey::Helper => Read::Nothing,
            CtKey::Saddr | CtKey::SaddrIp | CtKey::SaddrIp6 if is_original => {
                Read::Bytes(self.source().to_vec())
            }
            CtKey::Daddr | CtKey::DaddrIp | CtKey::DaddrIp6 if is_original => {
                Read::Bytes(self.destination().to_vec())
            }
            CtKey::ProtoSrc if is_original => Read::Bytes(self.source_port().to_vec()),
            CtKey::ProtoDst if is_original => Read::Bytes(self.port().to_vec()),
            CtKey::Saddr | CtKey::Daddr => {
                unknown(if self.v6 { 16 } else { 4 }, "an address of the connection")
            }
            CtKey::SaddrIp | CtKey::DaddrIp => unknown(4, "an address of the connection"),
            CtKey::SaddrIp6 | CtKey::DaddrIp6 => unknown(16, "an address of the connection"),
            CtKey::ProtoSrc | CtKey::ProtoDst => unknown(2, "a port of the connection"),
            CtKey::Zone => unknown(2, "ct zone"),
            CtKey::Labels => unknown(16, "ct label"),
            CtKey::Packets => unknown(8, "ct packets"),
            CtKey::Bytes => unknown(8, "ct bytes"),
            CtKey::AvgPkt => unknown(8, "ct avgpkt"),
            CtKey::Expiration => unknown(4, "ct expiration"),
            CtKey::SecMark => unknown(4, "ct secmark"),
            CtKey::EventMask => unknown(4, "ct event"),
            CtKey::Id => unknown(4, "ct id"),
            CtKey::State | CtKey::Other(_) => {
                unknown(16, "a property of the connection that is not known here")
            }
        }
    }

    /// Sets a property of the packet's connection.
    pub(crate) fn set_connection(&mut self, key: CtKey, bytes: &[Byte]) {
        if key == CtKey::Mark {
            self.connection_mark =
                <[Byte; 4]>::try_from(bytes).unwrap_or([Byte::unknown("a value that a rule has set"); 4]);
        }
    }
}

/// Sends a packet to this host: to the first address of the device that it came in by.
pub(crate) fn redirect(packet: &mut Packet, port: Option<&[Byte]>) {
    let addresses: Vec<_> = packet.own_addresses().collect();
    let address = match addresses.first() {
        Some(std::net::IpAddr::V4(address)) => known(address.octets()).to_vec(),
        Some(std::net::IpAddr::V6(address)) => known(address.octets()).to_vec(),
        None => packet.destination().to_vec(),
    };
    let address: Vec<_> = address.into_iter().map(Byte::naming).collect();
    packet.rewrite_destination(Some(&address), port);
}

/// The dimension that an address is, or its number if it is known.
pub(crate) fn whole_address(bytes: &[Byte], v6: bool) -> Result<Dimension, Option<u128>> {
    if let Some(known) = values(bytes) {
        return Err(Some(known.iter().fold(0, |number, byte| number << 8 | u128::from(*byte))));
    }
    for dimension in [Dimension::Source, Dimension::Destination] {
        let what = bytes.first().map_or("", |byte| byte.what);
        let whole = (0..u8::try_from(dimension.bits(v6) / 8).unwrap_or(0))
            .map(|index| Byte::open(dimension, index, what));
        if whole.eq(bytes.iter().copied()) {
            return Ok(dimension);
        }
    }
    Err(None)
}
