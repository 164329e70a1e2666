//! Rules of ours in chains of others: what they say, how they are recognised, and what they execute.
//!
//! Such a rule is plain: at most a device, a family, a source and an address of ours, one port, and `accept`. iptables prints and
//! restores it as it is, and then it is the same rule by other expressions. A rule that says anything else is not ours, whatever
//! its comment.

use std::net::IpAddr;

use ipnet::IpNet;
use zone_firewall_protocol::Purpose;
use zone_ruleset::{
    Bitwise, Comparison, Expr, Family as TableFamily, MetaKey, Name, PayloadBase, RegisterSlice, Rule,
    Verdict, XtMatch,
};

use crate::config::{InterfaceName, LOWEST_PORT};
use crate::desired::Family;
use crate::table;
use crate::table::statements::Statements;

/// The prefix of the comment of each rule of ours in a chain of others.
const TAG: &str = "zone-proxy: ";
/// The protocol TCP, and where headers have what a rule of ours asks for: offset and length.
const TCP: u8 = 6;
const PORT: (u32, u8) = (2, 2);
const V4_PROTOCOL: (u32, u8) = (9, 1);
const V6_PROTOCOL: (u32, u8) = (6, 1);
const V4_SOURCE: u32 = 12;
const V4_DESTINATION: u32 = 16;
const V6_SOURCE: u32 = 8;
const V6_DESTINATION: u32 = 24;
/// The register that the expressions of [`Opening::exprs`] use.
const REGISTER: u8 = 0;

/// What a rule of ours lets in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Opening {
    /// The port that it is for.
    pub(crate) purpose: Purpose,
    /// Its number.
    pub(crate) port: u16,
    /// The device that packets come in by; `None` for any.
    pub(crate) interface: Option<String>,
    /// Their family, where no address tells it; `None` for both.
    pub(crate) family: Option<Family>,
    /// The network that they come from; `None` for any.
    pub(crate) source: Option<IpNet>,
    /// The address that they go to; `None` for any.
    pub(crate) destination: Option<IpAddr>,
}

/// The comment of a rule of ours.
pub(crate) fn comment(purpose: Purpose) -> String {
    format!("{TAG}{purpose}")
}

fn purpose(comment: &str) -> Option<Purpose> {
    let all = [Purpose::Control, Purpose::Endpoint, Purpose::ModuleServer];
    all.into_iter().find(|purpose| comment.strip_prefix(TAG) == Some(&purpose.to_string()))
}

impl Opening {
    /// What a rule lets in, if it is one of ours.
    pub(crate) fn of(rule: &Rule) -> Option<Self> {
        let purpose = purpose(rule.comment.as_deref()?)?;
        let mut found =
            Self { purpose, port: 0, interface: None, family: None, source: None, destination: None };
        let mut loaded = None;
        let mut mask: Option<&[u8]> = None;
        let (verdict, asked) = rule.exprs.split_last()?;
        if *verdict != Expr::Verdict(Verdict::Accept) {
            return None;
        }
        for expr in asked {
            match expr {
                Expr::Counter | Expr::XtMatch { what: XtMatch::Comment(_), .. } => {}
                Expr::XtMatch { what, .. } => found.port = port_of(what)?,
                Expr::Payload { destination, base, offset } => {
                    loaded = Some(Loaded::Payload(*base, *offset, destination.length));
                    mask = None;
                }
                Expr::Meta { key, .. } => {
                    loaded = Some(Loaded::Meta(*key));
                    mask = None;
                }
                Expr::Bitwise { op: Bitwise::Mask { mask: own, xor }, .. }
                    if xor.iter().all(|byte| *byte == 0) =>
                {
                    mask = Some(own);
                }
                Expr::Compare { op: Comparison::Equal, value, .. } => {
                    found.note(loaded.take()?, mask.take(), value)?;
                }
                _ => return None,
            }
        }
        if found.source.is_some() || found.destination.is_some() {
            found.family = None;
        }
        (found.port >= LOWEST_PORT).then_some(found)
    }

