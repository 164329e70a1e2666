//! Keeps the trust document of every proxy up to date.
//!
//! At each contact on 17488 the contents are compared, not the versions alone: a standby Module Server or a restored copy
//! of the zone directory may have denied somebody of whom this one has not heard. What differs is merged and sent again;
//! a proxy that was down when somebody was revoked converges. The rules are those of [`zone_protocol::merge`].
//!
//! A proxy is not believed more than it must be. What one says goes back to that one only, except for denials, which are
//! told and taken into the zone's own document; anchors and retired ones never are.

use std::future::Future;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use zone_protocol::features::Features;
use zone_protocol::identity::Label;
use zone_protocol::merge::{MAX_VERSION, digest, merge};
use zone_protocol::provisioning::Status;
use zone_protocol::trust::{Denied, Trust};

use crate::control::{ControlClient, Replaced};
use crate::error::{Error, Result};
use crate::zone::{Credentials, ProxyEntry, Zone};

/// How long one proxy may hold up the others, all its steps and attempts together.
const PUSH_TIMEOUT: Duration = Duration::from_secs(20);
/// The first delay before another attempt; each next one is twice as long.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// No delay before another attempt is longer.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often all proxies are asked again because one of them knew of a denial that the zone did not.
const MAX_ROUNDS: usize = 3;
/// How far a proxy's version may lie above the zone's before it is taken for nonsense, and not for another copy's.
const MAX_VERSION_JUMP: u64 = 1_000_000;

/// What became of one proxy's trust document.
#[derive(Debug)]
pub enum Outcome {
    /// It said all that ours says already.
    UpToDate {
        /// The version that it has.
        version: u64,
    },
    /// It said less, and has this one now.
    Sent {
        /// The version that it had.
        from: u64,
        /// The version that it has.
        version: u64,
    },
    /// It could not be asked or told; it gets the document at the next contact.
    Failed(Error),
}

/// What came of a contact with one proxy.
#[derive(Debug)]
pub struct Contact {
    /// What became of its document.
    pub outcome: Outcome,
    /// Whom it denies and the zone's document did not.
    pub learned: Vec<Denied>,
}

/// Sends every proxy what it lacks of the zone's trust document, all at once. What one of them knew, the others are told
/// as well.
pub async fn push(zone: &Zone) -> Result<Vec<(Label, Outcome)>> {
    push_to(zone, zone.proxies()?).await
}

/// The same for those proxies only that are not known to have it.
pub async fn push_to_lagging(zone: &Zone) -> Result<Vec<(Label, Outcome)>> {
    let version = zone.trust()?.version;
    let lagging = zone.proxies()?.into_iter().filter(|proxy| proxy.trust_version < version);
    push_to(zone, lagging.collect()).await
}

/// The same for one proxy, which must have it when this returns.
pub async fn push_only(zone: &Zone, proxy: ProxyEntry) -> Result<()> {
    match push_to(zone, vec![proxy]).await?.pop() {
        Some((_, Outcome::Failed(error))) => Err(error),
        _ => Ok(()),
    }
}

async fn push_to(zone: &Zone, proxies: Vec<ProxyEntry>) -> Result<Vec<(Label, Outcome)>> {
    if proxies.is_empty() {
        return Ok(Vec::new());
    }
    let own = zone.credentials()?;
    let mut all: Vec<(Label, Outcome)> = Vec::new();
    for _ in 0..MAX_ROUNDS {
        let again = |name: &Label| {
            !all.iter().any(|(known, outcome)| known == name && matches!(outcome, Outcome::Failed(_)))
        };
        let mut pushes = JoinSet::new();
        for proxy in proxies.iter().filter(|proxy| again(&proxy.name)).cloned() {
            let (zone, own) = (zone.clone(), own.clone());
            pushes.spawn(async move {
                let contact = push_one(&zone, &proxy, &own).await;
                (proxy.name, contact)
            });
        }
        let mut learned = false;
        for (name, contact) in pushes.join_all().await {
            learned |= take_in(zone, &name, &contact)?;
            match all.iter_mut().find(|(known, _)| *known == name) {
                // The first round says what a person wants to know: what it had.
                Some((_, Outcome::Sent { version, .. })) => {
                    if let Outcome::Sent { version: newer, .. } = contact.outcome {
                        *version = newer;
                    }
                }
                Some((_, known)) => *known = contact.outcome,
                None => all.push((name, contact.outcome)),
            }
        }
        if !learned {
            break;
        }
    }
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(all)
}

async fn push_one(zone: &Zone, proxy: &ProxyEntry, own: &Credentials) -> Contact {
    let pushed = async {
        let control = ControlClient::of(zone, proxy, own)?;
        let deadline = Instant::now() + PUSH_TIMEOUT;
        let status = patiently(deadline, proxy, || control.status()).await?;
        converge(zone, &control, proxy, &status, deadline).await
    };
    pushed.await.unwrap_or_else(|error| Contact { outcome: Outcome::Failed(error), learned: Vec::new() })
}

