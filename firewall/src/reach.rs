//! Whether the ports that are to be open can be reached, by whom not, and because of which rule: as findings.

mod reverse_path;

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Subnets, Ipv6Subnets};
use zone_firewall_protocol::{Finding, FindingKind, Level};
use zone_judge::{Answer, Case, Condition, Fate, Host, Place, Span};
use zone_ruleset::{Expr, Name, Ruleset, Verdict, words};

use crate::desired::Family;
use crate::firewalld;
use crate::placement::{Open, rule_at};

/// The most networks that a finding names.
const MAX_NAMED: usize = 3;
/// Up to this share of its sources, a port that is denied by name is denied to some, and open all the same.
const SOME: f64 = 0.5;

/// The most rules that deny a port of one family by name and are told one by one.
const MAX_DENIED: usize = 16;

/// Cases that are told in one finding.
struct Group<'a> {
    fate: &'a Fate,
    place: Option<&'a Place>,
    conditions: &'a [Condition],
    named: bool,
    named_by_itself: bool,
    cases: Vec<&'a Case>,
}

/// What keeps ports that are to be open from being reached.
pub(crate) fn findings(open: &[Open<'_>], answers: &[Answer], rules: &Ruleset, host: &Host) -> Vec<Finding> {
    let mut findings: Vec<Finding> = Vec::new();
    for (port, answer) in open.iter().zip(answers) {
        let groups = groups(answer);
        let amounts = amounts(answer);
        // Whatever an unknown condition comes to, nobody gets in: then that is no question any more.
        let gets_in = |case: &Case| is_open(&case.fate);
        let is_shut = !answer.cases.iter().any(gets_in);
        let mut denied = 0;
        for group in groups.iter().filter(|group| !group.comes_another_way(rules)) {
            let finding = group.finding(port, &amounts, rules, host, is_shut);
            if finding.is_note() {
                denied += 1;
                if denied > MAX_DENIED {
                    continue;
                }
            }
            findings.push(finding);
        }
        if denied > MAX_DENIED {
            findings.push(more_denied(port, denied - MAX_DENIED));
        }
    }
    let mut seen = BTreeSet::new();
    findings.retain(|finding| seen.insert((finding.id.clone(), finding.what.clone())));
    findings
}

fn more_denied(port: &Open<'_>, more: usize) -> Finding {
    let number = port.rule.port;
    Finding {
        id: format!("{}:{number}:{}:more", Level::Denied, port.family.as_str()),
        level: Level::Denied,
        kind: FindingKind::Blocked,
        port: Some(number),
        what: format!(
            "port {number} ({}), {}: {more} more rules deny it to some",
            port.rule.purpose,
            name_of(port.family)
        ),
        help: "'zone-firewall explain' names them all".to_owned(),
    }
}

fn name_of(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// How many packets come in by each device, as far as addresses and ports tell. Cases that differ in their conditions are of the
/// same packets.
fn amounts(answer: &Answer) -> HashMap<Option<&Name>, f64> {
    let mut spans: HashMap<Option<&Name>, [Vec<Span>; 3]> = HashMap::new();
    for case in &answer.cases {
        let [sources, ports, destinations] = spans.entry(case.interface.as_ref()).or_default();
        sources.extend(case.sources.iter());
        ports.extend(case.source_ports.iter());
        destinations.extend(case.destinations.iter());
    }
    let whole = |spans: [Vec<Span>; 3]| spans.into_iter().map(joined_size).product();
    spans.into_iter().map(|(interface, spans)| (interface, whole(spans))).collect()
}

/// How many numbers are in ranges, each counted once.
fn joined_size(mut spans: Vec<Span>) -> f64 {
    spans.sort_unstable();
    let mut joined: Vec<Span> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(last) if span.first <= last.last => last.last = last.last.max(span.last),
            _ => joined.push(span),
        }
    }
    size(&joined)
}

fn amount(case: &Case) -> f64 {
    size(&case.sources) * size(&case.source_ports) * size(&case.destinations)
}

fn groups(answer: &Answer) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut by_place: HashMap<Option<&Place>, Vec<usize>> = HashMap::new();
    for case in answer.cases.iter().filter(|case| !is_open(&case.fate)) {
        let place = match (&case.decided_by, &case.left_by) {
            (Some(decided), Some(left)) if decided.handle.is_none() => Some(left),
            (decided, _) => decided.as_ref(),
        };
        let at = by_place.entry(place).or_default();
        let is_same = |index: &&usize| {
            groups
                .get(**index)
                .is_some_and(|group| group.fate == &case.fate && group.conditions == &case.conditions[..])
        };
        if let Some(index) = at.iter().find(is_same) {
            groups[*index].cases.push(case);
        } else {
            at.push(groups.len());
            groups.push(Group {
                fate: &case.fate,
                place,
                conditions: &case.conditions,
                named: case.named,
                named_by_itself: case.named_by_itself,
                cases: vec![case],
            });
        }
    }
    groups
}

/// Whether whoever listens gets the connection.
fn is_open(fate: &Fate) -> bool {
    matches!(fate, Fate::Accepted)
}

