//! What the menu and the verbs ask of the helper, and what it answers.
//!
//! The helper gets its verb as its one argument, and one line of JSON with the same verb on standard input. It
//! answers with lines of JSON: any number of `Message::Progress`, then one of the others.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zone_firewall_protocol::{Destination, DestinationError, Finding, Reachability};

use crate::version::Version;

/// The longest request, bytes, its end included.
pub(crate) const MAX_REQUEST_BYTES: u64 = 64 * 1024;
/// The longest line of an answer, bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// The most listen addresses, and the most networks.
pub(crate) const MAX_ADDRESSES: usize = 64;
/// The most lines of the log.
pub(crate) const MAX_LOG_LINES: u32 = 1000;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Is this host ready? Nothing is changed.
    Preflight {},
    /// Install the proxy.
    Install {
        /// The version to install.
        version: Version,
        /// Where 17488 is served, and to whom.
        control: ControlPort,
    },
    /// Go to a newer version; configuration and provisioning stay.
    Upgrade {
        /// The version to go to.
        version: Version,
    },
    /// Remove the proxy and all that it left on this host.
    Remove {},
    /// Leave the zone.
    Reset {},
    /// What the Module Server needs. It holds a secret.
    ShowPayload {},
    /// How the proxy is.
    Status {},
    /// How the live firewall differs from what it should be.
    FirewallVerify {},
    /// What would be changed in the firewall.
    FirewallPlan {},
    /// To whom a port is open, and which rules decide it.
    FirewallExplain {
        /// The TCP port.
        port: u16,
        /// Where connections come from; anywhere if it is left out.
        from: Option<IpNet>,
    },
    /// The newest lines of the log.
    Logs {
        /// How many lines, at most 1000.
        lines: u32,
    },
    /// Where 17488 is served: as configured, and as it is.
    Settings {},
    /// Change where 17488 is served, and to whom, and where the log goes.
    Configure {
        /// Where and to whom from then on.
        control: ControlPort,
        /// The syslog server from then on.
        #[serde(default)]
        log: LogChange,
    },
}

/// What becomes of the syslog server that the proxy's log goes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogChange {
    /// It stays.
    #[default]
    Keep,
    /// There is none any more: the log stays on this host.
    Off,
    /// It is this one, and the host's firewall lets the log out to it.
    Server(Destination),
}

impl FromStr for LogChange {
    type Err = DestinationError;

    /// `off`, or a server such as `10.0.0.5:6514/tcp`.
    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if text.eq_ignore_ascii_case("off") { Ok(Self::Off) } else { text.parse().map(Self::Server) }
    }
}

impl Request {
    /// All verbs.
    pub(crate) const VERBS: [&str; 13] = [
        "preflight",
        "install",
        "upgrade",
        "remove",
        "reset",
        "show-payload",
        "status",
        "firewall-verify",
        "firewall-plan",
        "firewall-explain",
        "logs",
        "settings",
        "configure",
    ];

    /// The verb, as it stands in the line of JSON.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Preflight {} => "preflight",
            Self::Install { .. } => "install",
            Self::Upgrade { .. } => "upgrade",
            Self::Remove {} => "remove",
            Self::Reset {} => "reset",
            Self::ShowPayload {} => "show-payload",
            Self::Status {} => "status",
            Self::FirewallVerify {} => "firewall-verify",
            Self::FirewallPlan {} => "firewall-plan",
            Self::FirewallExplain { .. } => "firewall-explain",
            Self::Logs { .. } => "logs",
            Self::Settings {} => "settings",
            Self::Configure { .. } => "configure",
        }
    }

    /// Whether it changes anything: such requests come one at a time.
    pub fn changes(&self) -> bool {
        matches!(
            self,
            Self::Install { .. }
                | Self::Upgrade { .. }
                | Self::Remove {}
                | Self::Reset {}
                | Self::Configure { .. }
        )
    }

    /// Whether it is written to the audit: changes, and what shows a secret.
    pub(crate) fn audited(&self) -> bool {
        self.changes() || matches!(self, Self::ShowPayload {})
    }

    /// What is wrong with values of the right type, one line.
    pub(crate) fn wrong(&self) -> Option<String> {
        match self {
            Self::Install { control, .. } | Self::Configure { control, .. } => control.wrong(),
            Self::FirewallExplain { port: 0, .. } => Some("port: must be from 1 to 65535".to_owned()),
            Self::Logs { lines } if !(1..=MAX_LOG_LINES).contains(lines) => {
                Some(format!("lines: must be from 1 to {MAX_LOG_LINES}"))
            }
            _ => None,
        }
    }
}

