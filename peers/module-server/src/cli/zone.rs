//! Commands that change the zone directory: init, issue, revoke, trust.

use std::path::Path;
use std::process::ExitCode;

use time::{Duration, OffsetDateTime};
use zone_module::Result;
use zone_module::provision::rfc3339;
use zone_module::trust::{self, Outcome};
use zone_module::zone::{Issued, LEAF_LIFETIME, Zone};
use zone_protocol::identity::{Label, Role, printable};
use zone_protocol::trust::Denied;

use super::arguments::{Issue, Revoke};
use super::output::line;

pub(super) fn init(directory: &Path, name: Label, module_server: Label) -> Result<ExitCode> {
    let zone = Zone::init(directory, name, module_server)?;
    line(format_args!(
        "zone {} is in {}: keep it safe, its ca/*.key can vouch for anybody",
        zone.name(),
        zone.directory().display()
    ))?;
    line(
        "next: on a zone server, 'zone-proxy show payload'; here, 'zone-module provision --name NAME' with it",
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn issue(zone: &Zone, what: &Issue) -> Result<ExitCode> {
    match what {
        Issue::Endpoint { id, out, proxies } => {
            let good = good_for(&zone.write_endpoint_bundle(id, out, proxies, None)?)?;
            let directory = out.display();
            line(format_args!("endpoint {id} is in {directory}, its certificate is good for {good}"))?;
            if proxies.is_empty() && zone.proxies()?.is_empty() {
                line(format_args!(
                    "the zone has no proxy yet: fill in 'proxies' in {directory}/zone-endpoint.toml"
                ))?;
            }
        }
        Issue::ModuleServer { name, out } => {
            let good = good_for(&zone.write_module_server_bundle(name, out, None)?)?;
            line(format_args!(
                "Module Server {name} is in {}, its certificate is good for {good}",
                out.display()
            ))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn revoke(zone: &Zone, whom: Revoke) -> Result<ExitCode> {
    let (role, name) = match whom {
        Revoke::Endpoint { id } => (Role::Endpoint, id),
        Revoke::ModuleServer { name } => (Role::ModuleServer, name),
    };
    let identity = zone.identity(role, &name);
    if !zone.audit()?.iter().any(|entry| entry.identity == identity) {
        line(format_args!("note: no certificate was ever issued here for {identity}"))?;
    }
    let trust = zone.revoke(role, &name)?;
    let denied = trust.deny.iter().find_map(|entry| match entry {
        Denied::Identity { identity: denied, not_before } if *denied == identity => Some(not_before),
        _ => None,
    });
    if let Some(time) = denied {
        line(format_args!(
            "{identity}: certificates valid from before {} are denied, trust version {}",
            rfc3339(*time),
            trust.version
        ))?;
    }
    push_trust(zone).await
}

pub(super) async fn push_trust(zone: &Zone) -> Result<ExitCode> {
    let before = zone.trust()?;
    let outcomes = trust::push(zone).await?;
    let after = zone.trust()?;
    for entry in after.deny.iter().filter(|entry| !before.deny.contains(entry)) {
        let whom = describe(entry);
        line(format_args!(
            "note: a proxy denies {whom}, which this zone directory did not know; it does now"
        ))?;
    }
    if outcomes.is_empty() {
        line("the zone has no proxy yet")?;
    }
    let mut everywhere = ExitCode::SUCCESS;
    for (name, outcome) in outcomes {
        match outcome {
            Outcome::UpToDate { version } => {
                line(format_args!("{name}: has trust version {version} already"))?;
            }
            Outcome::Sent { from, version } => {
                line(format_args!("{name}: has trust version {version} now (it had {from})"))?;
            }
            Outcome::Failed(error) => {
                everywhere = ExitCode::FAILURE;
                eprintln!("zone-module: {name} does not have trust version {}: {error}", after.version);
                eprintln!(
                    "zone-module: {name} gets it at the next contact; 'zone-module trust push' tries again"
                );
            }
        }
    }
    Ok(everywhere)
}

/// How long a certificate that was just signed is good, and why it is no longer.
fn good_for(issued: &Issued) -> Result<String> {
    let left = issued.not_after()? - OffsetDateTime::now_utc();
    // Certificates hold whole seconds, and some have passed since.
    let days = (left + Duration::HOUR).whole_days();
    let cut = left + Duration::DAY < LEAF_LIFETIME;
    let why = if cut { ": its authority ends then, replace that in time" } else { "" };
    Ok(format!("{days} days{why}"))
}

fn describe(entry: &Denied) -> String {
    match entry {
        Denied::Identity { identity, not_before } => {
            format!("{identity} (certificates valid from before {})", rfc3339(*not_before))
        }
        Denied::Certificate { issuer, serial, .. } => {
            format!("certificate {} of issuer {}", printable(serial), printable(issuer))
        }
    }
}
