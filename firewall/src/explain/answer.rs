//! The judge's answer, in words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use zone_firewall_protocol::{
    ExplainedCase, ExplainedCondition, ExplainedRule, ExplainedStep, Explanation, MAX_LINE_BYTES,
    PacketQuestion, PacketVerdict, Reachability,
};
use zone_judge::{Case, Condition, Fate, Host, Judge, Place, Question, Span};
use zone_ruleset::{Ruleset, words};

/// The most cases that are told.
const MAX_CASES: usize = 64;
/// The most ranges of addresses or ports that are told of a case, and the most steps of its way.
const MAX_ENTRIES: usize = 32;
/// The longest text of a rule or a condition, in characters.
const MAX_TEXT: usize = 600;
/// What an answer has around the explanation, in bytes.
const ENVELOPE_BYTES: usize = 64;

/// A question that has no answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QuestionError {
    /// One end is of IPv4, the other of IPv6.
    #[error("{from} and {to} are not of the same family: no packet goes from one to the other")]
    Families {
        /// Where it would come from.
        from: IpNet,
        /// Where it would go to.
        to: IpAddr,
    },
    /// There is no such device.
    #[error("this host has no device '{0}'; 'ip link' shows those that it has")]
    NoDevice(String),
}

/// What becomes of a packet, in words.
pub(super) fn explanation(
    asked: &PacketQuestion,
    ruleset: &Ruleset,
    host: &Host,
) -> Result<Explanation, QuestionError> {
    let judge = Judge::new(ruleset, host);
    let words = Words { ruleset, host };
    let mut cases = Vec::new();
    for question in questions(asked, host)? {
        let mut found = judge.ask(&question).cases;
        found.iter_mut().for_each(one_condition_for_each_rule);
        let merged = merged(found);
        cases.extend(merged.iter().map(|group| words.case(group, question.v6)));
    }
    cases.sort_by_key(|case| case.only_above_rate);
    let reachability = reachability(&cases);
    let mut explanation = Explanation { reachability, cases_left_out: 0, cases };
    while explanation.cases.len() > MAX_CASES || !fits(&explanation) {
        let kept = (explanation.cases.len() / 2).clamp(0, MAX_CASES);
        explanation.cases_left_out += explanation.cases.len() - kept;
        explanation.cases.truncate(kept);
    }
    Ok(explanation)
}

/// One question for each family that is asked about.
fn questions(asked: &PacketQuestion, host: &Host) -> Result<Vec<Question>, QuestionError> {
    if let Some(name) = &asked.interface
        && host.interface(name).is_none()
    {
        return Err(QuestionError::NoDevice(name.escape_debug().to_string()));
    }
    let from = asked.from.map(|from| from.addr().is_ipv6());
    let to = asked.to.map(|to| to.is_ipv6());
    let families = match (from, to, asked.from.zip(asked.to)) {
        (Some(from_v6), Some(to_v6), Some((from, to))) if from_v6 != to_v6 => {
            return Err(QuestionError::Families { from, to });
        }
        (Some(v6), ..) | (_, Some(v6), _) => vec![v6],
        (None, None, _) => {
            let addresses = || {
                let outside = host.interfaces.iter().filter(|interface| !interface.is_loopback());
                outside.flat_map(|interface| &interface.addresses)
            };
            let both: Vec<bool> =
                [false, true].into_iter().filter(|v6| addresses().any(|one| one.is_ipv6() == *v6)).collect();
            if both.is_empty() { vec![false] } else { both }
        }
    };
    let question = |v6| Question {
        sources: asked.from.into_iter().collect(),
        source_port: asked.source_port,
        destinations: asked.to.into_iter().collect(),
        interface: asked.interface.clone(),
        mac: asked.mac.map(|mac| mac.0),
        mark: asked.mark,
        ..Question::any(v6, asked.port)
    };
    Ok(families.into_iter().map(question).collect())
}

