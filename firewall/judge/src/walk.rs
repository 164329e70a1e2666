//! The way of packets through chains and rules.

use zone_ruleset::{Chain, Rule, Verdict};

use crate::answer::{Case, Condition, Fate, Place, Reason, StepKind};
use crate::expr::{Registers, decided_with, execute};
use crate::outcome::{Branch, Done};
use crate::rules::{ChainRules, Rules, TableRules};
use crate::spans::Spans;
use crate::state::{State, join};

/// How deep calls are followed: the kernel follows 16 (`NFT_JUMP_STACK_SIZE`).
const MAX_DEPTH: usize = 16;
/// How many rules are looked at for one question.
const MAX_STEPS: usize = 20_000_000;
/// How many kinds of packets are followed at once.
const MAX_STATES: usize = 4096;

/// A walk, and the cases that it has found.
pub(crate) struct Walk<'a> {
    pub(crate) rules: &'a Rules<'a>,
    /// The cases so far.
    pub(crate) cases: Vec<Case>,
    /// How long packets may be.
    lengths: Spans,
    /// The device that packets come in by, as it is told.
    pub(crate) interface: Option<zone_ruleset::Name>,
    /// The answer is on its way, and not the packet.
    pub(crate) is_answer: bool,
    /// The rule that is about to decide names something itself.
    by_itself: bool,
    steps: usize,
    registers: Registers,
}

/// The chain that packets go through, and what was named on the way there.
#[derive(Clone, Copy)]
struct At<'a> {
    table: &'a TableRules<'a>,
    chain: &'a Chain,
    rules: &'a ChainRules<'a>,
    /// Something was named on the way to this chain.
    named: bool,
    depth: usize,
}

/// What becomes of packets in a chain, beside those whose way ends.
#[derive(Default)]
struct Out {
    next: Vec<State>,
    left: Vec<State>,
    accepted: Vec<State>,
}

/// How a rule ends for some packets.
enum End {
    Next,
    Verdict(Verdict),
    Fate(Fate),
}

impl<'a> Walk<'a> {
    pub(crate) fn new(rules: &'a Rules<'a>, interface: Option<zone_ruleset::Name>, lengths: Spans) -> Self {
        Self {
            rules,
            cases: Vec::new(),
            lengths,
            interface,
            is_answer: false,
            by_itself: false,
            steps: 0,
            registers: Registers::default(),
        }
    }

    /// Packets come to a base chain; those that pass it are returned.
    pub(crate) fn base_chain(
        &mut self,
        table: &'a TableRules<'a>,
        chain: &'a Chain,
        states: Vec<State>,
    ) -> Vec<State> {
        let Some(hook) = &chain.hook else { return states };
        let place = place(table, chain, None);
        let mut coming = states;
        for state in &mut coming {
            state.left_by = None;
            state.passed_by = None;
            state.path.push(place.clone(), StepKind::Hook { point: hook.point, priority: hook.priority });
        }
        join(&mut coming);
        let mut passed = Vec::new();
        let Some(rules) = table.chain(&chain.name) else { return passed };
        let at = At { table, chain, rules, named: false, depth: 0 };
        let left = self.chain(at, coming, &mut passed);
        for mut state in left {
            if hook.policy_drops {
                let named = state.left_by.as_ref().is_some_and(|(_, named)| *named);
                self.by_itself =
                    named && state.left_by.as_ref().is_some_and(|(place, _)| place.handle.is_some());
                self.end(&state, Fate::Dropped, Some(&place), named);
            } else {
                state.passed_by = Some(place.clone());
                passed.push(state);
            }
        }
        join(&mut passed);
        passed
    }

    /// Packets come to a chain; those that come to its end, or leave it, are returned.
    fn chain(&mut self, at: At<'a>, states: Vec<State>, accepted: &mut Vec<State>) -> Vec<State> {
        let mut states = states;
        let mut left = Vec::new();
        let port = if at.table.writes { None } else { common_port(&states) };
        for rule in at.rules.rules_for(port) {
            if states.is_empty() {
                break;
            }
            self.steps += states.len();
            if self.steps > MAX_STEPS || states.len() + left.len() > MAX_STATES {
                let what =
                    "the rules take more steps, or tell more kinds of packets apart, than are followed"
                        .to_owned();
                let here = place(at.table, at.chain, Some(rule.handle));
                for state in states.drain(..).chain(left.drain(..)) {
                    self.end(
                        &state,
                        Fate::Unknown(Reason { what: what.clone(), place: Some(here.clone()) }),
                        None,
                        true,
                    );
                }
                break;
            }
            let mut out = Out::default();
            let mut going = Vec::with_capacity(states.len());
            for mut state in states {
                match self.plain(&mut state, rule, at) {
                    Plain::Next => going.push(state),
                    Plain::Ends(end) => self.take(at, rule, state, end, false, &mut out),
                    Plain::Splits(at_expr, branches) => {
                        self.split(at, rule, &state, at_expr, branches, &mut out);
                    }
                }
            }
            states = going;
            if !out.next.is_empty() {
                states.append(&mut out.next);
                join(&mut states);
            }
            left.append(&mut out.left);
            accepted.append(&mut out.accepted);
        }
        left.append(&mut states);
        join(&mut left);
        left
    }

