//! Expressions that load what has words at once.

use super::kind::{Kind, Order};
use super::subject::{self, Subject};
use super::symbols;
use crate::model::{Expr, Fib, RegisterSlice};

/// What an expression loads, where to, and in which order of bytes.
pub(super) fn loaded(expr: &Expr) -> Option<(RegisterSlice, Subject, Order)> {
    let words = |destination: RegisterSlice, text: String, kind: Kind, order: Order| {
        Some((destination, Subject::Words { text, kind }, order))
    };
    match expr {
        Expr::Ct { destination, key, direction } => {
            let (text, kind, order) = subject::ct(*key, *direction);
            words(*destination, text, kind, order)
        }
        Expr::Fib(fib) => {
            let (text, kind) = route(fib);
            words(fib.destination, text, kind, Order::Host)
        }
        Expr::Socket { destination, key } => {
            let (text, kind) = match key {
                0 => ("socket transparent".to_owned(), Kind::Number),
                1 => ("socket mark".to_owned(), Kind::Mark),
                2 => ("socket wildcard".to_owned(), Kind::Number),
                3 => ("socket cgroupv2".to_owned(), Kind::Number),
                key => (format!("socket `{key}`"), Kind::Raw),
            };
            words(*destination, text, kind, Order::Host)
        }
        Expr::Numgen { destination, modulus, random, offset } => {
            let how = if *random { "random" } else { "inc" };
            let text = format!("numgen {how} mod {modulus}{}", added(*offset));
            words(*destination, text, Kind::Number, Order::Host)
        }
        Expr::Hash { destination, modulus, offset } => {
            let text = format!("{} mod {modulus}{}", not_shown("hash"), added(*offset));
            words(*destination, text, Kind::Number, Order::Host)
        }
        Expr::ExtHdr { destination: Some(destination), kind, offset, op, presence } => {
            let (text, kind) = extension(*kind, *offset, *op, *presence);
            words(*destination, text, kind, Order::Network)
        }
        _ => None,
    }
}

/// What is said where there are no words.
pub(super) fn not_shown(name: &str) -> String {
    format!("expression `{name}`, not shown")
}

fn added(offset: u32) -> String {
    if offset == 0 { String::new() } else { format!(" offset {offset}") }
}

/// `fib daddr . iif type`
fn route(fib: &Fib) -> (String, Kind) {
    const PRESENT: u32 = 32;
    let asked: Vec<&str> = [(1, "saddr"), (2, "daddr"), (4, "mark"), (8, "iif"), (16, "oif")]
        .into_iter()
        .filter(|(flag, _)| fib.flags & flag != 0)
        .map(|(_, name)| name)
        .collect();
    let (result, kind) = match fib.result {
        1 => ("oif".to_owned(), Kind::DeviceIndex),
        2 => ("oifname".to_owned(), Kind::Device),
        3 => ("type".to_owned(), Kind::Named(symbols::ADDRESS_TYPE)),
        other => (format!("`{other}`"), Kind::Raw),
    };
    let kind = if fib.flags & PRESENT == 0 { kind } else { Kind::Named(symbols::PRESENCE) };
    (format!("fib {} {result}", asked.join(" . ")), kind)
}

fn extension(number: u8, offset: u32, op: u32, presence: bool) -> (String, Kind) {
    const IPV6: u32 = 0;
    const TCP: u32 = 1;
    let name = |symbols| symbols::name(symbols, u128::from(number));
    match (op, presence) {
        (IPV6, true) => {
            let name = name(symbols::IPV6_HEADER).map_or_else(|| number.to_string(), str::to_owned);
            (format!("exthdr {name}"), Kind::Named(symbols::PRESENCE))
        }
        (TCP, true) => {
            let name = name(symbols::TCP_OPTION).map_or_else(|| number.to_string(), str::to_owned);
            (format!("tcp option {name}"), Kind::Named(symbols::PRESENCE))
        }
        (TCP, false) => {
            let field = match (number, offset) {
                (2, 2) => "maxseg size",
                (3, 2) => "window count",
                (8, 2) => "timestamp tsval",
                (8, 6) => "timestamp tsecr",
                _ => return (not_shown("exthdr"), Kind::Raw),
            };
            (format!("tcp option {field}"), Kind::Number)
        }
        _ => (not_shown("exthdr"), Kind::Raw),
    }
}
