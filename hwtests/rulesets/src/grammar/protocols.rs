//! What nft lets stand in one rule: it refuses one that asks for two network or transport protocols at once.

use crate::model::{Family, Part};

/// The protocols that a rule is about so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Protocols {
    pub(super) network: Option<Network>,
    transport: Option<Transport>,
    link: Option<Link>,
}

/// A network protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    V4,
    V6,
    /// None may be asked for any more.
    Closed,
}

/// What is known of the link's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Link {
    Ethernet,
    Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
    Icmp,
    Other,
}

impl Protocols {
    /// At the begin of a rule.
    pub(super) fn of(family: Family) -> Self {
        let network = match family {
            Family::Ip => Some(Network::V4),
            Family::Ip6 => Some(Network::V6),
            Family::Inet | Family::Netdev => None,
        };
        Self { network, transport: None, link: None }
    }

    /// Adds a part, if it can stand in the same rule.
    pub(super) fn take(&mut self, part: &Part) -> bool {
        let text = match part {
            Part::Text(text) | Part::Listed { before: text, .. } => text,
            Part::Chain { .. } => return true,
        };
        let listed = matches!(part, Part::Listed { .. });
        let (network, transport, link) = (network(text), transport(text, listed), link(text));
        let fits = agree(self.network, network) && agree(self.transport, transport) && agree(self.link, link);
        if fits {
            *self = Self {
                network: network.or(self.network),
                transport: transport.or(self.transport),
                link: link.or(self.link),
            };
        }
        fits
    }
}

/// Whether both can hold.
fn agree<T: Copy + PartialEq>(old: Option<T>, new: Option<T>) -> bool {
    old.is_none() || new.is_none() || old == new
}

fn link(text: &str) -> Option<Link> {
    let is = |word| text.starts_with(word);
    if is("ether") { Some(Link::Ethernet) } else { is("iiftype").then_some(Link::Type) }
}

fn network(text: &str) -> Option<Network> {
    let has = |word: &str| text.split([' ', ',']).any(|other| other == word);
    if text.starts_with("iiftype") || (has("ip") && has("ip6")) {
        return Some(Network::Closed);
    }
    if has("ip6") || has("icmpv6") || text.ends_with("proto ipv6") {
        Some(Network::V6)
    } else if has("ip") || has("icmp") && text.starts_with("reject") || text.ends_with("proto ipv4") {
        Some(Network::V4)
    } else {
        None
    }
}

fn transport(text: &str, listed: bool) -> Option<Transport> {
    if text.contains("icmpv6 type") || text.contains("protocol icmp") {
        return Some(Transport::Icmp);
    }
    let other = ["l4proto !=", "l4proto {", "l4proto .", "protocol != ", "nexthdr != "];
    if other.iter().any(|words| text.contains(words))
        || (listed && text.starts_with("meta l4proto"))
        || text.starts_with("meta l4proto vmap")
    {
        Some(Transport::Other)
    } else if text.contains("udp") {
        Some(Transport::Udp)
    } else if text.contains("tcp") {
        Some(Transport::Tcp)
    } else {
        None
    }
}
