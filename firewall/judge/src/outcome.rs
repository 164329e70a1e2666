//! What comes of an expression, for all packets or for some.

use zone_ruleset::Verdict;

use crate::answer::Fate;
use crate::bytes::{Byte, Match};
use crate::region::{Product, Region};

/// What comes of an expression.
#[derive(Debug, Clone)]
pub(crate) enum Done {
    /// The next expression.
    Next,
    /// The rule does not match.
    Break,
    /// This is the rule's verdict.
    Verdict(Verdict),
    /// The packet's way ends.
    Ends(Fate),
    /// Different things for different packets.
    Splits(Vec<Branch>),
}

/// Some of the packets.
#[derive(Debug, Clone)]
pub(crate) struct Branch {
    /// The packets that it is about.
    pub(crate) region: Region,
    /// What it rests on that isn't known, and whether that holds; and for a rate, whether it is so while little comes.
    pub(crate) condition: Option<(String, bool, Option<bool>)>,
    /// What comes of it; never [`Done::Splits`].
    pub(crate) done: Done,
    /// Bytes that are loaded for these packets, and the register's byte that they begin at.
    pub(crate) load: Option<(u8, Vec<Byte>)>,
    /// Whether the packets were chosen by a port, an address, a device or a condition.
    pub(crate) names: bool,
}

/// One thing that is asked, with `!` or without.
pub(crate) struct Asked {
    /// When it holds.
    pub(crate) when: Match,
    /// It must not hold.
    pub(crate) negated: bool,
    /// It is about a port, an address or a device.
    pub(crate) names: bool,
    /// For a rate: whether it holds while little comes.
    pub(crate) while_quiet: Option<bool>,
    /// What is asked, where it is more than what the bytes are.
    pub(crate) what: Option<String>,
}

impl Asked {
    pub(crate) fn new(when: Match, negated: bool, names: bool) -> Self {
        Self { when, negated, names, while_quiet: None, what: None }
    }

    /// Something of which nobody knows whether it holds.
    pub(crate) fn unknown(what: String, while_quiet: Option<bool>) -> Self {
        Self {
            when: Match::unknown("a condition"),
            negated: false,
            names: true,
            while_quiet,
            what: Some(what),
        }
    }

    /// Which packets go on, and which rules don't match.
    pub(crate) fn done(self, region: &Region, v6: bool) -> Done {
        let (yes, no) = if self.negated { (Done::Break, Done::Next) } else { (Done::Next, Done::Break) };
        let all = |done: Done, names| match done {
            Done::Next if names => {
                let branch = Branch { region: region.clone(), condition: None, done, load: None, names };
                Done::Splits(vec![branch])
            }
            done => done,
        };
        let Match::If { spans, unknown } = self.when else { return all(no, self.names) };
        let product = spans
            .iter()
            .fold(Product::all(v6), |product, (dimension, numbers)| product.narrowed(*dimension, numbers));
        let (inside, outside) = if spans.is_empty() {
            (region.clone(), Region::empty())
        } else {
            (region.within(&product), region.without(&product))
        };
        if inside.is_empty() {
            return all(no, self.names);
        }
        if outside.is_empty() && unknown.is_none() {
            return all(yes, self.names);
        }
        let branch = |region, condition, done, names| Branch { region, condition, done, load: None, names };
        let what = self.what.unwrap_or_else(|| unknown.unwrap_or_default().to_owned());
        let mut branches = Vec::new();
        if unknown.is_some() {
            let quiet = self.while_quiet;
            branches.push(branch(inside.clone(), Some((what.clone(), true, quiet)), yes, true));
            let otherwise = Some((what, false, quiet.map(|quiet| !quiet)));
            branches.push(branch(inside, otherwise, no.clone(), self.names));
        } else {
            branches.push(branch(inside, None, yes, self.names));
        }
        if !outside.is_empty() {
            branches.push(branch(outside, None, no, self.names));
        }
        Done::Splits(branches)
    }
}
