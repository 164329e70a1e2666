//! What iptables' matches and targets do with a packet that is known in part.

use zone_ruleset::{Ports, Verdict, XtMatch, XtTarget};

use crate::answer::Fate;
use crate::bytes::{Byte, Match, between, equal, known};
use crate::outcome::{Asked, Branch, Done};
use crate::packet::{Packet, Tracking, redirect, whole_address};
use crate::question::Span;
use crate::region::{Dimension, Region};
use crate::rules::Rules;
use crate::spans::Spans;

/// `XT_CONNTRACK_STATE_*`.
const INVALID: u32 = 1;
const ESTABLISHED: u32 = 2;
const NEW: u32 = 8;
const UNTRACKED: u32 = 256;
/// The destination is rewritten, and either address is.
const DESTINATION_REWRITTEN: u32 = 128;
const REWRITTEN: u32 = 64 | DESTINATION_REWRITTEN;
/// `1 << RTN_LOCAL`, and the kinds that neither an address of this host nor a sender can be.
const LOCAL: u16 = 1 << 2;
const MANY: u16 = 1 << 3 | 1 << 4 | 1 << 5;

/// Which packets a match lets pass.
pub(crate) fn matches(
    name: &str,
    what: &XtMatch,
    packet: &Packet,
    region: &Region,
    rules: &Rules<'_>,
) -> Done {
    let v6 = packet.v6;
    let mut asked: Vec<Asked> = Vec::new();
    let unknown = |what: String, quiet| Asked::unknown(what, quiet);
    match what {
        XtMatch::Comment(_) => {}
        XtMatch::OtherProtocol => return Done::Break,
        XtMatch::Tcp {
            source,
            source_negated,
            destination,
            destination_negated,
            flags_mask,
            flags,
            flags_negated,
            option,
            ..
        } => {
            asked.push(port(packet.source_port(), &[*source], *source_negated, v6));
            asked.push(port(packet.port(), &[*destination], *destination_negated, v6));
            let seen = [packet.flags().masked(*flags_mask, 0)];
            asked.push(Asked::new(equal(&seen, &[*flags], v6), *flags_negated, false));
            if *option != 0 {
                asked.push(unknown("an option of TCP".to_owned(), None));
            }
        }
        XtMatch::Multiport { of, ranges, negated } => asked.push(match of {
            Ports::Source => port(packet.source_port(), ranges, *negated, v6),
            Ports::Destination => port(packet.port(), ranges, *negated, v6),
            Ports::Either => {
                let by_destination = port(packet.port(), ranges, *negated, v6);
                if by_destination.when == Match::ALWAYS {
                    by_destination
                } else {
                    port(packet.source_port(), ranges, *negated, v6)
                }
            }
        }),
        XtMatch::CtState { mask, negated } => {
            let state = match packet.tracking {
                Tracking::NotYet => INVALID,
                Tracking::New => NEW,
                Tracking::Answer => ESTABLISHED,
                Tracking::Untracked => UNTRACKED,
            };
            let state = if packet.rewritten { state | DESTINATION_REWRITTEN } else { state };
            if mask & REWRITTEN != 0 && mask & state == 0 && packet.tracking == Tracking::Answer {
                let what = "whether an address was rewritten".to_owned();
                asked.push(Asked { negated: *negated, ..unknown(what, None) });
            } else {
                let when = Match::from_bool(mask & state != 0);
                asked.push(Asked::new(when, *negated, packet.untracked_by_name));
            }
        }
        XtMatch::AddrType { source, source_negated, destination, destination_negated, on_interface } => {
            if *source != 0 {
                asked.push(kind_of_address(
                    packet,
                    packet.source(),
                    *source,
                    *source_negated,
                    *on_interface,
                    rules,
                ));
            }
            if *destination != 0 {
                let negated = *destination_negated;
                asked.push(kind_of_address(
                    packet,
                    packet.destination(),
                    *destination,
                    negated,
                    *on_interface,
                    rules,
                ));
            }
        }
        XtMatch::Mark { mark, mask, negated } => {
            asked.push(marked(packet.mark(), *mark, *mask, *negated, v6));
        }
        XtMatch::ConnMark { mark, mask, negated } => match packet.connection_mark() {
            Some(own) => asked.push(marked(own, *mark, *mask, *negated, v6)),
            None => return Done::Break,
        },
        XtMatch::IpRange { source, source_negated, destination, destination_negated } => {
            for (bytes, range, negated) in [
                (packet.source(), source, *source_negated),
                (packet.destination(), destination, *destination_negated),
            ] {
                if let Some((from, to)) = range {
                    let octets = |address: &std::net::IpAddr| match address {
                        std::net::IpAddr::V4(address) => address.octets().to_vec(),
                        std::net::IpAddr::V6(address) => address.octets().to_vec(),
                    };
                    asked.push(Asked::new(between(bytes, &octets(from), &octets(to), v6), negated, true));
                }
            }
        }
        XtMatch::Mac { address, negated } => {
            asked.push(Asked::new(equal(packet.hardware_source(), address, v6), *negated, true));
        }
        XtMatch::PktType { kind, negated } => {
            asked.push(Asked::new(Match::from_bool(*kind == 0), *negated, false));
        }
        XtMatch::Length { min, max, negated } => {
            let spans = vec![(Dimension::Length, Spans::one((*min).into(), (*max).into()))];
            asked.push(Asked::new(Match::If { spans, unknown: None }, *negated, true));
        }
        XtMatch::Limit { text } => asked.push(unknown(text.clone(), Some(!text.contains("above")))),
        XtMatch::Other => asked.push(unknown(format!("xt match {name}"), None)),
    }
    one_after_the_other(asked, region, v6)
}

