//! Where rules of ours have to stand in chains of others, so that desired packets get in and nothing that an admin denies does.
//!
//! In nftables an `accept` counts for its own base chain only, and a `drop` anywhere is final. So each chain that would drop a
//! desired packet as part of whatever is left at its end needs a rule of ours, in front of just that drop: behind every deny that
//! names a source, a port, a device or a condition. Whether the place is right is not argued but tried: the rule is put into
//! a copy of what the kernel has, and the packets are judged again. If anything that was denied by name got in, or
//! the rule did not help, no rule is put there.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use zone_firewall_protocol::PortRule;
use zone_judge::{Answer, Case, Fate, Host, Judge, Place, Question, Span, StepKind};
use zone_ruleset::{
    ChainType, Expr, Family as TableFamily, HookPoint, Name, Rule, Ruleset, Table, Verdict, XtMatch, words,
};

use crate::desired::{Desired, Family, listens, sources};
use crate::tagged::{self, Opening};

/// How often rules are put somewhere and judged again. Each round ends with fewer drops, or with a place given up.
const MAX_ROUNDS: usize = 16;
/// The most addresses of this host that a rule in a chain which forwarded packets pass, too, is written for.
const MAX_ADDRESSES: usize = 8;
/// The handles of rules that are only tried; the kernel counts its own from 1.
const FIRST_TRIED_HANDLE: u64 = 1 << 62;

/// Says of a table that somebody else keeps it, so that nothing of ours may be put there.
pub(crate) type Keeps<'a> = &'a dyn Fn(&Table) -> bool;

/// A rule that a chain needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    /// The chain.
    pub(crate) chain: ChainPath,
    /// The rule that it goes in front of; `None` for the end of the chain.
    pub(crate) before: Option<u64>,
    /// What it lets in.
    pub(crate) opening: Opening,
}

/// A chain by family, table and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ChainPath {
    pub(crate) family: TableFamily,
    pub(crate) table: Name,
    pub(crate) chain: Name,
}

impl std::fmt::Display for ChainPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&words::place(self.family, &self.table, &self.chain, None))
    }
}

impl ChainPath {
    /// For the id of a finding.
    pub(crate) fn part(&self) -> String {
        format!("{}/{}/{}", self.family, self.table, self.chain)
    }

    pub(crate) fn of(place: &Place) -> Self {
        Self { family: place.family, table: place.table.clone(), chain: place.chain.clone() }
    }
}

/// The rules that are needed, and what becomes of packets with them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Placement {
    /// The rules, in the order in which they are to be inserted.
    pub(crate) needed: Vec<Needed>,
    /// For each port and family that is to be open: what becomes of its packets then.
    pub(crate) answers: Vec<Answer>,
}

/// A port that is to be open for a family.
pub(crate) struct Open<'a> {
    pub(crate) rule: &'a PortRule,
    pub(crate) family: Family,
    questions: Vec<Question>,
    interfaces: Vec<Option<String>>,
}

impl<'a> Open<'a> {
    /// All that are desired. Nothing comes in by a device that the host lacks, so that nothing is asked about it; it is noted beside
    /// the plan, and asked about once it is there.
    pub(crate) fn all(desired: &'a Desired, host: &Host) -> Vec<Self> {
        let ports = desired.open.iter().flat_map(|rule| Family::ALL.map(|family| (rule, family)));
        let open = ports.filter_map(|(rule, family)| {
            let (destinations, sources) = (listens(rule, family)?, sources(rule, family)?);
            let mut interfaces = tagged::devices(desired.interfaces(rule));
            interfaces.retain(|name| name.as_deref().is_none_or(|name| host.interface(name).is_some()));
            let question = |interface: &Option<String>| Question {
                sources: sources.clone(),
                destinations: destinations.clone(),
                interface: interface.clone(),
                ..Question::any(family == Family::V6, rule.port)
            };
            Some(Self { rule, family, questions: interfaces.iter().map(question).collect(), interfaces })
        });
        open.collect()
    }

    /// What becomes of its packets.
    pub(crate) fn judged(&self, judge: &Judge<'_>) -> Answer {
        Answer { cases: self.questions.iter().flat_map(|question| judge.ask(question).cases).collect() }
    }
}