/// Whether a chain does nothing but refuse: whoever is sent there is denied by what sent them.
fn only_refuses(place: &Place, rules: &Ruleset) -> bool {
    let table = rules.table(place.family, place.table.as_bytes());
    let Some(chain) = table.and_then(|table| table.chain(&place.chain)) else { return false };
    let lets_in = |expr: &Expr| match expr {
        Expr::Verdict(verdict) => !matches!(verdict, Verdict::Drop | Verdict::Continue),
        Expr::Lookup { verdict, .. } => *verdict,
        _ => false,
    };
    chain.hook.is_none() && !chain.rules.iter().flat_map(|rule| &rule.exprs).any(lets_in)
}

impl Group<'_> {
    fn finding(
        &self,
        port: &Open<'_>,
        amounts: &HashMap<Option<&Name>, f64>,
        rules: &Ruleset,
        host: &Host,
        is_shut: bool,
    ) -> Finding {
        let depends = self.conditions.iter().find(|condition| {
            condition.while_quiet.is_none() && reverse_path::comes_another_way(condition, rules).is_none()
        });
        let only_when_much_comes =
            self.conditions.iter().any(|condition| condition.while_quiet == Some(false));
        let share = self.share(amounts);
        let sent_there = self.named && self.place.is_some_and(|place| only_refuses(place, rules));
        let level = match self.fate {
            Fate::Unknown(_) | Fate::TakenOver { .. } => Level::Unknown,
            _ if only_when_much_comes && !is_shut => Level::Denied,
            _ if (self.named_by_itself || sent_there) && share <= SOME => Level::Denied,
            _ if (depends.is_some() || self.of_some_lengths()) && !is_shut => Level::Unknown,
            _ => Level::Closed,
        };
        let number = port.rule.port;
        let family = name_of(port.family);
        let what = format!(
            "port {number} ({}), {family}{}{}: {}{}",
            port.rule.purpose,
            self.sources(port.family),
            self.interfaces(host),
            self.done(rules, host),
            self.conditions()
        );
        let place = self.place.map_or_else(
            || "host".to_owned(),
            |place| format!("{}/{}/{}", place.family, place.table, place.chain),
        );
        let id = format!("{level}:{number}:{}:{place}", port.family.as_str());
        Finding {
            id,
            level,
            kind: FindingKind::Blocked,
            port: Some(number),
            what,
            help: self.help(level, rules).to_owned(),
        }
    }

    /// Whether it is about packets alone that come in by another device than the one that leads back to their source.
    fn comes_another_way(&self, rules: &Ruleset) -> bool {
        self.conditions
            .iter()
            .any(|condition| reverse_path::comes_another_way(condition, rules) == Some(true))
    }

    /// Whether it depends on how long packets are, as it does on what their senders put into them.
    fn of_some_lengths(&self) -> bool {
        self.cases.iter().any(|case| !case.of_any_length)
    }

    /// Of the packets that come in by the same devices, how many fare so.
    fn share(&self, amounts: &HashMap<Option<&Name>, f64>) -> f64 {
        let interfaces: BTreeSet<_> = self.cases.iter().map(|case| case.interface.as_ref()).collect();
        let own: f64 = self.cases.iter().map(|case| amount(case)).sum();
        let all: f64 = interfaces.iter().filter_map(|interface| amounts.get(interface)).sum();
        own / all.max(1.0)
    }

    fn sources(&self, family: Family) -> String {
        let spans: Vec<Span> = self.cases.iter().flat_map(|case| case.sources.iter().copied()).collect();
        let (own, others) = (networks(&spans, family), networks(&rest(&spans, family), family));
        let named = |networks: &[IpNet]| {
            let named: Vec<_> = networks.iter().take(MAX_NAMED).map(ToString::to_string).collect();
            let more = networks.len().saturating_sub(MAX_NAMED);
            let more = if more > 0 { format!(" and {more} more networks") } else { String::new() };
            format!("{}{more}", named.join(", "))
        };
        let from = if others.is_empty() {
            String::new()
        } else if others.len() < own.len() {
            format!(", from all but {}", named(&others))
        } else {
            format!(", from {}", named(&own))
        };
        let ports: Vec<Span> = self.cases.iter().flat_map(|case| case.source_ports.iter().copied()).collect();
        match &ports[..] {
            [span, ..] if ports.iter().all(|other| other == span) && span.first > 1 || span.last < 65_535 => {
                format!("{from}, from ports {}-{}", span.first, span.last)
            }
            _ => from,
        }
    }

    fn interfaces(&self, host: &Host) -> String {
        let named: BTreeSet<_> = self.cases.iter().filter_map(|case| case.interface.as_ref()).collect();
        let outside = host
            .interfaces
            .iter()
            .filter(|interface| !interface.is_loopback() && !interface.addresses.is_empty());
        if named.len() < 2 && outside.count() < 2 {
            return String::new();
        }
        let named: Vec<_> = named.into_iter().map(ToString::to_string).collect();
        if named.is_empty() { String::new() } else { format!(", by {}", named.join(", ")) }
    }

    fn done(&self, rules: &Ruleset, host: &Host) -> String {
        let by = self.place.map(|place| said(place, rules, host)).unwrap_or_default();
        match self.fate {
            Fate::Dropped => format!("dropped by {by}"),
            Fate::Rejected => format!("rejected by {by}"),
            Fate::Unanswered => format!("comes in, and the answer is dropped by {by}"),
            Fate::Redirected { to } => format!("goes to {to} in place of the proxy"),
            Fate::Forwarded { to } => format!("goes to {to}, and not to this host"),
            Fate::TakenOver { by: who } => format!("is decided by {who}, at {by}"),
            Fate::Unknown(reason) => match &reason.place {
                Some(place) => format!("can't be told: {}, at {}", reason.what, said(place, rules, host)),
                None => format!("can't be told: {}", reason.what),
            },
            Fate::Accepted => "comes in".to_owned(),
        }
    }

    fn conditions(&self) -> String {
        let told: Vec<_> = self
            .conditions
            .iter()
            .map(|condition| {
                format!("'{}' {}", condition.what, if condition.holds { "holds" } else { "does not hold" })
            })
            .collect();
        let mut told = told;
        if self.of_some_lengths() {
            let spans = self.cases.iter().flat_map(|case| case.lengths.iter());
            let spans: BTreeSet<_> = spans.map(|span| format!("{}-{}", span.first, span.last)).collect();
            told.push(format!("they have {} bytes", spans.into_iter().collect::<Vec<_>>().join(" or ")));
        }
        if told.is_empty() { String::new() } else { format!(", if {}", told.join(" and ")) }
    }

    fn help(&self, level: Level, rules: &Ruleset) -> &'static str {
        let table = self.place.and_then(|place| rules.table(place.family, place.table.as_bytes()));
        if table.is_some_and(|table| table.flags.owner.is_some()) {
            return "that table belongs to a process which lets nobody else change it: have that one accept the port";
        }
        if self.place.is_some_and(|place| firewalld::says_what_a_zone_says(&place.table, &place.chain)) {
            return "a zone of firewalld that denies holds these: take them out of it if they may connect";
        }
        match (level, self.fate) {
            (Level::Denied, _) => "it is left as it is; remove that rule if these may connect",
            (Level::Unknown, _) => {
                "see 'zone-firewall explain' for what would decide it, and accept the port in front of that rule"
            }
            (_, Fate::Redirected { .. } | Fate::Forwarded { .. }) => {
                "remove the rule in a nat chain that sends it there, or leave the port out of it"
            }
            (_, Fate::Unanswered) => "let answers to established connections out",
            _ => "accept the port in front of that rule, or remove the rule, if the port is to be reached",
        }
    }
}

