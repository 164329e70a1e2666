//! Where 17488 is served, and to whom, and where the log goes: as configured, as it is, and how to change it.

use std::net::IpAddr;

use serde_json::Value;

use super::host::Host;
use super::report::{progress, untouched};
use super::{configuration, proxy, units};
use crate::protocol::{ControlPort, ControlSettings, Failure, HostState, LogChange, Reply};

/// 17488 can't be another number.
const CONTROL_PORT: u16 = 17488;
/// The unit of the control process.
const CONTROL_UNIT: &str = "zone-proxy.service";

/// Both sides of it.
pub(super) fn show(host: &Host) -> Result<Reply, Failure> {
    host.installed()?;
    let persistent = configuration::control(&host.paths).map_err(untouched)?;
    let syslog = configuration::syslog(&host.paths).map_err(untouched)?;
    let listening = proxy::status().map(|status| listening(&status)).unwrap_or_default();
    let firewall = match proxy::firewall_verify() {
        Ok(findings) => findings
            .into_iter()
            .filter(|finding| finding.port == Some(CONTROL_PORT) && !finding.is_note())
            .map(|finding| finding.what)
            .collect(),
        Err(error) => vec![error.to_string()],
    };
    Ok(Reply::Settings(ControlSettings { persistent, listening, firewall, syslog }))
}

/// Changes it; if the proxy does not serve as it should then, all is as before.
pub(super) fn configure(host: &Host, control: &ControlPort, log: LogChange) -> Result<Reply, Failure> {
    host.installed()?;
    let before = configuration::control(&host.paths).map_err(untouched)?;
    let saved = configuration::save(&host.paths).map_err(untouched)?;
    let restart = before.listen != control.listen || log != LogChange::Keep;
    match carry_out(host, control, log, restart) {
        Ok(()) => Ok(Reply::Configured),
        Err(why) => {
            progress(format!("failed: {why}"));
            progress("undoing what was done");
            let undone = saved.restore().map_err(|error| error.to_string()).and_then(|()| bring_up(restart));
            let host = match undone {
                Ok(()) => HostState::Undone,
                Err(left) => HostState::Left(vec![left]),
            };
            Err(Failure { why, host })
        }
    }
}

fn carry_out(host: &Host, control: &ControlPort, log: LogChange, restart: bool) -> Result<(), String> {
    configuration::set_control(&host.paths, control).map_err(|error| error.to_string())?;
    configuration::set_log(&host.paths, log).map_err(|error| error.to_string())?;
    proxy::check_configuration().map_err(|error| error.to_string())?;
    bring_up(restart)
}

fn bring_up(restart: bool) -> Result<(), String> {
    progress("setting the firewall");
    proxy::firewall_apply().map_err(|error| error.to_string())?;
    progress(if restart { "restarting the proxy; sessions go on" } else { "telling the proxy" });
    units::act(if restart { "restart" } else { "reload" }, CONTROL_UNIT)
        .map_err(|error| error.to_string())?;
    proxy::wait_until_served().map(drop).map_err(|error| error.to_string())
}

fn listening(status: &Value) -> Vec<IpAddr> {
    let ports = status["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    ports
        .iter()
        .filter(|port| port["purpose"] == "control" && port["listening"] == Value::Bool(true))
        .filter_map(|port| port["address"].as_str()?.parse().ok())
        .collect()
}