/// Compares what a proxy said of its trust document with ours, and sends it what it lacks.
pub async fn contact(
    zone: &Zone,
    control: &ControlClient,
    proxy: &ProxyEntry,
    status: &Status,
) -> Result<Contact> {
    converge(zone, control, proxy, status, Instant::now() + PUSH_TIMEOUT).await
}

/// Notes what came of a contact in the zone directory; says whether the zone's document says more now.
pub fn take_in(zone: &Zone, name: &Label, contact: &Contact) -> Result<bool> {
    let (Outcome::UpToDate { version } | Outcome::Sent { version, .. }) = contact.outcome else {
        return Ok(false);
    };
    let more = zone.learn(&contact.learned, version)?;
    zone.note_trust_version(name, version)?;
    Ok(more)
}

async fn converge(
    zone: &Zone,
    control: &ControlClient,
    proxy: &ProxyEntry,
    status: &Status,
    deadline: Instant,
) -> Result<Contact> {
    let features = &status.features;
    let ours = zone.trust()?;
    if let (Some(version), Some(theirs)) = (status.trust_version, &status.trust_digest)
        && (ours.version..=highest(&ours)).contains(&version)
        && *theirs == digest(&ours)?
    {
        return Ok(Contact { outcome: Outcome::UpToDate { version }, learned: Vec::new() });
    }
    let mut had = None;
    let mut delay = RETRY_DELAY;
    loop {
        let theirs = patiently(deadline, proxy, || control.trust()).await?;
        let had = *had.get_or_insert(theirs.version);
        // Read again each time: somebody else may have changed it, and this one says it as well then.
        let ours = zone.trust()?;
        let learned = zone.news(&theirs, OffsetDateTime::now_utc())?;
        let Some(next) = successor(proxy, &ours, &theirs, features)? else {
            let outcome = if had == theirs.version {
                Outcome::UpToDate { version: had }
            } else {
                Outcome::Sent { from: had, version: theirs.version }
            };
            return Ok(Contact { outcome, learned });
        };
        let sending = control.replace_trust(&next, theirs.version, features);
        match timeout_at(deadline, sending).await.map_err(|_| late(proxy))? {
            Ok(Replaced::Done) => {
                let outcome = Outcome::Sent { from: had, version: next.version };
                return Ok(Contact { outcome, learned });
            }
            // Another document is in force by now, or one is being put in force: it is read and merged again. Nor does
            // an answer that was lost say whether it was done.
            Ok(Replaced::Stale | Replaced::Busy) => {}
            Err(error) if error.is_lost_answer() => {}
            Err(error) => return Err(error),
        }
        pause(deadline, &mut delay).await.ok_or_else(|| late(proxy))?;
    }
}

/// The document to send to a proxy that has `theirs`; `None` where it says all that ours says, under a version as high.
fn successor(proxy: &ProxyEntry, ours: &Trust, theirs: &Trust, features: &Features) -> Result<Option<Trust>> {
    if theirs.version > highest(ours) || theirs.version >= MAX_VERSION {
        let why =
            format!("it says that it has version {}, and this zone is at {}", theirs.version, ours.version);
        return Err(broken(proxy, why));
    }
    let mut next = merge(ours, theirs, OffsetDateTime::now_utc())?.for_reader(features);
    if theirs.version >= ours.version && digest(&next)? == digest(theirs)? {
        return Ok(None);
    }
    next.version = next.version.max(theirs.version + 1);
    Ok(Some(next))
}

/// The highest version of a proxy that is taken for what another copy of the zone directory has sent it.
fn highest(ours: &Trust) -> u64 {
    ours.version.saturating_add(MAX_VERSION_JUMP)
}

/// Asks until there is an answer. A proxy ends connections whenever its trust changes, this one's among them.
async fn patiently<T, F: Future<Output = Result<T>>>(
    deadline: Instant,
    proxy: &ProxyEntry,
    ask: impl Fn() -> F,
) -> Result<T> {
    let mut delay = RETRY_DELAY;
    loop {
        match timeout_at(deadline, ask()).await.map_err(|_| late(proxy))? {
            Err(error @ Error::Broken { .. }) => {
                if pause(deadline, &mut delay).await.is_none() {
                    return Err(error);
                }
            }
            answer => return answer,
        }
    }
}

/// Waits before another attempt, longer each time; `None` where there is no time for one.
async fn pause(deadline: Instant, delay: &mut Duration) -> Option<()> {
    if Instant::now() + *delay >= deadline {
        return None;
    }
    sleep(*delay).await;
    *delay = (*delay * 2).min(MAX_RETRY_DELAY);
    Some(())
}

fn late(proxy: &ProxyEntry) -> Error {
    Error::Deadline {
        peer: format!("proxy {}", proxy.name),
        step: "sending the trust document".into(),
        after: PUSH_TIMEOUT,
    }
}

fn broken(proxy: &ProxyEntry, why: String) -> Error {
    Error::Broken { peer: format!("proxy {}", proxy.name), step: "comparing trust documents".into(), why }
}
