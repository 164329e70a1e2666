//! Whether the condition of a rule holds for a packet: an opening of a TCP connection from outside.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::packet::Packet;
use crate::ruleset::Rule;

/// Whether a condition holds for all packets of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// For all of them.
    Always,
    /// For those that come in by one interface, or by all but some.
    Interface,
    /// For some, or nobody knows.
    Maybe,
    /// For none.
    Never,
}

impl Holds {
    /// Both at once.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Maybe, _) | (_, Self::Maybe) => Self::Maybe,
            (Self::Interface, _) | (_, Self::Interface) => Self::Interface,
            (Self::Always, Self::Always) => Self::Always,
        }
    }

    /// The opposite.
    #[must_use]
    fn not(self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            same => same,
        }
    }

    fn from_bool(yes: bool) -> Self {
        if yes { Self::Always } else { Self::Never }
    }
}

/// What an extension of iptables does, as far as its name tells.
pub(super) enum Xt {
    Passes,
    Accepts,
    Drops,
    NeverHolds,
    Unknown,
}

/// The highest port.
const LAST_PORT: u64 = u16::MAX as u64;
/// Protocols other than TCP: a match on a field of theirs never holds.
const OTHER_PROTOCOLS: [&str; 11] =
    ["udp", "udplite", "icmp", "icmpv6", "igmp", "sctp", "dccp", "ah", "esp", "comp", "arp"];

/// An `xt` statement: nft prints the name of the extension and not its arguments.
pub(super) fn xt(body: &Value) -> Xt {
    let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
    match (text("type"), text("name")) {
        // Written there by `nft::list`, which knows from iptables-save which addresses are meant.
        ("match", "addrtype") => match text("dst-type") {
            "LOCAL" => Xt::Passes,
            "BROADCAST" | "MULTICAST" | "ANYCAST" => Xt::NeverHolds,
            _ => Xt::Unknown,
        },
        ("match", "comment")
        | ("target", "LOG" | "NFLOG" | "AUDIT" | "MARK" | "CONNMARK" | "CT" | "TRACE") => Xt::Passes,
        ("target", "ACCEPT") => Xt::Accepts,
        ("target", "DROP" | "REJECT" | "TARPIT") => Xt::Drops,
        _ => Xt::Unknown,
    }
}

/// Whether a rule speaks of ports or addresses: then what it says is meant for those, and not for the rest.
pub(super) fn is_deliberate(rule: &Rule) -> bool {
    rule.expr.iter().any(|statement| {
        let left = statement.pointer("/match/left").or_else(|| statement.pointer("/vmap/key"));
        let field = left.and_then(|left| left.pointer("/payload/field")).and_then(Value::as_str);
        let all_ports = statement.pointer("/match/right/range").is_some_and(|range| {
            range.get(0).and_then(Value::as_u64) <= Some(1) && range.get(1) == Some(&LAST_PORT.into())
        });
        matches!(field, Some("dport" | "saddr" | "daddr")) && !all_ports
    })
}

/// Whether a match holds: `{op, left, right}`.
pub(super) fn holds(body: &Value, packet: &Packet) -> Holds {
    let (Some(left), Some(right)) = (body.get("left"), body.get("right")) else { return Holds::Maybe };
    match body.get("op").and_then(Value::as_str) {
        Some("==" | "in") => equals(left, right, packet),
        Some("!=") => equals(left, right, packet).not(),
        Some(op @ ("<" | ">" | "<=" | ">=")) if field(left) == Some(("tcp", "dport")) => {
            let Some(bound) = right.as_u64() else { return Holds::Maybe };
            let port = u64::from(packet.port);
            Holds::from_bool(match op {
                "<" => port < bound,
                ">" => port > bound,
                "<=" => port <= bound,
                _ => port >= bound,
            })
        }
        _ if field(left).is_some_and(|(protocol, _)| OTHER_PROTOCOLS.contains(&protocol)) => Holds::Never,
        _ => Holds::Maybe,
    }
}

