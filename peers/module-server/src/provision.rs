//! Provisioning: a fresh proxy becomes a member of the zone, in one transaction on its side.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration as StdDuration;

use time::{Duration, OffsetDateTime};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use zone_protocol::identity::{Identity, Label, Role, printable};
use zone_protocol::ports;
use zone_protocol::provisioning::{
    Certificates, NewIdentity, Offer, OfferRequest, Payload, Provisioned, Provisioning,
};
use zone_protocol::tls::certificate::{chain_from_pem, facts};
use zone_protocol::token::{Token, TokenError};

use crate::control::{ControlClient, NOTED, UNKNOWN};
use crate::error::{Error, Result};
pub use crate::rfc3339::rfc3339;
use crate::trust;
use crate::zone::{HostName, ProxyEntry, Settings, Validity, Zone};

/// Clocks that differ by more than this are worth a warning.
const CLOCK_TOLERANCE: Duration = Duration::minutes(5);
/// Before a proxy whose answer was lost is told once more to leave.
const LEAVING_DELAY: StdDuration = StdDuration::from_millis(500);
/// For a port to be found open.
const PORT_TIMEOUT: StdDuration = StdDuration::from_secs(5);

/// What the operator knows of a fresh proxy.
#[derive(Debug)]
pub struct Request {
    /// The name that it is to have.
    pub name: Label,
    /// Where its control port answers, names or addresses.
    pub hosts: Vec<String>,
    /// Its control port.
    pub control_port: u16,
    /// How to recognise it and to be recognised.
    pub token: Token,
    /// The settings that it is told.
    pub settings: Settings,
}

/// What happens during provisioning, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// The control port is being dialed.
    Dialing(String),
    /// The proxy proved that it knows the token's secret.
    Proved {
        /// Host name and operating system.
        host: String,
        /// The version of its daemon.
        version: String,
    },
    /// The clocks differ.
    ClocksDiffer {
        /// The proxy's time, RFC 3339.
        theirs: String,
        /// Our time, RFC 3339.
        ours: String,
    },
    /// Both keys are signed.
    Signed {
        /// The proxy's SPIFFE identity.
        identity: String,
        /// The certificates' last second, RFC 3339.
        until: String,
        /// Whether their authority ends then.
        cut: bool,
    },
    /// The proxy is being told everything.
    Completing,
    /// No answer came; the proxy is asked by mutual TLS whether it was done.
    AnswerLost(String),
    /// The proxy is provisioned.
    Done(Box<Provisioned>),
    /// An earlier run had provisioned the proxy.
    FoundDone(Box<Provisioned>),
}

/// Provisions a proxy by its token. Repeated after a lost answer, it finds the work done and says so.
pub async fn provision(zone: &Zone, request: &Request, report: &mut dyn FnMut(Step)) -> Result<Provisioned> {
    request.settings.check()?;
    name_is_free(zone, request)?;
    let own = zone.credentials()?;
    let (hosts, port) = (request.hosts.clone(), request.control_port);
    report(Step::Dialing(crate::dial::join_host_port(hosts.first().map_or("", String::as_str), port)));
    let proxy = ControlClient::by_token(hosts, port, request.token.clone())?;
    let asked = OfferRequest { zone: zone.name().clone(), module_server: own.name.clone() };
    let offer = match proxy.request_offer(&asked).await {
        Err(Error::NotPinned { peer }) => {
            let done = already_done(zone, request, &UNKNOWN).await?.ok_or(Error::TokenSpent { peer })?;
            return found_done(zone, request, done, report);
        }
        offer => offer?,
    };
    let hosts = crate::zone::host_names(&request.hosts, &request.settings);
    let document = fill_offer(zone, &request.name, &request.settings, &hosts, &offer, report)?;
    let own_keys = document.control_certificates.is_some();
    if !own_keys {
        // The proxy's own word, proved by its token: its program knows of no such identity, so it shows none.
        zone.forget_control_identity(&request.name)?;
    }
    report(Step::Completing);
    match proxy.complete(&offer.id, &document).await {
        Ok(done) => {
            if own_keys {
                zone.note_control_identity(&request.name)?;
            }
            remember(zone, request, &done)?;
            report(Step::Done(Box::new(done.clone())));
            Ok(done)
        }
        Err(lost) if lost.is_lost_answer() => {
            report(Step::AnswerLost(lost.to_string()));
            let shows: &[Role] = if own_keys { &NOTED } else { &UNKNOWN };
            match already_done(zone, request, shows).await {
                Ok(Some(done)) if done.id == offer.id => found_done(zone, request, done, report),
                _ => Err(lost),
            }
        }
        Err(refused) => Err(refused),
    }
}

