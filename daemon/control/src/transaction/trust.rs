//! A new trust document: whom the proxy lets in from now on, on all its ports.

use std::rc::Rc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use time::OffsetDateTime;
use zone_protocol::identity::Role;
use zone_protocol::tls::refusal::capture;
use zone_protocol::tls::verifier::Admission;
use zone_protocol::trust::Trust;

use super::change::{Actor, Change};
use super::error::{ChangeError, StepError};
use super::validate;
use crate::daemon::Daemon;
use crate::state::{Membership, State};
use crate::tls::versions;

impl Daemon {
    /// Replaces the trust document of version `based_on`, and returns the one in force then. Relays have taken it when
    /// this returns, and sessions that it allows no more have ended there. A sender that `merges` has read the one in
    /// force, so what it takes back is refused; of one that does not know how, see [`validate::successor`].
    pub(crate) async fn set_trust(
        self: &Rc<Self>,
        based_on: u64,
        (trust, merges): (Trust, bool),
        caller: Vec<CertificateDer<'static>>,
        actor: Actor,
    ) -> Result<Trust, ChangeError> {
        self.change("trust", actor, async move |daemon| {
            let before = daemon.state();
            let membership = before.membership.as_ref().ok_or(ChangeError::NotProvisioned)?;
            let current = &membership.document.trust;
            if current.version != based_on {
                return Err(ChangeError::PreconditionFailed { named: based_on, current: current.version });
            }
            if trust.version <= current.version {
                let why = format!("version {} must be above {}", trust.version, current.version);
                return Err(StepError::invalid(why).into());
            }
            let now = daemon.time.wall();
            let trust = validate::successor(current, trust, merges, now)?;
            let admission = daemon.admission_under(&trust, membership)?;
            admits(&admission, &caller, now).map_err(ChangeError::LockOut)?;
            let mut document = membership.document.clone();
            document.trust = trust.clone();
            let membership = Membership { document, ..membership.clone() };
            let next = State { membership: Some(membership), ..State::clone(&before) };
            let change = Change::between(&before, &next);
            daemon.put_in_force(next).await?;
            Ok((trust, change))
        })
        .await
    }

    fn admission_under(
        &self,
        trust: &Trust,
        membership: &Membership,
    ) -> Result<std::sync::Arc<Admission>, StepError> {
        let zone = membership.document.zone.clone();
        let versions = versions(self.config().tls.tls13);
        Admission::new(zone, Role::ModuleServer, trust, true, versions).map_err(StepError::invalid)
    }
}

/// Whether the caller's own certificate is let in, or why not.
fn admits(
    admission: &Admission,
    caller: &[CertificateDer<'static>],
    now: OffsetDateTime,
) -> Result<(), String> {
    let Some((leaf, intermediates)) = caller.split_first() else {
        return Err("the sender has shown no certificate".to_owned());
    };
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let (result, refusal) = capture(|| admission.verify_client_cert(leaf, intermediates, now));
    result.map(drop).map_err(|error| refusal.map_or_else(|| error.to_string(), |refusal| refusal.to_string()))
}
