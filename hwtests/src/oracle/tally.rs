//! What was counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

/// Numbers of a run, or of a part of one.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Rulesets that were loaded.
    pub(crate) rulesets: u64,
    /// Rules in them.
    pub(crate) rules: u64,
    /// Packets that were sent.
    pub(crate) syns: u64,
    /// Packets that came through.
    pub(crate) arrived: u64,
    /// Packets of which both say the same.
    pub(crate) agreements: u64,
    /// Packets of which they don't.
    pub(crate) disagreements: u64,
    /// Packets that the judge can't decide.
    pub(crate) unknown: u64,
    /// The same by what it does not know; a packet counts for each.
    pub(crate) reasons: BTreeMap<String, u64>,
    /// Packets whose deciding rule was held against the kernel's.
    pub(crate) traced: u64,
    /// Rulesets that nft would not load.
    pub(crate) refused: u64,
    /// Lines for a person, about what went wrong.
    pub(crate) notes: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.rulesets += other.rulesets;
        self.rules += other.rules;
        self.syns += other.syns;
        self.arrived += other.arrived;
        self.agreements += other.agreements;
        self.disagreements += other.disagreements;
        self.unknown += other.unknown;
        self.traced += other.traced;
        self.refused += other.refused;
        for (reason, count) in other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
        self.notes.extend(other.notes);
    }

    pub(crate) fn unknown(&mut self, reasons: BTreeSet<String>) {
        self.unknown += 1;
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    /// Whether there is nothing to mend.
    pub(crate) fn is_good(&self) -> bool {
        self.disagreements == 0 && self.refused == 0
    }

    /// All of it for a person.
    pub(crate) fn text(&self, time: Duration) -> String {
        let seconds = time.as_secs_f64().max(0.001);
        let share = |part: u64| percent(part, self.syns);
        let mut out = format!(
            "rulesets        {}, with {} rules\nSYNs            {}, of which {} came through ({})\n\
             verdicts/s      {:.0}\nagreements      {}\ndisagreements   {}\nunknown         {} ({})\n",
            self.rulesets,
            self.rules,
            self.syns,
            self.arrived,
            share(self.arrived),
            ratio(self.syns) / seconds,
            self.agreements,
            self.disagreements,
            self.unknown,
            share(self.unknown),
        );
        let mut reasons: Vec<_> = self.reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons.iter().take(40) {
            let _ = writeln!(out, "   {count:>10} ({})  {reason}", share(**count));
        }
        if self.traced > 0 {
            let _ = writeln!(out, "traced          {} deciding rules", self.traced);
        }
        if self.refused > 0 {
            let _ = writeln!(out, "refused by nft  {}", self.refused);
        }
        for note in &self.notes {
            let _ = writeln!(out, "note: {note}");
        }
        let _ = write!(out, "in {seconds:.1} s");
        out
    }
}

pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "none".to_owned() } else { format!("{:.2} %", 100.0 * ratio(part) / ratio(whole)) }
}

/// Numbers of packets are far below 2^52.
#[expect(clippy::cast_precision_loss, reason = "numbers of packets are far below 2^52")]
fn ratio(number: u64) -> f64 {
    number as f64
}