/// Provisions a member of the zone anew, by mutual TLS: new keys, current trust, and these settings.
pub async fn provision_again(
    zone: &Zone,
    name: &Label,
    settings: Settings,
    report: &mut dyn FnMut(Step),
) -> Result<Provisioned> {
    settings.check()?;
    let known = zone.proxy(name)?;
    let own = zone.credentials()?;
    report(Step::Dialing(crate::dial::join_host_port(
        known.addresses.first().map_or("", String::as_str),
        known.control_port,
    )));
    // What another copy of the zone directory has denied there is learned first.
    trust::push_only(zone, known.clone()).await?;
    let proxy = ControlClient::of(zone, &known, &own)?;
    let asked = OfferRequest { zone: zone.name().clone(), module_server: own.name.clone() };
    let offer = proxy.request_offer(&asked).await?;
    let hosts = crate::zone::host_names(&known.addresses, &settings);
    let document = fill_offer(zone, name, &settings, &hosts, &offer, report)?;
    report(Step::Completing);
    let done = proxy.complete(&offer.id, &document).await?;
    if document.control_certificates.is_some() {
        zone.note_control_identity(name)?;
    }
    zone.remember_proxy(ProxyEntry::new(known.addresses, known.control_port, settings, &done))?;
    report(Step::Done(Box::new(done.clone())));
    Ok(done)
}

/// Gives a member of the zone new keys and certificates.
pub async fn rotate(zone: &Zone, name: &Label, report: &mut dyn FnMut(Step)) -> Result<Provisioned> {
    let known = zone.proxy(name)?;
    let proxy = ControlClient::of(zone, &known, &zone.credentials()?)?;
    let offer = proxy.request_identity().await?;
    report_clocks(&offer, report)?;
    let (certificates, control_certificates) = sign(zone, name, &known.certificate_hosts(), &offer, report)?;
    let own_keys = control_certificates.is_some();
    let new = NewIdentity { offer: offer.id, certificates, control_certificates };
    let done = proxy.replace_identity(&new).await?;
    if own_keys {
        zone.note_control_identity(name)?;
    }
    Ok(done)
}

/// How a proxy was found to have left the zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It has said so.
    Answered,
    /// It was told, its answer was lost, and by now it shows keys of no zone and has closed its port for Module Servers.
    Found,
}

/// Un-provisions a member of the zone and forgets it.
///
/// An answer can be lost, and a proxy that has left shows keys that nobody can know. So it is noted that it was told, and
/// whoever asks again is told what is found.
pub async fn unprovision(zone: &Zone, name: &Label) -> Result<Departure> {
    let known = zone.proxy(name)?;
    let proxy = ControlClient::of(zone, &known, &zone.credentials()?)?;
    let mut was_told = zone.is_leaving(name);
    zone.note_leaving(name)?;
    let mut answer = proxy.unprovision().await;
    if answer.as_ref().is_err_and(Error::is_lost_answer) {
        was_told = true;
        sleep(LEAVING_DELAY).await;
        answer = proxy.unprovision().await;
    }
    let departure = match answer {
        Ok(()) => Departure::Answered,
        Err(Error::Reset { .. }) if was_told && !has_open_relay_port(&known).await => Departure::Found,
        Err(error) => return Err(error),
    };
    zone.forget_proxy(name)?;
    Ok(departure)
}

