//! What has to be done so that the live rules become the desired ones: compared here, carried out elsewhere.

use std::collections::BTreeSet;
use std::fmt;

use nftables::schema::{NfCmd, NfListObject, NfObject, Rule as NfRule};
use nftables::types::NfFamily;
use zone_firewall_protocol::{Finding, FindingKind};
use zone_judge::{Answer, Host};
use zone_ruleset::{Family as TableFamily, Rule, Ruleset, Table, words};

use crate::desired::Desired;
use crate::placement::{self, ChainPath, Needed, Open, chain_mut};
use crate::reach;
use crate::statement;
use crate::table::{self, Content};
use crate::tagged::{self, Opening};

/// In front of the lines of a table.
const DETAIL: &str = "  ";
/// What to do about rules that are not as they should be.
const HELP_APPLY: &str = "run 'zone-firewall apply' as root, or wait for zone-proxy to ask again";

/// The difference between what is and what should be.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Plan {
    /// What happens to our table.
    pub(crate) table: TableChange,
    /// Rules to add to chains of others.
    pub(crate) add: Vec<Add>,
    /// Rules of ours to delete from chains of others.
    pub(crate) delete: Vec<Delete>,
    /// What somebody else's rules keep shut, and is left as it is.
    pub(crate) blocked: Vec<Finding>,
}

/// What happens to our table.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum TableChange {
    /// It is as it should be, or not there as it should not be.
    #[default]
    Keep,
    /// It is put there in place of any older one.
    Put {
        /// Whether there is an older one.
        replaces: bool,
        /// Lines that it has and should not have.
        unexpected: Vec<String>,
        /// Lines that it should have and has not.
        missing: Vec<String>,
    },
    /// It goes.
    Remove,
}

/// A rule of ours that is to be in a chain of somebody else's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Add {
    /// The rule and its place.
    pub(crate) rule: Needed,
    /// Whether it is there already, at a place where it does not help.
    pub(crate) moves: bool,
}

/// A rule of ours in a chain of somebody else's that is to go.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Delete {
    /// The chain.
    pub(crate) chain: ChainPath,
    /// The kernel's number for it.
    pub(crate) handle: u64,
    /// What it says.
    pub(crate) text: String,
    /// Whether it is only put elsewhere.
    pub(crate) moves: bool,
}

/// A rule of ours that is in a chain of somebody else's.
struct There {
    chain: ChainPath,
    opening: Opening,
    /// The rule of somebody else's that follows; `None` for the end of the chain.
    before: Option<u64>,
    handle: u64,
    text: String,
}

impl Plan {
    /// What makes the live rules the desired ones. `keeps` says which tables somebody else keeps.
    pub(crate) fn new(
        desired: &Desired,
        mut rules: Ruleset,
        host: &Host,
        keeps: placement::Keeps<'_>,
    ) -> Self {
        let mut plan = Self { table: table_change(desired, &rules), ..Self::default() };
        let open = Open::all(desired, host);
        // Our own table lets in what is desired. What is asked is what all others do with it.
        rules.tables.retain(|table| !table::is_own(table));
        let there = there(&rules);
        let as_it_is = |rules: &Ruleset| placement::judged(&open, rules, host);
        let live = if there.is_empty() { None } else { Some(as_it_is(&rules)) };
        for own in &there {
            if let Some(chain) = chain_mut(&mut rules, &own.chain) {
                chain.rules.retain(|rule| rule.handle != own.handle);
            }
        }
        let placed = placement::place(&open, &mut rules, host, keeps);
        plan.compare(placed.needed, there, || live.is_some_and(|live| fare_alike(&live, &placed.answers)));
        plan.blocked = reach::findings(&open, &placed.answers, &rules, host);
        plan
    }

    /// What leaves the ruleset as it was before we came.
    pub(crate) fn removal(rules: &Ruleset) -> Self {
        let table =
            if rules.tables.iter().any(table::is_own) { TableChange::Remove } else { TableChange::Keep };
        let delete = there(rules).into_iter().map(|own| own.delete(false)).collect();
        Self { table, delete, ..Self::default() }
    }

