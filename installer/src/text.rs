//! Texts for people: every answer as lines that fit a terminal of 80 columns.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;
use zone_firewall_protocol::Finding;

use crate::packages::Catalogue;
use crate::protocol::{ControlSettings, Grade, Status, Verdict};
use crate::version::Version;

/// The widest line, columns. The last column stays empty: some terminals break the line after it.
pub(crate) const WIDTH: usize = 79;

/// Lines of at most [`WIDTH`] columns; what is broken goes on under `indent` blanks.
pub(crate) fn wrap(line: &str, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut rest: Vec<char> = line.chars().collect();
    while rest.len() > WIDTH {
        let start = if lines.is_empty() { 0 } else { indent };
        // At the last blank that leaves something before it; a longer word is cut.
        let blank = (start + 1..=WIDTH).rev().find(|at| rest[*at] == ' ');
        let cut = blank.filter(|at| rest[start..*at].iter().any(|c| *c != ' ')).unwrap_or(WIDTH);
        let tail = rest.split_off(cut);
        lines.push(rest.iter().collect::<String>().trim_end().to_owned());
        rest = std::iter::repeat_n(' ', indent).chain(tail.into_iter().skip_while(|c| *c == ' ')).collect();
    }
    lines.push(rest.into_iter().collect());
    lines
}

/// Text without control characters.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The verdicts of preflight.
pub(crate) fn verdicts(verdicts: &[Verdict]) -> Vec<String> {
    let mut lines = Vec::new();
    for verdict in verdicts {
        let grade = match verdict.grade {
            Grade::Ok => "OK  ",
            Grade::Warn => "WARN",
            Grade::Fail => "FAIL",
        };
        let help = if verdict.help.is_empty() { String::new() } else { format!(": {}", verdict.help) };
        lines.push(format!("{grade}  {:<16}  {}{help}", verdict.check, verdict.found));
    }
    let count = |grade| verdicts.iter().filter(|verdict| verdict.grade == grade).count();
    let (failed, warned) = (count(Grade::Fail), count(Grade::Warn));
    lines.push(String::new());
    lines.push(match failed {
        0 => format!("This host is ready. Warnings: {warned}."),
        _ => format!("This host is NOT ready. Failed: {failed}. Warnings: {warned}."),
    });
    lines
}

/// What is in the drop folder.
pub(crate) fn catalogue(catalogue: &Catalogue, installed: Option<&Version>) -> Vec<String> {
    let mut lines = vec![
        format!("Packages in {}", catalogue.folder.display()),
        format!("Signed by {}: {}", catalogue.signed_by.file, catalogue.comment),
    ];
    lines.extend(catalogue.signed_by.warning());
    lines.push(String::new());
    for entry in &catalogue.packages {
        let mark = if installed == Some(&entry.version) { "  installed" } else { "" };
        lines.push(format!("{:<20}  {}{mark}", entry.version.to_string(), entry.file));
    }
    if catalogue.packages.is_empty() {
        lines.push("none of zone-proxy".to_owned());
    }
    lines.extend(catalogue.unsigned.iter().map(|file| format!("NOT SIGNED, never installed: {file}")));
    lines
}

/// The payload as JSON, and nothing around it.
pub(crate) fn payload(payload: &Value) -> Vec<String> {
    serde_json::to_string_pretty(payload).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// What an admin does with the payload.
pub(crate) fn next_steps(payload: Option<&Value>) -> Vec<String> {
    let host = payload.and_then(|payload| payload["host"].as_str()).unwrap_or("PROXY");
    let name = if host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    {
        host
    } else {
        "PROXY"
    };
    let wildcard = payload.and_then(|payload| payload["addresses"].as_array()).is_some_and(|addresses| {
        addresses.iter().filter_map(|own| own.as_str()?.parse().ok()).any(|own: IpAddr| own.is_unspecified())
    });
    let address = if wildcard { " --address ADDRESS" } else { "" };
    let mut lines = vec![
        "What to do next, on the Module Server:".to_owned(),
        "  1. Save the payload (from { to }) as payload.json, readable by you alone:".to_owned(),
        "     its token lets whoever holds it provision this proxy, once.".to_owned(),
        format!("  2. zone-module provision --name {name}{address} < payload.json"),
    ];
    if wildcard {
        lines.push("     ADDRESS is this host's address as the Module Server reaches it.".to_owned());
    }
    lines.push("  3. Remove payload.json. The proxy then opens 17486 and 17487.".to_owned());
    lines
}

/// How the proxy is.
pub(crate) fn status(status: &Status) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(version) = &status.version {
        lines.push(format!("package        zone-proxy {version}"));
    }
    for unit in &status.units {
        lines.push(format!("unit           {}: {}, {}", unit.name, unit.active, unit.enabled));
    }
    lines.extend(status.text.lines().map(plain));
    lines
}

