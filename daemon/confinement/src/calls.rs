//! The filters: which calls end the process, which are told that they don't exist, and which are carried out at all.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter_all_threads};

use crate::attacks::with_twins;
use crate::rule::{Calls, Profile, Rule};

/// How many filters [`restrict_calls`] adds.
pub const FILTERS: u32 = 3;

/// Why a process is not confined. It must not serve then.
#[derive(Debug, thiserror::Error)]
pub enum ConfinementError {
    /// The list can't be made a filter.
    #[error("a filter of system calls can't be made for this machine: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel has no such filters, or allows none.
    #[error(
        "the kernel refuses a filter of system calls ({0}): it needs CONFIG_SECCOMP_FILTER, and around this process \
         nothing may forbid seccomp(2)"
    )]
    Apply(#[from] seccompiler::Error),
}

/// From now on every thread of this process, and all that it starts, makes the calls of a profile and no others, for good.
/// Any other fails with EPERM, those that only an attacker makes end the process (SIGSYS), and clone3(2) is said not to
/// exist, upon which the C library does without: its arguments are behind a pointer, where a filter does not see them.
///
/// Call it when all threads run whose start the profile does not allow.
pub fn restrict_calls(profile: &Profile) -> Result<(), ConfinementError> {
    for program in programs(profile)? {
        apply_filter_all_threads(&program)?;
    }
    Ok(())
}

/// In the order in which they are applied. One filter has one action for what it lists and one for the rest, and of all
/// filters' answers the severest counts. The last one forbids to add more, where the profile does.
fn programs(profile: &Profile) -> Result<[BpfProgram; 3], ConfinementError> {
    let errno = |number: i32| SeccompAction::Errno(number.cast_unsigned());
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    Ok([
        program(&with_twins(profile.killed.clone()), SeccompAction::Allow, SeccompAction::KillProcess)?,
        program(&absent, SeccompAction::Allow, errno(libc::ENOSYS))?,
        program(&profile.allowed, errno(libc::EPERM), SeccompAction::Allow)?,
    ])
}

fn program(
    calls: &Calls,
    others: SeccompAction,
    these: SeccompAction,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let compile = |(number, rules): (&i64, &Vec<Rule>)| {
        Ok((*number, rules.iter().map(Rule::compile).collect::<Result<_, _>>()?))
    };
    let rules = calls.iter().map(compile).collect::<Result<_, seccompiler::BackendError>>()?;
    let here = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules, others, these, here)?.try_into()
}