/// A rule goes on while its conditions hold, so the last one says whether all of them do.
fn one_condition_for_each_rule(case: &mut Case) {
    let mut conditions: Vec<Condition> = Vec::new();
    for next in case.conditions.drain(..) {
        match conditions.last_mut().filter(|last| last.place == next.place && last.holds) {
            Some(last) => {
                if !last.what.split(" and ").any(|what| what == next.what) {
                    last.what = format!("{} and {}", last.what, next.what);
                }
                last.holds = next.holds;
                last.decided_with = last.decided_with.or(next.decided_with);
                last.while_quiet = match (last.while_quiet, next.while_quiet) {
                    (Some(false), _) | (_, Some(false)) => Some(false),
                    (quiet, other) => quiet.and(other),
                };
            }
            None => conditions.push(next),
        }
    }
    case.conditions = conditions;
}

/// Above so many cases each stands alone, since most will not be told anyway.
const MAX_MERGED: usize = 4096;

/// Cases that differ in nothing but where they come from, or in nothing but the device and the address of ours, are one.
fn merged(cases: Vec<Case>) -> Vec<Vec<Case>> {
    if cases.len() > MAX_MERGED {
        return cases.into_iter().map(|case| vec![case]).collect();
    }
    let mut by_source: Vec<Case> = Vec::new();
    for case in cases {
        let alike = |other: &&mut Case| {
            same_way(other, &case)
                && (&other.destinations, &other.interface) == (&case.destinations, &case.interface)
        };
        match by_source.iter_mut().find(alike) {
            Some(first) => {
                let mut sources = [&*first.sources, &*case.sources].concat();
                sources.sort_unstable();
                sources.dedup();
                first.sources = sources.into();
            }
            None => by_source.push(case),
        }
    }
    let mut merged: Vec<Vec<Case>> = Vec::new();
    for case in by_source {
        let alike = |group: &&mut Vec<Case>| same_way(&group[0], &case) && group[0].sources == case.sources;
        match merged.iter_mut().find(alike) {
            Some(group) => group.push(case),
            None => merged.push(vec![case]),
        }
    }
    merged
}

/// Whether packets fare alike for the same reasons, wherever they come from and go to.
fn same_way(one: &Case, other: &Case) -> bool {
    one.fate == other.fate
        && one.decided_by == other.decided_by
        && one.left_by == other.left_by
        && one.source_ports == other.source_ports
        && one.conditions == other.conditions
        && one.path == other.path
}

fn reachability(cases: &[ExplainedCase]) -> Reachability {
    let quiet = |case: &&ExplainedCase| !case.only_above_rate;
    let some_quiet = cases.iter().any(|case| quiet(&case));
    let counted = || cases.iter().filter(|case| !some_quiet || quiet(case)).map(|case| case.verdict);
    let shut = |verdict| match verdict {
        PacketVerdict::Dropped
        | PacketVerdict::Rejected
        | PacketVerdict::Unanswered
        | PacketVerdict::Redirected
        | PacketVerdict::Forwarded => true,
        PacketVerdict::Accepted | PacketVerdict::TakenOver | PacketVerdict::Unknown => false,
    };
    if cases.is_empty() {
        Reachability::Unknown
    } else if counted().all(|verdict| verdict == PacketVerdict::Accepted) {
        Reachability::Open
    } else if counted().all(shut) {
        Reachability::Shut
    } else {
        Reachability::Unknown
    }
}

fn fits(explanation: &Explanation) -> bool {
    explanation.cases.is_empty()
        || serde_json::to_string(explanation).is_ok_and(|line| line.len() + ENVELOPE_BYTES < MAX_LINE_BYTES)
}

struct Words<'a> {
    ruleset: &'a Ruleset,
    host: &'a Host,
}