/// A network, or an address as its own one.
pub(crate) fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| format!("'{text}' is neither an address nor a network, such as 10.0.0.0/8."))
}

/// How the live firewall differs from what it should be, and what others deny on purpose.
pub(crate) fn findings(findings: &[Finding]) -> Vec<String> {
    let (notes, wrong): (Vec<_>, Vec<_>) = findings.iter().partition(|finding| finding.is_note());
    let mut lines = Vec::new();
    let told = |finding: &&Finding| plain(&format!("- {}: {}", finding.what, finding.help));
    if wrong.is_empty() {
        lines.push("The live rules are as they should be.".to_owned());
    } else {
        lines.push(format!("{} findings:", wrong.len()));
        lines.extend(wrong.iter().map(told));
    }
    if !notes.is_empty() {
        lines.push("Denied to some on purpose:".to_owned());
        lines.extend(notes.iter().map(told));
    }
    lines
}

/// Both sides of the settings.
pub(crate) fn settings(settings: &ControlSettings) -> Vec<String> {
    let ControlSettings { persistent, listening, firewall, syslog } = settings;
    let mut lines = vec![
        "Port 17488: provisioning and status".to_owned(),
        format!("  Listen      Current     {}", list(listening, "nowhere")),
        format!("              Persistent  {}", list(&persistent.listen, "nowhere")),
        format!(
            "  Networks    Current     {}",
            if firewall.is_empty() { "as persistent" } else { "see below" }
        ),
        format!("              Persistent  {}", list(&persistent.networks, "any")),
    ];
    lines.extend(firewall.iter().map(|line| plain(&format!("  Firewall: {line}"))));
    lines.extend(persistent.warnings().iter().map(|warning| format!("  WARNING: {warning}")));
    lines.push("The log".to_owned());
    lines.push(plain(&format!(
        "  Syslog      Persistent  {}",
        if syslog.is_empty() { "off" } else { syslog }
    )));
    lines
}

/// A list for a person.
pub(crate) fn list<T: ToString>(all: &[T], none: &str) -> String {
    if all.is_empty() {
        return none.to_owned();
    }
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// From a bare host to a first session.
pub(crate) fn instructions() -> Vec<String> {
    [
        "From a bare host to a first session",
        "",
        "1. As root, trust the publisher's key:",
        "     copy KEY.pub to /etc/zone-installer/trusted-keys/",
        "2. As root, copy SHA256SUMS, SHA256SUMS.minisig and the packages to",
        "     /var/lib/zone-installer/packages/",
        "3. Look whether this host is ready:  menu A-A-1, or zone-installer preflight",
        "4. Install:                          menu A-A-2, or",
        "                                     zone-installer install VERSION",
        "5. Copy the payload to the Module Server, and there:",
        "     zone-module provision --name NAME < payload.json",
        "6. See that it serves:               menu A-A-4, or zone-installer status",
        "",
        "Ports, all TCP: 17488 is open once installed; 17486 (endpoints) and 17487",
        "(Module Servers) are open while the proxy belongs to a zone.",
    ]
    .map(str::to_owned)
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_wrapped_line_is_wider_than_a_terminal_and_no_word_is_lost() {
        let long = format!("FAIL  port  {} {} end", "word ".repeat(40), "x".repeat(200));
        let lines = wrap(&long, 6);
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
        assert!(lines[1..].iter().all(|line| line.starts_with("      ")));
        let squeezed = |text: &str| text.split_whitespace().collect::<String>();
        assert_eq!(squeezed(&lines.join(" ")), squeezed(&long));
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("  two blanks  inside", 4), ["  two blanks  inside"]);
    }

    #[test]
    fn the_next_steps_name_the_host_and_ask_for_an_address_where_the_payload_has_none() {
        let steps = next_steps(Some(&json!({"host": "dmz1", "addresses": ["0.0.0.0"]}))).join("\n");
        assert!(
            steps.contains("zone-module provision --name dmz1 --address ADDRESS < payload.json"),
            "{steps}"
        );
        let steps = next_steps(Some(&json!({"host": "DMZ; x", "addresses": ["10.0.0.1"]}))).join("\n");
        assert!(steps.contains("zone-module provision --name PROXY < payload.json"), "{steps}");
    }

    #[test]
    fn every_standing_text_fits_a_terminal() {
        let all = [instructions(), next_steps(None)].concat();
        assert!(all.iter().all(|line| line.chars().count() <= WIDTH && line.is_ascii()), "{all:#?}");
    }
}