/// Whether an expression has a value, or one of a set of values.
pub(super) fn equals(left: &Value, right: &Value, packet: &Packet) -> Holds {
    let alternatives = right.get("set").and_then(Value::as_array).or_else(|| right.as_array());
    if let Some(alternatives) = alternatives {
        return alternatives.iter().fold(Holds::Never, |so_far, one| {
            match (so_far, equals(left, one, packet)) {
                (Holds::Always, _) | (_, Holds::Always) => Holds::Always,
                (Holds::Never, other) | (other, Holds::Never) => other,
                (Holds::Interface, Holds::Interface) => Holds::Interface,
                _ => Holds::Maybe,
            }
        });
    }
    // A set of its own, or a concatenation: what is in it is not followed.
    if right.as_str().is_some_and(|text| text.starts_with('@')) {
        return match field(left) {
            Some((protocol, _)) if OTHER_PROTOCOLS.contains(&protocol) => Holds::Never,
            _ => Holds::Maybe,
        };
    }
    if let Some(field) = field(left) {
        return payload(field, right, packet);
    }
    let meta = left.pointer("/meta/key").and_then(Value::as_str);
    let value = right.as_str();
    match meta {
        Some("iif" | "iifname") => match value {
            Some("lo") => Holds::Never,
            Some(_) => Holds::Interface,
            None => Holds::Maybe,
        },
        Some("l4proto") => Holds::from_bool(value == Some("tcp") || right.as_u64() == Some(6)),
        Some("nfproto") => match value {
            Some(name @ ("ipv4" | "ipv6")) => Holds::from_bool(name == packet.family.as_str()),
            _ => Holds::Maybe,
        },
        Some("protocol") => match value {
            Some(name) => Holds::from_bool(name == packet.family.header()),
            None => Holds::Maybe,
        },
        _ if left.pointer("/fib/result").is_some_and(|result| result == "type") => to_this_host(left, value),
        _ => match (left.pointer("/ct/key").and_then(Value::as_str), value) {
            (Some("state"), Some("new")) => Holds::Always,
            (Some("state"), Some("established" | "related" | "invalid" | "untracked")) => Holds::Never,
            _ => Holds::Maybe,
        },
    }
}

/// `fib daddr type`: packets on the input hook go to an address of this host.
fn to_this_host(left: &Value, value: Option<&str>) -> Holds {
    let only_destination = match left.pointer("/fib/flags") {
        Some(Value::Array(flags)) => flags.iter().all(|flag| flag == "daddr"),
        Some(flag) => flag == "daddr",
        None => false,
    };
    match value {
        Some(kind) if only_destination => Holds::from_bool(kind == "local"),
        _ => Holds::Maybe,
    }
}

fn field(left: &Value) -> Option<(&str, &str)> {
    let payload = left.get("payload")?;
    Some((payload.get("protocol")?.as_str()?, payload.get("field")?.as_str()?))
}

fn payload((protocol, field): (&str, &str), right: &Value, packet: &Packet) -> Holds {
    match (protocol, field) {
        (other, _) if OTHER_PROTOCOLS.contains(&other) => Holds::Never,
        ("tcp" | "th", "dport") => number(right, packet.port),
        ("ip", _) if packet.family.header() != "ip" => Holds::Never,
        ("ip6", _) if packet.family.header() != "ip6" => Holds::Never,
        ("ip", "protocol") | ("ip6", "nexthdr") => {
            Holds::from_bool(right.as_str() == Some("tcp") || right.as_u64() == Some(6))
        }
        ("ip" | "ip6", "saddr") => match (network(right), packet.source) {
            (Some(theirs), Some(source)) if theirs.contains(&source) => Holds::Always,
            (Some(theirs), Some(source)) if !source.contains(&theirs) => Holds::Never,
            _ => Holds::Maybe,
        },
        ("ip" | "ip6", "daddr") => match (network(right), packet.destination) {
            (Some(theirs), Some(address)) => Holds::from_bool(theirs.contains(&address)),
            _ => Holds::Maybe,
        },
        _ => Holds::Maybe,
    }
}

fn number(right: &Value, port: u16) -> Holds {
    if let Some(number) = right.as_u64() {
        return Holds::from_bool(number == u64::from(port));
    }
    match (
        right.pointer("/range/0").and_then(Value::as_u64),
        right.pointer("/range/1").and_then(Value::as_u64),
    ) {
        (Some(first), Some(last)) => Holds::from_bool((first..=last).contains(&u64::from(port))),
        _ => Holds::Maybe,
    }
}

fn network(right: &Value) -> Option<IpNet> {
    if let Some(text) = right.as_str() {
        return text.parse::<IpAddr>().ok().map(IpNet::from);
    }
    let address = right.pointer("/prefix/addr")?.as_str()?.parse::<IpAddr>().ok()?;
    let length = u8::try_from(right.pointer("/prefix/len")?.as_u64()?).ok()?;
    IpNet::new(address, length).ok()
}
