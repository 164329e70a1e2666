//! Statements: what a rule does, as far as it takes no register.

use super::kind::{Style, Writer, duration};
use super::symbols;
use crate::model::{Family, Limit, LimitUnit, Object, ObjectKind, Reject};

/// A rate.
pub(super) fn limit(limit: &Limit, writer: Writer<'_>) -> String {
    let over = if limit.over { "over " } else { "" };
    let unit = unit(limit.seconds);
    match (limit.unit, writer.style) {
        (LimitUnit::Packets, Style::Plain) => {
            format!("limit {over}{}/{unit} burst {}", limit.rate, limit.burst)
        }
        (LimitUnit::Packets, Style::Nft) => {
            format!("limit rate {over}{}/{unit} burst {} packets", limit.rate, limit.burst)
        }
        (LimitUnit::Bytes, _) => {
            let burst = match limit.burst {
                0 => String::new(),
                burst => format!(" burst {}", bytes(u64::from(burst))),
            };
            format!("limit rate {over}{}/{unit}{burst}", bytes(limit.rate))
        }
    }
}

fn unit(seconds: u64) -> String {
    match seconds {
        1 => "second".to_owned(),
        60 => "minute".to_owned(),
        3600 => "hour".to_owned(),
        86400 => "day".to_owned(),
        604_800 => "week".to_owned(),
        _ => duration(seconds.saturating_mul(1000)),
    }
}

/// So many bytes, in the largest unit that nft has for them.
pub(super) fn bytes(count: u64) -> String {
    const KILO: u64 = 1024;
    let (mut count, mut unit) = (count, "bytes");
    for larger in ["kbytes", "mbytes"] {
        if count == 0 || count % KILO != 0 {
            break;
        }
        (count, unit) = (count / KILO, larger);
    }
    format!("{count} {unit}")
}

/// `quota` or `ct count`, with what it goes up to.
pub(super) fn threshold(what: &str, over: bool, limit: &str) -> String {
    format!("{what} {}{limit}", if over { "over " } else { "" })
}

/// A line for the log.
pub(super) fn log(
    prefix: Option<&str>,
    group: Option<u16>,
    level: Option<u32>,
    writer: Writer<'_>,
) -> String {
    const DEFAULT_LEVEL: u32 = 4;
    let mut words = vec!["log".to_owned()];
    words.extend(prefix.map(|prefix| format!("prefix {}", writer.quoted(prefix))));
    words.extend(group.map(|group| format!("group {group}")));
    words.extend(level.filter(|level| *level != DEFAULT_LEVEL).map(|level| {
        let named = symbols::name(symbols::LOG_LEVEL, u128::from(level));
        format!("level {}", named.map_or_else(|| level.to_string(), str::to_owned))
    }));
    words.join(" ")
}

/// A refusal. Of several families, the packet's is said.
pub(super) fn reject(how: Reject, table: Family, network: Option<Family>) -> String {
    let one_family = matches!(table, Family::Ip | Family::Ip6);
    let named = |symbols, code: u8| {
        symbols::name(symbols, u128::from(code)).map_or_else(|| code.to_string(), str::to_owned)
    };
    match (how, network) {
        (Reject::TcpReset, _) => "reject with tcp reset".to_owned(),
        (Reject::Icmpx(1), _) => "reject".to_owned(),
        (Reject::Icmpx(code), _) => format!("reject with icmpx {}", named(symbols::ICMPX_CODE, code)),
        (Reject::Icmp(3), Some(Family::Ip)) | (Reject::Icmp(4), Some(Family::Ip6)) if one_family => {
            "reject".to_owned()
        }
        (Reject::Icmp(code), Some(Family::Ip6)) => {
            format!("reject with icmpv6 {}", named(symbols::ICMPV6_CODE, code))
        }
        (Reject::Icmp(code), Some(Family::Ip)) => {
            format!("reject with icmp {}", named(symbols::ICMP_CODE, code))
        }
        (Reject::Icmp(code), _) => format!("reject with icmp {code}"),
    }
}

/// The use of a stateful object: `counter name "x"`.
pub(super) fn object(object: Option<&Object>, name: &str, writer: Writer<'_>) -> String {
    let kind = kind(object);
    match writer.style {
        Style::Plain => format!("{kind} {name}"),
        Style::Nft if kind.starts_with("ct ") => format!("{kind} set {}", writer.quoted(name)),
        Style::Nft => format!("{kind} name {}", writer.quoted(name)),
    }
}

/// What nft calls a kind of objects.
pub(super) fn kind(object: Option<&Object>) -> &str {
    match object.map(|object| &object.kind) {
        Some(ObjectKind::Counter) => "counter",
        Some(ObjectKind::Quota { .. }) => "quota",
        Some(ObjectKind::Limit(_)) => "limit",
        Some(ObjectKind::ConnLimit { .. }) => "ct count",
        Some(ObjectKind::Other(name)) => name,
        None => "object",
    }
}
