//! A new trust document: whom the proxy lets in from now on, on all its ports.

use std::rc::Rc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use time::OffsetDateTime;
use zone_protocol::identity::Role;
use zone_protocol::problem::Problem;
use zone_protocol::tls::refusal::capture;
use zone_protocol::tls::verifier::Admission;
use zone_protocol::trust::Trust;

use super::{Actor, Change, Failure, Step, change, validate};
use crate::daemon::Daemon;
use crate::server::{face, problems};
use crate::state::{Membership, State};

impl Daemon {
    /// Replaces the trust document of version `based_on`. Relays have taken it when this returns, and sessions
    /// that it allows no more have ended there.
    pub async fn set_trust(
        self: &Rc<Self>,
        based_on: u64,
        trust: Trust,
        caller: Vec<CertificateDer<'static>>,
        actor: Actor,
    ) -> Result<Trust, Problem> {
        change(self, "trust", actor, async move |daemon| {
            let before = daemon.state();
            let membership = before.membership.as_ref().ok_or_else(problems::not_provisioned)?;
            let current = &membership.document.trust;
            if current.version != based_on {
                return Err(problems::precondition_failed(based_on, current.version));
            }
            if trust.version <= current.version {
                let why = format!("version {} must be above {}", trust.version, current.version);
                return Err(Failure::invalid(why).into());
            }
            let now = daemon.time.wall();
            let admission = daemon.admission_under(&trust, membership, now)?;
            admits(&admission, &caller, now).map_err(problems::lock_out)?;
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
        now: OffsetDateTime,
    ) -> Result<std::sync::Arc<Admission>, Failure> {
        validate::trust(trust, now)?;
        let zone = membership.document.zone.clone();
        let versions = face::versions(self.config().tls.tls13);
        Admission::new(zone, Role::ModuleServer, trust, true, versions).map_err(Failure::invalid)
    }

    /// Stores a state of the same provisioning and has the relays go by it, with fresh ticket keys.
    pub(super) async fn put_in_force(self: &Rc<Self>, next: State) -> Result<(), Failure> {
        let before = self.state();
        let tickets = Daemon::fresh_tickets().map_err(|why| Failure::new(Step::Validate, why))?;
        let switch = self.store.replace(&next)?;
        if let Some(policy) = Self::policy(&self.config(), &next, &tickets)
            && let Err(error) = self.supervisor.set_policy(&Rc::new(policy)).await
        {
            if let Some(old) = self.wanted(&before)
                && let Err(error) = self.supervisor.set_policy(&old.policy).await
            {
                tracing::error!(%error, "the relay does not take its earlier policy back");
            }
            switch.undo()?;
            return Err(error.into());
        }
        switch.commit();
        self.enter(next, Some(tickets));
        Ok(())
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