    /// Notes one thing that the rule asks; `None` if no rule of ours would.
    fn note(&mut self, loaded: Loaded, mask: Option<&[u8]>, value: &[u8]) -> Option<()> {
        match loaded {
            Loaded::Meta(MetaKey::IifName) if mask.is_none() => {
                self.interface = Some(String::from_utf8(Name::new(value).as_bytes().to_vec()).ok()?);
            }
            Loaded::Meta(MetaKey::NfProto) if mask.is_none() => {
                self.family = Some(if value == [2] { Family::V4 } else { Family::V6 });
            }
            // What nft or iptables ask before they look for a port or an address.
            Loaded::Meta(MetaKey::L4Proto) if value == [TCP] => {}
            Loaded::Meta(MetaKey::Protocol) => {}
            Loaded::Payload(PayloadBase::Network, offset, length)
                if ((offset, length) == V4_PROTOCOL || (offset, length) == V6_PROTOCOL) && value == [TCP] => {
            }
            Loaded::Payload(PayloadBase::Transport, offset, length)
                if (offset, length) == PORT && mask.is_none() =>
            {
                self.port = u16::from_be_bytes(value.try_into().ok()?);
            }
            Loaded::Payload(PayloadBase::Network, V4_SOURCE, length @ 1..=4) => {
                self.source = Some(network(value, mask, length, 4)?);
            }
            Loaded::Payload(PayloadBase::Network, V6_SOURCE, length @ 1..=16) => {
                self.source = Some(network(value, mask, length, 16)?);
            }
            Loaded::Payload(PayloadBase::Network, V4_DESTINATION, 4)
            | Loaded::Payload(PayloadBase::Network, V6_DESTINATION, 16) => {
                let network = network(value, mask, u8::try_from(value.len()).ok()?, value.len())?;
                (network.prefix_len() == network.max_prefix_len()).then_some(())?;
                self.destination = Some(network.network());
            }
            _ => return None,
        }
        Some(())
    }

    /// Its statements, for nft.
    pub(crate) fn statements(&self) -> Statements {
        table::accept_elsewhere(
            self.family,
            self.interface.as_deref(),
            self.source,
            self.destination,
            self.port,
        )
    }

    /// What the kernel would execute for it in a table of a family: what judging goes by before it is there.
    pub(crate) fn exprs(&self, table: TableFamily) -> Vec<Expr> {
        let mut exprs = Vec::new();
        if let Some(interface) = &self.interface {
            let mut name = interface.as_bytes().to_vec();
            name.resize(16, 0);
            exprs.push(Expr::Meta { destination: slice(16), key: MetaKey::IifName });
            exprs.push(is(&name));
        }
        let address_family = self.source.map(|n| n.network()).or(self.destination).map(Family::of);
        if let Some(family) = self.family.or(address_family).filter(|_| table == TableFamily::Inet) {
            exprs.push(Expr::Meta { destination: slice(1), key: MetaKey::NfProto });
            exprs.push(is(&[match family {
                Family::V4 => 2,
                Family::V6 => 10,
            }]));
        }
        if let Some(source) = self.source {
            let (bytes, mask) = (octets(source.network()), octets(source.netmask()));
            let offset = if bytes.len() == 4 { V4_SOURCE } else { V6_SOURCE };
            exprs.push(payload(PayloadBase::Network, offset, bytes.len()));
            let xor = vec![0; bytes.len()].into();
            let destination = slice(bytes.len());
            exprs.push(Expr::Bitwise {
                source: destination,
                destination,
                op: Bitwise::Mask { mask: mask.into(), xor },
            });
            exprs.push(is(&bytes));
        }
        if let Some(destination) = self.destination {
            let bytes = octets(destination);
            let offset = if bytes.len() == 4 { V4_DESTINATION } else { V6_DESTINATION };
            exprs.push(payload(PayloadBase::Network, offset, bytes.len()));
            exprs.push(is(&bytes));
        }
        exprs.push(Expr::Meta { destination: slice(1), key: MetaKey::L4Proto });
        exprs.push(is(&[TCP]));
        exprs.push(payload(PayloadBase::Transport, PORT.0, 2));
        exprs.push(is(&self.port.to_be_bytes()));
        exprs.push(Expr::Verdict(Verdict::Accept));
        exprs
    }
}

