//! `firewall.toml`: what root decides. Nothing that asks the broker can go beyond it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zone_firewall_protocol::{Destination, WatchMode};

pub(crate) use interface::InterfaceName;

mod interface;

/// Where the file is.
pub(crate) const PATH: &str = "/etc/zone-proxy/firewall.toml";
/// No port below is ever opened: those belong to the host's own services.
pub(crate) const LOWEST_PORT: u16 = 1024;
/// The most networks or addresses in one list. Each becomes a rule.
pub(crate) const MAX_LIST_ENTRIES: usize = 64;
/// The longest file, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The bits of a mode by which others than the owner could write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The whole file. Every key has a default; `zone-firewall.example.toml` shows them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Port 17488.
    pub(crate) control: Control,
    /// The devices that the relay's ports are open on.
    pub(crate) interfaces: Interfaces,
    /// What the broker may open at most.
    pub(crate) ceiling: Ceiling,
    /// What leaves the host.
    pub(crate) output: Output,
    /// What one source may do.
    pub(crate) limits: Limits,
    /// The broker itself.
    pub(crate) broker: Broker,
    /// What happens when others change rules.
    pub(crate) watch: Watch,
}

/// `[control]`: port 17488, which is root's alone to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Control {
    /// Whether the port is open.
    pub(crate) open: bool,
    /// The addresses that it listens on.
    pub(crate) listen: Vec<IpAddr>,
    /// Networks that may connect; empty means any.
    pub(crate) networks: Vec<IpNet>,
    /// Devices that connections may come in by; empty means any.
    pub(crate) interfaces: Vec<InterfaceName>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            open: false,
            listen: vec![Ipv4Addr::UNSPECIFIED.into()],
            networks: Vec::new(),
            interfaces: Vec::new(),
        }
    }
}

/// `[interfaces]`: devices that connections to the relay's ports may come in by, whatever the zone says; empty means any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Interfaces {
    /// Those of endpoints.
    pub(crate) endpoint: Vec<InterfaceName>,
    /// Those of Module Servers.
    pub(crate) module_server: Vec<InterfaceName>,
}

/// `[output]`: what the processes of the proxy may send beside answers on connections that others have opened.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Output {
    /// Where user zone-proxy may connect and send to: a syslog server, and its resolver if it is configured by name.
    pub(crate) allow: Vec<Destination>,
}

/// `[ceiling]`: the most that the broker opens, whoever asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ceiling {
    /// Ports and ranges of ports.
    pub(crate) ports: Vec<Ports>,
    /// Addresses that ports may be opened on; empty means any.
    pub(crate) listen: Vec<IpAddr>,
    /// Networks that ports may be opened to; empty means any.
    pub(crate) networks: Vec<IpNet>,
}

impl Default for Ceiling {
    fn default() -> Self {
        Self { ports: vec![Ports(LOWEST_PORT..=u16::MAX)], listen: Vec::new(), networks: Vec::new() }
    }
}

/// `[limits]`: new connections of one source (an IPv4 address or an IPv6 /64) on each port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Limits {
    /// Connections that may begin per second, for long; 0 means no limit.
    pub(crate) new_connections_per_second: u32,
    /// Connections that may begin at once.
    pub(crate) burst: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { new_connections_per_second: 500, burst: 4096 }
    }
}

/// `[broker]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Broker {
    /// Seconds without a request after which it ends itself; systemd starts it again.
    pub(crate) idle: u32,
    /// Connections at once, of each user that may ask, and of all others together.
    pub(crate) connections: usize,
}

impl Default for Broker {
    fn default() -> Self {
        Self { idle: 60, connections: 8 }
    }
}

/// `[watch]`: rules that others have changed, while ports of the relay are open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Watch {
    /// What is done about it.
    pub(crate) mode: WatchMode,
    /// Milliseconds without a change, after which rules are judged.
    pub(crate) settle_ms: u32,
    /// Seconds for which changes that do not stop put a judgement off at most.
    pub(crate) longest_burst: u32,
    /// Seconds from one judgement to the next, in the long run.
    pub(crate) interval: u32,
    /// The most of one processor, in percent, that judgements may use in the long run.
    pub(crate) processor_percent: u32,
    /// Repairs within a minute, after which they rest.
    pub(crate) repairs_per_minute: usize,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            mode: WatchMode::Repair,
            settle_ms: 200,
            longest_burst: 5,
            interval: 1,
            processor_percent: 10,
            repairs_per_minute: 5,
        }
    }
}

/// A port, or a range of ports such as `1024-65535`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Ports(RangeInclusive<u16>);

impl Ports {
    /// Whether the port is among them.
    pub(crate) fn contains(&self, port: u16) -> bool {
        self.0.contains(&port)
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is neither a port nor a range such as \"1024-65535\"");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let first = first.parse().map_err(|_| wrong())?;
        let last = last.parse().map_err(|_| wrong())?;
        if first > last {
            return Err(wrong());
        }
        Ok(Self(first..=last))
    }
}

impl TryFrom<String> for Ports {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.start() == self.0.end() {
            write!(f, "{}", self.0.start())
        } else {
            write!(f, "{}-{}", self.0.start(), self.0.end())
        }
    }
}

