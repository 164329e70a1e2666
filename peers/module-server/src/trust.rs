//! Keeps the trust document of every proxy up to date.
//!
//! Versions are compared at each contact on 17488 and the newest document is sent again: a proxy that was down
//! when somebody was revoked converges.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use zone_protocol::identity::Label;
use zone_protocol::provisioning::Status;
use zone_protocol::trust::Trust;

use crate::control::ControlClient;
use crate::error::{Error, Result};
use crate::zone::{Credentials, ProxyEntry, Zone};

/// How long one proxy may hold up the others, all its steps together.
const PUSH_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a document is offered again to a proxy whose version changes meanwhile.
const MAX_ATTEMPTS: usize = 3;

/// What became of one proxy's trust document.
#[derive(Debug)]
pub enum Outcome {
    /// It had this version already.
    UpToDate,
    /// It had an older one, and has this one now.
    Sent {
        /// The version that it had.
        from: u64,
    },
    /// It could not be asked or told; it gets the document at the next contact.
    Failed(Error),
}

/// Sends the zone's trust document to every proxy that has an older one, all at once.
pub async fn push(zone: &Zone) -> Result<Vec<(Label, Outcome)>> {
    push_to(zone, zone.proxies()?).await
}

/// The same for those proxies only that are not known to have it.
pub async fn push_to_lagging(zone: &Zone) -> Result<Vec<(Label, Outcome)>> {
    let version = zone.trust()?.version;
    let lagging = zone.proxies()?.into_iter().filter(|proxy| proxy.trust_version < version);
    push_to(zone, lagging.collect()).await
}

async fn push_to(zone: &Zone, proxies: Vec<ProxyEntry>) -> Result<Vec<(Label, Outcome)>> {
    if proxies.is_empty() {
        return Ok(Vec::new());
    }
    let (trust, own) = (zone.trust()?, zone.credentials()?);
    let mut pushes = JoinSet::new();
    for proxy in proxies {
        let (trust, own) = (trust.clone(), own.clone());
        pushes.spawn(async move {
            let pushed = timeout(PUSH_TIMEOUT, push_one(&proxy, &own, &trust)).await;
            let late = || Error::Deadline {
                peer: format!("proxy {}", proxy.name),
                step: "sending the trust document".into(),
                after: PUSH_TIMEOUT,
            };
            let outcome = pushed.unwrap_or_else(|_| Err(late())).unwrap_or_else(Outcome::Failed);
            (proxy.name, outcome)
        });
    }
    let mut outcomes = pushes.join_all().await;
    outcomes.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (name, outcome) in &outcomes {
        if !matches!(outcome, Outcome::Failed(_)) {
            zone.note_trust_version(name, trust.version)?;
        }
    }
    Ok(outcomes)
}

async fn push_one(proxy: &ProxyEntry, own: &Credentials, trust: &Trust) -> Result<Outcome> {
    let control = ControlClient::of(proxy, own)?;
    let status = control.status().await?;
    converge(&control, proxy, &status, trust).await
}

/// Compares what a proxy said of its trust document with ours, and sends ours where it is newer.
pub async fn converge(
    control: &ControlClient,
    proxy: &ProxyEntry,
    status: &Status,
    trust: &Trust,
) -> Result<Outcome> {
    let mut current = status.trust_version.unwrap_or_default();
    let peer = format!("proxy {}", proxy.name);
    for _ in 0..MAX_ATTEMPTS {
        if current == trust.version {
            return Ok(Outcome::UpToDate);
        }
        if current > trust.version {
            return Err(Error::TrustNewer { peer, theirs: current, ours: trust.version });
        }
        if control.replace_trust(trust, current, &status.features).await? {
            return Ok(Outcome::Sent { from: current });
        }
        current = control.trust().await?.version;
    }
    let why = "its version changes all the time: is somebody else changing it too?".into();
    Err(Error::Broken { peer, step: "sending the trust document".into(), why })
}
