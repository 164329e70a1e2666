//! `zone-proxy.toml`: what an admin of the host decides.
//!
//! Everything else comes from the zone's Module Server and lives in the durable state.

mod check;
mod sections;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

pub use sections::{
    Balancer, Config, Control, Destination, FirewallMode, FirewallOptions, Log, RelayOptions, Syslog, Tls,
    Transport,
};
pub use zone_channel::OnStop;
pub use zone_log::Level;
use zone_settings::Limits;

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
            ("relay.end_socket", self.relay.end_socket != new.relay.end_socket),
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
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../zone-proxy.example.toml");
    const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

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