/// All that is asked must hold.
fn one_after_the_other(asked: Vec<Asked>, region: &Region, v6: bool) -> Done {
    let mut going =
        vec![Branch { region: region.clone(), condition: None, done: Done::Next, load: None, names: false }];
    let mut broken: Vec<Branch> = Vec::new();
    for one in asked {
        let Asked { when, negated, names, while_quiet, what } = one;
        let mut next = Vec::new();
        for branch in going {
            let again = Asked { when: when.clone(), negated, names, while_quiet, what: what.clone() };
            let parts = match again.done(&branch.region, v6) {
                Done::Splits(parts) => parts,
                done => {
                    let region = branch.region.clone();
                    vec![Branch { region, condition: None, done, load: None, names: false }]
                }
            };
            for mut part in parts {
                part.names |= branch.names;
                part.condition = part.condition.or_else(|| branch.condition.clone());
                if matches!(part.done, Done::Next) { next.push(part) } else { broken.push(part) }
            }
        }
        going = next;
    }
    let mut branches = going;
    branches.append(&mut broken);
    match &branches[..] {
        [only] if only.condition.is_none() && !(only.names && matches!(only.done, Done::Next)) => {
            branches.remove(0).done
        }
        _ => Done::Splits(branches),
    }
}

fn port(bytes: &[Byte], ranges: &[(u16, u16)], negated: bool, v6: bool) -> Asked {
    let names = !matches!(ranges, [(0 | 1, u16::MAX)]);
    let mut spans: Vec<Span> = Vec::new();
    for (from, to) in ranges {
        match between(bytes, &from.to_be_bytes(), &to.to_be_bytes(), v6) {
            Match::Never => {}
            Match::If { spans: found, unknown: None } if found.is_empty() => {
                return Asked::new(Match::ALWAYS, negated, names);
            }
            Match::If { spans: found, unknown: None } => {
                for (_, numbers) in &found {
                    spans.extend(numbers.to_ranges().iter());
                }
            }
            other @ Match::If { .. } => return Asked::new(other, negated, names),
        }
    }
    let spans = Spans::of(spans);
    if spans.is_empty() {
        return Asked::new(Match::Never, negated, names);
    }
    Asked::new(Match::If { spans: vec![(Dimension::SourcePort, spans)], unknown: None }, negated, names)
}

fn marked(own: [Byte; 4], mark: u32, mask: u32, negated: bool, v6: bool) -> Asked {
    let masked: Vec<Byte> =
        own.iter().zip(mask.to_ne_bytes()).map(|(byte, mask)| byte.masked(mask, 0)).collect();
    let names = masked.iter().any(|byte| byte.names);
    Asked::new(equal(&masked, &mark.to_ne_bytes(), v6), negated, names)
}

