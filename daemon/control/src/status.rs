//! What `status` says: the state, the ports, the relays, and each process as the kernel shows it.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use zone_firewall_protocol::Purpose;
use zone_protocol::expiry;
use zone_protocol::features::Features;
use zone_protocol::identity::{Role, printable};
use zone_protocol::merge::digest;
use zone_protocol::ports;
use zone_protocol::provisioning::{AnchorStatus, PortStatus, Provisioned, Status};
use zone_protocol::tls::certificate::{Anchor, chain_from_pem, facts};
use zone_protocol::trust::Anchors;

use crate::daemon::Daemon;
use crate::state::clock::clock_warning;
use crate::{firewall, host, relay};

/// What `zone-proxy status` is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// As Module Servers see it.
    pub status: Status,
    /// What an admin should look at, one line each.
    pub warnings: Vec<String>,
}

impl Daemon {
    /// Everything at this moment. Relays that don't answer in time are `silent`.
    pub async fn status(self: &Rc<Self>) -> Status {
        let state = self.state();
        self.firewall.refresh().await;
        let relays = self.supervisor.statuses().await;
        let mut own = relay::status("control", std::process::id());
        if let Some(confinement) = own.as_mut().and_then(|own| own.confinement.as_mut()) {
            confinement.landlock.clone_from(&self.confined.landlock);
        }
        let processes = own.into_iter().chain(self.supervisor.processes()).collect();
        let membership = state.membership.as_ref();
        Status {
            state: state.kind().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host::name(),
            clock: self.time.wall(),
            zone: membership.map(|own| own.document.zone.clone()),
            name: membership.map(|own| own.document.name.clone()),
            provisioning: membership.map(|own| own.id.clone()),
            trust_version: membership.map(|own| own.document.trust.version),
            trust_digest: membership.and_then(|own| digest(&own.document.trust).ok()),
            control_identity: state.shown_as(),
            anchors: membership.map_or_else(Vec::new, |own| anchors(&own.document.trust.anchors)),
            certificate_expires_at: state.certificate_expiry(),
            ports: self.ports(),
            relays,
            processes,
            features: Features::own(),
        }
    }

    /// The same with what an admin should look at.
    pub async fn report(self: &Rc<Self>) -> Report {
        let status = self.status().await;
        let mut warnings = Vec::new();
        let trouble = self.confined.trouble.iter();
        warnings.extend(trouble.map(|why| format!("system calls of zone-proxy are not restricted: {why}")));
        warnings.extend(self.supervisor.trouble().map(|why| format!("no relay serves: {why}")));
        warnings.extend(self.supervisor.warnings());
        for port in status.ports.iter().filter(|port| !port.listening) {
            warnings.push(format!(
                "{} port {}:{} should be open, and nobody listens there",
                port.purpose, port.address, port.port
            ));
        }
        warnings.extend(self.firewall.warnings());
        if self.state_trouble.borrow().is_some() {
            // Perhaps it was mended meanwhile.
            self.store_clock();
        }
        let trouble = self.state_trouble.borrow();
        warnings.extend(
            trouble.iter().map(|why| format!("nothing can be stored, and nothing be changed: {why}")),
        );
        warnings.extend(self.time.set_back_by().map(clock_warning));
        warnings.extend(self.expiry_warning());
        Report { status, warnings }
    }

    /// The line about the proxy's certificates, where they have run out or soon will.
    pub(crate) fn expiry_warning(&self) -> Option<String> {
        let state = self.state();
        let name = &state.membership.as_ref()?.document.name;
        let todo = format!("have the Module Server run 'zone-module rotate {name}'");
        expiry::warning("the proxy's certificate", state.certificate_expiry()?, self.time.wall(), &todo)
    }

    /// The provisioning in force.
    pub fn provisioned(&self) -> Option<Provisioned> {
        let state = self.state();
        let membership = state.membership.as_ref()?;
        Some(Provisioned {
            id: membership.id.clone(),
            zone: membership.document.zone.clone(),
            name: membership.document.name.clone(),
            trust_version: membership.document.trust.version,
            ports: self.ports(),
        })
    }

    fn ports(&self) -> Vec<PortStatus> {
        let status = |purpose: Purpose, address, port, listening| PortStatus {
            purpose: purpose.to_string(),
            address,
            port,
            listening,
            firewall: self.firewall.verdict(purpose, port),
        };
        let config = self.config();
        let control =
            config.control.listen.iter().map(|ip| status(Purpose::Control, *ip, ports::CONTROL, true));
        let relays = self.supervisor.ports().into_iter().map(|(port, listening)| {
            status(firewall::purpose(port.role), port.address.ip(), port.address.port(), listening)
        });
        control.chain(relays).collect()
    }
}

/// The authorities of a trust document. One that can't be read vouches for nobody.
fn anchors(anchors: &Anchors) -> Vec<AnchorStatus> {
    const WHAT: &str = "trust anchor";
    let of = |role: Role, pems: &[String]| {
        let chains = pems.iter().filter_map(|pem| chain_from_pem(pem, WHAT).ok());
        let status = chains.flatten().filter_map(move |der| {
            let (anchor, facts) = (Anchor::read(&der).ok()?, facts(&der, WHAT).ok()?);
            Some(AnchorStatus {
                role: role.to_string(),
                name: printable(&anchor.name),
                fingerprint: anchor.fingerprint,
                not_before: facts.not_before,
                not_after: facts.not_after,
            })
        });
        status.collect::<Vec<_>>()
    };
    [of(Role::Endpoint, &anchors.endpoint), of(Role::ModuleServer, &anchors.module_server)].concat()
}
