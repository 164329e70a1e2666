//! What the rules of a host do with the first packet of a TCP connection, and which rule decides it.
//!
//! The packet is known in part: its protocol, its port and its flags are, its source often is not. Where a rule asks for what is
//! open (the source, the source's port, the address of ours that it goes to, its length), the packets are split into those
//! that match and those that don't, and both go on. Where nothing can decide (a rate, the time of day, a mark that
//! another program sets), both go on as well, each with the condition that it rests on. So each packet that was asked about is in
//! exactly one case of the answer, and no case is guessed.

mod answer;
mod bytes;
mod device;
mod expr;
mod hooks;
mod host;
mod lookup;
mod outcome;
mod packet;
mod question;
mod region;
mod rules;
mod spans;
mod state;
mod walk;

mod xt;

pub use answer::{Answer, Case, Condition, Fate, Place, Reason, Step, StepKind};
pub use host::{Host, HostError, Interface};
pub use question::{Question, Span};

use rules::Rules;
use spans::Spans;

/// What becomes of the packets of a question on this host.
#[must_use]
pub fn judge(ruleset: &zone_ruleset::Ruleset, host: &Host, question: &Question) -> Answer {
    Judge::new(ruleset, host).ask(question)
}

/// The same for several questions: what was looked up for one is there for the next.
pub struct Judge<'a> {
    rules: Rules<'a>,
}

impl<'a> Judge<'a> {
    /// For these rules on this host.
    #[must_use]
    pub fn new(ruleset: &'a zone_ruleset::Ruleset, host: &'a Host) -> Self {
        Self { rules: Rules::new(ruleset, host) }
    }

    /// What becomes of the packets of a question.
    #[must_use]
    pub fn ask(&self, question: &Question) -> Answer {
        let mut cases = Vec::new();
        for (interface, destinations) in self.ways_in(question) {
            cases.append(&mut hooks::cases(&self.rules, question, interface, &destinations));
        }
        Answer { cases }
    }

    /// The devices that packets come in by, each with the addresses that they go to.
    fn ways_in(&self, question: &Question) -> Vec<(Option<&'a Interface>, Spans)> {
        let spans = |addresses: &mut dyn Iterator<Item = &std::net::IpAddr>| {
            Spans::of(
                addresses.filter(|address| address.is_ipv6() == question.v6).map(Span::of_address).collect(),
            )
        };
        let asked = spans(&mut question.destinations.iter());
        let all = Spans::all(if question.v6 { 128 } else { 32 });
        let host = self.rules.host;
        // A device that has no address yet, or is not there, will have one of this host's.
        let everywhere = spans(
            &mut host.interfaces.iter().filter(|one| !one.is_loopback()).flat_map(|one| &one.addresses),
        );
        let all = if everywhere.is_empty() { all } else { everywhere };
        if let Some(name) = &question.interface {
            let interface = host.interface(name);
            let own = interface.map(|interface| spans(&mut interface.addresses.iter()));
            let local = self.rules.local_addresses(question.v6);
            let destinations = match own {
                _ if !question.destinations.is_empty() => asked,
                Some(own) if !own.is_empty() => own,
                _ if !local.is_empty() => spans(&mut local.iter()),
                _ => all,
            };
            return vec![(interface, destinations)];
        }
        let mut ways = Vec::new();
        let outside = || host.interfaces.iter().filter(|interface| !interface.is_loopback());
        let mut left = asked.clone();
        for interface in outside() {
            let own = spans(&mut interface.addresses.iter());
            let own = if question.destinations.is_empty() { own } else { own.intersect(&asked) };
            if !own.is_empty() {
                left = left.subtract(&own);
                ways.push((Some(interface), own));
            }
        }
        // What is no device's own address, or one of the loopback device, may come in by any.
        if !left.is_empty() {
            let bearing: Vec<_> = outside().filter(|interface| !interface.addresses.is_empty()).collect();
            if bearing.is_empty() {
                ways.push((None, left));
            } else {
                ways.extend(bearing.into_iter().map(|interface| (Some(interface), left.clone())));
            }
        } else if ways.is_empty() {
            let devices: Vec<_> = outside().collect();
            match &devices[..] {
                [only] => ways.push((Some(only), all)),
                _ => ways.push((None, all)),
            }
        }
        ways
    }
}
