//! One judgement: what is not as it should be, and the repair.

use std::collections::BTreeMap;

use zone_firewall_protocol::{Finding, FindingKind, Level};
use zone_ruleset::{Generation, ReadError, Reader};

use crate::host::{self, Host, HostError};

/// The rules could not be judged.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JudgeError {
    /// Their generation is not told.
    #[error("the generation of the rules can't be read: {0}")]
    Generation(#[from] ReadError),
    /// They, or what they should be, can't be read.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// What came of trying to put rules back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Repair {
    /// There was nothing to put back, or it was not to be tried.
    NotTried,
    /// What was changed, one line each.
    Done(Vec<String>),
    /// It failed, and nothing was changed.
    Failed(String),
}

/// What was found.
#[derive(Debug, Clone)]
pub(super) struct Judgement {
    /// What was not as it should be.
    pub(super) found: Vec<Finding>,
    /// What was done about it.
    pub(super) repair: Repair,
    /// What is not as it should be after that.
    pub(super) left: Vec<Finding>,
    /// What is left is that of rules of this generation, or of a later one.
    pub(super) generation: Generation,
}

/// Judges the rules, and changes nothing. They are of this generation, or of a later one.
pub(super) fn look(host: &Host) -> Result<(Vec<Finding>, Generation), JudgeError> {
    // Read before the rules are: what is changed while they are read counts as changed since.
    let generation = Reader::open()?.generation()?;
    Ok((findings_of(host::verify(&host.desired()?)?), generation))
}

/// Judges the rules, and puts them back if `repair` says so. Whoever else changes rules by this program waits meanwhile. `None`
/// where somebody has closed all ports, as 'zone-firewall remove' does, so that there is nothing to watch any more.
pub(super) fn judge(host: &Host, repair: bool) -> Result<Option<Judgement>, JudgeError> {
    let _lock = host.store().lock().map_err(HostError::from)?;
    if host.recorded().is_empty() {
        return Ok(None);
    }
    let (found, generation) = look(host)?;
    if !repair || !found.iter().any(is_drift) {
        return Ok(Some(Judgement { left: found.clone(), repair: Repair::NotTried, found, generation }));
    }
    let repair = match host::apply(&host.desired()?) {
        Ok(done) => Repair::Done(done),
        Err(error) => Repair::Failed(error.to_string()),
    };
    let (left, generation) = look(host)?;
    Ok(Some(Judgement { found, repair, left, generation }))
}

/// Without those that are about the listening sockets: nobody tells when these change, so that a judgement of them would be
/// an old one.
fn findings_of(all: Vec<Finding>) -> Vec<Finding> {
    all.into_iter().filter(|finding| finding.kind != FindingKind::NotListening).collect()
}

/// Whether it is about rules of ours, which can be put back. What others deny is theirs.
pub(super) fn is_drift(finding: &Finding) -> bool {
    finding.level == Level::Drift
}

/// How many findings there are of each level.
pub(super) fn by_level(findings: &[Finding]) -> BTreeMap<String, u64> {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count() as u64;
    Level::ALL.map(|level| (level.to_string(), count(level))).into()
}
