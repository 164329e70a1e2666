//! `zone-proxy.toml`: what an admin of the host decides.
//!
//! Everything else comes from the zone's Module Server and lives in the durable state.

mod check;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
pub use zone_channel::OnStop;
use zone_protocol::head::HeadLimits;
use zone_settings::{Limits, Timeouts};

pub use zone_log::Level;

/// Silence after which an endpoint gives a park up; a ping must come sooner.
const ENDPOINT_PATIENCE: f64 = 45.0;
/// The shortest head limit that still holds every head of the protocol.
const SHORTEST_HEAD: usize = 1_024;
/// The longest head limit; heads are held in memory until they are complete.
const LONGEST_HEAD: usize = 65_536;

/// The whole file. Every key has a default; `zone-proxy.example.toml` shows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whom the daemon becomes where it is started as root; an ordinary user of the host.
    pub user: String,
    /// Where the durable state lives; mode 0700, owned by the daemon's user.
    pub state_dir: PathBuf,
    /// Where the sockets live: the admin socket and one rendezvous for each relay.
    pub runtime_dir: PathBuf,
    /// Port 17488.
    pub control: Control,
    /// The relay processes.
    pub relay: RelayOptions,
    /// The host's firewall.
    pub firewall: FirewallOptions,
    /// TLS on every port.
    pub tls: Tls,
    /// Load balancers in front of the endpoint port.
    pub balancer: Balancer,
    /// Upper bounds.
    pub limits: Limits,
    /// Spans of time, in seconds.
    pub timeouts: Timeouts,
    /// What is logged.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            user: "zone-proxy".into(),
            state_dir: "/var/lib/zone-proxy".into(),
            runtime_dir: "/run/zone-proxy".into(),
            control: Control::default(),
            relay: RelayOptions::default(),
            firewall: FirewallOptions::default(),
            tls: Tls::default(),
            balancer: Balancer::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            log: Log::default(),
        }
    }
}

/// `[control]`: port 17488.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Control {
    /// Addresses to listen on; the port is always 17488.
    pub listen: Vec<IpAddr>,
    /// Networks that may connect; empty means any.
    pub allowed_networks: Vec<IpNet>,
}

impl Default for Control {
    fn default() -> Self {
        Self { listen: vec![Ipv4Addr::UNSPECIFIED.into()], allowed_networks: Vec::new() }
    }
}

/// `[relay]`: the processes that carry sessions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayOptions {
    /// The relay's executable; empty means `zone-relay` beside the own one.
    pub program: PathBuf,
    /// The service manager's socket: each connection to it starts a relay. Empty means that relays are children.
    pub socket: PathBuf,
    /// What becomes of relays when control is stopped by SIGTERM or SIGINT.
    pub on_stop: OnStop,
}

/// `[firewall]`: who opens and closes the relay ports in the host's firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FirewallOptions {
    /// Who.
    pub mode: FirewallMode,
    /// Where the broker listens.
    pub socket: PathBuf,
}

impl Default for FirewallOptions {
    fn default() -> Self {
        Self { mode: FirewallMode::None, socket: zone_firewall_protocol::SOCKET.into() }
    }
}

/// Who has a hand in the host's firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallMode {
    /// The admin: the proxy leaves the firewall alone.
    #[default]
    None,
    /// zone-firewall, which is asked.
    Broker,
}

/// `[tls]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// Whether TLS 1.3 is allowed beside 1.2.
    pub tls13: bool,
}

/// `[balancer]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Balancer {
    /// Where balancers connect from; their connections must begin with a PROXY protocol header.
    pub networks: Vec<IpNet>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// From which severity on.
    pub level: Level,
    /// Where to.
    pub to: Destination,
    /// The server, if to one.
    pub syslog: Syslog,
}

/// Where the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// The journal if systemd connected standard error to it, standard error otherwise.
    #[default]
    Auto,
    /// Standard error.
    Stderr,
    /// The journal of this host.
    Journal,
    /// A syslog server off the box.
    Syslog,
}