/// A rule or a policy, for a person.
fn said(place: &Place, rules: &Ruleset, host: &Host) -> String {
    let at = words::place(place.family, &place.table, &place.chain, place.handle);
    let devices = |index| host.interfaces.iter().find(|own| own.index == index).map(|own| own.name.clone());
    let table = rules.table(place.family, place.table.as_bytes());
    match (place.handle, rule_at(rules, place), table) {
        (Some(_), Some(rule), Some(table)) => format!("'{}' ({at})", words::rule_with(rule, table, &devices)),
        (Some(_), _, _) => at,
        (None, ..) => format!("the end of {at}"),
    }
}

fn size(spans: &[Span]) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "shares need no more precision")]
    spans.iter().map(|span| (span.last - span.first) as f64 + 1.0).sum()
}

/// The addresses that are not among these.
fn rest(spans: &[Span], family: Family) -> Vec<Span> {
    let last = if family == Family::V4 { u128::from(u32::MAX) } else { u128::MAX };
    let mut sorted = spans.to_vec();
    sorted.sort_unstable();
    let mut rest = Vec::new();
    let mut next = Some(0);
    for span in sorted {
        if let Some(first) = next.filter(|first| *first < span.first) {
            rest.push(Span::new(first, span.first - 1));
        }
        next = next.and_then(|next| if span.last >= last { None } else { Some(next.max(span.last + 1)) });
    }
    rest.extend(next.map(|first| Span::new(first, last)));
    rest
}

/// Addresses as networks, the largest first.
fn networks(spans: &[Span], family: Family) -> Vec<IpNet> {
    let networks: Vec<IpNet> = spans
        .iter()
        .flat_map(|span| match family {
            Family::V4 => {
                let address = |number: u128| Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX));
                Ipv4Subnets::new(address(span.first), address(span.last), 0)
                    .map(IpNet::from)
                    .collect::<Vec<_>>()
            }
            Family::V6 => {
                let subnets = Ipv6Subnets::new(Ipv6Addr::from(span.first), Ipv6Addr::from(span.last), 0);
                subnets.map(IpNet::from).collect()
            }
        })
        .collect();
    let mut networks = IpNet::aggregate(&networks);
    networks.sort_by_key(|network| (network.prefix_len(), network.network()));
    networks
}
