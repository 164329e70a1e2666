//! Commands about proxies: provision, unprovision, rotate, status.

use std::io::{IsTerminal as _, Read as _};
use std::process::ExitCode;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::task::JoinSet;
use zeroize::Zeroizing;
use zone_module::authority;
use zone_module::control::ControlClient;
use zone_module::provision::{self, Departure, Request, rfc3339};
use zone_module::trust::{self, Contact, Outcome};
use zone_module::zone::{Credentials, ProxyEntry, Settings, Zone};
use zone_module::{Error, Result, join_host_port};
use zone_protocol::expiry;
use zone_protocol::features::CONTROL_IDENTITY;
use zone_protocol::identity::{Identity, Label, Role};
use zone_protocol::provisioning::{PerPort, Status};

use super::arguments::Provision;
use super::output::{json, line};

/// More than any payload has.
const MAX_PAYLOAD_BYTES: u64 = 64 * 1024;

pub(super) async fn provision(zone: &Zone, wanted: Provision) -> Result<ExitCode> {
    let mut report = |step: provision::Step| {
        // Progress is no reason to stop half-way.
        let _ = line(step);
    };
    if wanted.again {
        let settings = change(zone.proxy(&wanted.name)?.settings, &wanted);
        provision::provision_again(zone, &wanted.name, settings, &mut report).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let settings = change(Settings::default(), &wanted);
    settings.check()?;
    let text = read_standard_input()?;
    let (hosts, control_port, token) = provision::read_payload(&text, wanted.address.as_deref())?;
    let request = Request { name: wanted.name, hosts, control_port, token, settings };
    provision::provision(zone, &request, &mut report).await?;
    Ok(ExitCode::SUCCESS)
}

fn change(mut settings: Settings, wanted: &Provision) -> Settings {
    if !wanted.listen.is_empty() {
        settings.listen = PerPort { endpoint: wanted.listen.clone(), module_server: wanted.listen.clone() };
    }
    settings.ports.endpoint = wanted.endpoint_port.unwrap_or(settings.ports.endpoint);
    settings.ports.module_server = wanted.module_server_port.unwrap_or(settings.ports.module_server);
    if !wanted.allow_endpoints.is_empty() {
        settings.allowed_networks.endpoint.clone_from(&wanted.allow_endpoints);
    }
    if !wanted.allow_module_servers.is_empty() {
        settings.allowed_networks.module_server.clone_from(&wanted.allow_module_servers);
    }
    settings.limits.extend(wanted.limits.iter().cloned());
    settings
}

/// Secrets come here and never as arguments, which every process of the host can read.
fn read_standard_input() -> Result<Zeroizing<String>> {
    let input = std::io::stdin();
    if input.is_terminal() {
        eprintln!("paste what 'zone-proxy show payload' prints, then press Enter and Ctrl-D:");
    }
    let mut text = Zeroizing::new(String::new());
    input
        .lock()
        .take(MAX_PAYLOAD_BYTES)
        .read_to_string(&mut text)
        .map_err(|source| Error::Local { what: "reading the payload from standard input", source })?;
    if text.trim().is_empty() {
        let why = "it is empty; pipe what 'zone-proxy show payload' prints into this command";
        return Err(Error::Payload(why.into()));
    }
    Ok(text)
}

pub(super) async fn unprovision(zone: &Zone, name: &Label, forget: bool) -> Result<ExitCode> {
    if forget {
        zone.proxy(name)?;
        zone.forget_proxy(name)?;
        line(format_args!("{name}: forgotten; it was not asked, and its certificates stay good"))?;
    } else {
        let how = match provision::unprovision(zone, name).await? {
            Departure::Answered => "its relay ports are closed",
            Departure::Found => {
                "as it was told before: it shows keys of no zone, and its port for Module Servers is closed"
            }
        };
        line(format_args!("{name}: un-provisioned, {how}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn rotate(zone: &Zone, name: &Label) -> Result<ExitCode> {
    let mut report = |step: provision::Step| {
        let _ = line(step);
    };
    provision::rotate(zone, name, &mut report).await?;
    line(format_args!("{name}: shows its new certificates"))?;
    Ok(ExitCode::SUCCESS)
}

/// What is known of one proxy, as `status --json` prints it.
#[derive(Debug, Serialize)]
struct Report {
    name: Label,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    /// Versions: the zone's, and the proxy's after this contact.
    trust_version: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_trust_version: Option<u64>,
    /// What its port 17488 has shown at this contact.
    #[serde(skip_serializing_if = "Option::is_none")]
    control_identity: Option<Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Somebody else answers there, who was asked nothing.
    #[serde(skip)]
    is_somebody_else: bool,
    /// What somebody should look at, one line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

pub(super) async fn status(zone: &Zone, name: Option<&Label>, as_json: bool) -> Result<ExitCode> {
    let proxies = match name {
        Some(name) => vec![zone.proxy(name)?],
        None => zone.proxies()?,
    };
    if proxies.is_empty() && !as_json {
        line(format_args!("zone {} has no proxy yet", zone.name()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let own = zone.credentials()?;
    let mut asked = JoinSet::new();
    for proxy in proxies {
        let (own, zone) = (own.clone(), zone.clone());
        asked.spawn(async move { ask(&zone, &proxy, &own).await });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    let mut learned = false;
    for (report, contact) in &answers {
        if let Some(contact) = contact {
            learned |= trust::take_in(zone, &report.name, contact)?;
        }
    }
    let mut reports: Vec<_> = answers.into_iter().map(|(report, _)| report).collect();
    if learned {
        // One of them knew of a denial that the zone did not: the others are told.
        for (name, outcome) in trust::push(zone).await? {
            if let (Outcome::Sent { version, .. }, Some(report)) =
                (outcome, reports.iter_mut().find(|report| report.name == name))
            {
                report.has(version);
            }
        }
    }
    let version = zone.trust()?.version;
    for report in &mut reports {
        report.trust_version = version;
    }
    if as_json {
        json(&reports)?;
    } else {
        reports.iter().try_for_each(print)?;
        authorities(zone)?;
    }
    for warning in zone.expiry_warnings(OffsetDateTime::now_utc())? {
        // Beside the document, where there is one.
        if as_json {
            eprintln!("zone-module: warning: {warning}");
        } else {
            line(format_args!("warning: {warning}"))?;
        }
    }
    let failed = reports.iter().any(|report| report.error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Which authority signs for whom, and what is to be done next where one is being replaced.
fn authorities(zone: &Zone) -> Result<()> {
    for role in Role::FIRST_VERSION {
        let signs = zone.replacement(role)?.signs;
        line(format_args!(
            "authority for {role}: {} signs, in force from {} until {}",
            signs.anchor.name,
            rfc3339(signs.not_before),
            rfc3339(signs.not_after)
        ))?;
        if let Some(next) = authority::next_step(zone, role)? {
            line(format_args!("    is being replaced; next: {next}"))?;
        }
    }
    Ok(())
}

impl Report {
    fn has(&mut self, version: u64) {
        self.proxy_trust_version = Some(version);
        if let Some(status) = &mut self.status {
            status.trust_version = Some(version);
        }
    }
}

async fn ask(zone: &Zone, proxy: &ProxyEntry, own: &Credentials) -> (Report, Option<Contact>) {
    let host = proxy.addresses.first().map_or("", String::as_str);
    let mut report = Report {
        name: proxy.name.clone(),
        address: join_host_port(host, proxy.control_port),
        status: None,
        trust_version: 0,
        proxy_trust_version: None,
        control_identity: None,
        error: None,
        is_somebody_else: false,
        warnings: Vec::new(),
    };
    let asked = async {
        let control = ControlClient::of(zone, proxy, own)?;
        let status = report.status.insert(control.status().await?);
        report.proxy_trust_version = status.trust_version;
        // Whom this directory has seen there, and not what the proxy says of itself.
        let noted = zone.has_control_identity(&proxy.name);
        let role = if noted { Role::ZoneControl } else { Role::ZoneProxy };
        report.control_identity = Some(zone.identity(role, &proxy.name));
        if !noted && status.features.has(CONTROL_IDENTITY) {
            report.warnings.push(format!(
                "17488 shows keys that its relay holds as well; 'zone-module rotate {}' gives it an identity of its own, \
                 which Module Servers of earlier versions refuse",
                proxy.name
            ));
        }
        let todo = format!("'zone-module rotate {}' gives it new ones", proxy.name);
        if let Some(end) = status.certificate_expires_at {
            let now = OffsetDateTime::now_utc();
            report.warnings.extend(expiry::warning("its certificate", end, now, &todo));
        }
        trust::contact(zone, &control, proxy, status).await
    };
    let contact = match asked.await {
        Ok(contact) => contact,
        Err(error) => {
            report.is_somebody_else = error.is_somebody_else();
            report.error = Some(error.to_string());
            return (report, None);
        }
    };
    if let Outcome::Sent { version, .. } = contact.outcome {
        report.has(version);
    }
    (report, Some(contact))
}

fn print(report: &Report) -> Result<()> {
    let none = if report.is_somebody_else { "was not asked" } else { "does not answer" };
    let state = report.status.as_ref().map_or(none, |status| &status.state);
    line(format_args!("{}  {}  {state}", report.name, report.address))?;
    if let Some(error) = &report.error {
        line(format_args!("    {error}"))?;
    }
    let Some(status) = &report.status else { return Ok(()) };
    let theirs = status.trust_version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    line(format_args!(
        "    host {}, zone-proxy {}, clock {}",
        status.host,
        status.version,
        rfc3339(status.clock)
    ))?;
    line(format_args!("    trust version {theirs}, the zone's is {}", report.trust_version))?;
    if let Some(identity) = &report.control_identity {
        line(format_args!("    17488 shows {identity}"))?;
    }
    if let Some(time) = status.certificate_expires_at {
        line(format_args!("    certificates good until {}", rfc3339(time)))?;
    }
    for warning in &report.warnings {
        line(format_args!("    warning: {warning}"))?;
    }
    for port in &status.ports {
        let address = join_host_port(&port.address.to_string(), port.port);
        let listening = if port.listening { "listening" } else { "not listening" };
        line(format_args!("    {:13}  {address}  {listening}, firewall {}", port.purpose, port.firewall))?;
    }
    for relay in &status.relays {
        let counts = relay.counts.as_ref().map_or_else(
            || "gives no counts".to_owned(),
            |c| {
                format!(
                    "endpoints {}, parks {}, waiting {}, sessions {}",
                    c.endpoints, c.parks, c.waiting, c.sessions
                )
            },
        );
        line(format_args!("    relay {} (pid {}) {}: {counts}", relay.generation, relay.pid, relay.state))?;
    }
    Ok(())
}