/// The file can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// It is not there, or not readable.
    #[error("{path}: can't be read: {source}; 'zone-firewall' takes its ceiling from there")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says about it.
        source: std::io::Error,
    },
    /// Somebody else than root could have written it.
    #[error("{path}: must belong to root and be writable to nobody else: chown root, chmod 0644")]
    Unsafe {
        /// The file.
        path: PathBuf,
    },
    /// A key or value is wrong.
    #[error("{name}:{line}: {why}")]
    Wrong {
        /// The file.
        name: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

impl Config {
    /// Reads and checks a file that only root can have written.
    pub(crate) fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { path: path.to_owned(), source };
        let about = std::fs::metadata(path).map_err(unreadable)?;
        if about.uid() != 0 || about.mode() & WRITABLE_BY_OTHERS != 0 {
            return Err(ConfigError::Unsafe { path: path.to_owned() });
        }
        if about.len() > MAX_FILE_BYTES {
            return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Checks a text; `name` stands for the file in errors.
    pub(crate) fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let wrong = |line, why| ConfigError::Wrong { name: name.to_owned(), line, why };
        let config: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
            wrong(line, error.message().lines().map(str::trim).collect::<Vec<_>>().join(": "))
        })?;
        match config.wrong_value() {
            Some(why) => Err(wrong(1, why)),
            None => Ok(config),
        }
    }

    fn wrong_value(&self) -> Option<String> {
        if self.control.listen.is_empty() {
            return Some("control.listen: at least one address is needed".to_owned());
        }
        let lists = [
            ("control.listen", self.control.listen.len()),
            ("control.networks", self.control.networks.len()),
            ("control.interfaces", self.control.interfaces.len()),
            ("interfaces.endpoint", self.interfaces.endpoint.len()),
            ("interfaces.module_server", self.interfaces.module_server.len()),
            ("output.allow", self.output.allow.len()),
            ("ceiling.ports", self.ceiling.ports.len()),
            ("ceiling.listen", self.ceiling.listen.len()),
            ("ceiling.networks", self.ceiling.networks.len()),
        ];
        if let Some((key, _)) = lists.into_iter().find(|(_, length)| *length > MAX_LIST_ENTRIES) {
            return Some(format!("{key}: more than {MAX_LIST_ENTRIES} entries"));
        }
        if self.limits.burst == 0 || self.broker.idle == 0 || self.broker.connections == 0 {
            return Some("limits.burst, broker.idle and broker.connections must be at least 1".to_owned());
        }
        self.watch.wrong_value()
    }
}

impl Watch {
    fn wrong_value(&self) -> Option<String> {
        let bounds = [
            ("settle_ms", u64::from(self.settle_ms), 1..=10_000),
            ("longest_burst", self.longest_burst.into(), 1..=600),
            ("interval", self.interval.into(), 1..=3_600),
            ("processor_percent", self.processor_percent.into(), 1..=100),
            ("repairs_per_minute", self.repairs_per_minute as u64, 1..=60),
        ];
        let wrong = bounds.into_iter().find(|(_, value, allowed)| !allowed.contains(value))?;
        let (key, value, allowed) = wrong;
        Some(format!("watch.{key}: {value} is not within {} to {}", allowed.start(), allowed.end()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../zone-firewall.example.toml");
    const DOCUMENTATION: &str = include_str!("../../docs/firewall.md");

    #[test]
    fn the_example_file_shows_exactly_the_defaults() {
        assert_eq!(Config::parse(EXAMPLE, "example").unwrap(), Config::default());
    }

    #[test]
    fn every_key_stands_in_the_example_and_in_the_documentation() {
        let example: toml::Table = EXAMPLE.parse().unwrap();
        for (section, keys) in toml::Table::try_from(Config::default()).unwrap() {
            for key in keys.as_table().unwrap().keys() {
                assert!(example[&section].get(key).is_some(), "{section}.{key} is missing in the example");
                assert!(
                    DOCUMENTATION.contains(&format!("`{section}.{key}`")),
                    "{section}.{key} is unexplained"
                );
            }
        }
    }

    #[test]
    fn a_wrong_key_or_value_is_named_with_its_line() {
        let error = |text| Config::parse(text, "firewall.toml").unwrap_err().to_string();
        assert!(error("[control]\nopne = true\n").starts_with("firewall.toml:2: unknown field `opne`"));
        assert!(error("[ceiling]\n\nports = [\"9-1\"]\n").starts_with("firewall.toml:3: '9-1' is neither"));
        assert!(error("[control]\nlisten = []\n").contains("control.listen: at least one"));
        assert!(error("[watch]\nmode = \"on\"\n").starts_with("firewall.toml:2: unknown variant `on`"));
        assert!(error("[watch]\ninterval = 0\n").contains("watch.interval: 0 is not within 1 to 3600"));
        let name = error("[output]\n\nallow = [\"logs.example:514/udp\"]\n");
        assert!(name.starts_with("firewall.toml:3: 'logs.example:514/udp' names a host"), "{name}");
        let device = error("[control]\ninterfaces = [\"eth*\"]\n");
        assert!(device.starts_with("firewall.toml:2: 'eth*' is no name of a network device"), "{device}");
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("firewall.toml");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(Config::read(&path).unwrap_err().to_string().contains("must belong to root"));
    }
}