/// `[log.syslog]`: the server for `log.to = "syslog"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Syslog {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How records travel.
    pub transport: Transport,
    /// Whether they are encrypted.
    pub tls: bool,
    /// The authorities that vouch for it, PEM; needed with `tls`.
    pub ca: PathBuf,
}

impl Default for Syslog {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: zone_log::syslog::PORT,
            transport: Transport::default(),
            tls: false,
            ca: PathBuf::new(),
        }
    }
}

/// How records travel to a syslog server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams; nobody notices a loss.
    Udp,
    /// A connection.
    #[default]
    Tcp,
}

/// Everything that is wrong with a file, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(Vec<String>);

impl ConfigErrors {
    /// The lines.
    pub fn lines(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigErrors(vec![format!("{}: can't be read: {error}", path.display())]))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Checks a text; `name` stands for the file in errors.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigErrors> {
        check::parse(text, name).map_err(ConfigErrors)
    }

    /// The file's limits, lowered by a provisioning document's. Unknown names change nothing.
    pub fn limits_with(&self, lower: &BTreeMap<String, u64>) -> Limits {
        let overlaid = || -> Option<Limits> {
            let mut limits = serde_json::to_value(&self.limits).ok()?;
            let fields = limits.as_object_mut()?;
            for (name, value) in lower {
                if let Some(own) = fields.get_mut(name)
                    && own.as_u64().is_some_and(|own| *value < own)
                {
                    *own = (*value).into();
                }
            }
            serde_json::from_value(limits).ok()
        };
        overlaid().unwrap_or_else(|| self.limits.clone())
    }

    /// Why a provisioning document's limit can't be taken, by name.
    pub fn limit_refused(&self, name: &str, value: u64) -> Option<String> {
        let own = serde_json::to_value(&self.limits).ok()?;
        match own.get(name).and_then(serde_json::Value::as_u64) {
            None => Some(format!("limits.{name} is no limit of this proxy")),
            Some(_) if value == 0 => Some(format!("limits.{name} must be at least 1")),
            Some(own) if value > own => Some(format!(
                "limits.{name} {value} is above this host's {own}: ask its admin to raise it in zone-proxy.toml"
            )),
            Some(_) => None,
        }
    }

    /// The keys that differ and take a restart.
    pub fn needs_restart(&self, new: &Self) -> Vec<&'static str> {
        [
            ("user", self.user != new.user),
            ("state_dir", self.state_dir != new.state_dir),
            ("runtime_dir", self.runtime_dir != new.runtime_dir),
            ("control.listen", self.control.listen != new.control.listen),
            ("relay.program", self.relay.program != new.relay.program),
            ("log.to", self.log.to != new.log.to),
            ("log.syslog", self.log.syslog != new.log.syslog),
            ("relay.socket", self.relay.socket != new.relay.socket),
            ("firewall.mode", self.firewall.mode != new.firewall.mode),
            ("firewall.socket", self.firewall.socket != new.firewall.socket),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }

    /// `new`, with what takes a restart left as it is.
    #[must_use]
    pub fn taking_live(&self, new: Self) -> Self {
        Self {
            user: self.user.clone(),
            state_dir: self.state_dir.clone(),
            runtime_dir: self.runtime_dir.clone(),
            control: Control { listen: self.control.listen.clone(), ..new.control },
            relay: RelayOptions { on_stop: new.relay.on_stop, ..self.relay.clone() },
            firewall: self.firewall.clone(),
            log: Log { level: new.log.level, ..self.log.clone() },
            ..new
        }
    }

    /// Keys that are right by themselves and wrong together: the one to change, and why.
    fn contradictions(&self) -> Vec<(&'static str, &'static str)> {
        let syslog = &self.log.syslog;
        let to_syslog = self.log.to == Destination::Syslog;
        [
            (
                to_syslog && syslog.host.is_empty(),
                ("log.syslog.host", "is needed with log.to = \"syslog\": the server's name or address"),
            ),
            (
                syslog.tls && syslog.transport == Transport::Udp,
                ("log.syslog.tls", "does not go with transport = \"udp\": use \"tcp\", or tls = false"),
            ),
            (
                syslog.tls && syslog.ca.as_os_str().is_empty(),
                ("log.syslog.ca", "is needed with tls = true: a PEM file with the authority of the server"),
            ),
        ]
        .into_iter()
        .filter_map(|(wrong, contradiction)| wrong.then_some(contradiction))
        .collect()
    }

