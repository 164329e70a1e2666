//! What has to be done about one policy.

use std::collections::BTreeSet;

use super::policy::{Policy, Role};

/// What has to be done about one policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyChange {
    /// Which one it is.
    pub(super) role: Role,
    /// The policy, if the saved one is to be made anew.
    pub(super) anew: Option<Policy>,
    /// Whether there is a saved one that has to go first.
    pub(super) replaces: bool,
    /// How what is there differs from what should be, apart from rules.
    pub(super) why: Vec<String>,
    /// The saved rules.
    pub(super) saved: Difference,
    /// The rules that firewalld goes by.
    pub(super) live: Difference,
}

/// Rules to add and rules to delete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Difference {
    /// Rules that should be there and are not.
    pub(super) add: Vec<String>,
    /// Rules that are there and should not be.
    pub(super) delete: Vec<String>,
}

impl PolicyChange {
    /// What one policy needs, and whether it needs a reload. Each account comes as what is and what should be.
    pub(super) fn new(
        role: Role,
        (is, should): (Option<&Policy>, &Policy),
        live: Option<(Option<&Policy>, &Policy)>,
    ) -> (Self, bool) {
        let mut why = is.map(|is| is.head.differences(&should.head)).unwrap_or_default();
        let anew = (is.is_none() || !why.is_empty()).then(|| should.clone());
        let mut reload = false;
        let mut live_rules = Difference::default();
        if let Some((is_live, should_live)) = live {
            match is_live {
                None if anew.is_none() => why.push("it is saved, and firewalld does not go by it".to_owned()),
                Some(is_live) if anew.is_none() => why.extend(is_live.head.differences(&should_live.head)),
                _ => {}
            }
            reload = anew.is_some() || !why.is_empty();
            live_rules = Difference::between(&should_live.rules, is_live.map(|live| &live.rules));
        }
        let saved = Difference::between(&should.rules, is.map(|is| &is.rules));
        (Self { role, anew, replaces: is.is_some(), why, saved, live: live_rules }, reload)
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(&self) -> bool {
        let none = Difference::default();
        self.anew.is_none() && self.why.is_empty() && self.saved == none && self.live == none
    }

    /// The rules of both accounts, each once.
    pub(super) fn rules(&self) -> BTreeSet<(char, &String)> {
        let both = [&self.saved, &self.live];
        let add = both.iter().flat_map(|difference| difference.add.iter().map(|rule| ('+', rule)));
        let delete = both.iter().flat_map(|difference| difference.delete.iter().map(|rule| ('-', rule)));
        add.chain(delete).collect()
    }
}

impl Difference {
    fn between(should: &BTreeSet<String>, is: Option<&BTreeSet<String>>) -> Self {
        let none = BTreeSet::new();
        let is = is.unwrap_or(&none);
        Self {
            add: should.difference(is).cloned().collect(),
            delete: is.difference(should).cloned().collect(),
        }
    }
}