/// Whether somebody accepts where the proxy's port for Module Servers was.
async fn has_open_relay_port(proxy: &ProxyEntry) -> bool {
    let port = proxy.settings.ports.module_server;
    for host in &proxy.addresses {
        let connecting = timeout(PORT_TIMEOUT, TcpStream::connect((host.as_str(), port)));
        if matches!(connecting.await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

/// Hosts to dial, control port and token, from what `zone-proxy show payload` printed or from a bare token.
///
/// `address` goes first. A payload that names only wildcards leaves the host's name.
pub fn read_payload(text: &str, address: Option<&str>) -> Result<(Vec<String>, u16, Token)> {
    // What an editor puts before a text, and what a terminal breaks a long line with.
    let text = text.trim_start_matches('\u{feff}').replace(['\r', '\n'], "");
    let text = text.trim();
    let given: Vec<_> = address.map(str::to_owned).into_iter().collect();
    if !text.starts_with('{') {
        let token = text.parse().map_err(|e: TokenError| Error::Payload(e.to_string()))?;
        if given.is_empty() {
            let why =
                "a bare token does not say where the proxy is: give --address HOST, or the whole payload";
            return Err(Error::Payload(why.into()));
        }
        return Ok((given, ports::CONTROL, token));
    }
    let payload: Payload = serde_json::from_str(text)
        .map_err(|e| Error::Payload(format!("not what 'zone-proxy show payload' prints: {e}")))?;
    if payload.version != 1 {
        let why = format!("payload version {} is not known here, only 1", payload.version);
        return Err(Error::Payload(why));
    }
    let named = payload.addresses.iter().filter(|a| !a.is_unspecified()).map(IpAddr::to_string);
    let mut hosts: Vec<String> = given.into_iter().chain(named).collect();
    if hosts.is_empty() {
        hosts.push(payload.host);
    }
    let mut seen = std::collections::HashSet::new();
    hosts.retain(|host| seen.insert(host.clone()));
    Ok((hosts, payload.port, payload.token))
}

fn name_is_free(zone: &Zone, request: &Request) -> Result<()> {
    let taken = zone.proxies()?.into_iter().find(|known| {
        known.name == request.name && !known.addresses.iter().any(|host| request.hosts.contains(host))
    });
    match taken {
        None => Ok(()),
        Some(known) => Err(Error::NameTaken {
            name: known.name,
            address: known.addresses.first().cloned().unwrap_or_default(),
        }),
    }
}

/// What an earlier run achieved, asked by mutual TLS; `None` where the proxy is none of this zone's. `shows` are the roles
/// that it may show itself in.
async fn already_done(zone: &Zone, request: &Request, shows: &[Role]) -> Result<Option<Provisioned>> {
    let own = zone.credentials()?;
    let at = (request.hosts.clone(), request.control_port);
    match ControlClient::by_certificate(zone, at, &own, None, shows)?.provisioned().await {
        Ok(done) => Ok(Some(done)),
        Err(Error::NotPinned { .. } | Error::Handshake { .. }) => Ok(None),
        Err(error) if error.is_somebody_else() => Ok(None),
        Err(error) => Err(error),
    }
}

fn found_done(
    zone: &Zone,
    request: &Request,
    done: Provisioned,
    report: &mut dyn FnMut(Step),
) -> Result<Provisioned> {
    if done.name != request.name {
        let address = request.hosts.first().cloned().unwrap_or_default();
        return Err(Error::ProvisionedAs { address, name: done.name });
    }
    remember(zone, request, &done)?;
    report(Step::FoundDone(Box::new(done.clone())));
    Ok(done)
}

fn remember(zone: &Zone, request: &Request, done: &Provisioned) -> Result<()> {
    let settings = request.settings.clone();
    zone.remember_proxy(ProxyEntry::new(request.hosts.clone(), request.control_port, settings, done))
}

fn fill_offer(
    zone: &Zone,
    name: &Label,
    settings: &Settings,
    hosts: &[HostName],
    offer: &Offer,
    report: &mut dyn FnMut(Step),
) -> Result<Provisioning> {
    let host = format!("{} ({})", printable(&offer.host.host), printable(&offer.host.os));
    report(Step::Proved { host, version: printable(&offer.host.version) });
    report_clocks(offer, report)?;
    let (certificates, control_certificates) = sign(zone, name, hosts, offer, report)?;
    Ok(Provisioning {
        zone: zone.name().clone(),
        name: name.clone(),
        certificates: Some(certificates),
        control_certificates,
        trust: zone.trust()?.for_reader(&offer.features),
        ports: settings.ports.clone(),
        listen: settings.listen.clone(),
        allowed_networks: settings.allowed_networks.clone(),
        limits: settings.limits.clone(),
    })
}

/// Warns where the clocks differ, and refuses where what we sign would not be valid by the proxy's.
fn report_clocks(offer: &Offer, report: &mut dyn FnMut(Step)) -> Result<()> {
    let now = OffsetDateTime::now_utc();
    if (offer.clock - now).abs() <= CLOCK_TOLERANCE {
        return Ok(());
    }
    let (theirs, ours) = (rfc3339(offer.clock), rfc3339(now));
    report(Step::ClocksDiffer { theirs: theirs.clone(), ours: ours.clone() });
    let validity = Validity::at(now);
    if (validity.not_before..validity.not_after).contains(&offer.clock) {
        return Ok(());
    }
    Err(Error::Clocks { peer: printable(&offer.host.host), theirs, ours })
}

/// Certificates for all keys of an offer: the proxy's, and those of 17488 alone where it has some.
fn sign(
    zone: &Zone,
    name: &Label,
    hosts: &[HostName],
    offer: &Offer,
    report: &mut dyn FnMut(Step),
) -> Result<(Certificates, Option<Certificates>)> {
    let validity = Validity::at(OffsetDateTime::now_utc());
    let certificates = zone.sign_proxy(name, &offer.signing_requests, hosts, validity)?;
    report_signed(&zone.identity(Role::ZoneProxy, name), &certificates, validity, report)?;
    let Some(requests) = &offer.control_signing_requests else { return Ok((certificates, None)) };
    let control_certificates = zone.sign_control(name, requests, hosts, validity)?;
    report_signed(&zone.identity(Role::ZoneControl, name), &control_certificates, validity, report)?;
    Ok((certificates, Some(control_certificates)))
}

fn report_signed(
    identity: &Identity,
    certificates: &Certificates,
    validity: Validity,
    report: &mut dyn FnMut(Step),
) -> Result<()> {
    let chain = chain_from_pem(&certificates.rsa, "certificate")?;
    let until = chain
        .first()
        .map_or(Ok(validity.not_after), |leaf| facts(leaf, "certificate").map(|facts| facts.not_after))?;
    // Certificates hold whole seconds.
    let cut = until + Duration::SECOND < validity.not_after;
    report(Step::Signed { identity: identity.to_string(), until: rfc3339(until), cut });
    Ok(())
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialing(address) => write!(f, "connecting to {address}"),
            Self::Proved { host, version } => {
                write!(f, "the proxy has proved itself: host {host}, zone-proxy {version}")
            }
            Self::ClocksDiffer { theirs, ours } => {
                write!(f, "warning: the proxy's clock says {theirs}, ours {ours}; set the one that is wrong")
            }
            Self::Signed { identity, until, cut } => {
                let why = if *cut { ", when their authority ends: replace that in time" } else { "" };
                write!(f, "signed its RSA 2048 and P-256 keys as {identity}, valid until {until}{why}")
            }
            Self::Completing => f.write_str("sending certificates, trust and settings"),
            Self::AnswerLost(why) => write!(f, "the answer was lost ({why}); asking whether it was done"),
            Self::Done(done) => {
                write!(
                    f,
                    "provisioned as {}, provisioning {}{}",
                    done.name,
                    printable(&done.id),
                    Listening(done)
                )
            }
            Self::FoundDone(done) => {
                let id = printable(&done.id);
                write!(
                    f,
                    "already provisioned by this zone as {} (provisioning {id}){}",
                    done.name,
                    Listening(done)
                )
            }
        }
    }
}

struct Listening<'a>(&'a Provisioned);