    /// Which rules of ours stay, go and come. They stay where they are if that is as good.
    fn compare(&mut self, needed: Vec<Needed>, there: Vec<There>, is_as_good: impl FnOnce() -> bool) {
        let mut left: Vec<Option<There>> = there.into_iter().map(Some).collect();
        let mut pairs: Vec<(Needed, Option<There>)> = Vec::new();
        for rule in needed {
            let same = |own: &There| own.chain == rule.chain && own.opening == rule.opening;
            let exact = left
                .iter()
                .position(|own| own.as_ref().is_some_and(|own| same(own) && own.before == rule.before));
            let any = exact.or_else(|| left.iter().position(|own| own.as_ref().is_some_and(same)));
            let own = any.and_then(|index| left.get_mut(index)).and_then(Option::take);
            pairs.push((rule, own));
        }
        let left: Vec<There> = left.into_iter().flatten().collect();
        let is_moved =
            |(rule, own): &(Needed, Option<There>)| own.as_ref().is_some_and(|own| own.before != rule.before);
        let all_are_there = left.is_empty() && pairs.iter().all(|(_, own)| own.is_some());
        let stay = all_are_there && pairs.iter().any(is_moved) && is_as_good();
        for (rule, own) in pairs {
            match own {
                Some(own) if stay || own.before == rule.before => drop(own),
                Some(own) => {
                    self.delete.push(own.delete(true));
                    self.add.push(Add { rule, moves: true });
                }
                None => self.add.push(Add { rule, moves: false }),
            }
        }
        self.delete.extend(left.into_iter().map(|own| own.delete(false)));
    }

    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.table == TableChange::Keep && self.add.is_empty() && self.delete.is_empty()
    }

    /// The one transaction that does it.
    pub(crate) fn transaction(&self, desired: &Desired) -> Vec<NfObject<'static>> {
        let mut commands = match self.table {
            TableChange::Keep => Vec::new(),
            TableChange::Put { .. } => table::replace(desired),
            TableChange::Remove => table::remove(),
        };
        commands.extend(self.delete.iter().filter_map(Delete::command));
        commands.extend(self.add.iter().filter_map(Add::command));
        commands
    }

    /// What will be done, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.table {
            TableChange::Keep => {}
            TableChange::Put { replaces, unexpected, missing } => {
                let verb = if *replaces { "change" } else { "add" };
                lines.push(format!("{verb} table {} {}", table::FAMILY, table::TABLE));
                lines.extend(unexpected.iter().map(|line| format!("{DETAIL}- {line}")));
                lines.extend(missing.iter().map(|line| format!("{DETAIL}+ {line}")));
            }
            TableChange::Remove => lines.push(format!("remove table {} {}", table::FAMILY, table::TABLE)),
        }
        lines.extend(self.delete.iter().map(|rule| format!("- {}: {}", rule.chain, rule.text)));
        lines.extend(self.add.iter().map(|add| format!("+ {}: {}", add.rule.chain, add.text())));
        lines
    }

    /// The same with our table in one line.
    pub(crate) fn brief(&self) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| !line.starts_with(DETAIL));
        if let (TableChange::Put { unexpected, missing, .. }, Some(first)) = (&self.table, lines.first_mut())
        {
            *first = format!("{first} (-{} +{} lines)", unexpected.len(), missing.len());
        }
        lines
    }

    /// The same as findings, for somebody who only looks.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.table.findings();
        for add in &self.add {
            let (kind, state) = if add.moves {
                (FindingKind::Altered, "stands where it does not help, because of other rules")
            } else {
                (FindingKind::Missing, "is not there, and without it the chain drops the port")
            };
            let what = format!("{}: '{}' {state}", add.rule.chain, add.text());
            let port = Some(add.rule.opening.port);
            findings.push(Finding::drift(kind, port, &add.rule.chain.part(), what, HELP_APPLY));
        }
        for delete in self.delete.iter().filter(|delete| !delete.moves) {
            let what = format!("{}: there is '{}', which nothing asks for", delete.chain, delete.text);
            let kind = FindingKind::Unexpected;
            findings.push(Finding::drift(kind, None, &delete.chain.part(), what, HELP_APPLY));
        }
        findings.extend(self.blocked.iter().cloned());
        findings
    }
}

impl TableChange {
    fn findings(&self) -> Vec<Finding> {
        let table = format!("table {} {}", table::FAMILY, table::TABLE);
        let finding = |kind, what| Finding::drift(kind, None, "table", what, HELP_APPLY);
        match self {
            Self::Keep => Vec::new(),
            Self::Put { replaces: false, .. } => {
                vec![finding(FindingKind::Missing, format!("{table} is not there"))]
            }
            Self::Put { unexpected, missing, .. } if unexpected.is_empty() && missing.is_empty() => {
                vec![finding(FindingKind::Altered, format!("{table}: its rules stand in another order"))]
            }
            Self::Put { unexpected, missing, .. } => {
                let extra =
                    |line: &String| finding(FindingKind::Unexpected, format!("{table}: there is '{line}'"));
                let lacks =
                    |line: &String| finding(FindingKind::Missing, format!("{table}: '{line}' is not there"));
                unexpected.iter().map(extra).chain(missing.iter().map(lacks)).collect()
            }
            Self::Remove => vec![finding(FindingKind::Unexpected, format!("{table} is there"))],
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("\n"))
    }
}