fn kind_of_address(
    packet: &Packet,
    bytes: &[Byte],
    kinds: u16,
    negated: bool,
    on_interface: bool,
    rules: &Rules<'_>,
) -> Asked {
    let unknown =
        || Asked { negated, ..Asked::unknown("the kind of an address (addrtype)".to_owned(), None) };
    let own: Vec<std::net::IpAddr> =
        if on_interface { packet.own_addresses().collect() } else { rules.local_addresses(packet.v6) };
    let spans = Spans::of(own.iter().filter(|a| a.is_ipv6() == packet.v6).map(Span::of_address).collect());
    let is_destination = bytes == packet.destination();
    if is_destination && spans.is_empty() {
        // Before the host has addresses: what is for it is for one of them.
        return if on_interface {
            unknown()
        } else {
            Asked::new(Match::from_bool(kinds & LOCAL != 0), negated, false)
        };
    }
    let Ok(dimension) = whole_address(bytes, packet.v6) else { return unknown() };
    if kinds == LOCAL {
        return Asked::new(Match::If { spans: vec![(dimension, spans)], unknown: None }, negated, false);
    }
    // An address of this host is of one kind only.
    if is_destination && kinds & LOCAL == 0 && kinds & !MANY == 0 {
        return Asked::new(Match::Never, negated, false);
    }
    unknown()
}

/// What a target does.
pub(crate) fn target(name: &str, what: &XtTarget, packet: &mut Packet, named: bool) -> Done {
    let noted = |bytes: [Byte; 4]| if named { bytes.map(Byte::naming) } else { bytes };
    match what {
        XtTarget::Reject => Done::Ends(Fate::Rejected),
        XtTarget::Mark { mark, mask } => {
            let set = with_mask(packet.mark(), *mark, *mask);
            packet.set_mark(noted(set));
            Done::Next
        }
        XtTarget::ConnMark { mode, mark, mask, packet_mask } => {
            let Some(own) = packet.connection_mark() else { return Done::Next };
            match mode {
                0 => packet.set_connection_mark(noted(with_mask(own, *mark, *mask))),
                1 => {
                    let new = merged(own, packet.mark(), *mask, *packet_mask);
                    packet.set_connection_mark(noted(new));
                }
                _ => {
                    let new = merged(packet.mark(), own, *packet_mask, *mask);
                    packet.set_mark(noted(new));
                }
            }
            Done::Next
        }
        XtTarget::Notrack => {
            packet.untrack(named);
            Done::Next
        }
        XtTarget::Passes => Done::Next,
        XtTarget::Dnat { address, ports } => {
            let address = address.map(|address| match address {
                std::net::IpAddr::V4(address) => known(address.octets()).to_vec(),
                std::net::IpAddr::V6(address) => known(address.octets()).to_vec(),
            });
            packet.rewrite_destination(address.as_deref(), one_port(*ports).as_deref());
            Done::Verdict(Verdict::Accept)
        }
        XtTarget::Redirect { ports } => {
            redirect(packet, one_port(*ports).as_deref());
            Done::Verdict(Verdict::Accept)
        }
        XtTarget::Snat => Done::Verdict(Verdict::Accept),
        XtTarget::Queue { .. } => Done::Ends(Fate::TakenOver { by: "a queue".to_owned() }),
        XtTarget::Takes => Done::Ends(Fate::TakenOver { by: name.to_lowercase() }),
        XtTarget::Tproxy => Done::Ends(Fate::TakenOver { by: "tproxy".to_owned() }),
        XtTarget::Other => Done::Ends(Fate::Unknown(crate::answer::Reason {
            what: format!("xt target {name}"),
            place: None,
        })),
    }
}

fn one_port(ports: Option<(u16, u16)>) -> Option<Vec<Byte>> {
    let (first, last) = ports?;
    Some(if first == last {
        known(first.to_be_bytes()).map(Byte::naming).to_vec()
    } else {
        vec![Byte::unknown("one of several ports").naming(); 2]
    })
}

fn with_mask(own: [Byte; 4], mark: u32, mask: u32) -> [Byte; 4] {
    let (mark, mask) = (mark.to_ne_bytes(), mask.to_ne_bytes());
    std::array::from_fn(|index| own[index].masked(!mask[index], mark[index]))
}

/// `(to & !to_mask) ^ (from & from_mask)`, where that can be told.
fn merged(to: [Byte; 4], from: [Byte; 4], to_mask: u32, from_mask: u32) -> [Byte; 4] {
    let (to_mask, from_mask) = (to_mask.to_ne_bytes(), from_mask.to_ne_bytes());
    std::array::from_fn(|index| match from[index].masked(from_mask[index], 0).value() {
        Some(value) if from[index].names => to[index].masked(!to_mask[index], value).naming(),
        Some(value) => to[index].masked(!to_mask[index], value),
        None => Byte::unknown("a mark that was copied"),
    })
}