/// Where port 17488 is served, and to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPort {
    /// Addresses to listen on, at least one.
    pub listen: Vec<IpAddr>,
    /// Networks that may connect; empty means any.
    pub networks: Vec<IpNet>,
}

impl ControlPort {
    /// What is wrong with it, one line.
    pub(crate) fn wrong(&self) -> Option<String> {
        if self.listen.is_empty() {
            return Some("listen: at least one address is needed".to_owned());
        }
        if self.listen.len() > MAX_ADDRESSES || self.networks.len() > MAX_ADDRESSES {
            return Some(format!("at most {MAX_ADDRESSES} addresses and {MAX_ADDRESSES} networks are taken"));
        }
        self.listen
            .iter()
            .find(|address| address.is_multicast())
            .map(|address| format!("listen: {address} is a multicast address: give one of this host's own"))
    }

    /// What an admin should think about, one line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let any = self.networks.is_empty() || self.networks.iter().any(|network| network.prefix_len() == 0);
        let mut warnings = Vec::new();
        if any {
            warnings.push(
                "ANY network may connect to 17488: better name the Module Servers' networks.".to_owned(),
            );
        }
        if self.listen.iter().any(IpAddr::is_unspecified) {
            warnings
                .push("17488 listens on ALL addresses of this host: better name the inside one.".to_owned());
        }
        warnings
    }
}

/// A line of the helper's answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Message {
    /// What is being done.
    Progress(String),
    /// It was done.
    Done(Box<Reply>),
    /// It was not done.
    Failed(Failure),
}

/// Something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Failure {
    /// One line for a person: what is wrong, where, and what to do.
    pub(crate) why: String,
    /// How the host is now.
    pub(crate) host: HostState,
}

/// How a failure left the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HostState {
    /// As before: nothing had been changed.
    Untouched,
    /// As before: what had been changed was undone.
    Undone,
    /// Not as before. What could not be undone, one line each.
    Left(Vec<String>),
}

impl Failure {
    /// A failure before anything was changed.
    pub(crate) fn untouched(why: impl Into<String>) -> Self {
        Self { why: why.into(), host: HostState::Untouched }
    }
}

/// What was found or done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// Each check with its verdict.
    Preflight(Vec<Verdict>),
    /// It is installed and serves.
    Installed {
        /// The version that is installed.
        version: Version,
        /// What the Module Server needs.
        payload: Value,
    },
    /// It is upgraded and serves.
    Upgraded {
        /// The version that was installed before.
        from: Version,
        /// The version that is installed now.
        to: Version,
    },
    /// It is removed.
    Removed,
    /// It belongs to no zone any more.
    Reset,
    /// What the Module Server needs.
    Payload(Value),
    /// How it is.
    Status(Box<Status>),
    /// How the live firewall differs.
    Firewall(Vec<Finding>),
    /// What would be changed in the firewall; empty where nothing would.
    Plan(String),
    /// To whom a port is open.
    Explained {
        /// Whether it is.
        reachability: Reachability,
        /// The cases and their reasons, for a person.
        lines: Vec<String>,
    },
    /// Lines of the log.
    Logs(Vec<String>),
    /// Where 17488 is served.
    Settings(ControlSettings),
    /// The change is in force.
    Configured,
}

/// How the proxy is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    /// The installed version.
    pub(crate) version: Option<Version>,
    /// Its units.
    pub(crate) units: Vec<UnitStatus>,
    /// What `zone-proxy status --json` says, if it answers.
    pub(crate) proxy: Option<Value>,
    /// The same for a person; or why it does not answer.
    pub(crate) text: String,
}

