//! `zone-firewall watch`: the same for root at a terminal, who is told and nothing is put back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use zone_firewall_protocol::{Finding, WatchMode};

use super::changes::{SourceError, Sources, sleep};
use super::judgement::{JudgeError, look};
use super::schedule::{Action, Event, Outcome, Schedule, Settings};
use crate::host::Host;

/// The rules can't be followed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    /// Changes are not told.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The rules can't be judged.
    #[error(transparent)]
    Judge(#[from] JudgeError),
}

/// What has changed about the findings.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// What is not as it should be since now.
    pub(crate) new: Vec<Finding>,
    /// The names of findings that are gone.
    pub(crate) gone: Vec<String>,
    /// Who has changed rules since the change before.
    pub(crate) by: String,
}

/// Judges the rules now and whenever they change, and tells of each change of what is found, until `tell` says that this is enough.
/// The first one is told also where there is nothing.
pub(crate) fn follow(host: &Host, mut tell: impl FnMut(&Change) -> bool) -> Result<(), FollowError> {
    let config = host.config().map_err(JudgeError::from)?.watch;
    let mut sources = Sources::open()?;
    // Told and not put back, and also where no port of the relay is to be open.
    let settings = Settings::new(&config, WatchMode::Report);
    let mut schedule = Schedule::new(settings);
    let mut known: Option<BTreeMap<String, Finding>> = None;
    let mut actions = schedule.on(Event::Settings(settings), Instant::now());
    loop {
        for action in std::mem::take(&mut actions) {
            if action == (Action::Judge { repair: false }) {
                let (findings, generation) = look(host)?;
                let by = sources.judged(&generation);
                let found: BTreeMap<_, _> =
                    findings.into_iter().map(|finding| (finding.id.clone(), finding)).collect();
                let before = known.clone().unwrap_or_default();
                let new = found.iter().filter(|(id, _)| !before.contains_key(*id));
                let gone = before.keys().filter(|id| !found.contains_key(*id));
                let change = Change {
                    new: new.map(|(_, finding)| finding.clone()).collect(),
                    gone: gone.cloned().collect(),
                    by,
                };
                let is_news = known.is_none() || !change.new.is_empty() || !change.gone.is_empty();
                known = Some(found);
                if is_news && !tell(&change) {
                    return Ok(());
                }
                // Whoever looks on at a terminal may have it look as often as the interval allows.
                let judged = Event::Judged { cost: Duration::ZERO, outcome: Outcome::AsMeant };
                actions.extend(schedule.on(judged, Instant::now()));
            }
        }
        if !actions.is_empty() {
            continue;
        }
        let fds = sources.fds();
        sleep(if schedule.is_settling() { &[] } else { &fds }, schedule.due());
        if sources.drain()? {
            actions.extend(schedule.on(Event::Changed, Instant::now()));
        }
        actions.extend(schedule.on(Event::Tick, Instant::now()));
    }
}