impl fmt::Display for Listening<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for port in self.0.ports.iter().filter(|port| port.listening) {
            let address = crate::dial::join_host_port(&port.address.to_string(), port.port);
            write!(f, "; listens on {address} ({})", printable(&port.purpose))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(addresses: &str, token: &str) -> String {
        format!(
            r#"{{"version":1,"host":"dmz-1","addresses":[{addresses}],"port":17488,"token":"{token}",
            "expires_at":"2026-11-24T00:00:00Z"}}"#
        )
    }

    fn token() -> String {
        Token::new([1; 32], [2; 20]).reveal()
    }

    fn hosts(text: &str, address: Option<&str>) -> Vec<String> {
        read_payload(text, address).unwrap().0
    }

    #[test]
    fn a_payload_says_where_the_proxy_is_and_an_address_that_is_given_goes_first() {
        let text = payload(r#""198.51.100.4","0.0.0.0""#, &token());
        assert_eq!(hosts(&text, None), ["198.51.100.4"]);
        assert_eq!(hosts(&text, Some("p1.example.net")), ["p1.example.net", "198.51.100.4"]);
        assert_eq!(hosts(&text, Some("198.51.100.4")), ["198.51.100.4"]);
        assert_eq!(hosts(&payload(r#""0.0.0.0""#, &token()), None), ["dmz-1"]);
    }

    #[test]
    fn what_an_editor_or_a_terminal_did_to_a_payload_does_no_harm() {
        let text = payload(r#""198.51.100.4""#, &token());
        let (half, rest) = text.split_at(text.len() - 60);
        for text in [format!("\u{feff}{text}\r\n"), format!("{half}\r\n{rest}"), text.replace(' ', "\r\n ")] {
            let (hosts, _, read) = read_payload(&text, None).unwrap();
            assert_eq!((hosts, read.reveal()), (vec!["198.51.100.4".to_owned()], token()));
        }
        let broken = token().replacen("zp1-", "zp1-\n", 1);
        assert_eq!(hosts(&broken, Some("127.0.0.9")), ["127.0.0.9"]);
    }

    #[test]
    fn a_bare_token_needs_an_address() {
        assert_eq!(hosts(&format!("{}\n", token()), Some("127.0.0.9")), ["127.0.0.9"]);
        let error = read_payload(&token(), None).unwrap_err().to_string();
        assert!(error.contains("--address"), "{error}");
    }

    #[test]
    fn a_token_with_one_wrong_character_is_told_by_its_checksum_and_never_shown() {
        let mut wrong = token();
        wrong.replace_range(10..11, if wrong.as_bytes()[10] == b'a' { "b" } else { "a" });
        for text in [payload(r#""127.0.0.9""#, &wrong), wrong.clone()] {
            let error = read_payload(&text, Some("127.0.0.9")).unwrap_err().to_string();
            assert!(error.contains("checksum"), "{error}");
            assert!(!error.contains(&wrong[..20]), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