    /// What is wrong with values of the right type.
    fn wrong_values(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.user.is_empty() || self.user == "root" {
            wrong.push(format!("user: '{}' is no ordinary user: name one that owns nothing else", self.user));
        }
        if self.control.listen.is_empty() {
            wrong.push("control.listen: at least one address is needed".to_owned());
        }
        if let Some(name) = self.timeouts.first_invalid() {
            wrong.push(format!(
                "timeouts.{name}: must be more than 0 and at most {} seconds",
                Timeouts::MAX_SECONDS
            ));
        }
        if self.timeouts.ping_after >= ENDPOINT_PATIENCE {
            wrong.push(format!(
                "timeouts.ping_after: must be below {ENDPOINT_PATIENCE}, after which endpoints give up"
            ));
        }
        let limits = serde_json::to_value(&self.limits).unwrap_or_default();
        for (name, value) in limits.as_object().into_iter().flatten() {
            if value.as_u64() == Some(0) {
                wrong.push(format!("limits.{name}: must be at least 1"));
            }
        }
        if self.limits.head_fields > HeadLimits::MOST_FIELDS {
            wrong.push(format!("limits.head_fields: must be at most {}", HeadLimits::MOST_FIELDS));
        }
        if !(SHORTEST_HEAD..=LONGEST_HEAD).contains(&self.limits.head_bytes) {
            wrong.push(format!("limits.head_bytes: must be from {SHORTEST_HEAD} to {LONGEST_HEAD}"));
        }
        if self.log.syslog.port == 0 {
            wrong.push("log.syslog.port: must be from 1 to 65535".to_owned());
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../zone-proxy.example.toml");
    const DOCUMENTATION: &str = include_str!("../../../../docs/configuration.md");

    #[test]
    fn the_example_file_shows_exactly_the_defaults() {
        assert_eq!(Config::parse(EXAMPLE, "example").unwrap(), Config::default());
    }

    #[test]
    fn every_key_stands_in_the_example_and_in_the_documentation() {
        let example: toml::Table = EXAMPLE.parse().unwrap();
        for path in check::keys() {
            let mut at = Some(&toml::Value::Table(example.clone())).cloned();
            for part in path.split('.') {
                at = at.and_then(|value| value.get(part).cloned());
            }
            assert!(at.is_some(), "{path} is missing in the example");
            assert!(DOCUMENTATION.contains(&format!("`{path}`")), "{path} is not documented");
        }
    }

    #[test]
    fn limits_of_a_provisioning_document_lower_the_files_and_never_raise_them() {
        let config = Config::default();
        let lower = BTreeMap::from([("sessions".to_owned(), 10), ("waiting".to_owned(), 1_000_000)]);
        let limits = config.limits_with(&lower);
        assert_eq!((limits.sessions, limits.waiting), (10, config.limits.waiting));
        assert_eq!(
            config.limit_refused("sessions", 9_000).unwrap(),
            "limits.sessions 9000 is above this host's 4000: ask its admin to raise it in zone-proxy.toml"
        );
        assert!(config.limit_refused("sesions", 1).is_some());
        assert!(config.limit_refused("sessions", 0).is_some());
        assert_eq!(config.limit_refused("sessions", 4_000), None);
    }

    #[test]
    fn what_takes_a_restart_is_named_and_left_alone() {
        let old = Config::default();
        let mut new = old.clone();
        new.state_dir = "/elsewhere".into();
        new.limits.sessions = 7;
        assert_eq!(old.needs_restart(&new), ["state_dir"]);
        let live = old.taking_live(new);
        assert_eq!((live.state_dir, live.limits.sessions), (old.state_dir, 7));
    }
}
