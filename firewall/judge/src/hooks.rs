//! The hooks on a packet's way, in the kernel's order.

use std::collections::HashMap;
use std::sync::Arc;

use zone_ruleset::{Chain, ChainType, Family, HookPoint, Hooked, HookedFunction};

use crate::answer::{Case, Condition, Fate, Place};
use crate::bytes::values;
use crate::host::Interface;
use crate::packet::{Packet, Tracking};
use crate::question::{Question, Span};
use crate::region::{Dimension, Product, Region};
use crate::rules::{Rules, TableRules};
use crate::spans::Spans;
use crate::state::{Path, State, join};
use crate::walk::Walk;

/// From this priority on a connection is known (`NF_IP_PRI_CONNTRACK`).
const CONNECTION_TRACKING: i32 = -200;
/// How long the first packet of a connection may be, network header included: without options of TCP, and with all.
const LENGTHS_V4: (u128, u128) = (40, 80);
const LENGTHS_V6: (u128, u128) = (60, 100);

/// What is hooked in at one place: a chain, or something that can't be followed.
enum Stop<'a> {
    Chain(&'a TableRules<'a>, &'a Chain, i32),
    Other(&'static str),
}

/// All cases of a question, for packets that come in by one device.
pub(crate) fn cases(
    rules: &Rules<'_>,
    question: &Question,
    interface: Option<&Interface>,
    destinations: &Spans,
) -> Vec<Case> {
    let lengths = if question.v6 { LENGTHS_V6 } else { LENGTHS_V4 };
    let lengths = Spans::one(lengths.0, lengths.1);
    let mut walk = Walk::new(rules, interface.map(|interface| interface.name.clone()), lengths.clone());
    let start = State {
        packet: Arc::new(Packet::new(question, seen_as(rules, interface))),
        region: region(question, &lengths, destinations),
        conditions: Vec::new(),
        path: Path::default(),
        left_by: None,
        passed_by: None,
    };
    let states = hook(&mut walk, HookPoint::Ingress, vec![start], question.v6);
    let states = hook(&mut walk, HookPoint::Prerouting, states, question.v6);
    let states = routed(&mut walk, rules, states);
    let states = hook(&mut walk, HookPoint::Input, states, question.v6);
    for state in states {
        arrived(&mut walk, question, &state);
    }
    walk.cases
}

/// A device of a VRF is seen by rules under its own name and under the VRF's.
fn seen_as<'a>(rules: &Rules<'_>, interface: Option<&'a Interface>) -> Option<&'a Interface> {
    let is_vrf = |master: u32| {
        rules
            .host
            .interfaces
            .iter()
            .any(|other| other.index == master && other.virtual_kind.as_deref() == Some("vrf"))
    };
    interface.filter(|interface| !interface.master.is_some_and(is_vrf))
}

fn region(question: &Question, lengths: &Spans, destinations: &Spans) -> Region {
    let mut product = Product::all(question.v6)
        .narrowed(Dimension::Length, lengths)
        .narrowed(Dimension::Destination, destinations);
    if !question.sources.is_empty() {
        let own = question.sources.iter().filter(|network| network.network().is_ipv6() == question.v6);
        let spans = own.map(|network| {
            let (first, last) =
                (Span::of_address(&network.network()), Span::of_address(&network.broadcast()));
            Span::new(first.first, last.last)
        });
        product = product.narrowed(Dimension::Source, &Spans::of(spans.collect()));
    }
    if let Some(port) = question.source_port {
        product = product.narrowed(Dimension::SourcePort, &Spans::one(port.into(), port.into()));
    }
    Region::new(product)
}

/// Packets pass all that is hooked in at one place.
fn hook(walk: &mut Walk<'_>, point: HookPoint, states: Vec<State>, v6: bool) -> Vec<State> {
    let mut states = states;
    let stops = stops(walk.rules, point, v6);
    let has_connections = keeps_connections(walk.rules, v6);
    let tracks = |states: &mut Vec<State>| {
        for state in states.iter_mut().filter(|state| state.packet.tracking == Tracking::NotYet) {
            Arc::make_mut(&mut state.packet).tracking = Tracking::New;
        }
    };
    for stop in stops {
        if states.is_empty() {
            return states;
        }
        match stop {
            Stop::Chain(table, chain, priority) => {
                if point == HookPoint::Prerouting && priority > CONNECTION_TRACKING {
                    tracks(&mut states);
                }
                let Some(hook) = &chain.hook else { continue };
                let devices = &hook.devices;
                let is_seen = hook.kind != ChainType::Nat || has_connections;
                let is_there = |state: &State| {
                    is_seen
                        && (devices.is_empty()
                            || devices.iter().any(|device| state.packet.is_from_device(device)))
                };
                let (mut coming, passing): (Vec<_>, Vec<_>) = states.into_iter().partition(|state| {
                    is_there(state)
                        && !(hook.kind == ChainType::Nat
                            && state.packet.rewritten
                            && point == HookPoint::Prerouting)
                });
                if !coming.is_empty() {
                    coming = walk.base_chain(table, chain, coming);
                }
                states = passing;
                states.append(&mut coming);
            }
            Stop::Other(what) => states = both(walk, states, what),
        }
    }
    if point == HookPoint::Prerouting {
        tracks(&mut states);
    }
    states
}

/// Whether the kernel keeps connections of a family: only then do nat chains see packets. It does so while a rule needs it, and a
/// nat chain alone does not. Where the kernel does not say what is hooked in, it is taken to.
fn keeps_connections(rules: &Rules<'_>, v6: bool) -> bool {
    let family = if v6 { Family::Ip6 } else { Family::Ip };
    let hooked = &rules.ruleset.hooked;
    hooked.is_empty()
        || hooked.iter().any(|hooked| {
            hooked.family == family
                && matches!(&hooked.function, HookedFunction::Kernel { function, .. } if function.contains("conntrack_in"))
        })
}

/// Rules that can't be read may pass or drop.
fn both(walk: &mut Walk<'_>, states: Vec<State>, what: &str) -> Vec<State> {
    let nowhere =
        || Place { family: Family::Inet, table: what.into(), chain: "not read".into(), handle: None };
    let condition = |holds| Condition {
        what: format!("{what} let it pass"),
        holds,
        place: nowhere(),
        decided_with: None,
        while_quiet: None,
    };
    states
        .into_iter()
        .map(|state| {
            let mut dropped = state.clone();
            dropped.conditions.push(condition(false));
            walk.end(&dropped, Fate::Dropped, Some(&nowhere()), true);
            let mut passed = state;
            passed.conditions.push(condition(true));
            passed
        })
        .collect()
}

/// The base chains at a place, and what else is there, in order.
fn stops<'a>(rules: &'a Rules<'a>, point: HookPoint, v6: bool) -> Vec<Stop<'a>> {
    let own = if v6 { Family::Ip6 } else { Family::Ip };
    let sees = |family: Family| match point {
        HookPoint::Ingress => matches!(family, Family::Netdev | Family::Inet),
        _ => family == own || family == Family::Inet,
    };
    // Where the kernel says in which order it calls them, that is how it is; of the same priority the last one comes first.
    let order: HashMap<_, _> = rules
        .ruleset
        .hooked
        .iter()
        .enumerate()
        .filter_map(|(at, hooked)| match &hooked.function {
            HookedFunction::Chain { family, table, chain }
                if hooked.point == point && (hooked.family == own || point == HookPoint::Ingress) =>
            {
                Some(((*family, table, chain), at))
            }
            _ => None,
        })
        .collect();
    let mut found = Vec::new();
    for own_table in &rules.tables {
        let table = own_table.table;
        if !sees(table.family) || table.flags.dormant {
            continue;
        }
        for chain in &table.chains {
            if let Some(hook) = chain.hook.as_ref().filter(|hook| hook.point == point) {
                let at = order.get(&(table.family, &table.name, &chain.name)).copied();
                let (priority, at) = match hook.kind {
                    ChainType::Nat => nat_function(rules, point, own),
                    _ => (hook.priority, at.unwrap_or(usize::MAX)),
                };
                found.push((priority, at, hook.priority, Stop::Chain(own_table, chain, priority)));
            }
        }
    }
    found.reverse();
    for hooked in rules.ruleset.hooked.iter().filter(|hooked| hooked.point == point && hooked.family == own) {
        let what = match &hooked.function {
            HookedFunction::Kernel { function, .. }
                if function.starts_with("ipt_do_table") || function.starts_with("ip6t_do_table") =>
            {
                "the rules of iptables-legacy"
            }
            HookedFunction::Kernel { module: Some(module), .. }
                if module.starts_with("iptable_") || module.starts_with("ip6table_") =>
            {
                "the rules of iptables-legacy"
            }
            HookedFunction::Bpf { .. } => "a BPF program",
            _ => continue,
        };
        found.push((hooked.priority, usize::MAX, hooked.priority, Stop::Other(what)));
    }
    found.sort_by_key(|(priority, at, own, _)| (*priority, *at, *own));
    found.into_iter().map(|(_, _, _, stop)| stop).collect()
}

/// The priority and the place in the order of the one function that calls all nat chains at a hook (`NF_IP_PRI_NAT_DST`,
/// `NF_IP_PRI_NAT_SRC`): their own priorities only say in which order it does.
fn nat_function(rules: &Rules<'_>, point: HookPoint, family: Family) -> (i32, usize) {
    let is_it = |hooked: &Hooked| {
        hooked.point == point
            && hooked.family == family
            && matches!(&hooked.function, HookedFunction::Kernel { function, .. } if function.starts_with("nf_nat_"))
    };
    let usual = match point {
        HookPoint::Prerouting | HookPoint::Output => -100,
        _ => 100,
    };
    let found = rules.ruleset.hooked.iter().enumerate().find(|(_, hooked)| is_it(hooked));
    found.map_or((usual, usize::MAX), |(at, hooked)| (hooked.priority, at))
}

/// Of packets that were sent elsewhere, those that go on to another host don't come to this one's input.
fn routed(walk: &mut Walk<'_>, rules: &Rules<'_>, states: Vec<State>) -> Vec<State> {
    let own = rules.local_addresses(states.first().is_some_and(|state| state.packet.v6));
    let local: Spans = Spans::of(own.iter().map(Span::of_address).collect());
    let outside = rules.host.interfaces.iter().filter(|interface| !interface.is_loopback());
    let mut here = Vec::new();
    // Where the host has no address but those of its loopback device, whatever comes is taken for its own.
    let has_none = outside.flat_map(|interface| &interface.addresses).next().is_none();
    for state in states {
        if has_none {
            here.push(state);
            continue;
        }
        match values(state.packet.destination()) {
            Some(address) => {
                let number = address.iter().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
                if local.to_ranges().iter().any(|span| span.contains(number))
                    || is_loopback(number, state.packet.v6)
                {
                    here.push(state);
                } else {
                    let to = target(&state.packet);
                    walk.end(&state, Fate::Forwarded { to }, state.passed_by.as_ref(), true);
                }
            }
            None if state.packet.rewritten => here.push(state),
            // The host has no address that could be asked for yet, as before its network is up: whichever it will have is meant.
            None if !own
                .iter()
                .any(|address| address.is_ipv6() == state.packet.v6 && !address.is_loopback()) =>
            {
                here.push(state);
            }
            None => {
                let product = Product::all(state.packet.v6).narrowed(Dimension::Destination, &local);
                let elsewhere = state.region.without(&product);
                if !elsewhere.is_empty() {
                    let state = State { region: elsewhere, ..state.clone() };
                    walk.end(
                        &state,
                        Fate::Forwarded { to: "an address that is not this host's".to_owned() },
                        None,
                        true,
                    );
                }
                let region = state.region.within(&product);
                if !region.is_empty() {
                    here.push(State { region, ..state });
                }
            }
        }
    }
    here
}

fn is_loopback(number: u128, v6: bool) -> bool {
    if v6 { number == 1 } else { number >> 24 == 127 }
}

fn target(packet: &Packet) -> String {
    let port = values(packet.port()).and_then(|port| <[u8; 2]>::try_from(port).ok()).map(u16::from_be_bytes);
    let port = port.map_or_else(|| "some port".to_owned(), |port| port.to_string());
    let address = values(packet.destination()).and_then(|bytes| {
        <[u8; 4]>::try_from(bytes.clone())
            .map(|bytes| std::net::IpAddr::from(bytes).to_string())
            .or_else(|_| {
                <[u8; 16]>::try_from(bytes).map(|bytes| format!("[{}]", std::net::Ipv6Addr::from(bytes)))
            })
            .ok()
    });
    match address {
        Some(address) => format!("{address}:{port}"),
        None => format!("port {port} of this host"),
    }
}

/// Packets have come to a socket: what becomes of its answer.
fn arrived(walk: &mut Walk<'_>, question: &Question, state: &State) {
    let port = question.port.to_be_bytes();
    let is_elsewhere = state.packet.rewritten
        && (values(state.packet.port()).as_deref() != Some(&port[..])
            || !is_listened_on(question, &state.packet));
    if is_elsewhere {
        // What it gets there is not the proxy's answer, whether it gets one or not.
        let to = target(&state.packet);
        walk.end(state, Fate::Redirected { to }, state.passed_by.as_ref(), false);
        return;
    }
    let fate = Fate::Accepted;
    let answers = [HookPoint::Output, HookPoint::Postrouting];
    let has_chains = answers.iter().any(|point| !stops(walk.rules, *point, question.v6).is_empty());
    if !has_chains {
        walk.end(state, fate, state.passed_by.as_ref(), false);
        return;
    }
    let passed_by = state.passed_by.clone();
    let answer =
        State { packet: Arc::new(state.packet.answer()), left_by: None, passed_by: None, ..state.clone() };
    let mut states = vec![answer];
    walk.is_answer = true;
    for point in answers {
        for stop in stops(walk.rules, point, question.v6) {
            if let Stop::Chain(table, chain, priority) = stop
                && chain.hook.as_ref().is_some_and(|hook| hook.kind != ChainType::Nat)
                && !states.is_empty()
            {
                let is_known = point == HookPoint::Postrouting || priority > CONNECTION_TRACKING;
                for state in states.iter_mut().filter(|state| state.packet.tracking != Tracking::Untracked) {
                    Arc::make_mut(&mut state.packet).tracking =
                        if is_known { Tracking::Answer } else { Tracking::NotYet };
                }
                states = walk.base_chain(table, chain, states);
            }
        }
    }
    walk.is_answer = false;
    for state in &mut states {
        state.packet = Arc::new(answer_of_all(&state.packet));
        state.passed_by.clone_from(&passed_by);
        state.left_by = None;
        state.path = Path::default();
    }
    join(&mut states);
    for mut answered in states {
        answered.path = state.path.clone();
        walk.end(&answered, fate.clone(), passed_by.as_ref(), false);
    }
}

/// Whether a packet that was sent to another address of this host comes to one that was asked about.
fn is_listened_on(question: &Question, packet: &Packet) -> bool {
    let address = values(packet.destination())
        .map(|bytes| bytes.iter().fold(0, |n: u128, byte| n << 8 | u128::from(*byte)));
    let asked = &question.destinations;
    asked.is_empty()
        || address.is_none_or(|number| asked.iter().any(|own| Span::of_address(own).first == number))
}

/// What rules do to an answer tells packets apart no more once it is out.
fn answer_of_all(packet: &Packet) -> Packet {
    let mut packet = packet.clone();
    packet.set_mark([crate::bytes::Byte::known(0); 4]);
    packet.set_connection_mark([crate::bytes::Byte::known(0); 4]);
    packet.touched = Vec::new();
    if packet.tracking != Tracking::Untracked {
        packet.tracking = Tracking::Answer;
    }
    packet
}
