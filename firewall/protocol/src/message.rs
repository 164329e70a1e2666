//! Requests and answers.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
    /// The desired rules in another language. Also for zone-admin. A broker of an earlier version refuses it.
    Export {
        /// The language.
        format: ExportFormat,
        /// What wildcards stand for that ports listen on; empty leaves them as they are.
        addresses: Vec<IpAddr>,
    },
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
    /// The desired rules, as they were asked for.
    Exported(String),
    /// It was not done, and nothing was changed.
    Refused {
        /// One line for a person.
        why: String,
        /// What to do about it.
        help: String,
    },
}

/// A difference between live and desired rules, or what keeps a port from being reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
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
    /// A rule of somebody else's keeps a port closed that should be open.
    Blocked,
    /// A port is open, and nothing listens there.
    NotListening,
}
