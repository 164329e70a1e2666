//! What the judge thinks of a packet, and whether the kernel agrees.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use zone_judge::{Answer, Case, Fate, Host, Judge, Place, Question, Span};
use zone_ruleset::{HookedFunction, Name, Reader, Ruleset};

use crate::error::Result;
use crate::ground::{Arrival, Look, OWN_TABLE, Seen};
use crate::syn::{self, Syn};

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// It comes through, to where it was sent.
    Arrives,
    /// It comes through, to another address and the same port: a socket that listens on all addresses gets it.
    SamePort,
    /// It comes through, to another port.
    Elsewhere,
    /// It comes through, and the answer does not leave.
    Unanswered,
    /// It does not come through.
    Stopped,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Arrives => "comes through",
            Self::SamePort => "comes through to another address",
            Self::Elsewhere => "comes through to another port",
            Self::Unanswered => "comes through, and is not answered",
            Self::Stopped => "does not come through",
        })
    }
}

/// What the kernel did with a packet.
pub(crate) fn kernels(syn: &Syn, seen: &Seen, look: Look) -> Outcome {
    let source = (syn.source, syn.source_port);
    match seen.arrivals.get(&source) {
        None => Outcome::Stopped,
        Some(Arrival { port, .. })
            if *port == syn.port && look.answers && !seen.answered.contains(&source) =>
        {
            Outcome::Unanswered
        }
        Some(Arrival { address, port }) if *address == syn.destination && *port == syn.port => {
            Outcome::Arrives
        }
        Some(Arrival { port, .. }) if *port == syn.port => Outcome::SamePort,
        Some(_) => Outcome::Elsewhere,
    }
}

/// What holding the two against each other comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// They agree.
    Agree,
    /// The judge does not know, for these reasons; what the kernel did is among what it thinks possible.
    Unknown(BTreeSet<String>),
    /// They don't, and what the judge says.
    Disagree(String),
}

/// The rules that the kernel has, but those of the oracle, and the host that they are on.
pub(crate) struct Standing {
    rules: Ruleset,
    host: Host,
}

impl Standing {
    /// Reads what is there now.
    pub(crate) fn read(reader: &mut Reader) -> Result<Self> {
        let mut rules = reader.ruleset()?;
        let own = Name::from(OWN_TABLE);
        rules.tables.retain(|table| table.name != own);
        rules.hooked.retain(|hooked| match &hooked.function {
            HookedFunction::Chain { table, .. } => *table != own,
            _ => true,
        });
        Ok(Self { rules, host: Host::read()? })
    }
}

/// What the judge has said so far.
pub(crate) struct Opinions<'a> {
    judge: Judge<'a>,
    answers: HashMap<(IpAddr, u16), Answer>,
}

impl<'a> Opinions<'a> {
    pub(crate) fn new(standing: &'a Standing) -> Self {
        Self { judge: Judge::new(&standing.rules, &standing.host), answers: HashMap::new() }
    }

    /// The cases that a packet falls into.
    pub(crate) fn cases(&mut self, syn: &Syn) -> Vec<Case> {
        let answer = self.answers.entry((syn.destination, syn.port)).or_insert_with(|| {
            let mut question = Question::any(syn.destination.is_ipv6(), syn.port);
            question.destinations = vec![syn.destination];
            question.interface = Some("eth0".to_owned());
            question.mac = Some(syn::SENDER);
            self.judge.ask(&question)
        });
        let holds = |case: &&Case| {
            within(&case.sources, number(syn.source))
                && within(&case.source_ports, u128::from(syn.source_port))
                && within(&case.destinations, number(syn.destination))
                && within(&case.lengths, syn::length(syn.source.is_ipv6()))
        };
        answer.cases.iter().filter(holds).cloned().collect()
    }

    /// Holds what the judge says against what the kernel did.
    pub(crate) fn compare(&mut self, syn: &Syn, kernel: &Outcome) -> Comparison {
        let cases = self.cases(syn);
        let certain = cases.iter().filter(|case| case.conditions.is_empty()).count();
        if certain > 0 && cases.len() > 1 {
            return Comparison::Disagree(format!(
                "it is in {} cases at once: {}",
                cases.len(),
                words(&cases)
            ));
        }
        if cases.is_empty() {
            return Comparison::Disagree(words(&cases));
        }
        let mut possible = BTreeSet::new();
        let mut reasons = BTreeSet::new();
        for case in &cases {
            match &case.fate {
                Fate::Accepted => possible.extend([Outcome::Arrives]),
                Fate::Unanswered => possible.extend([Outcome::Unanswered]),
                Fate::Redirected { .. } => possible.extend([Outcome::Elsewhere, Outcome::SamePort]),
                Fate::Dropped | Fate::Rejected | Fate::Forwarded { .. } => {
                    possible.extend([Outcome::Stopped]);
                }
                Fate::TakenOver { by } => {
                    reasons.insert(kind(by));
                }
                Fate::Unknown(reason) => {
                    reasons.insert(kind(&reason.what));
                }
            }
        }
        if reasons.is_empty() {
            if !possible.contains(kernel) {
                return Comparison::Disagree(words(&cases));
            }
            let through = |outcome: &Outcome| matches!(outcome, Outcome::Elsewhere | Outcome::SamePort);
            if possible.len() == 1 || possible.iter().all(through) {
                return Comparison::Agree;
            }
        }
        reasons.extend(cases.iter().flat_map(|case| &case.conditions).map(|condition| kind(&condition.what)));
        Comparison::Unknown(reasons)
    }

    /// The rule or policy that the judge names, if all cases of a packet agree on one.
    pub(crate) fn decided_by(&mut self, syn: &Syn) -> Option<(Outcome, Option<Place>)> {
        let cases = self.cases(syn);
        let [case] = &cases[..] else { return None };
        let outcome = match case.fate {
            Fate::Accepted => Outcome::Arrives,
            Fate::Redirected { .. } => Outcome::Elsewhere,
            Fate::Dropped | Fate::Rejected => Outcome::Stopped,
            Fate::Unanswered | Fate::Forwarded { .. } | Fate::TakenOver { .. } | Fate::Unknown(_) => {
                return None;
            }
        };
        Some((outcome, case.decided_by.clone()))
    }
}

fn within(spans: &[Span], number: u128) -> bool {
    spans.is_empty() || spans.iter().any(|span| (span.first..=span.last).contains(&number))
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Conditions and reasons of a kind, without the numbers in them.
fn kind(text: &str) -> String {
    let words =
        text.split_whitespace().take_while(|word| !word.starts_with(|first: char| first.is_ascii_digit()));
    words.take(4).collect::<Vec<_>>().join(" ")
}

/// Cases for a person.
fn words(cases: &[Case]) -> String {
    if cases.is_empty() {
        return "no case holds it".to_owned();
    }
    let one = |case: &Case| {
        let place = case.decided_by.as_ref().map_or_else(|| "nothing".to_owned(), place);
        let conditions: Vec<_> = case
            .conditions
            .iter()
            .map(|condition| format!("{}{}", if condition.holds { "" } else { "not " }, condition.what))
            .collect();
        let only =
            if conditions.is_empty() { String::new() } else { format!(" if {}", conditions.join(", ")) };
        format!("{:?}{only}, decided by {place}", case.fate)
    };
    cases.iter().map(one).collect::<Vec<_>>().join("; or ")
}

/// A place for a person.
pub(crate) fn place(place: &Place) -> String {
    let Place { family, table, chain, handle } = place;
    let which = handle.map_or_else(|| "its policy".to_owned(), |handle| format!("handle {handle}"));
    format!("{family} {table} {chain}, {which}")
}
