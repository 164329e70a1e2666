//! The rewriting of addresses.

use super::condition;
use super::field::Headers;
use super::kind::{Kind, Order, Writer};
use super::subject::{Registers, Subject};
use crate::model::{Family, Nat, RegisterSlice};

/// Where addresses and ports are taken from.
pub(super) struct Addresses<'a> {
    /// The registers that hold them.
    pub(super) registers: &'a Registers,
    /// What is known of the packet.
    pub(super) headers: Headers,
    /// Who writes.
    pub(super) writer: Writer<'a>,
}

/// `dnat ip to 192.0.2.1:80 random`
pub(super) fn nat(nat: &Nat, table: Family, addresses: &Addresses<'_>) -> String {
    const NETMAP: u32 = 64;
    let verb = if nat.destination { "dnat" } else { "snat" };
    let prefix = if nat.flags & NETMAP == 0 { "" } else { " prefix" };
    let to = addresses.to((nat.address, nat.address_max), (nat.port, nat.port_max));
    let family = family(Some(nat.family), table);
    let to = if to.is_empty() { to } else { format!("{family}{prefix} to {to}") };
    format!("{verb}{to}{}", flags(nat.flags))
}

/// `redirect to :8080`
pub(super) fn redirect(port: Option<RegisterSlice>, addresses: &Addresses<'_>) -> String {
    let to = addresses.to((None, None), (port, None));
    if to.is_empty() { "redirect".to_owned() } else { format!("redirect to {to}") }
}

/// `tproxy ip to 127.0.0.1:8080`
pub(super) fn tproxy(
    of: Option<Family>,
    (address, port): (Option<RegisterSlice>, Option<RegisterSlice>),
    table: Family,
    addresses: &Addresses<'_>,
) -> String {
    format!("tproxy{} to {}", family(of, table), addresses.to((address, None), (port, None)))
}

type Ends = (Option<RegisterSlice>, Option<RegisterSlice>);

impl Addresses<'_> {
    /// `ADDRESS[-ADDRESS][:PORT[-PORT]]`
    fn to(&self, address: Ends, port: Ends) -> String {
        let from_one_map = |(address, port)| self.registers.continues(address, port);
        let port = match address.0.zip(port.0) {
            Some(both) if from_one_map(both) => String::new(),
            _ => self.ends(port).map(|port| format!(":{port}")).unwrap_or_default(),
        };
        match self.ends(address) {
            Some(address) if address.contains(':') && !address.contains(' ') && !port.is_empty() => {
                let ends: Vec<String> = address.split('-').map(|end| format!("[{end}]")).collect();
                format!("{}{port}", ends.join("-"))
            }
            Some(address) => format!("{address}{port}"),
            None => port,
        }
    }

    fn ends(&self, (first, last): Ends) -> Option<String> {
        // The value of a map holds both.
        let last = last.filter(|last| first.is_some_and(|first| !self.registers.continues(first, *last)));
        let first = self.one(first?);
        match last.map(|last| self.one(last)) {
            Some(last) if last != first => Some(format!("{first}-{last}")),
            _ => Some(first),
        }
    }

    fn one(&self, slice: RegisterSlice) -> String {
        let Some(held) = self.registers.parts(slice).into_iter().next() else { return String::new() };
        match &held.subject {
            Subject::Constant(value) => {
                let kind = match value.len() {
                    4 => Kind::Ipv4,
                    16 => Kind::Ipv6,
                    _ => Kind::Number,
                };
                self.writer.value(kind, Order::Network, value)
            }
            _ => condition::named(&held, self.headers, self.writer).text,
        }
    }
}

/// The family, where the table's does not say it.
fn family(of: Option<Family>, table: Family) -> &'static str {
    match (table, of) {
        (Family::Inet, Some(Family::Ip)) => " ip",
        (Family::Inet, Some(Family::Ip6)) => " ip6",
        _ => "",
    }
}

fn flags(flags: u32) -> String {
    let names: Vec<&str> = [(4, "random"), (16, "fully-random"), (8, "persistent")]
        .into_iter()
        .filter(|(flag, _)| flags & flag != 0)
        .map(|(_, name)| name)
        .collect();
    if names.is_empty() { String::new() } else { format!(" {}", names.join(",")) }
}