    /// Executes a rule for as long as all packets fare alike.
    fn plain(&mut self, state: &mut State, rule: &Rule, at: At<'a>) -> Plain {
        for (index, expr) in rule.exprs.iter().enumerate() {
            match execute(
                expr,
                &mut state.packet,
                &mut self.registers,
                &state.region,
                at.table,
                self.rules,
                at.named,
            ) {
                Done::Next => {}
                Done::Break => return Plain::Next,
                Done::Verdict(verdict) => return Plain::Ends(End::Verdict(verdict)),
                Done::Ends(fate) => return Plain::Ends(End::Fate(fate)),
                Done::Splits(branches) => return Plain::Splits(index, branches),
            }
        }
        Plain::Next
    }

    /// The rest of a rule, for packets that fare differently.
    fn split(
        &mut self,
        at: At<'a>,
        rule: &Rule,
        start: &State,
        index: usize,
        branches: Vec<Branch>,
        out: &mut Out,
    ) {
        let mut work: Vec<(State, Registers, usize, bool)> = Vec::new();
        let mut ends: Vec<(State, End, bool)> = Vec::new();
        let registers = self.registers.clone();
        Self::spread(at, rule, (start, &registers, index, false), branches, &mut work, &mut ends);
        while let Some((mut state, mut registers, index, named)) = work.pop() {
            let mut end = None;
            for (offset, expr) in rule.exprs.iter().enumerate().skip(index) {
                match execute(
                    expr,
                    &mut state.packet,
                    &mut registers,
                    &state.region,
                    at.table,
                    self.rules,
                    named || at.named,
                ) {
                    Done::Next => {}
                    Done::Break => {
                        end = Some(End::Next);
                        break;
                    }
                    Done::Verdict(verdict) => {
                        end = Some(End::Verdict(verdict));
                        break;
                    }
                    Done::Ends(fate) => {
                        end = Some(End::Fate(fate));
                        break;
                    }
                    Done::Splits(branches) => {
                        let from = (&state, &registers, offset, named);
                        Self::spread(at, rule, from, branches, &mut work, &mut ends);
                        end = None;
                        state.region = crate::region::Region::empty();
                        break;
                    }
                }
            }
            if !state.region.is_empty() {
                ends.push((state, end.unwrap_or(End::Next), named));
            }
            if work.len() + ends.len() > MAX_STATES {
                break;
            }
        }
        let changes_nothing = work.is_empty()
            && ends.iter().all(|(state, end, _)| matches!(end, End::Next) && state.packet == start.packet);
        if changes_nothing {
            out.next.push(start.clone());
            return;
        }
        for (state, _, _, _) in work {
            let reason = Reason {
                what: "a rule tells more kinds of packets apart than are followed".to_owned(),
                place: Some(place(at.table, at.chain, Some(rule.handle))),
            };
            self.end(&state, Fate::Unknown(reason), None, true);
        }
        for (state, end, named) in ends {
            self.take(at, rule, state, end, named, out);
        }
    }

    fn spread(
        at: At<'a>,
        rule: &Rule,
        (state, registers, index, named): (&State, &Registers, usize, bool),
        branches: Vec<Branch>,
        work: &mut Vec<(State, Registers, usize, bool)>,
        ends: &mut Vec<(State, End, bool)>,
    ) {
        for branch in branches {
            let mut state = State { region: branch.region, ..state.clone() };
            if let Some((what, holds, while_quiet)) = branch.condition {
                let decided_with = decided_with(&what);
                let place = place(at.table, at.chain, Some(rule.handle));
                // Each time that something is asked stands by itself: asked about other bits, or later, it may be answered otherwise.
                state.conditions.push(Condition { what, holds, place, decided_with, while_quiet });
            }
            let mut registers = registers.clone();
            if let Some((offset, bytes)) = &branch.load {
                registers.set(*offset, bytes);
            }
            let named = named || branch.names;
            match branch.done {
                Done::Next => work.push((state, registers, index + 1, named)),
                Done::Verdict(verdict) => ends.push((state, End::Verdict(verdict), named)),
                Done::Ends(fate) => ends.push((state, End::Fate(fate), named)),
                Done::Break | Done::Splits(_) => ends.push((state, End::Next, named)),
            }
        }
    }

