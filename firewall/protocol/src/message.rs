//! Requests and answers.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::explain::{Explanation, PacketQuestion};

/// Where the broker listens.
pub const SOCKET: &str = "/run/zone-firewall.sock";
/// The longest request, and the longest answer: one line, its end included.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// What can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// These are the relay's ports, all of them; none closes them. Only user zone-proxy and root may ask. What
    /// is as wanted already stays untouched.
    SetRelayPorts(Vec<PortRule>),
    /// What would be changed, as a readable diff. Also for zone-admin.
    Plan,
    /// How the live rules differ from the desired ones. Also for zone-admin.
    Verify,
    /// What the live rules do with a packet, and which rule decides it. Also for zone-admin.
    Explain(PacketQuestion),
    /// The desired rules in another language. Also for zone-admin. A broker of an earlier version refuses it.
    Export {
        /// The language.
        format: ExportFormat,
        /// What wildcards stand for that ports listen on; empty leaves them as they are.
        addresses: Vec<IpAddr>,
    },
    /// What the watch saw last; answered at once, whatever else is being done. Also for zone-admin.
    Watch,
}

/// A language that the desired rules can be had in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExportFormat {
    /// Comma-separated values, a line for each network and address.
    Csv,
    /// A file for nft(8).
    Nft,
    /// A file for iptables-restore(8): IPv4.
    Iptables,
    /// A file for ip6tables-restore(8): IPv6.
    Ip6tables,
    /// A policy of firewalld, XML.
    Firewalld,
    /// Commands of PAN-OS.
    Panos,
}

impl ExportFormat {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Csv, Self::Nft, Self::Iptables, Self::Ip6tables, Self::Firewalld, Self::Panos];

    /// Its name, as on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Nft => "nft",
            Self::Iptables => "iptables",
            Self::Ip6tables => "ip6tables",
            Self::Firewalld => "firewalld",
            Self::Panos => "panos",
        }
    }
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// 17488: provisioning and status. Root's `firewall.toml` decides it, never a request.
    Control,
    /// 17486 by default: endpoints.
    Endpoint,
    /// 17487 by default: Module Servers.
    ModuleServer,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Control => "control",
            Self::Endpoint => "endpoint",
            Self::ModuleServer => "module-server",
        })
    }
}

/// A TCP port that is to be open (R-16: a port rule, nothing finer).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortRule {
    /// Which of the proxy's ports it is: it names the rule on the host, and there is one rule for each.
    pub purpose: Purpose,
    /// The TCP port.
    pub port: u16,
    /// The addresses that it listens on; a wildcard stands for all of its family.
    pub listen: Vec<IpAddr>,
    /// Networks that may connect; empty means any.
    pub networks: Vec<IpNet>,
    /// Networks of load balancers, which no limit per source applies to.
    #[serde(default)]
    pub balancers: Vec<IpNet>,
}

/// What the broker answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done, and the live rules were read back and are as meant. What was changed, one line each; none
    /// where everything was as wanted.
    Done(Vec<String>),
    /// What would be changed; empty where nothing would.
    Plan(String),
    /// The differences; none where live and desired rules agree.
    Verified(Vec<Finding>),
    /// What becomes of the packet, as far as it fits into an answer.
    Explained(Explanation),
    /// The desired rules, as they were asked for.
    Exported(String),
    /// What the watch saw last.
    Watched(WatchReport),
    /// It was not done, and nothing was changed.
    Refused {
        /// One line for a person.
        why: String,
        /// What to do about it.
        help: String,
    },
}

/// What is done where rules are no longer as they should be, though nobody asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WatchMode {
    /// They are put back, and a line of the log says so.
    Repair,
    /// A line of the log says so.
    Report,
    /// Nobody looks.
    Off,
}

/// What the watch saw last. It looks when rules change, not from time to time, so that an old time of
/// judgement means that nothing has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchReport {
    /// What root's file says.
    pub mode: WatchMode,
    /// Whether changes of the rules are noticed at present. They are not where no ports of the relay are to be open.
    pub watching: bool,
    /// When the rules were judged last, in seconds since 1970; `None` since the broker started.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub judged_at: Option<u64>,
    /// What was found then and is not put back: how many findings of each level.
    pub findings: BTreeMap<String, u64>,
    /// How often rules were judged since the broker started.
    pub judgements: u64,
    /// How often rules were put back since the broker started.
    pub repairs: u64,
    /// Why the watch does not do what it should, in one line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
}

/// A difference between live and desired rules, or what keeps a port from being reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is about, in a form that stays the same for as long as the finding does, whatever is counted meanwhile: the level, then
    /// the port and the family or the part of the rules, then the place.
    #[serde(default)]
    pub id: String,
    /// How much it matters. A broker of an earlier version does not say.
    #[serde(default)]
    pub level: Level,
    /// The kind of difference.
    pub kind: FindingKind,
    /// The port that it is about, if it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    /// One line: what is there, and what should be.
    pub what: String,
    /// What to do about it.
    pub help: String,
}

impl Finding {
    /// Something that is not as it should be in rules of ours: `part` is what its id says of it.
    pub fn drift(kind: FindingKind, port: Option<u16>, part: &str, what: String, help: &str) -> Self {
        let port_part = port.map(|port| format!("{port}:")).unwrap_or_default();
        let id = format!("{}:{port_part}{part}", Level::Drift);
        Self { id, level: Level::Drift, kind, port, what, help: help.to_owned() }
    }

    /// Whether it is something that an admin has meant, and does not make the whole wrong.
    pub fn is_note(&self) -> bool {
        self.level == Level::Denied
    }
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A port that is to be open is not, for all, for all of a family or a device, or for most of its sources.
    #[default]
    Closed,
    /// Whether a port is open depends on something that can't be told.
    Unknown,
    /// Rules of ours are not as they should be.
    Drift,
    /// Somebody has denied a port to some of its sources by name: that is left as it is, and all is well.
    Denied,
}

impl Level {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Unknown, Self::Drift, Self::Denied];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "closed",
            Self::Unknown => "unknown",
            Self::Drift => "drift",
            Self::Denied => "denied",
        })
    }
}

/// The kinds of findings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// A rule of ours is not there.
    Missing,
    /// A rule under our tag is there and should not be.
    Unexpected,
    /// A rule of ours is there, but not as it was meant.
    Altered,
    /// A rule of somebody else's keeps a port closed that should be open, or may do so.
    Blocked,
    /// A port is open, and nothing listens there.
    NotListening,
}
