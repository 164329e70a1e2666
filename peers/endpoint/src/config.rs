//! `zone-endpoint.toml`: every key, its default and its limits.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use zone_dial::Place;
use zone_protocol::identity::{Label, Service};

use crate::timing::Timing;

/// Parks that an endpoint keeps where nothing else is said.
pub(crate) const DEFAULT_PARKS: u32 = 2;

/// Sessions that an endpoint carries at most where nothing else is said.
pub(crate) const DEFAULT_MAX_SESSIONS: u32 = 64;

const MAX_PROXIES: usize = 16;
const MAX_PARKS: u32 = 16;
const MAX_SESSIONS: u32 = 10_000;
const MAX_SERVICES: usize = 256;
const MAX_SECONDS: u32 = 3600;

/// The proxy is silent for 20 s and then waits 10 s for the answer to its ping: an endpoint that gave up
/// earlier would leave healthy parks.
const MIN_SILENCE_SECONDS: u32 = 31;

/// A configuration. Paths in a file are relative to that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The endpoint's name; its certificate must say the same.
    pub id: Label,
    /// The zone.
    pub zone: Label,
    /// `host:port` of each proxy, in order of preference; 1 to 16.
    pub proxies: Vec<String>,
    /// The endpoint's certificate with its chain, leaf first, PEM.
    pub certificate: PathBuf,
    /// The key of that certificate, PEM; nobody else should be able to read it.
    pub key: PathBuf,
    /// Who vouches for proxies, PEM.
    pub proxy_anchors: PathBuf,
    /// Who vouches for Module Servers, end to end, PEM.
    pub module_server_anchors: PathBuf,
    /// Connections to keep parked; 1 to 16, by default 2.
    #[serde(default = "default_parks")]
    pub parks: u32,
    /// Sessions at a time; 1 to 10,000, by default 64.
    #[serde(default = "default_max_sessions")]
    pub max_sessions: u32,
    /// One dial, from the proxy's name to its 101; by default 10.
    #[serde(default = "default_dial")]
    pub dial_seconds: u32,
    /// A park without a byte for this long is given up; 31 or more, by default 45.
    #[serde(default = "default_silence")]
    pub silence_seconds: u32,
    /// Connecting to a service's target; by default 2. The proxy tries another park after 3.
    #[serde(default = "default_target_connect")]
    pub target_connect_seconds: u32,
    /// The end-to-end TLS handshake; by default 10.
    #[serde(default = "default_end_to_end")]
    pub end_to_end_seconds: u32,
    /// The first wait after a failure is drawn from zero to this; by default 1.
    #[serde(default = "default_back_off_first")]
    pub back_off_first_seconds: u32,
    /// Later waits double up to this; by default 60.
    #[serde(default = "default_back_off_longest")]
    pub back_off_longest_seconds: u32,
    /// How long sessions may go on after SIGTERM; by default 5.
    #[serde(default = "default_shutdown_grace")]
    pub shutdown_grace_seconds: u32,
    /// What sessions may reach, and nothing else.
    #[serde(default)]
    pub service: Vec<ServiceConfig>,
}

/// One `[[service]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// By which sessions ask for it.
    pub name: Label,
    /// The number by which callers ask for it that know only numbers. It need not be the target's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// `host:port` of a TCP server that this host can reach.
    pub target: String,
    /// Whether TLS runs end to end inside its sessions.
    #[serde(default)]
    pub end_to_end: EndToEnd,
}

/// Whether TLS runs once more inside a session, from Module Server to endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndToEnd {
    /// A session without it fails: not even the proxy can read or alter what flows.
    #[default]
    Required,
    /// For services that bring their own security (ssh), or whose callers can't do it. A captured proxy can
    /// reach such a service.
    Off,
}

/// The keys of the file, to find the one that was meant.
const KEYS: &[&str] = &[
    "id",
    "zone",
    "proxies",
    "certificate",
    "key",
    "proxy_anchors",
    "module_server_anchors",
    "parks",
    "max_sessions",
    "dial_seconds",
    "silence_seconds",
    "target_connect_seconds",
    "end_to_end_seconds",
    "back_off_first_seconds",
    "back_off_longest_seconds",
    "shutdown_grace_seconds",
    "service",
];
const SERVICE_KEYS: &[&str] = &["name", "port", "target", "end_to_end"];

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file that can't be read.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Not TOML, a key is missing, or a value is of the wrong type.
    #[error("{}:{line}: {message}", .path.display())]
    Syntax {
        /// The file that holds it.
        path: PathBuf,
        /// The line of the file, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A key that nobody knows.
    #[error("{}:{line}: unknown key '{key}'; {}", .path.display(), hint(*.meant))]
    UnknownKey {
        /// The file that holds it.
        path: PathBuf,
        /// The line of the file, from 1.
        line: usize,
        /// The key as written.
        key: String,
        /// The nearest key that is known.
        meant: Option<&'static str>,
    },
    /// A value outside its limits.
    #[error("{}: {key}: {why}", .path.display())]
    Value {
        /// The file that holds it.
        path: PathBuf,
        /// The key whose value is refused.
        key: &'static str,
        /// What is wrong with the value.
        why: String,
    },
}