    /// What a rule's verdict means for packets.
    fn take(&mut self, at: At<'a>, rule: &Rule, mut state: State, end: End, named: bool, out: &mut Out) {
        let here = || place(at.table, at.chain, Some(rule.handle));
        let by_itself = named;
        let named = named || at.named;
        self.by_itself = by_itself;
        match end {
            End::Next | End::Verdict(Verdict::Continue | Verdict::Break) => out.next.push(state),
            End::Verdict(Verdict::Accept) => {
                state.passed_by = Some(here());
                out.accepted.push(state);
            }
            End::Verdict(Verdict::Drop) => self.end(&state, Fate::Dropped, Some(&here()), named),
            End::Verdict(Verdict::Queue) => {
                self.end(&state, Fate::TakenOver { by: "a queue".to_owned() }, Some(&here()), named);
            }
            End::Fate(Fate::Unknown(reason)) => {
                let reason = Reason { place: reason.place.or_else(|| Some(here())), ..reason };
                self.end(&state, Fate::Unknown(reason), Some(&here()), true);
            }
            End::Fate(fate) => self.end(&state, fate, Some(&here()), named),
            End::Verdict(Verdict::Return) => {
                state.path.push(here(), StepKind::Return);
                state.left_by = Some((here(), named));
                out.left.push(state);
            }
            End::Verdict(Verdict::Jump(target)) => {
                state.path.push(here(), StepKind::Jump(target.clone()));
                let fell = self.called(at, rule, &target, state, named, out);
                out.next.extend(fell.into_iter().map(|state| State { left_by: None, ..state }));
            }
            End::Verdict(Verdict::Goto(target)) => {
                state.path.push(here(), StepKind::Goto(target.clone()));
                state.left_by = None;
                for mut state in self.called(at, rule, &target, state, named, out) {
                    if state.left_by.is_none() {
                        let end = Place { chain: target.clone(), ..place(at.table, at.chain, None) };
                        state.left_by = Some((end, named));
                    }
                    out.left.push(state);
                }
            }
        }
    }

    fn called(
        &mut self,
        at: At<'a>,
        rule: &Rule,
        target: &zone_ruleset::Name,
        state: State,
        named: bool,
        out: &mut Out,
    ) -> Vec<State> {
        let chain = at.table.chain(target);
        match chain {
            Some(chain) if at.depth < MAX_DEPTH => self.chain(
                At { table: at.table, chain: chain.chain, rules: chain, named, depth: at.depth + 1 },
                vec![state],
                &mut out.accepted,
            ),
            _ => {
                let what = match chain {
                    None => format!("chain {target} was not read"),
                    Some(_) => "calls go deeper than the kernel follows them".to_owned(),
                };
                let here = place(at.table, at.chain, Some(rule.handle));
                self.end(&state, Fate::Unknown(Reason { what, place: Some(here) }), None, true);
                Vec::new()
            }
        }
    }

    /// The way of packets ends.
    pub(crate) fn end(&mut self, state: &State, fate: Fate, decided_by: Option<&Place>, named: bool) {
        let fate = match fate {
            Fate::Dropped | Fate::Rejected if self.is_answer => Fate::Unanswered,
            fate => fate,
        };
        let by_itself = std::mem::take(&mut self.by_itself);
        // What was asked and answered in the same way twice is told once.
        let mut conditions: Vec<Condition> = Vec::with_capacity(state.conditions.len());
        for condition in &state.conditions {
            if !conditions.contains(condition) {
                conditions.push(condition.clone());
            }
        }
        for product in state.region.products() {
            use crate::region::Dimension;
            let of = |dimension| product.of(dimension).to_ranges();
            self.cases.push(Case {
                sources: of(Dimension::Source),
                source_ports: of(Dimension::SourcePort),
                destinations: of(Dimension::Destination),
                lengths: of(Dimension::Length),
                of_any_length: product.of(Dimension::Length) == &self.lengths,
                interface: self.interface.clone(),
                conditions: conditions.clone(),
                fate: fate.clone(),
                decided_by: decided_by.cloned(),
                left_by: state.left_by.as_ref().map(|(place, _)| place.clone()),
                path: state.path.steps(),
                named,
                named_by_itself: by_itself,
            });
        }
    }
}

/// The port that packets go to, if it is one.
fn common_port(states: &[State]) -> Option<u16> {
    let port = |state: &State| {
        let bytes = crate::bytes::values(state.packet.port())?;
        <[u8; 2]>::try_from(bytes).ok().map(u16::from_be_bytes)
    };
    let first = states.first().and_then(port)?;
    states.iter().all(|state| port(state) == Some(first)).then_some(first)
}

enum Plain {
    Next,
    Ends(End),
    Splits(usize, Vec<Branch>),
}

fn place(table: &TableRules<'_>, chain: &Chain, handle: Option<u64>) -> Place {
    let table = table.table;
    Place { family: table.family, table: table.name.clone(), chain: chain.name.clone(), handle }
}
