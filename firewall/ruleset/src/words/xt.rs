//! Matches and targets of iptables, in the words that nft has for the same.

use std::net::IpAddr;

use super::kind::{Kind, Order, Writer};
use super::symbols;
use crate::model::{Ports, XtMatch, XtTarget};

/// Which headers a packet has, in nft's words: that of the network (`ip`) and that of the transport (`tcp`, or `th`).
pub(super) struct HeaderNames {
    /// `ip` or `ip6`.
    pub(super) network: &'static str,
    /// `tcp`, `udp`, ..., or `th` for any.
    pub(super) transport: &'static str,
}

/// A match, as conditions that all hold; none for a comment, which stands behind the rule.
pub(super) fn condition(
    name: &str,
    what: &XtMatch,
    headers: &HeaderNames,
    writer: Writer<'_>,
) -> Vec<String> {
    let HeaderNames { network, transport } = headers;
    match what {
        XtMatch::Comment(_) => Vec::new(),
        XtMatch::Tcp {
            source,
            source_negated,
            destination,
            destination_negated,
            flags_mask,
            flags,
            flags_negated,
            option,
            option_negated,
        } => {
            let mut words = Vec::new();
            for (field, ports, negated) in
                [("sport", source, source_negated), ("dport", destination, destination_negated)]
            {
                if *ports != (0, u16::MAX) || *negated {
                    words.push(format!("tcp {field} {}{}", not(*negated), ports_range(*ports)));
                }
            }
            if *flags_mask != 0 || *flags_negated {
                words.push(tcp_flags(*flags_mask, *flags, *flags_negated));
            }
            if *option != 0 {
                let known = symbols::name(symbols::TCP_OPTION, u128::from(*option));
                let named = known.map_or_else(|| option.to_string(), str::to_owned);
                let there = if *option_negated { "missing" } else { "exists" };
                words.push(format!("tcp option {named} {there}"));
            }
            words
        }
        XtMatch::Multiport { of, ranges, negated } => {
            let field = match of {
                Ports::Source => "sport",
                Ports::Destination => "dport",
                Ports::Either => "sport or dport",
            };
            let list: Vec<String> = ranges.iter().map(|range| ports_range(*range)).collect();
            let ports =
                if let [one] = &list[..] { one.clone() } else { format!("{{ {} }}", list.join(", ")) };
            vec![format!("{transport} {field} {}{ports}", not(*negated))]
        }
        XtMatch::CtState { mask, negated } => {
            let mask = u128::from(*mask);
            let (states, nat) = ((mask & 0xf) | (mask >> 2 & 0x40), mask >> 2 & 0x30);
            let one = |key: &str, symbols, bits| {
                let names = symbols::bits(symbols, bits);
                let names = names.map_or_else(|| format!("{bits:#x}"), |names| names.join(","));
                format!("ct {key} {}{names}", if *negated { "! " } else { "" })
            };
            let words: Vec<String> = [
                (states != 0).then(|| one("state", symbols::CT_STATE, states)),
                (nat != 0).then(|| one("status", symbols::CT_STATUS, nat)),
            ]
            .into_iter()
            .flatten()
            .collect();
            vec![words.join(if *negated { " and " } else { " or " })]
        }
        XtMatch::AddrType { source, source_negated, destination, destination_negated, on_interface } => {
            let on = if *on_interface { " . iif" } else { "" };
            [("saddr", source, source_negated), ("daddr", destination, destination_negated)]
                .into_iter()
                .filter(|(_, kinds, _)| **kinds != 0)
                .map(|(field, kinds, negated)| {
                    format!("fib {field}{on} type {}{}", not(*negated), address_types(*kinds))
                })
                .collect()
        }
        XtMatch::Mark { mark, mask, negated } => vec![marked("meta mark", *mark, *mask, *negated)],
        XtMatch::ConnMark { mark, mask, negated } => vec![marked("ct mark", *mark, *mask, *negated)],
        XtMatch::IpRange { source, source_negated, destination, destination_negated } => {
            [("saddr", source, source_negated), ("daddr", destination, destination_negated)]
                .into_iter()
                .filter_map(|(field, range, negated)| {
                    let (first, last) = range.as_ref()?;
                    let addresses = addresses(*first, *last, writer);
                    Some(format!("{network} {field} {}{addresses}", not(*negated)))
                })
                .collect()
        }
        XtMatch::Mac { address, negated } => {
            vec![format!("ether saddr {}{}", not(*negated), writer.value(Kind::Mac, Order::Network, address))]
        }
        XtMatch::PktType { kind, negated } => {
            let named = symbols::name(symbols::PKT_TYPE, u128::from(*kind));
            let named = named.map_or_else(|| kind.to_string(), str::to_owned);
            vec![format!("meta pkttype {}{named}", not(*negated))]
        }
        XtMatch::Length { min, max, negated } => {
            let range = if min == max { min.to_string() } else { format!("{min}-{max}") };
            vec![format!("{network} length {}{range}", not(*negated))]
        }
        XtMatch::Limit { text } => vec![text.clone()],
        XtMatch::OtherProtocol | XtMatch::Other => vec![format!("xt match `{name}`, not shown")],
    }
}

