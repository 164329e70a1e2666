//! What `status` says: the state, the ports, the relays, and each process as the kernel shows it.

use std::fs;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use zone_protocol::provisioning::{PortStatus, ProcessStatus, Provisioned, Status};
use zone_protocol::tls::certificate::{chain_from_pem, facts};
use zone_protocol::{identity::Role, ports};

use crate::daemon::Daemon;
use crate::state::State;

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
        let relays = self.supervisor.statuses().await;
        let mut processes = vec![process("control", std::process::id())];
        processes.extend(relays.iter().map(|relay| process("relay", relay.pid)));
        let membership = state.membership.as_ref();
        Status {
            state: state.kind().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host(),
            clock: self.time.wall(),
            zone: membership.map(|own| own.document.zone.clone()),
            name: membership.map(|own| own.document.name.clone()),
            provisioning: membership.map(|own| own.id.clone()),
            trust_version: membership.map(|own| own.document.trust.version),
            certificate_expires_at: certificate_expiry(&state),
            ports: self.ports(),
            relays,
            processes: processes.into_iter().flatten().collect(),
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
        let firewall = self.firewall.to_string();
        let status = |purpose: &str, address, port, listening| PortStatus {
            purpose: purpose.to_owned(),
            address,
            port,
            listening,
            firewall: firewall.clone(),
        };
        let config = self.config();
        let control = config.control.listen.iter().map(|ip| status("control", *ip, ports::CONTROL, true));
        let relays = self.supervisor.ports().into_iter().map(|(port, listening)| {
            let purpose = if port.role == Role::Endpoint { "endpoint" } else { "module-server" };
            status(purpose, port.address.ip(), port.address.port(), listening)
        });
        control.chain(relays).collect()
    }
}

/// The line about a wall clock that was set back.
pub fn clock_warning(back: Duration) -> String {
    format!("the wall clock is {} s behind the highest time that this proxy has seen: set it", back.as_secs())
}

/// When the first of a member's certificates runs out; bootstrap certificates don't count.
pub fn certificate_expiry(state: &State) -> Option<OffsetDateTime> {
    state.membership.as_ref()?;
    [&state.identity.rsa.chain, &state.identity.ec.chain]
        .into_iter()
        .filter_map(|chain| {
            let chain = chain_from_pem(chain, "certificate").ok()?;
            Some(facts(chain.first()?, "certificate").ok()?.not_after)
        })
        .min()
}

/// The host's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// The operating system, as `/etc/os-release` names it.
pub fn operating_system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .map_or_else(|| "unknown".to_owned(), |name| name.trim_matches('"').to_owned())
}

/// A process as `/proc` shows it; `None` where it is gone.
fn process(role: &str, pid: u32) -> Option<ProcessStatus> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    };
    Some(ProcessStatus {
        role: role.to_owned(),
        pid,
        // Real, effective, saved, file system.
        uid: field("Uid")?.split_whitespace().nth(1)?.parse().ok()?,
        capabilities: field("CapEff")?.to_owned(),
        no_new_privs: field("NoNewPrivs")? == "1",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_reported_as_the_kernel_shows_it() {
        let own = process("control", std::process::id()).unwrap();
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert_eq!(own.capabilities.len(), 16);
        assert_eq!(process("relay", u32::MAX), None);
    }
}
