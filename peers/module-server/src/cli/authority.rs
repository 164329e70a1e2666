//! Commands that replace an authority: authority status, renew, retire.

use std::path::Path;
use std::process::ExitCode;

use zone_module::Result;
use zone_module::authority::{self, Progress, Retirement, Step};
use zone_module::provision::rfc3339;
use zone_module::zone::{AuthorityFacts, Zone};
use zone_protocol::identity::Role;

use super::output::line;

pub(super) async fn renew(zone: &Zone, role: Role, out: Option<&Path>) -> Result<ExitCode> {
    let progress = authority::renew(zone, role, out, &mut report).await?;
    if progress == Progress::Again {
        return again(&format!("zone-module authority renew {role}"));
    }
    if let Some(next) = authority::next_step(zone, role)? {
        line(format_args!("next: {next}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn retire(zone: &Zone, role: Role, how: Retirement, out: Option<&Path>) -> Result<ExitCode> {
    let progress = authority::retire(zone, role, how, out, &mut report).await?;
    if progress == Progress::Again {
        return again(&format!("zone-module authority retire {role}"));
    }
    line(format_args!("done: one authority vouches for {role}"))?;
    Ok(ExitCode::SUCCESS)
}

/// Which authorities vouch for whom, and what is to be done next.
pub(super) fn status(zone: &Zone) -> Result<ExitCode> {
    for role in Role::FIRST_VERSION {
        let replacement = zone.replacement(role)?;
        let signs = if replacement.next.is_some() { "signs, is being replaced" } else { "signs" };
        line(format_args!("authority for {role}"))?;
        describe(&replacement.signs, signs)?;
        if let Some(next) = &replacement.next {
            describe(next, "vouches, does not sign yet")?;
        }
        for former in &replacement.former {
            describe(former, "vouches, is being replaced")?;
        }
        if let Some(next) = authority::next_step(zone, role)? {
            line(format_args!("    next: {next}"))?;
        }
    }
    let version = zone.trust()?.version;
    for proxy in zone.proxies()?.iter().filter(|proxy| proxy.trust_version < version) {
        line(format_args!(
            "{}: has trust version {} as far as is known, the zone's is {version}: 'zone-module trust push' sends it",
            proxy.name, proxy.trust_version
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(authority: &AuthorityFacts, what: &str) -> Result<()> {
    let AuthorityFacts { anchor, not_before, not_after, .. } = authority;
    let (from, until) = (rfc3339(*not_before), rfc3339(*not_after));
    line(format_args!("    {}: {what}; in force from {from} until {until}", anchor.name))
}

fn report(step: Step) {
    // Progress is no reason to stop half-way.
    let _ = line(step);
}

fn again(command: &str) -> Result<ExitCode> {
    line(format_args!(
        "not everywhere yet: run '{command}' again when they answer; 'zone-module unprovision NAME --forget' forgets a proxy that is gone for good"
    ))?;
    Ok(ExitCode::FAILURE)
}
