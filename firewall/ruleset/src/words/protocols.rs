//! What a rule has said of a packet's protocols so far, and where it said so.
//!
//! nft adds conditions on the protocol in front of those on its fields, and leaves them out when it lists the rule; so is it here.
//! Each of them is a *dependency* until a field of that protocol is asked for.

use super::field::{Field, Headers};
use super::kind::number;
use super::subject::{Held, Subject};
use crate::model::{Family, MetaKey, PayloadBase};

/// What a condition on a protocol decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layer {
    /// That the packet has a frame's header.
    Link,
    /// The family of the network's header.
    Network,
    /// The protocol of the transport's header.
    Transport,
}

/// A condition on a protocol that a field of this protocol would make superfluous.
#[derive(Debug, Clone, Copy)]
struct Dependency {
    /// Which of the rule's words it is.
    item: usize,
    /// It asks a field of the network's header, and so says of which family the packet is.
    of_header: bool,
}

/// The protocols that are known.
#[derive(Debug, Clone)]
pub(super) struct Protocols {
    table: Family,
    /// The headers that the packet has by them.
    pub(super) headers: Headers,
    dependencies: [Option<Dependency>; 3],
}

impl Protocols {
    /// At the beginning of a rule of such a table.
    pub(super) fn new(table: Family) -> Self {
        let network = match table {
            Family::Ip | Family::Ip6 | Family::Arp => Some(table),
            Family::Inet | Family::Bridge | Family::Netdev => None,
        };
        Self { table, headers: Headers { network, transport: None }, dependencies: [None; 3] }
    }

    /// Something is equal to this value, as the rule's words number `item` say. What they make superfluous is returned.
    pub(super) fn learn(&mut self, held: &Held, value: &[u8], item: usize) -> Option<usize> {
        let value = number(value, held.order);
        match &held.subject {
            Subject::Meta(MetaKey::NfProto | MetaKey::Protocol) => self.learn_network(value, item),
            Subject::Meta(MetaKey::L4Proto) => {
                self.learn_transport(value, item, false);
                // There is one ICMP for each family.
                match (self.headers.transport, self.headers.network) {
                    (Some(1), Some(Family::Ip)) | (Some(58), Some(Family::Ip6)) => {
                        return self.implied(Layer::Network);
                    }
                    _ => {}
                }
            }
            Subject::Meta(MetaKey::IifType) if value == Some(1) => {
                self.depend(Layer::Link, item, false);
            }
            _ => {}
        }
        None
    }

    /// The same of a field.
    pub(super) fn learn_field(&mut self, base: PayloadBase, field: &Field, value: &[u8], item: usize) {
        let value = number(value, super::field::ORDER);
        match (base, field.header, field.name) {
            (PayloadBase::Link, _, "type") => self.learn_network(value, item),
            (_, "ip", "protocol") | (_, "ip6", "nexthdr") => self.learn_transport(value, item, true),
            _ => {}
        }
    }

    /// A field is asked for: what this makes superfluous.
    pub(super) fn ask(&mut self, field: &Field) -> [Option<usize>; 2] {
        match field.header {
            "ether" => [self.implied(Layer::Link), None],
            // The tag is there by the frame's type.
            "vlan" => [self.implied(Layer::Link), self.implied(Layer::Network)],
            "ip" | "ip6" | "arp" => [self.implied(Layer::Network), None],
            "th" | "" => [None; 2],
            _ => {
                let several = matches!(self.table, Family::Inet | Family::Bridge | Family::Netdev);
                let dependency = self.dependencies[Layer::Transport as usize];
                if dependency.is_some_and(|dependency| dependency.of_header && several) {
                    [None; 2]
                } else {
                    [self.implied(Layer::Transport), None]
                }
            }
        }
    }

    /// The condition that says nothing new any more where this layer is known anyhow.
    pub(super) fn implied(&mut self, layer: Layer) -> Option<usize> {
        self.dependencies[layer as usize].take().map(|dependency| dependency.item)
    }

    fn learn_network(&mut self, value: Option<u128>, item: usize) {
        let network = match value {
            Some(2 | 0x0800) => Some(Family::Ip),
            Some(10 | 0x86dd) => Some(Family::Ip6),
            Some(0x0806) => Some(Family::Arp),
            _ => None,
        };
        self.headers.network = network.or(self.headers.network);
        self.depend(Layer::Network, item, false);
    }

    fn learn_transport(&mut self, value: Option<u128>, item: usize, of_header: bool) {
        self.headers.transport = value.and_then(|value| u8::try_from(value).ok());
        self.depend(Layer::Transport, item, of_header);
    }

    fn depend(&mut self, layer: Layer, item: usize, of_header: bool) {
        self.dependencies[layer as usize] = Some(Dependency { item, of_header });
    }
}