impl Status {
    /// Whether the proxy answers, and all that has to be running is.
    pub(crate) fn healthy(&self) -> bool {
        self.proxy.is_some() && self.units.iter().all(|unit| unit.active == "active")
    }
}

/// How systemd sees a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UnitStatus {
    /// The name of the unit.
    pub(crate) name: String,
    /// `active`, `inactive`, `failed` and so on.
    pub(crate) active: String,
    /// `enabled`, `disabled` and so on.
    pub(crate) enabled: String,
}

/// Where 17488 is served, by file and in fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ControlSettings {
    /// What the configuration says, and a restart brings.
    pub(crate) persistent: ControlPort,
    /// Where it listens at this moment.
    pub(crate) listening: Vec<IpAddr>,
    /// Why the live firewall is not as configured, one line each; none if it is.
    pub(crate) firewall: Vec<String>,
    /// The syslog server that the configuration names, with port and transport; empty if the log stays on this host.
    pub(crate) syslog: String,
}

/// The verdict of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// What was checked.
    pub(crate) check: String,
    /// How it is.
    pub(crate) grade: Grade,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; empty if nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) help: String,
}

/// How good or bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Grade {
    /// As it should be.
    Ok,
    /// An installation would work; look at it.
    Warn,
    /// An installation is refused.
    Fail,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_the_name_that_its_request_has_in_json() {
        let control = ControlPort { listen: vec![[127, 0, 0, 1].into()], networks: Vec::new() };
        let version: Version = "0.1.0-1".parse().unwrap();
        let all = [
            Request::Preflight {},
            Request::Install { version: version.clone(), control: control.clone() },
            Request::Upgrade { version },
            Request::Remove {},
            Request::Reset {},
            Request::ShowPayload {},
            Request::Status {},
            Request::FirewallVerify {},
            Request::FirewallPlan {},
            Request::FirewallExplain { port: 17488, from: "10.0.0.0/8".parse().ok() },
            Request::Logs { lines: 1 },
            Request::Settings {},
            Request::Configure { control, log: LogChange::Server("10.0.0.5:514/udp".parse().unwrap()) },
        ];
        for (request, verb) in all.iter().zip(Request::VERBS) {
            let json = serde_json::to_value(request).unwrap();
            assert_eq!(json.as_object().unwrap().keys().next().map(String::as_str), Some(verb));
            assert_eq!(request.verb(), verb);
            assert_eq!(serde_json::from_value::<Request>(json).unwrap(), *request);
            assert_eq!(request.wrong(), None);
        }
    }

    #[test]
    fn wrong_arguments_are_named() {
        let mut control = ControlPort::default();
        assert!(control.wrong().unwrap().contains("at least one"));
        control.listen = vec!["224.0.0.1".parse().unwrap()];
        assert!(control.wrong().unwrap().contains("224.0.0.1"));
        control.listen = vec![[127, 0, 0, 1].into(); MAX_ADDRESSES + 1];
        assert!(control.wrong().unwrap().contains("at most"));
        assert!(Request::Logs { lines: 0 }.wrong().is_some());
        assert!(Request::FirewallExplain { port: 0, from: None }.wrong().is_some());
        assert!(Request::Logs { lines: MAX_LOG_LINES + 1 }.wrong().is_some());
    }

    #[test]
    fn any_is_warned_of() {
        let narrow = ControlPort {
            listen: vec!["10.0.0.1".parse().unwrap()],
            networks: vec!["10.0.0.0/24".parse().unwrap()],
        };
        assert!(narrow.warnings().is_empty());
        let any = ControlPort { listen: vec!["0.0.0.0".parse().unwrap()], networks: Vec::new() };
        assert_eq!(any.warnings().len(), 2);
        let zero = ControlPort { networks: vec!["::/0".parse().unwrap()], ..narrow };
        assert_eq!(zero.warnings().len(), 1);
    }
}
