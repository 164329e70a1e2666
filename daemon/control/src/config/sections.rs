//! The sections of `zone-proxy.toml`, their defaults, and what is wrong with values of the right type.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zone_channel::OnStop;
use zone_log::Level;
use zone_protocol::head::HeadLimits;
use zone_settings::{Limits, Timeouts};

/// A relay that hands over listens to nothing else meanwhile, and is ended where it does not answer for longer than twice this.
const MAX_HAND_OVER_SECONDS: f64 = 5.0;
/// Silence after which an endpoint gives a park up; a ping must come sooner.
const ENDPOINT_SILENCE_SECONDS: f64 = 45.0;
/// The shortest head limit that still holds every head of the protocol.
const MIN_HEAD_BYTES: usize = 1_024;
/// The longest head limit; heads are held in memory until they are complete.
const MAX_HEAD_BYTES: usize = 65_536;

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
    /// How much is logged, and where the log goes.
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
    /// The service manager's socket: each connection to it starts a helper that ends a relay by force. Empty means
    /// `relay-end.sock` beside `socket`, where that is set.
    pub end_socket: PathBuf,
    /// What becomes of relays when control is stopped by SIGTERM or SIGINT.
    pub on_stop: OnStop,
}

/// `[firewall]`: who opens and closes the relay ports in the host's firewall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FirewallOptions {
    /// Whether the admin or the broker opens the ports.
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
    /// The log's destination.
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
    /// Whether records travel by UDP or TCP.
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

impl Config {
    /// Keys that are right by themselves and wrong together: the one to change, and why.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, &'static str)> {
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
    pub(super) fn wrong_values(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.user.is_empty() || self.user == "root" {
            wrong.push(format!("user: '{}' is no ordinary user: name one that owns nothing else", self.user));
        }
        // The daemon's working directory is not the one that it was started in.
        for (key, path) in [
            ("state_dir", &self.state_dir),
            ("runtime_dir", &self.runtime_dir),
            ("relay.program", &self.relay.program),
            ("relay.socket", &self.relay.socket),
            ("relay.end_socket", &self.relay.end_socket),
            ("firewall.socket", &self.firewall.socket),
        ] {
            if path.is_relative() && !path.as_os_str().is_empty() {
                wrong.push(format!("{key}: '{}' must be an absolute path", path.display()));
            }
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
        if self.timeouts.hand_over > MAX_HAND_OVER_SECONDS {
            wrong.push(format!(
                "timeouts.hand_over: must be at most {MAX_HAND_OVER_SECONDS}, for callers wait so long, and so do new rules"
            ));
        }
        if self.timeouts.ping_after >= ENDPOINT_SILENCE_SECONDS {
            wrong.push(format!(
                "timeouts.ping_after: must be below {ENDPOINT_SILENCE_SECONDS}, after which endpoints give up"
            ));
        }
        let limits = serde_json::to_value(&self.limits).unwrap_or_default();
        for (name, value) in limits.as_object().into_iter().flatten() {
            if value.as_u64() == Some(0) {
                wrong.push(format!("limits.{name}: must be at least 1"));
            }
        }
        if self.limits.port_share_percent > 100 {
            wrong.push("limits.port_share_percent: must be at most 100".to_owned());
        }
        if self.limits.head_fields > HeadLimits::MOST_FIELDS {
            wrong.push(format!("limits.head_fields: must be at most {}", HeadLimits::MOST_FIELDS));
        }
        if !(MIN_HEAD_BYTES..=MAX_HEAD_BYTES).contains(&self.limits.head_bytes) {
            wrong.push(format!("limits.head_bytes: must be from {MIN_HEAD_BYTES} to {MAX_HEAD_BYTES}"));
        }
        if self.log.syslog.port == 0 {
            wrong.push("log.syslog.port: must be from 1 to 65535".to_owned());
        }
        wrong
    }
}
