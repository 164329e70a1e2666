//! What an admin may not have meant, though all is as root's file says: told beside the plan, and no finding.

use std::fs;
use std::path::Path;

use zone_firewall_protocol::{PortRule, Purpose};

use crate::config::InterfaceName;
use crate::desired::{Desired, Family, listens};

/// In front of each note, so that it is told from a change.
pub(crate) const PREFIX: &str = "note: ";
/// Where the kernel shows the devices of this network namespace.
const DEVICES: &str = "/sys/class/net";
/// What the kernel shows beside a device that hands all that it receives to another one.
const PORT_MARKS: [&str; 2] = ["brport", "bonding_slave"];

/// What the host has under the name of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// Nothing, at present.
    Missing,
    /// A device that packets come in by.
    There,
    /// A port of a bridge or a bond, which is the device that packets come in by.
    PortOf(String),
}

impl Device {
    /// That of this host.
    pub(crate) fn of_this_host(name: &InterfaceName) -> Self {
        let path = Path::new(DEVICES).join(name.as_str());
        if !path.exists() {
            return Self::Missing;
        }
        let master = fs::read_link(path.join("master")).ok();
        let master = master.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        match master {
            Some(master) if PORT_MARKS.iter().any(|mark| path.join(mark).exists()) => {
                Self::PortOf(master.to_owned())
            }
            _ => Self::There,
        }
    }
}

/// The notes, one line each.
pub(crate) fn notes(desired: &Desired, device: impl Fn(&InterfaceName) -> Device) -> Vec<String> {
    let mut notes: Vec<String> = desired.open.iter().filter_map(closed_family).collect();
    for (purpose, names) in &desired.interfaces {
        let key = match purpose {
            Purpose::Control => "control.interfaces",
            Purpose::Endpoint => "interfaces.endpoint",
            Purpose::ModuleServer => "interfaces.module_server",
        };
        for name in names {
            match device(name) {
                Device::There => {}
                Device::Missing => notes.push(format!(
                    "{key} names {name}, and this host has no such device: nothing is open there until it has one"
                )),
                Device::PortOf(master) => notes.push(format!(
                    "{key} names {name}, which is a port of {master}: packets come in by {master}, so name that one"
                )),
            }
        }
    }
    notes.into_iter().map(|note| format!("{PREFIX}{note}")).collect()
}

/// The wildcard of one family alone is often meant for both.
fn closed_family(rule: &PortRule) -> Option<String> {
    let (open, wildcard, closed) = match (listens(rule, Family::V4), listens(rule, Family::V6)) {
        (Some(all), None) if all.is_empty() => ("0.0.0.0", "::", "IPv6"),
        (None, Some(all)) if all.is_empty() => ("::", "0.0.0.0", "IPv4"),
        _ => return None,
    };
    let how = match rule.purpose {
        Purpose::Control => format!("add \"{wildcard}\" to control.listen to open it"),
        Purpose::Endpoint | Purpose::ModuleServer => {
            format!("the zone has to name {wildcard} among its addresses to open it")
        }
    };
    Some(format!("{} listens on {open} only: {closed} is closed; {how}", rule.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn told(text: &str, device: &Device) -> Vec<String> {
        notes(&Desired::new(&Config::parse(text, "test").unwrap(), &[]), |_| device.clone())
    }

    #[test]
    fn a_wildcard_of_one_family_says_that_the_other_is_closed() {
        assert_eq!(
            told("[control]\nopen = true\n", &Device::There),
            ["note: 17488 listens on 0.0.0.0 only: IPv6 is closed; add \"::\" to control.listen to open it"]
        );
        for listen in ["\"0.0.0.0\", \"::\"", "\"192.0.2.1\"", "\"0.0.0.0\", \"fd00::1\""] {
            let text = format!("[control]\nopen = true\nlisten = [{listen}]\n");
            assert_eq!(told(&text, &Device::There), Vec::<String>::new(), "{listen}");
        }
        assert_eq!(told("", &Device::There), Vec::<String>::new(), "a port that is closed has no families");
    }

    #[test]
    fn a_device_that_is_missing_or_hands_its_packets_on_is_named() {
        let text = "[interfaces]\nendpoint = [\"eth1\"]\n";
        assert!(
            told(text, &Device::Missing)[0]
                .starts_with("note: interfaces.endpoint names eth1, and this host has no")
        );
        assert!(
            told(text, &Device::PortOf("br0".to_owned()))[0]
                .ends_with("packets come in by br0, so name that one")
        );
        assert_eq!(told(text, &Device::There), Vec::<String>::new());
    }
}
