//! Which system calls: by number, and by what their arguments are, as far as a filter sees them.

use std::collections::BTreeMap;

use seccompiler::{BackendError, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

/// Calls by number; each with the cases in which a filter's action applies, or none for every case.
pub type Calls = BTreeMap<i64, Vec<Rule>>;

/// What a process may do. What stands in neither list fails with EPERM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// What ends it, whatever the other list says.
    pub(crate) killed: Calls,
    /// What is carried out.
    pub(crate) allowed: Calls,
}

/// Further cases of a call, where not all are meant already.
pub(crate) fn more(calls: &mut Calls, number: i64, rules: impl IntoIterator<Item = Rule>) {
    let mut rules = rules.into_iter().peekable();
    // No case at all would mean every case.
    if rules.peek().is_none() {
        return;
    }
    match calls.get_mut(&number) {
        None => drop(calls.insert(number, rules.collect())),
        Some(present) if present.is_empty() => {}
        Some(present) => present.extend(rules),
    }
}

/// A case: what all of these arguments are.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule(Vec<Condition>);

/// What one argument is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    /// Its place, from 0 on.
    argument: u8,
    length: Length,
    operator: SeccompCmpOp,
    value: u64,
}

/// How much of a register the kernel looks at: an `int` is half of it, and the other half is whatever the caller likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Int,
    Pointer,
}

impl Rule {
    /// Whatever the arguments are, up to further conditions.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `int` at this place is this number.
    #[must_use]
    pub fn is(self, argument: u8, value: u32) -> Self {
        self.with(argument, Length::Int, SeccompCmpOp::Eq, value.into())
    }

    /// The `int` at this place is another number.
    #[must_use]
    pub fn is_not(self, argument: u8, value: u32) -> Self {
        self.with(argument, Length::Int, SeccompCmpOp::Ne, value.into())
    }

    /// The `int` at this place has all of these bits.
    #[must_use]
    pub fn has(self, argument: u8, bits: u32) -> Self {
        self.masked(argument, bits, bits)
    }

    /// The `int` at this place has no bits but these.
    #[must_use]
    pub fn has_only(self, argument: u8, bits: u32) -> Self {
        self.masked(argument, !bits, 0)
    }

    /// Of the `int` at this place, these bits are this number.
    #[must_use]
    pub fn masked(self, argument: u8, bits: u32, value: u32) -> Self {
        self.with(argument, Length::Int, SeccompCmpOp::MaskedEq(bits.into()), value.into())
    }

    /// The `int` at this place is at least this number.
    #[must_use]
    pub fn is_at_least(self, argument: u8, value: u32) -> Self {
        self.with(argument, Length::Int, SeccompCmpOp::Ge, value.into())
    }

    /// The `int` at this place is below this number.
    #[must_use]
    pub fn is_below(self, argument: u8, value: u32) -> Self {
        self.with(argument, Length::Int, SeccompCmpOp::Lt, value.into())
    }

    /// The pointer or size at this place is 0.
    #[must_use]
    pub fn is_null(self, argument: u8) -> Self {
        self.with(argument, Length::Pointer, SeccompCmpOp::Eq, 0)
    }

    /// The pointer or size at this place is anything else.
    #[must_use]
    pub fn is_not_null(self, argument: u8) -> Self {
        self.with(argument, Length::Pointer, SeccompCmpOp::Ne, 0)
    }

    fn with(mut self, argument: u8, length: Length, operator: SeccompCmpOp, value: u64) -> Self {
        self.0.push(Condition { argument, length, operator, value });
        self
    }

    pub(crate) fn compile(&self) -> Result<SeccompRule, BackendError> {
        let condition = |own: &Condition| {
            let length = match own.length {
                Length::Int => SeccompCmpArgLen::Dword,
                Length::Pointer => SeccompCmpArgLen::Qword,
            };
            SeccompCondition::new(own.argument, length, own.operator.clone(), own.value)
        };
        SeccompRule::new(self.0.iter().map(condition).collect::<Result<_, _>>()?)
    }
}