impl Words<'_> {
    fn case(&self, group: &[Case], v6: bool) -> ExplainedCase {
        let case = &group[0];
        let (verdict, detail) = fate(&case.fate);
        let bits = if v6 { 128 } else { 32 };
        let mut destinations: Vec<Span> =
            group.iter().flat_map(|case| case.destinations.iter().copied()).collect();
        destinations.sort_unstable();
        destinations.dedup();
        let mut interfaces: Vec<String> =
            group.iter().filter_map(|case| case.interface.as_ref()).map(words::name).collect();
        interfaces.dedup();
        ExplainedCase {
            verdict,
            detail: detail.map(cut),
            family: if v6 { "ipv6" } else { "ipv4" }.to_owned(),
            sources: bounded(addresses(&case.sources, bits)),
            source_ports: bounded(ports(&case.source_ports)),
            destinations: bounded(addresses(&destinations, bits)),
            interfaces: bounded(interfaces),
            conditions: case.conditions.iter().take(MAX_ENTRIES).map(|one| self.condition(one)).collect(),
            only_above_rate: case.conditions.iter().any(|condition| condition.while_quiet == Some(false)),
            decided_by: case.decided_by.as_ref().map(|place| self.rule(place)),
            left_by: case.left_by.as_ref().map(|place| self.rule(place)),
            path: case
                .path
                .iter()
                .take(MAX_ENTRIES)
                .map(|step| ExplainedStep { place: place(&step.place), what: cut(step.kind.to_string()) })
                .collect(),
        }
    }

    fn condition(&self, condition: &Condition) -> ExplainedCondition {
        ExplainedCondition {
            what: cut(condition.what.clone()),
            holds: condition.holds,
            rate: condition.while_quiet.is_some(),
            place: place(&condition.place),
            rule: self.rule(&condition.place).text,
            decided_with: condition.decided_with.map(str::to_owned),
        }
    }

    /// A rule by its text; without a handle, the policy of a base chain or the end of another.
    fn rule(&self, place: &Place) -> ExplainedRule {
        let table = self.ruleset.table(place.family, place.table.as_bytes());
        let chain = table.and_then(|table| table.chain(&place.chain));
        let rule = place.handle.and_then(|handle| chain?.rules.iter().find(|rule| rule.handle == handle));
        let devices = |index: u32| {
            self.host
                .interfaces
                .iter()
                .find(|interface| interface.index == index)
                .map(|found| found.name.clone())
        };
        let text = match (table, rule, chain.and_then(|chain| chain.hook.as_ref())) {
            (Some(table), Some(rule), _) => words::rule_with(rule, table, &devices),
            (.., Some(hook)) if place.handle.is_none() => {
                format!("policy {}", if hook.policy_drops { "drop" } else { "accept" })
            }
            _ if place.handle.is_none() => "the end of the chain".to_owned(),
            _ => "a rule that has no text".to_owned(),
        };
        ExplainedRule {
            family: place.family.to_string(),
            table: words::name(&place.table),
            chain: words::name(&place.chain),
            handle: place.handle,
            text: cut(text),
            nft: None,
        }
    }
}

fn fate(fate: &Fate) -> (PacketVerdict, Option<String>) {
    match fate {
        Fate::Accepted => (PacketVerdict::Accepted, None),
        Fate::Dropped => (PacketVerdict::Dropped, None),
        Fate::Rejected => (PacketVerdict::Rejected, None),
        Fate::Unanswered => (PacketVerdict::Unanswered, None),
        Fate::Redirected { to } => (PacketVerdict::Redirected, Some(format!("to {to}"))),
        Fate::Forwarded { to } => (PacketVerdict::Forwarded, Some(format!("to {to}"))),
        Fate::TakenOver { by } => (PacketVerdict::TakenOver, Some(format!("by {by}"))),
        Fate::Unknown(reason) => {
            let at = reason.place.as_ref().map(|at| format!(" ({})", place(at))).unwrap_or_default();
            (PacketVerdict::Unknown, Some(format!("{}{at}", reason.what)))
        }
    }
}

fn place(place: &Place) -> String {
    words::place(place.family, &place.table, &place.chain, place.handle)
}