/// A target.
pub(super) fn statement(name: &str, what: &XtTarget) -> String {
    let ports = |ports: &Option<(u16, u16)>| {
        ports.map_or_else(String::new, |range| format!(":{}", ports_range(range)))
    };
    match what {
        XtTarget::Reject => "reject".to_owned(),
        XtTarget::Mark { mark, mask } => format!("meta mark set {}", changed("meta mark", *mark, *mask)),
        XtTarget::ConnMark { mode, mark, mask, packet_mask } => match mode {
            0 => format!("ct mark set {}", changed("ct mark", *mark, *mask)),
            1 => format!("ct mark set {}", copied("meta mark", *packet_mask, "ct mark", *mask)),
            2 => format!("meta mark set {}", copied("ct mark", *mask, "meta mark", *packet_mask)),
            _ => not_shown(name),
        },
        XtTarget::Notrack => "notrack".to_owned(),
        XtTarget::Dnat { address: None, ports: None } => not_shown(name),
        XtTarget::Dnat { address, ports: to } => {
            let address = match address {
                Some(IpAddr::V6(address)) if to.is_some() => format!("[{address}]"),
                Some(address) => address.to_string(),
                None => String::new(),
            };
            format!("dnat to {address}{}", ports(to))
        }
        XtTarget::Redirect { ports: None } => "redirect".to_owned(),
        XtTarget::Redirect { ports: to } => format!("redirect to {}", ports(to)),
        XtTarget::Snat if name == "MASQUERADE" => "masquerade".to_owned(),
        XtTarget::Takes if name == "SYNPROXY" => "synproxy".to_owned(),
        XtTarget::Passes
        | XtTarget::Snat
        | XtTarget::Queue { .. }
        | XtTarget::Takes
        | XtTarget::Tproxy
        | XtTarget::Other => not_shown(name),
    }
}

fn not_shown(name: &str) -> String {
    format!("xt target `{name}`, not shown")
}

fn not(negated: bool) -> &'static str {
    if negated { "!= " } else { "" }
}

fn ports_range((first, last): (u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn tcp_flags(mask: u8, flags: u8, negated: bool) -> String {
    let names = |bits: u8| {
        symbols::bits(symbols::TCP_FLAGS, u128::from(bits))
            .map_or_else(|| "0x0".to_owned(), |names| names.join(" | "))
    };
    let op = if negated { "!=" } else { "==" };
    let mask = if mask.count_ones() > 1 { format!("({})", names(mask)) } else { names(mask) };
    format!("tcp flags & {mask} {op} {}", names(flags))
}

fn address_types(kinds: u16) -> String {
    let names: Vec<&str> = symbols::ADDRESS_TYPE
        .iter()
        .filter(|(kind, _)| kinds >> kind & 1 == 1)
        .map(|(_, name)| *name)
        .collect();
    match &names[..] {
        [one] => (*one).to_owned(),
        [] => format!("{kinds:#x}"),
        _ => format!("{{ {} }}", names.join(", ")),
    }
}

fn addresses(first: IpAddr, last: IpAddr, writer: Writer<'_>) -> String {
    match (first, last) {
        (IpAddr::V4(first), IpAddr::V4(last)) => {
            writer.range(Kind::Ipv4, Order::Network, &first.octets(), &last.octets())
        }
        (IpAddr::V6(first), IpAddr::V6(last)) => {
            writer.range(Kind::Ipv6, Order::Network, &first.octets(), &last.octets())
        }
        (first, last) => format!("{first}-{last}"),
    }
}

fn marked(what: &str, mark: u32, mask: u32, negated: bool) -> String {
    if mask == u32::MAX {
        return format!("{what} {}{mark:#010x}", not(negated));
    }
    format!("{what} & {mask:#010x} {} {mark:#010x}", if negated { "!=" } else { "==" })
}

/// `(old & !mask) ^ mark`
fn changed(old: &str, mark: u32, mask: u32) -> String {
    match (mark, mask) {
        (_, u32::MAX) => format!("{mark:#010x}"),
        (_, 0) => format!("{old} ^ {mark:#010x}"),
        _ if mark == mask => format!("{old} | {mark:#010x}"),
        (0, _) => format!("{old} & {:#010x}", !mask),
        _ if mark & mask == mark => format!("{old} & {:#010x} | {mark:#010x}", !mask),
        _ => format!("{old} & {:#010x} ^ {mark:#010x}", !mask),
    }
}

/// `(to & !to_mask) ^ (from & from_mask)`
fn copied(from: &str, from_mask: u32, to: &str, to_mask: u32) -> String {
    match (from_mask, to_mask) {
        (u32::MAX, u32::MAX) => from.to_owned(),
        (_, u32::MAX) => format!("{from} & {from_mask:#010x}"),
        _ => format!("{to} & {:#010x} ^ ({from} & {from_mask:#010x})", !to_mask),
    }
}
