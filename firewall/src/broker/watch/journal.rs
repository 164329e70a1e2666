//! The lines of the watch: one for each change of state, and no more than a budget allows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use zone_firewall_protocol::{Finding, Level};
use zone_log_budget::{LogBudget, within_budget};

use super::judgement::{Judgement, Repair};

/// The target of the lines.
const TARGET: &str = "watch";
/// The most findings that one line names; it says how many more there are.
const MAX_NAMED: usize = 8;
/// The longest text of a line, in characters.
const MAX_CHARS: usize = 1_500;

/// What was said last.
#[derive(Default)]
pub(super) struct Journal {
    /// What is not as it should be, by its id.
    known: BTreeMap<String, Finding>,
    /// Why rules could not be judged.
    failure: Option<String>,
    /// Why they could not be put back.
    refusal: Option<String>,
    budget: LogBudget,
}

impl Journal {
    /// Says what a judgement has changed about what was said before. `by` names who changed rules since.
    pub(super) fn judged(&mut self, judgement: &Judgement, by: &str) {
        self.failure = None;
        let left = by_id(&judgement.left);
        let found = by_id(&judgement.found);
        match &judgement.repair {
            Repair::NotTried => self.refusal = None,
            Repair::Done(changes) => {
                self.refusal = None;
                let (findings, what) = named(found.iter().filter(|(id, _)| !left.contains_key(*id)));
                let reachable = if left.values().any(shuts) {
                    "not all ports are reachable again"
                } else {
                    "all ports are reachable again"
                };
                // What others still keep shut is told below.
                let changes: Vec<_> = changes
                    .iter()
                    .filter(|line| !line.starts_with("blocked: "))
                    .map(String::as_str)
                    .collect();
                let changes = cut(&changes.join("; "));
                within_budget!(
                    self.budget,
                    "repaired",
                    warn!(
                        target: TARGET,
                        findings,
                        what,
                        by,
                        changes,
                        "the firewall's rules were changed, and were put back: {reachable}"
                    )
                );
            }
            Repair::Failed(why) => {
                if self.refusal.as_ref() != Some(why) {
                    let (findings, what) = named(found.iter());
                    within_budget!(
                        self.budget,
                        "refused",
                        error!(
                            target: TARGET,
                            findings,
                            what, by, "the firewall's rules were changed, and can't be put back: {why}"
                        )
                    );
                }
                self.refusal = Some(why.clone());
            }
        }
        self.tell_left(left, by);
    }

    /// Says why the rules could not be judged, once.
    pub(super) fn failed(&mut self, why: &str) {
        if self.failure.as_deref() != Some(why) {
            within_budget!(
                self.budget,
                "failed",
                error!(target: TARGET, "what others change in the firewall's rules is not noticed: {why}")
            );
        }
        self.failure = Some(why.to_owned());
    }

    /// Says that repairs rest.
    pub(super) fn rests(&self, length: Duration, repairs: usize) {
        within_budget!(
            self.budget,
            "rests",
            error!(
                target: TARGET,
                "the firewall's rules are not put back for {} s: others undid {repairs} repairs within a minute; see \
                 'zone-firewall verify', and who changes rules",
                length.as_secs()
            )
        );
    }

    /// Nothing is watched any more, so that what was said need not hold.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.failure = None;
        self.refusal = None;
    }

    fn tell_left(&mut self, left: BTreeMap<String, Finding>, by: &str) {
        let known = std::mem::replace(&mut self.known, left);
        let new: Vec<_> = self.known.iter().filter(|(id, _)| !known.contains_key(*id)).collect();
        let gone: Vec<_> = known.iter().filter(|(id, _)| !self.known.contains_key(*id)).collect();
        if !new.is_empty() {
            let (findings, what) = named(new.iter().copied());
            let help = cut(&new[0].1.help);
            let has = |level| new.iter().any(|(_, finding)| finding.level == level);
            let which = if has(Level::Drift) {
                "the firewall's rules are not as they should be"
            } else if has(Level::Closed) {
                "rules of others keep a port closed"
            } else {
                "whether others keep a port closed can't be told"
            };
            if new.iter().all(|(_, finding)| finding.is_note()) {
                let which = "rules of others deny a port to some of its sources";
                within_budget!(
                    self.budget,
                    "noted",
                    info!(target: TARGET, findings, what, by, help, "{which}")
                );
            } else {
                within_budget!(
                    self.budget,
                    "found",
                    warn!(target: TARGET, findings, what, by, help, "{which}")
                );
            }
        }
        if !gone.is_empty() {
            let (findings, _) = named(gone.iter().copied());
            let again: BTreeSet<u16> = gone
                .iter()
                .filter(|(_, finding)| shuts(finding))
                .filter_map(|(_, finding)| finding.port)
                .filter(|port| !self.known.values().any(|left| shuts(left) && left.port == Some(*port)))
                .collect();
            let ports: Vec<_> = again.iter().map(u16::to_string).collect();
            let which = match &ports[..] {
                [] => "what was found in the firewall's rules is gone".to_owned(),
                ports => format!("reachable again: {}", ports.join(", ")),
            };
            within_budget!(self.budget, "gone", info!(target: TARGET, findings, by, "{which}"));
        }
    }
}

/// Whether a port may be shut because of it.
fn shuts(finding: &Finding) -> bool {
    !finding.is_note()
}

fn by_id(findings: &[Finding]) -> BTreeMap<String, Finding> {
    findings.iter().map(|finding| (finding.id.clone(), finding.clone())).collect()
}

/// The ids and the texts of some findings, each as one bounded text.
fn named<'a>(findings: impl Iterator<Item = (&'a String, &'a Finding)>) -> (String, String) {
    let all: Vec<_> = findings.collect();
    let few = &all[..all.len().min(MAX_NAMED)];
    let more = match all.len() - few.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let ids: Vec<_> = few.iter().map(|(id, _)| id.as_str()).collect();
    let texts: Vec<_> = few.iter().map(|(_, finding)| finding.what.as_str()).collect();
    (cut(&(ids.join(" ") + &more)), cut(&(texts.join("; ") + &more)))
}

/// On one line, which is not too long, whatever a name holds.
fn cut(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
}