/// Networks and ranges; none for all addresses.
fn addresses(spans: &[Span], bits: u32) -> Vec<String> {
    let last = if bits == 128 { u128::MAX } else { u128::from(u32::MAX) };
    if spans == [Span { first: 0, last }] {
        return Vec::new();
    }
    spans.iter().map(|span| address_range(span, bits == 128)).collect()
}

fn address_range(span: &Span, v6: bool) -> String {
    let networks: Vec<IpNet> = if v6 {
        let (first, last) = (Ipv6Addr::from_bits(span.first), Ipv6Addr::from_bits(span.last));
        Ipv6Subnets::new(first, last, 0).take(2).map(IpNet::from).collect()
    } else {
        let address = |number: u128| Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX));
        Ipv4Subnets::new(address(span.first), address(span.last), 0).take(2).map(IpNet::from).collect()
    };
    let address = |number: u128| {
        if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(number))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap_or(u32::MAX)))
        }
    };
    match networks[..] {
        [one] if one.prefix_len() == one.max_prefix_len() => one.addr().to_string(),
        [one] => one.to_string(),
        _ => format!("{}-{}", address(span.first), address(span.last)),
    }
}

fn ports(spans: &[Span]) -> Vec<String> {
    if matches!(spans, [Span { first: 0 | 1, last: 65_535 }]) {
        return Vec::new();
    }
    let range = |span: &Span| {
        if span.first == span.last { span.first.to_string() } else { format!("{}-{}", span.first, span.last) }
    };
    spans.iter().map(range).collect()
}

fn bounded(mut entries: Vec<String>) -> Vec<String> {
    if entries.len() > MAX_ENTRIES {
        let more = entries.len() - MAX_ENTRIES;
        entries.truncate(MAX_ENTRIES);
        entries.push(format!("... {more} more"));
    }
    entries
}