impl Add {
    fn text(&self) -> String {
        let expr = serde_json::to_value(self.rule.opening.statements()).unwrap_or_default();
        format!("{} comment \"{}\"", statement::render(&expr), tagged::comment(self.rule.opening.purpose))
    }

    fn command(&self) -> Option<NfObject<'static>> {
        let before = self.rule.before;
        let rule = NfListObject::Rule(NfRule {
            handle: before.and_then(|handle| u32::try_from(handle).ok()),
            comment: Some(tagged::comment(self.rule.opening.purpose).into()),
            ..in_chain(&self.rule.chain, self.rule.opening.statements())?
        });
        // Insert goes in front of the rule of that handle; add goes to the end.
        Some(NfObject::CmdObject(if before.is_some() { NfCmd::Insert(rule) } else { NfCmd::Add(rule) }))
    }
}

impl Delete {
    fn command(&self) -> Option<NfObject<'static>> {
        let handle = Some(u32::try_from(self.handle).ok()?);
        let rule = NfRule { handle, ..in_chain(&self.chain, Vec::new())? };
        Some(NfObject::CmdObject(NfCmd::Delete(NfListObject::Rule(rule))))
    }
}

impl There {
    fn delete(self, moves: bool) -> Delete {
        Delete { chain: self.chain, handle: self.handle, text: self.text, moves }
    }
}

/// The rules of ours in chains of others.
fn there(rules: &Ruleset) -> Vec<There> {
    let mut found = Vec::new();
    for table in rules.tables.iter().filter(|table| !table::is_own(table)) {
        for chain in &table.chains {
            let own: Vec<Option<Opening>> = chain.rules.iter().map(Opening::of).collect();
            for (index, opening) in own.iter().enumerate() {
                let Some(opening) = opening else { continue };
                let rule = &chain.rules[index];
                let next = (index + 1..own.len()).find(|next| own[*next].is_none());
                found.push(There {
                    chain: ChainPath {
                        family: table.family,
                        table: table.name.clone(),
                        chain: chain.name.clone(),
                    },
                    opening: opening.clone(),
                    before: next.map(|next| chain.rules[next].handle),
                    handle: rule.handle,
                    text: text(rule, table),
                });
            }
        }
    }
    found
}

/// A rule of ours without what iptables-restore adds to it: a counter, and its comment as a match.
fn text(rule: &Rule, table: &Table) -> String {
    let mut plain = rule.clone();
    plain.exprs.retain(|expr| {
        !matches!(
            expr,
            zone_ruleset::Expr::Counter
                | zone_ruleset::Expr::XtMatch { what: zone_ruleset::XtMatch::Comment(_), .. }
        )
    });
    words::comparable(&plain, table)
}

/// Whether the same packets fare the same, whichever rule decides.
fn fare_alike(a: &[Answer], b: &[Answer]) -> bool {
    let shapes = |answers: &[Answer]| -> Vec<BTreeSet<String>> {
        let of = |answer: &Answer| {
            let cases = answer.cases.iter().map(|case| {
                let open = matches!(case.fate, zone_judge::Fate::Accepted);
                let conditions: BTreeSet<_> =
                    case.conditions.iter().map(|c| (&c.what, c.holds, &c.place)).collect();
                format!(
                    "{open} {:?} {:?} {:?} {:?} {conditions:?}",
                    case.interface, case.sources, case.source_ports, case.destinations
                )
            });
            cases.collect()
        };
        answers.iter().map(of).collect()
    };
    shapes(a) == shapes(b)
}

fn in_chain(path: &ChainPath, expr: Vec<nftables::stmt::Statement<'static>>) -> Option<NfRule<'static>> {
    let family = match path.family {
        TableFamily::Ip => NfFamily::IP,
        TableFamily::Ip6 => NfFamily::IP6,
        TableFamily::Inet => NfFamily::INet,
        TableFamily::Arp => NfFamily::ARP,
        TableFamily::Bridge => NfFamily::Bridge,
        TableFamily::Netdev => NfFamily::NetDev,
    };
    Some(NfRule {
        family,
        table: path.table.as_str()?.to_owned().into(),
        chain: path.chain.as_str()?.to_owned().into(),
        expr: expr.into(),
        ..NfRule::default()
    })
}

fn table_change(desired: &Desired, rules: &Ruleset) -> TableChange {
    let should = Content::desired(desired);
    let is = Content::of(rules);
    if is.as_ref() == Some(&should) {
        return TableChange::Keep;
    }
    let replaces = is.is_some();
    let (should, is) = (should.lines(), is.unwrap_or_default().lines());
    TableChange::Put {
        replaces,
        unexpected: is.iter().filter(|line| !should.contains(line)).cloned().collect(),
        missing: should.into_iter().filter(|line| !is.contains(line)).collect(),
    }
}
