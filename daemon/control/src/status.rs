//! What `status` says: the state, the ports, the relays, and each process as the kernel shows it.

use std::fs;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use zone_firewall_protocol::Purpose;
use zone_privileges::Facts;
use zone_protocol::features::Features;
use zone_protocol::merge::digest;
use zone_protocol::ports;
use zone_protocol::provisioning::{Confinement, PortStatus, ProcessStatus, Provisioned, Status};

use crate::daemon::Daemon;
use crate::state::clock::clock_warning;
use crate::{firewall, host};

/// Of what a relay says about itself.
const MAX_WORD_CHARS: usize = 80;

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
        let mut processes = vec![process("control", std::process::id())];
        processes.extend(self.supervisor.processes().into_iter().map(|(pid, own)| relay(pid, own)));
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
            certificate_expires_at: state.certificate_expiry(),
            ports: self.ports(),
            relays,
            processes: processes.into_iter().flatten().collect(),
            features: Features::own(),
        }
    }

    /// The same with what an admin should look at.
    pub async fn report(self: &Rc<Self>) -> Report {
        let status = self.status().await;
        let mut warnings = Vec::new();
        warnings.extend(self.supervisor.trouble().map(|why| format!("no relay serves: {why}")));
        for port in status.ports.iter().filter(|port| !port.listening) {
            warnings.push(format!(
                "{} port {}:{} should be open, and nobody listens there",
                port.purpose, port.address, port.port
            ));
        }
        warnings.extend(self.firewall.warnings());
        warnings.extend(self.time.set_back_by().map(clock_warning));
        if status.certificate_expires_at.is_some_and(|expiry| expiry <= status.clock) {
            warnings.push("the proxy's certificate has expired: have a new one issued".to_owned());
        }
        Report { status, warnings }
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

/// A process as `/proc` shows it; `None` where it is gone.
fn process(role: &str, pid: u32) -> Option<ProcessStatus> {
    let Facts { uid, capabilities, no_new_privs, seccomp, filters } =
        Facts::read(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
    let confinement = Some(Confinement { seccomp: seccomp.to_string(), filters, landlock: None });
    Some(ProcessStatus { role: role.to_owned(), pid, uid, capabilities, no_new_privs, confinement })
}

/// A relay as the kernel shows it. It may be hidden from this process, being another user's; then its own word stands for
/// it. What came of landlock is its own word in any case, of which a short line is taken.
fn relay(pid: u32, own: Option<ProcessStatus>) -> Option<ProcessStatus> {
    let landlock = own.as_ref().and_then(|own| own.confinement.as_ref()?.landlock.as_deref());
    let landlock =
        landlock.map(|line| line.chars().filter(|c| !c.is_control()).take(MAX_WORD_CHARS).collect());
    let mut status = process("relay", pid).or(own)?;
    if let Some(confinement) = &mut status.confinement {
        confinement.landlock = landlock;
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_reported_as_the_kernel_shows_it() {
        let own = process("control", std::process::id()).unwrap();
        assert_eq!(own.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(own.capabilities.len(), 16);
        assert_eq!(process("relay", u32::MAX), None);
    }

    #[test]
    fn of_a_relay_the_kernel_says_everything_but_landlock_and_of_that_one_short_line_is_taken() {
        let mut own = process("control", std::process::id()).unwrap();
        own.uid = u32::MAX;
        let word = format!("ABI 7, \n{}", "x".repeat(1_000));
        own.confinement = Some(Confinement { seccomp: "a lie".into(), filters: None, landlock: Some(word) });
        let shown = relay(std::process::id(), Some(own.clone())).unwrap();
        assert_eq!(shown.uid, nix::unistd::geteuid().as_raw());
        let confinement = shown.confinement.unwrap();
        assert_ne!(confinement.seccomp, "a lie");
        let line = confinement.landlock.unwrap();
        assert!(line.starts_with("ABI 7, xx") && line.len() == MAX_WORD_CHARS, "{line}");
        assert_eq!(relay(u32::MAX, Some(own)).unwrap().uid, u32::MAX, "hidden: its own word stands");
    }
}
