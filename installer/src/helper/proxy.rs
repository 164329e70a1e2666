//! The installed programs of the proxy, asked by their command lines.

use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;
use zone_firewall_protocol::{Finding, Reachability};

use super::run::{self, RunError};
use super::units;
use crate::text::plain;

/// The time for a question.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for a change: leaving a zone waits for relays to end.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(90);
/// The time for a started proxy to serve.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How often it is asked meanwhile.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);

/// The proxy did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    /// A program failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A program printed something unexpected.
    #[error("'{0}' printed something unexpected: it is of another version than this installer")]
    UnexpectedOutput(&'static str),
    /// It does not serve.
    #[error("zone-proxy does not serve: {why}")]
    NotServing {
        /// What was seen last.
        why: String,
    },
}

/// What the Module Server needs.
pub(super) fn payload() -> Result<Value, ProxyError> {
    json("zone-proxy show payload", &run::run("zone-proxy", &["show", "payload"], QUERY_TIMEOUT)?.good()?)
}

/// How the proxy is, as `zone-proxy status --json` prints it.
pub(super) fn status() -> Result<Value, ProxyError> {
    json("zone-proxy status --json", &run::run("zone-proxy", &["status", "--json"], QUERY_TIMEOUT)?.good()?)
}

/// How the proxy is, for a person.
pub(super) fn status_text() -> Result<String, ProxyError> {
    Ok(run::run("zone-proxy", &["status"], QUERY_TIMEOUT)?.good()?)
}

/// Leaves the zone.
pub(super) fn reset() -> Result<(), ProxyError> {
    Ok(run::run("zone-proxy", &["reset", "--yes"], CHANGE_TIMEOUT)?.good().map(drop)?)
}

/// Finds errors in the configuration.
pub(super) fn check_configuration() -> Result<(), ProxyError> {
    Ok(run::run("zone-proxy", &["check-config"], QUERY_TIMEOUT)?.good().map(drop)?)
}

/// Makes the live firewall as it should be.
pub(super) fn firewall_apply() -> Result<(), ProxyError> {
    Ok(run::run("zone-firewall", &["apply"], CHANGE_TIMEOUT)?.good().map(drop)?)
}

/// Takes every rule of ours out of the live firewall.
pub(super) fn firewall_remove() -> Result<(), ProxyError> {
    Ok(run::run("zone-firewall", &["remove"], CHANGE_TIMEOUT)?.good().map(drop)?)
}

/// What would be changed in the live firewall.
pub(super) fn firewall_plan() -> Result<String, ProxyError> {
    Ok(run::run("zone-firewall", &["plan"], QUERY_TIMEOUT)?.good()?)
}

/// How the live firewall differs from what it should be.
pub(super) fn firewall_verify() -> Result<Vec<Finding>, ProxyError> {
    let what = "zone-firewall verify --json";
    let finished = run::run("zone-firewall", &["verify", "--json"], QUERY_TIMEOUT)?;
    // It ends with 1 where there are findings, and with 2 where it could not look.
    let output = if finished.status.code() == Some(1) { finished.output } else { finished.good()? };
    let verified: Verified = serde_json::from_str(&output).map_err(|_| ProxyError::UnexpectedOutput(what))?;
    Ok(verified.findings)
}

/// To whom a port is open, and which rules decide it, in lines for a person.
pub(super) fn firewall_explain(
    port: u16,
    from: Option<IpNet>,
) -> Result<(Reachability, Vec<String>), ProxyError> {
    let port = port.to_string();
    let from = from.map(|from| from.to_string());
    let mut arguments = vec!["explain", "--port", &port];
    arguments.extend(from.iter().flat_map(|from| ["--from", from.as_str()]));
    let finished = run::run("zone-firewall", &arguments, QUERY_TIMEOUT)?;
    let (reachability, output) = match finished.status.code() {
        Some(1) => (Reachability::Shut, finished.output),
        Some(3) => (Reachability::Unknown, finished.output),
        _ => (Reachability::Open, finished.good()?),
    };
    Ok((reachability, output.lines().map(plain).collect()))
}

/// What `zone-firewall verify --json` prints.
#[derive(Deserialize)]
struct Verified {
    findings: Vec<Finding>,
}

/// Waits until 17488 is served, and returns the state: `unprovisioned` or `provisioned`.
pub(super) fn wait_until_served() -> Result<String, ProxyError> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let why = match status() {
            Ok(status) => match serving(&status) {
                Ok(state) => return Ok(state),
                Err(why) => why,
            },
            Err(error) => error.to_string(),
        };
        let failed = units::property("zone-proxy.service", "ActiveState").as_deref() == Some("failed");
        if failed || Instant::now() >= deadline {
            let why = units::last_log_line("zone-proxy.service").unwrap_or(why);
            return Err(ProxyError::NotServing { why });
        }
        thread::sleep(STATUS_INTERVAL);
    }
}

/// The state, if every port that has to listen does.
fn serving(status: &Value) -> Result<String, String> {
    let state = status["state"].as_str().ok_or("it does not say its state")?;
    let ports = status["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() {
        return Err("it has no port".to_owned());
    }
    match ports.iter().find(|port| port["listening"] != Value::Bool(true)) {
        Some(port) => Err(format!("nobody listens on {}:{} yet", port["address"], port["port"])),
        None => Ok(state.to_owned()),
    }
}

fn json(what: &'static str, output: &str) -> Result<Value, ProxyError> {
    match serde_json::from_str(output) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(ProxyError::UnexpectedOutput(what)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn it_serves_once_every_port_listens() {
        let port = |listening: bool| json!({"address": "0.0.0.0", "port": 17488, "listening": listening});
        let status = |ports: Vec<Value>| json!({"state": "unprovisioned", "ports": ports});
        assert_eq!(serving(&status(vec![port(true)])), Ok("unprovisioned".to_owned()));
        assert!(serving(&status(vec![port(true), port(false)])).unwrap_err().contains("17488"));
        assert!(serving(&status(Vec::new())).is_err());
        assert!(serving(&json!({})).is_err());
    }
}