fn hint(meant: Option<&'static str>) -> String {
    meant.map_or_else(|| "nothing like it is known".to_owned(), |key| format!("did you mean '{key}'?"))
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    /// Checks `text`, which stands in the file `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            message: error.message().replace('\n', " "),
        };
        check_keys(DeTable::parse(text).map_err(syntax)?.get_ref(), text, path)?;
        let mut config: Self = toml::from_str(text).map_err(syntax)?;
        config.check().map_err(|(key, why)| ConfigError::Value { path: path.to_owned(), key, why })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for file in [
            &mut config.certificate,
            &mut config.key,
            &mut config.proxy_anchors,
            &mut config.module_server_anchors,
        ] {
            *file = directory.join(&*file);
        }
        Ok(config)
    }

    /// The times, as [`Endpoint`](crate::Endpoint) takes them.
    pub fn timing(&self) -> Timing {
        let seconds = |n: u32| Duration::from_secs(n.into());
        Timing {
            dial: seconds(self.dial_seconds),
            silence: seconds(self.silence_seconds),
            target_connect: seconds(self.target_connect_seconds),
            end_to_end: seconds(self.end_to_end_seconds),
            back_off_first: seconds(self.back_off_first_seconds),
            back_off_longest: seconds(self.back_off_longest_seconds),
            shutdown_grace: seconds(self.shutdown_grace_seconds),
        }
    }

    fn check(&self) -> Result<(), (&'static str, String)> {
        within("proxies", self.proxies.len(), 1, MAX_PROXIES)?;
        for proxy in &self.proxies {
            host_and_port(proxy).map_err(|why| ("proxies", why))?;
        }
        within("parks", self.parks, 1, MAX_PARKS)?;
        within("max_sessions", self.max_sessions, 1, MAX_SESSIONS)?;
        for (key, seconds, least) in [
            ("dial_seconds", self.dial_seconds, 1),
            ("silence_seconds", self.silence_seconds, MIN_SILENCE_SECONDS),
            ("target_connect_seconds", self.target_connect_seconds, 1),
            ("end_to_end_seconds", self.end_to_end_seconds, 1),
            ("back_off_first_seconds", self.back_off_first_seconds, 1),
            ("back_off_longest_seconds", self.back_off_longest_seconds, self.back_off_first_seconds),
            ("shutdown_grace_seconds", self.shutdown_grace_seconds, 0),
        ] {
            within(key, seconds, least, MAX_SECONDS)?;
        }
        self.check_services().map_err(|why| ("service", why))
    }

    fn check_services(&self) -> Result<(), String> {
        if self.service.len() > MAX_SERVICES {
            return Err(format!("at most {MAX_SERVICES} services fit"));
        }
        let mut names = BTreeSet::new();
        let mut ports = BTreeSet::new();
        for ServiceConfig { name, port, target, .. } in &self.service {
            if !matches!(name.as_str().parse(), Ok(Service::Name(_))) {
                return Err(format!("the name '{name}' is a number; numbers go into port"));
            }
            if !names.insert(name) {
                return Err(format!("two services are named {name}"));
            }
            match port {
                Some(0) => return Err(format!("the port of {name} must be 1 to 65535")),
                Some(port) if !ports.insert(port) => {
                    return Err(format!("two services have the port {port}"));
                }
                _ => {}
            }
            host_and_port(target).map_err(|why| format!("the target of {name}: {why}"))?;
        }
        Ok(())
    }
}

/// Refuses unknown keys with the line where they stand, which serde would lose inside of `[[service]]`.
fn check_keys(table: &DeTable<'_>, text: &str, path: &Path) -> Result<(), ConfigError> {
    check_table(KEYS, table, text, path)?;
    let services = table.iter().find(|(key, _)| key.get_ref() == "service").map(|(_, value)| value.get_ref());
    let Some(DeValue::Array(services)) = services else { return Ok(()) };
    services.iter().map(Spanned::get_ref).try_for_each(|service| match service {
        DeValue::Table(service) => check_table(SERVICE_KEYS, service, text, path),
        _ => Ok(()),
    })
}

fn check_table(
    known: &'static [&'static str],
    table: &DeTable<'_>,
    text: &str,
    path: &Path,
) -> Result<(), ConfigError> {
    match table.keys().find(|key| !known.contains(&key.get_ref().as_ref())) {
        None => Ok(()),
        Some(key) => Err(ConfigError::UnknownKey {
            path: path.to_owned(),
            line: line_of(text, key.span().start),
            key: key.get_ref().to_string(),
            meant: nearest(key.get_ref(), known),
        }),
    }
}

/// The known key that is likest to `key`, if any is like it at all.
fn nearest(key: &str, known: &'static [&'static str]) -> Option<&'static str> {
    const MIN_LIKENESS: f64 = 0.7;
    let likeness = |known: &str| strsim::jaro_winkler(key, known);
    known
        .iter()
        .copied()
        .filter(|k| likeness(k) >= MIN_LIKENESS)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