/// The devices of a purpose, for [`Opening::interface`].
pub(crate) fn devices(names: &[InterfaceName]) -> Vec<Option<String>> {
    if names.is_empty() {
        vec![None]
    } else {
        names.iter().map(|name| Some(name.as_str().to_owned())).collect()
    }
}

/// What the register holds.
#[derive(Clone, Copy)]
enum Loaded {
    Meta(MetaKey),
    Payload(PayloadBase, u32, u8),
}

fn port_of(what: &XtMatch) -> Option<u16> {
    match what {
        XtMatch::Tcp {
            source: (0, u16::MAX),
            source_negated: false,
            destination: (first, last),
            destination_negated: false,
            flags_mask: 0,
            flags_negated: false,
            option: 0,
            ..
        } if first == last => Some(*first),
        _ => None,
    }
}

fn network(value: &[u8], mask: Option<&[u8]>, length: u8, whole: usize) -> Option<IpNet> {
    let bits = match mask {
        // A prefix of whole bytes is compared without a mask.
        None => u32::from(length) * 8,
        Some(mask) => {
            let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).take_while(|ones| *ones == 8).sum();
            let rest = mask.get(usize::try_from(ones / 8).ok()?).map_or(0, |byte| byte.leading_ones());
            let bits = ones + rest;
            let is_prefix = mask.iter().map(|byte| byte.count_ones()).sum::<u32>() == bits;
            is_prefix.then_some(bits)?
        }
    };
    let mut bytes = value.to_vec();
    bytes.resize(whole, 0);
    let address: IpAddr = match whole {
        4 => <[u8; 4]>::try_from(bytes).ok()?.into(),
        _ => <[u8; 16]>::try_from(bytes).ok()?.into(),
    };
    IpNet::new(address, u8::try_from(bits).ok()?).ok()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn slice(length: usize) -> RegisterSlice {
    RegisterSlice { offset: REGISTER, length: u8::try_from(length).unwrap_or(u8::MAX) }
}

fn payload(base: PayloadBase, offset: u32, length: usize) -> Expr {
    Expr::Payload { destination: slice(length), base, offset }
}

fn is(value: &[u8]) -> Expr {
    Expr::Compare { source: slice(value.len()), op: Comparison::Equal, value: value.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opening() -> Opening {
        Opening {
            purpose: Purpose::Control,
            port: 17488,
            interface: Some("mgmt0".to_owned()),
            family: None,
            source: Some("10.1.0.0/20".parse().unwrap()),
            destination: Some("192.0.2.1".parse().unwrap()),
        }
    }

    fn rule(opening: &Opening, said: &str) -> Rule {
        Rule { handle: 1, comment: Some(said.to_owned()), exprs: opening.exprs(TableFamily::Inet) }
    }

    #[test]
    fn a_rule_of_ours_is_known_by_what_it_executes() {
        let v6 = Opening {
            source: Some("fd00::/64".parse().unwrap()),
            destination: None,
            interface: None,
            ..opening()
        };
        let bare = Opening { source: None, family: Some(Family::V6), ..v6.clone() };
        for opening in [opening(), v6, bare] {
            assert_eq!(Opening::of(&rule(&opening, "zone-proxy: control")), Some(opening));
        }
    }

    #[test]
    fn a_rule_of_an_admin_is_not_ours_though_its_comment_begins_like_ours() {
        assert_eq!(Opening::of(&rule(&opening(), "zone-proxy: ask olga first")), None);
        let low = Opening { port: 22, ..opening() };
        assert_eq!(Opening::of(&rule(&low, "zone-proxy: control")), None);
        let mut drops = rule(&opening(), "zone-proxy: control");
        *drops.exprs.last_mut().unwrap() = Expr::Verdict(Verdict::Drop);
        assert_eq!(Opening::of(&drops), None);
        let mut limited = rule(&opening(), "zone-proxy: control");
        limited.exprs.insert(0, Expr::Notrack);
        assert_eq!(Opening::of(&limited), None);
    }
}