/// In one line, and not too long.
fn cut(text: String) -> String {
    let text = if text.contains(char::is_control) { text.escape_debug().to_string() } else { text };
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use zone_judge::Interface;
    use zone_ruleset::{
        Chain, ChainType, Comparison, Expr, Family, Hook, HookPoint, Limit, LimitUnit, Name, PayloadBase,
        RegisterSlice, Rule, Table, TableFlags, Verdict,
    };

    use super::*;

    fn host() -> Host {
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let device = |index, name: &str, kind, addresses| Interface {
            index,
            name: Name::from(name),
            group: 0,
            kind,
            virtual_kind: None,
            master: None,
            addresses,
        };
        Host {
            interfaces: vec![
                device(1, "lo", 772, vec!["127.0.0.1".parse().unwrap()]),
                device(2, "eth0", 1, addresses),
            ],
        }
    }

    fn ruleset(rules: Vec<Vec<Expr>>, policy_drops: bool) -> Ruleset {
        let rules = (4..).zip(rules).map(|(handle, exprs)| Rule { handle, comment: None, exprs }).collect();
        let hook = Hook {
            point: HookPoint::Input,
            priority: 0,
            kind: ChainType::Filter,
            policy_drops,
            devices: Vec::new(),
        };
        let chain = Chain { name: Name::from("input"), handle: 1, hook: Some(hook), anonymous: false, rules };
        let table = Table {
            family: Family::Ip,
            name: Name::from("filter"),
            handle: 1,
            flags: TableFlags::default(),
            comment: None,
            chains: vec![chain],
            sets: Vec::new(),
            objects: Vec::new(),
            flowtables: Vec::new(),
        };
        Ruleset { generation: 1, tables: vec![table], hooked: Vec::new() }
    }

    fn source_is(network: [u8; 3]) -> Vec<Expr> {
        let at = RegisterSlice { offset: 0, length: 3 };
        vec![
            Expr::Payload { destination: at, base: PayloadBase::Network, offset: 12 },
            Expr::Compare { source: at, op: Comparison::Equal, value: network.into() },
        ]
    }

    fn asked(port: u16) -> PacketQuestion {
        PacketQuestion {
            port,
            from: None,
            to: Some("192.0.2.1".parse().unwrap()),
            source_port: None,
            interface: None,
            mac: None,
            mark: 0,
            nft: false,
        }
    }

    fn with(rules: Vec<Vec<Expr>>, policy_drops: bool, asked: &PacketQuestion) -> Explanation {
        explanation(asked, &ruleset(rules, policy_drops), &host()).unwrap()
    }

    #[test]
    fn the_deciding_rule_is_named_with_its_text() {
        let rule = [source_is([198, 51, 100]), vec![Expr::Verdict(Verdict::Drop)]].concat();
        let told = with(
            vec![rule.clone()],
            false,
            &PacketQuestion { from: "198.51.100.7/32".parse().ok(), ..asked(22) },
        );
        assert_eq!(told.reachability, Reachability::Shut);
        let decided_by = told.cases[0].decided_by.as_ref().unwrap();
        assert_eq!((decided_by.handle, decided_by.text.as_str()), (Some(4), "ip saddr 198.51.100.0/24 drop"));
        let told = with(vec![rule], false, &asked(22));
        assert_eq!((told.reachability, told.cases.len()), (Reachability::Unknown, 2));
        assert!(told.cases.iter().any(|case| case.sources == ["198.51.100.0/24"]), "{told:#?}");
    }

    #[test]
    fn a_rate_counts_as_kept() {
        let limit = Limit { rate: 5, seconds: 1, burst: 5, unit: LimitUnit::Packets, over: true };
        let told = with(vec![vec![Expr::Limit(limit), Expr::Verdict(Verdict::Drop)]], false, &asked(22));
        assert_eq!(told.reachability, Reachability::Open);
        assert!(told.cases.iter().any(|case| case.only_above_rate && case.verdict == PacketVerdict::Dropped));
    }

    #[test]
    fn a_rule_that_asks_twice_makes_two_cases_and_not_three() {
        let hour = RegisterSlice { offset: 0, length: 4 };
        let is = |op, value: u32| Expr::Compare { source: hour, op, value: value.to_be_bytes().into() };
        let rule = vec![
            Expr::Meta { destination: hour, key: zone_ruleset::MetaKey::Hour },
            is(Comparison::GreaterOrEqual, 100),
            is(Comparison::LessOrEqual, 200),
            Expr::Verdict(Verdict::Drop),
        ];
        let told = with(vec![rule], false, &asked(22));
        let conditions: Vec<_> = told.cases.iter().map(|case| &case.conditions[..]).collect();
        let [[one], [other]] = conditions[..] else { panic!("{told:#?}") };
        assert_ne!(one.holds, other.holds);
        assert!(one.rule.starts_with("meta hour ") && one.rule.ends_with(" drop"), "{}", one.rule);
    }

    #[test]
    fn what_can_not_be_asked_is_said() {
        let ask =
            |asked: &PacketQuestion| explanation(asked, &ruleset(Vec::new(), false), &host()).unwrap_err();
        let nowhere = PacketQuestion { interface: Some("eth9\n".to_owned()), ..asked(22) };
        assert_eq!(ask(&nowhere), QuestionError::NoDevice("eth9\\n".to_owned()));
        let mixed = PacketQuestion { from: "2001:db8::7/128".parse().ok(), ..asked(22) };
        assert!(matches!(ask(&mixed), QuestionError::Families { .. }));
    }

    #[test]
    fn an_answer_fits_into_its_line_however_many_cases_there_are() {
        let drop = |number: u8| [source_is([10, number, 1]), vec![Expr::Verdict(Verdict::Drop)]].concat();
        let accept = |number: u8| [source_is([10, number, 2]), vec![Expr::Verdict(Verdict::Accept)]].concat();
        let rules = (0..200).flat_map(|number| [drop(number), accept(number)]).collect();
        let told = with(rules, true, &asked(22));
        assert!(told.cases_left_out > 0 && !told.cases.is_empty(), "{}", told.cases_left_out);
        assert!(serde_json::to_string(&told).unwrap().len() < MAX_LINE_BYTES);
        assert_eq!(told.reachability, Reachability::Unknown);
    }
}