/// A rule that may help.
struct Wanted {
    /// Which port it is for.
    port: usize,
    rule: Needed,
    /// Where packets were dropped that it lets in.
    decided_by: Option<Place>,
    left_by: Option<Place>,
}

impl Wanted {
    fn place(&self) -> (usize, ChainPath, Option<u64>) {
        (self.port, self.rule.chain.clone(), self.rule.before)
    }

    /// Whether nothing is dropped any more where it was.
    fn helps(&self, now: &Answer, rules: &Ruleset) -> bool {
        let is_left = |case: &Case| {
            is_left_over(case, rules) && case.decided_by == self.decided_by && case.left_by == self.left_by
        };
        !now.cases.iter().any(is_left)
    }
}

/// Finds the rules that are needed. `rules` are those of the host without any of ours, and are so again afterwards.
pub(crate) fn place(open: &[Open<'_>], rules: &mut Ruleset, host: &Host, keeps: Keeps<'_>) -> Placement {
    let mut needed: Vec<Needed> = Vec::new();
    let mut given_up: BTreeSet<(usize, ChainPath, Option<u64>)> = BTreeSet::new();
    let mut tried = FIRST_TRIED_HANDLE;
    let mut answers = judged(open, rules, host);
    for _ in 0..MAX_ROUNDS {
        let wanted = wanted(open, &answers, (rules, host, keeps), &given_up);
        if wanted.is_empty() {
            break;
        }
        let mut handles = Vec::new();
        for wanted in &wanted {
            insert(rules, &wanted.rule, tried);
            handles.push(tried);
            tried += 1;
        }
        let now = judged(open, rules, host);
        let mut bad: BTreeSet<_> = wanted
            .iter()
            .filter(|wanted| {
                let (before, now) = (&answers[wanted.port], &now[wanted.port]);
                !(holds(before, now, rules) && wanted.helps(now, rules))
            })
            .map(Wanted::place)
            .collect();
        for (wanted, handle) in wanted.iter().zip(handles) {
            if bad.contains(&wanted.place()) {
                remove(rules, &wanted.rule.chain, handle);
            }
        }
        needed.extend(
            wanted.into_iter().filter(|wanted| !bad.contains(&wanted.place())).map(|wanted| wanted.rule),
        );
        let goes_on = bad.is_empty();
        given_up.append(&mut bad);
        answers = if goes_on { now } else { judged(open, rules, host) };
    }
    for table in &mut rules.tables {
        for chain in &mut table.chains {
            chain.rules.retain(|rule| rule.handle < FIRST_TRIED_HANDLE);
        }
    }
    Placement { needed: joined(needed), answers }
}

/// What becomes of the packets of each port.
pub(crate) fn judged(open: &[Open<'_>], rules: &Ruleset, host: &Host) -> Vec<Answer> {
    let judge = Judge::new(rules, host);
    open.iter().map(|port| port.judged(&judge)).collect()
}

/// The rules that would help where packets are dropped as part of whatever is left.
fn wanted(
    open: &[Open<'_>],
    answers: &[Answer],
    (rules, host, keeps): (&Ruleset, &Host, Keeps<'_>),
    given_up: &BTreeSet<(usize, ChainPath, Option<u64>)>,
) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for (index, (port, answer)) in open.iter().zip(answers).enumerate() {
        for case in answer.cases.iter().filter(|case| is_left_over(case, rules)) {
            let places = places(case, rules, keeps).into_iter();
            let usable =
                places.filter(|(chain, before)| !given_up.contains(&(index, chain.clone(), *before)));
            let found = usable.filter_map(|(chain, before)| {
                let openings = openings(port, &chain, rules, host)?;
                Some(openings.into_iter().map(move |opening| Needed {
                    chain: chain.clone(),
                    before,
                    opening,
                }))
            });
            for rule in found.take(1).flatten() {
                let is_at =
                    |other: &Wanted| other.rule.chain == rule.chain && other.rule.before == rule.before;
                if !wanted.iter().any(|other| is_at(other) && other.rule.opening == rule.opening) {
                    let (decided_by, left_by) = (case.decided_by.clone(), case.left_by.clone());
                    wanted.push(Wanted { port: index, rule, decided_by, left_by });
                }
            }
        }
    }
    wanted
}

/// One rule does for both families where nothing tells them apart.
fn joined(needed: Vec<Needed>) -> Vec<Needed> {
    let mut joined: Vec<Needed> = Vec::new();
    for rule in needed {
        match joined.iter_mut().find(|other| is_twin(other, &rule)) {
            Some(twin) => twin.opening.family = None,
            None => joined.push(rule),
        }
    }
    joined
}

fn is_twin(there: &Needed, new: &Needed) -> bool {
    let families = (there.opening.family, new.opening.family);
    matches!(families, (Some(a), Some(b)) if a != b)
        && there.chain == new.chain
        && there.before == new.before
        && Opening { family: None, ..there.opening.clone() }
            == Opening { family: None, ..new.opening.clone() }
}

/// Packets that are gone because nothing has let them in, and not because somebody meant them.
fn is_left_over(case: &Case, rules: &Ruleset) -> bool {
    let is_input = case.path.iter().rev().find_map(|step| match step.kind {
        StepKind::Hook { point, .. } => Some(point == HookPoint::Input),
        _ => None,
    });
    // What is dropped only when much comes is a limit that somebody has set, unless it is refused while little comes, too.
    let is_limited = case.conditions.iter().any(|condition| {
        condition.while_quiet == Some(false)
            && !rule_at(rules, &condition.place).is_some_and(is_limited_refusal)
    });
    let is_gone = matches!(case.fate, Fate::Dropped | Fate::Rejected);
    is_gone && !case.named && !is_limited && is_input == Some(true)
}

/// Where a rule could stand that lets the packets of a case in, the best place first: where they are dropped, or in front
/// of what leads them there.
fn places(case: &Case, rules: &Ruleset, keeps: Keeps<'_>) -> Vec<(ChainPath, Option<u64>)> {
    let Some(decided) = &case.decided_by else { return Vec::new() };
    let at = match (decided.handle, &case.left_by) {
        (None, Some(left)) => left,
        _ => decided,
    };
    let mut found = vec![(ChainPath::of(at), at.handle)];
    let calls = case.path.iter().rev().take_while(|step| !matches!(step.kind, StepKind::Hook { .. }));
    let calls = calls.filter(|step| matches!(step.kind, StepKind::Jump(_) | StepKind::Goto(_)));
    found.extend(calls.map(|step| (ChainPath::of(&step.place), step.place.handle)));
    let mut places: Vec<_> = found
        .into_iter()
        .filter_map(|(chain, before)| ahead_of_limited_refusals((rules, keeps), chain, before))
        .collect();
    places.dedup();
    places
}

/// The same place, or the one in front of refusals of so many packets a second that stand just before it: those belong to
/// what is left at the end. Nothing where no rule of ours may be put.
fn ahead_of_limited_refusals(
    (rules, keeps): (&Ruleset, Keeps<'_>),
    chain: ChainPath,
    before: Option<u64>,
) -> Option<(ChainPath, Option<u64>)> {
    let table = rules.table(chain.family, chain.table.as_bytes())?;
    if !may_be_written(table)
        || keeps(table)
        || chain.table.as_str().is_none()
        || chain.chain.as_str().is_none()
    {
        return None;
    }
    let found = table.chain(&chain.chain)?;
    if found.anonymous || found.hook.as_ref().is_some_and(|hook| hook.kind != ChainType::Filter) {
        return None;
    }
    let foreign: Vec<&Rule> = found.rules.iter().filter(|rule| rule.handle < FIRST_TRIED_HANDLE).collect();
    let mut at = match before {
        Some(handle) => foreign.iter().position(|rule| rule.handle == handle)?,
        None => foreign.len(),
    };
    for index in (0..at).rev() {
        if is_limited_refusal(foreign[index]) {
            at = index;
        } else if !is_passive(foreign[index]) {
            break;
        }
    }
    Some((chain, foreign.get(at).map(|rule| rule.handle)))
}

/// Whether rules of ours may be put into a table: not where another process owns it.
fn may_be_written(table: &Table) -> bool {
    let family = matches!(table.family, TableFamily::Ip | TableFamily::Ip6 | TableFamily::Inet);
    family && table.flags.owner.is_none()
}

fn is_limited_refusal(rule: &Rule) -> bool {
    let Some((verdict, asked)) = rule.exprs.split_last() else { return false };
    let refuses = matches!(
        verdict,
        Expr::Verdict(Verdict::Drop)
            | Expr::Reject(_)
            | Expr::XtTarget { what: zone_ruleset::XtTarget::Reject, .. }
    );
    let is_limited = asked.iter().any(|expr| {
        matches!(expr, Expr::Limit(limit) if !limit.over)
            || matches!(expr, Expr::XtMatch { what: XtMatch::Limit { .. }, .. })
    });
    refuses && is_limited && asked.iter().all(is_general)
}

/// A rule that neither ends a packet's way nor leads it elsewhere.
fn is_passive(rule: &Rule) -> bool {
    rule.exprs.iter().all(|expr| is_general(expr) || matches!(expr, Expr::Limit(_) | Expr::Log { .. }))
}

/// An expression that names no port, address or device.
fn is_general(expr: &Expr) -> bool {
    use zone_ruleset::MetaKey;
    match expr {
        Expr::Meta { key, .. } => {
            matches!(key, MetaKey::L4Proto | MetaKey::NfProto | MetaKey::Protocol | MetaKey::PktType)
        }
        Expr::Ct { .. }
        | Expr::Compare { .. }
        | Expr::Bitwise { .. }
        | Expr::Counter
        | Expr::Object(_)
        | Expr::Last
        | Expr::Log { .. }
        | Expr::Limit(_) => true,
        Expr::XtMatch { what, .. } => {
            matches!(
                what,
                XtMatch::Comment(_)
                    | XtMatch::Limit { .. }
                    | XtMatch::PktType { .. }
                    | XtMatch::CtState { .. }
            )
        }
        Expr::XtTarget { what, .. } => matches!(what, zone_ruleset::XtTarget::Passes),
        _ => false,
    }
}

/// The rules that let a port's packets in, one for each device, source and address. `None` where that can't be said so that nothing
/// else gets in.
fn openings(port: &Open<'_>, chain: &ChainPath, rules: &Ruleset, host: &Host) -> Option<Vec<Opening>> {
    let of_table = match chain.family {
        TableFamily::Ip => Some(Family::V4),
        TableFamily::Ip6 => Some(Family::V6),
        _ => None,
    };
    if of_table.is_some_and(|family| family != port.family) {
        return None;
    }
    let or_any =
        |list: Vec<IpAddr>| if list.is_empty() { vec![None] } else { list.into_iter().map(Some).collect() };
    let mut destinations: Vec<Option<IpAddr>> = or_any(listens(port.rule, port.family)?);
    if destinations == [None] && sees_other_packets(rules, chain) {
        let own: Vec<IpAddr> = host
            .interfaces
            .iter()
            .filter(|interface| !interface.is_loopback())
            .flat_map(|interface| interface.addresses.iter().copied())
            .filter(|address| Family::of(*address) == port.family)
            .collect();
        if own.is_empty() || own.len() > MAX_ADDRESSES {
            return None;
        }
        destinations = own.into_iter().map(Some).collect();
    }
    let networks = sources(port.rule, port.family)?;
    let networks: Vec<_> =
        if networks.is_empty() { vec![None] } else { networks.into_iter().map(Some).collect() };
    let mut all = Vec::new();
    for interface in &port.interfaces {
        for destination in &destinations {
            for source in &networks {
                let bare = source.is_none() && destination.is_none();
                all.push(Opening {
                    purpose: port.rule.purpose,
                    port: port.rule.port,
                    interface: interface.clone(),
                    family: (bare && of_table.is_none()).then_some(port.family),
                    source: *source,
                    destination: *destination,
                });
            }
        }
    }
    Some(all)
}

/// Whether packets come to a chain that are not for this host.
fn sees_other_packets(rules: &Ruleset, chain: &ChainPath) -> bool {
    let Some(table) = rules.table(chain.family, chain.table.as_bytes()) else { return true };
    let mut callers: HashMap<&Name, Vec<usize>> = HashMap::new();
    for (index, from) in table.chains.iter().enumerate() {
        for expr in from.rules.iter().flat_map(|rule| &rule.exprs) {
            match expr {
                Expr::Verdict(Verdict::Jump(to) | Verdict::Goto(to)) => {
                    callers.entry(to).or_default().push(index);
                }
                Expr::Lookup { set, verdict: true, .. } => {
                    let elements = table.set(set).into_iter().flat_map(|set| &set.elements);
                    for element in elements {
                        if let Some(Verdict::Jump(to) | Verdict::Goto(to)) = &element.verdict {
                            callers.entry(to).or_default().push(index);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    let mut seen = BTreeSet::new();
    let mut next: Vec<usize> =
        table.chains.iter().position(|own| own.name == chain.chain).into_iter().collect();
    while let Some(index) = next.pop() {
        if !seen.insert(index) {
            continue;
        }
        let at = &table.chains[index];
        if at.hook.as_ref().is_some_and(|hook| hook.point != HookPoint::Input) {
            return true;
        }
        next.extend(callers.get(&at.name).into_iter().flatten());
    }
    false
}

fn insert(rules: &mut Ruleset, new: &Needed, handle: u64) {
    let family = new.chain.family;
    let Some(chain) = chain_mut(rules, &new.chain) else { return };
    let at = new.before.and_then(|before| chain.rules.iter().position(|rule| rule.handle == before));
    let rule = Rule {
        handle,
        comment: Some(tagged::comment(new.opening.purpose)),
        exprs: new.opening.exprs(family),
    };
    chain.rules.insert(at.unwrap_or(chain.rules.len()), rule);
}

fn remove(rules: &mut Ruleset, chain: &ChainPath, handle: u64) {
    if let Some(chain) = chain_mut(rules, chain) {
        chain.rules.retain(|rule| rule.handle != handle);
    }
}

pub(crate) fn chain_mut<'a>(rules: &'a mut Ruleset, path: &ChainPath) -> Option<&'a mut zone_ruleset::Chain> {
    let table =
        rules.tables.iter_mut().find(|table| table.family == path.family && table.name == path.table)?;
    table.chains.iter_mut().find(|chain| chain.name == path.chain)
}

/// Whether nothing that was denied by name gets in.
fn holds(before: &Answer, now: &Answer, rules: &Ruleset) -> bool {
    let denied = before.cases.iter().filter(|case| {
        let by = case.decided_by.as_ref().and_then(|place| rule_at(rules, place));
        case.named && !matches!(case.fate, Fate::Accepted) && !by.is_some_and(is_limited_refusal)
    });
    let accepted: Vec<&Case> = now.cases.iter().filter(|case| case.fate == Fate::Accepted).collect();
    denied
        .into_iter()
        .all(|denied| !accepted.iter().any(|accepted| are_of_the_same_packets(denied, accepted)))
}

/// Whether two sets of ranges, each in ascending order, have a number in common.
fn overlap(a: &[Span], b: &[Span]) -> bool {
    let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
    few.iter().any(|span| {
        let next = many.partition_point(|other| other.last < span.first);
        many.get(next).is_some_and(|other| other.first <= span.last)
    })
}

/// Whether a packet may be in both cases.
fn are_of_the_same_packets(a: &Case, b: &Case) -> bool {
    let contradicts = a.conditions.iter().any(|one| {
        b.conditions
            .iter()
            .any(|other| one.place == other.place && one.what == other.what && one.holds != other.holds)
    });
    !contradicts
        && a.interface == b.interface
        && overlap(&a.sources, &b.sources)
        && overlap(&a.source_ports, &b.source_ports)
        && overlap(&a.destinations, &b.destinations)
}

/// The rule at a place.
pub(crate) fn rule_at<'a>(rules: &'a Ruleset, place: &Place) -> Option<&'a Rule> {
    let chain = rules.table(place.family, place.table.as_bytes())?.chain(&place.chain)?;
    chain.rules.iter().find(|rule| Some(rule.handle) == place.handle)
}