fn within<T: PartialOrd + Display + Copy>(
    key: &'static str,
    value: T,
    least: T,
    most: T,
) -> Result<(), (&'static str, String)> {
    if value < least || value > most {
        return Err((key, format!("{value} is not within {least} and {most}")));
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<(), String> {
    let good = !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/')
        && Place::parse(text).is_some_and(|place| place.port > 0);
    if good { Ok(()) } else { Err(format!("'{}' is not host:port", text.escape_debug())) }
}

fn default_parks() -> u32 {
    DEFAULT_PARKS
}

fn default_max_sessions() -> u32 {
    DEFAULT_MAX_SESSIONS
}

fn default_dial() -> u32 {
    10
}

fn default_silence() -> u32 {
    45
}

fn default_target_connect() -> u32 {
    2
}

fn default_end_to_end() -> u32 {
    10
}

fn default_back_off_first() -> u32 {
    1
}

fn default_back_off_longest() -> u32 {
    60
}

fn default_shutdown_grace() -> u32 {
    5
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
id = "host-7"
zone = "plant-7"
proxies = ["203.0.113.9:17486"]
certificate = "endpoint.crt"
key = "endpoint.key"
proxy_anchors = "zone-proxy-ca.crt"
module_server_anchors = "/etc/elsewhere.crt"
"#;

    fn parsed(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("dir/zone-endpoint.toml")).map_err(|error| error.to_string())
    }

    fn refusal(added: &str) -> String {
        parsed(&format!("{LEAST}{added}")).unwrap_err()
    }

    #[test]
    fn paths_are_relative_to_the_file_and_the_rest_has_defaults() {
        let config = parsed(LEAST).unwrap();
        assert_eq!(config.certificate, Path::new("dir/endpoint.crt"));
        assert_eq!(config.module_server_anchors, Path::new("/etc/elsewhere.crt"));
        assert_eq!((config.parks, config.timing()), (2, Timing::default()));
    }

    #[test]
    fn end_to_end_tls_is_required_unless_the_service_says_off() {
        let services = "[[service]]\nname = 'query'\ntarget = 'localhost:1'\n\
            [[service]]\nname = 'ssh'\nport = 22\ntarget = '[::1]:22'\nend_to_end = 'off'\n";
        let config = parsed(&format!("{LEAST}{services}")).unwrap();
        let settings: Vec<_> = config.service.iter().map(|s| s.end_to_end).collect();
        assert_eq!(settings, [EndToEnd::Required, EndToEnd::Off]);
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        let words = "dir/zone-endpoint.toml:9: unknown key 'parkz'; did you mean 'parks'?";
        assert_eq!(refusal("parkz = 3\n"), words);
        let nested = "[[service]]\nname = 'a'\ntarget = 'h:1'\nend_to_and = 'off'\n";
        let words = "dir/zone-endpoint.toml:12: unknown key 'end_to_and'; did you mean 'end_to_end'?";
        assert_eq!(refusal(nested), words);
        assert!(refusal("xyzzy = 1\n").contains("nothing like it is known"));
    }

    #[test]
    fn every_key_is_known_to_the_search_for_the_nearest_one() {
        let services = "[[service]]\nname = 'a'\nport = 1\ntarget = 'h:1'\n";
        let config = parsed(&format!("{LEAST}{services}")).unwrap();
        let table: toml::Table = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        let keys = |table: &toml::Table| table.keys().cloned().collect::<BTreeSet<_>>();
        let set = |keys: &[&str]| keys.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        assert_eq!(keys(&table), set(KEYS));
        assert_eq!(keys(table["service"][0].as_table().unwrap()), set(SERVICE_KEYS));
    }

    #[test]
    fn values_that_can_not_work_are_refused_by_name() {
        for (added, words) in [
            ("parks = 0\n", "parks: 0 is not within 1 and 16"),
            ("silence_seconds = 10\n", "silence_seconds: 10 is not within 31 and 3600"),
            ("back_off_first_seconds = 90\n", "back_off_longest_seconds: 60 is not within 90 and 3600"),
            ("[[service]]\nname = '22'\ntarget = 'h:1'\n", "the name '22' is a number"),
            ("[[service]]\nname = 'a'\ntarget = 'h'\n", "the target of a: 'h' is not host:port"),
            ("[[service]]\nname = 'A'\ntarget = 'h:1'\n", "is not a label"),
        ] {
            assert!(refusal(added).contains(words), "{}", refusal(added));
        }
        assert!(parsed(&LEAST.replace("9:17486", "9")).unwrap_err().contains("is not host:port"));
        assert!(parsed(&LEAST.replace("\"203.0.113.9:17486\"", "")).unwrap_err().contains("proxies: 0"));
    }

    #[test]
    fn a_missing_key_and_bad_toml_name_the_file() {
        assert!(parsed("id = 'x'\n").unwrap_err().contains("missing field `zone`"));
        let error = parsed(&format!("{LEAST}parks = = 2\n")).unwrap_err();
        assert!(error.starts_with("dir/zone-endpoint.toml:9: "), "{error}");
    }
}
