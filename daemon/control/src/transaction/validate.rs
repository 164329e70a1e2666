//! Looks at what a Module Server sends before anything is done with it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{FromDer, X509Certificate};
use zone_channel::Identity;
use zone_protocol::features::CONTROL_IDENTITY;
use zone_protocol::identity::{Identity as SpiffeId, Label, Role, printable};
use zone_protocol::merge::{MAX_VERSION, takes_back, with_denials};
use zone_protocol::ports;
use zone_protocol::provisioning::{Certificates, PerPort, Provisioning};
use zone_protocol::tls::certificate::{Facts, KeyKind, Leaf, chain_from_pem, facts};
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::verifier::Admission;
use zone_protocol::trust::{Denied, Trust};

use super::error::{ChangeError, StepError};
use crate::config::Config;
use crate::keys::OfferedKeys;
use crate::offer::OpenOffer;
use crate::state::{Membership, State};
use crate::tls::leaves;

/// The most addresses to listen on, for each port.
const MAX_ADDRESSES: usize = 8;
/// Hex digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;
/// Hex digits of the longest serial number: 20 bytes (RFC 5280, section 4.1.2.2), and zeros before it.
const MAX_SERIAL_DIGITS: usize = 64;
/// The longest description of a change.
const MAX_CHANGE_BYTES: usize = 500;

/// The state that a provisioning document makes, or what is wrong with it.
pub(super) fn provisioning(
    config: &Config,
    current: &State,
    (offered_to, offer): (&Label, &OpenOffer),
    mut document: Provisioning,
    now: OffsetDateTime,
) -> Result<State, StepError> {
    if document.zone != *offered_to {
        let why = format!("the offer is for zone {offered_to}, and the document for {}", document.zone);
        return Err(StepError::invalid(why));
    }
    let member = (&document.zone, &document.name);
    let own = match document.certificates.take() {
        Some(certificates) => signed(&offer.keys, certificates, Role::ZoneProxy, member, now)?,
        None if current.membership.is_some() => {
            identity(&current.identity, None, Role::ZoneProxy, member, now)?;
            current.identity.clone()
        }
        None => return Err(StepError::invalid("certificates are missing: the proxy has none of a zone yet")),
    };
    let stays =
        current.membership.as_ref().is_some_and(|now| (&now.document.zone, &now.document.name) == member);
    let control_identity = match (document.control_certificates.take(), &current.control_identity) {
        (Some(certificates), _) => {
            Some(control_signed(offer.control_keys.as_ref(), certificates, member, now)?)
        }
        (None, Some(present)) if stays => {
            identity(present, None, Role::ZoneControl, member, now)?;
            Some(present.clone())
        }
        (None, _) => None,
    };
    trust(&document.trust, now)?;
    not_older(&document, current)?;
    if let Some(own) = &current.membership
        && own.document.zone == document.zone
    {
        document.trust =
            with_denials(&document.trust, &own.document.trust, now).map_err(StepError::invalid)?;
        trust(&document.trust, now)?;
    }
    for role in [Role::Endpoint, Role::ModuleServer] {
        Admission::new(document.zone.clone(), role, &document.trust, true, Versions::Tls12)
            .map_err(StepError::invalid)?;
    }
    check_ports(&document.ports)?;
    check_addresses("listen.endpoint", &document.listen.endpoint)?;
    check_addresses("listen.module_server", &document.listen.module_server)?;
    for (name, value) in &document.limits {
        if let Some(why) = config.limit_refused(name, *value) {
            return Err(StepError::invalid(why));
        }
    }
    let membership = Some(Membership { id: offer.id.clone(), document });
    Ok(State { identity: own, control_identity, membership, token: None })
}

/// The identity that 17488 is to show, of the keys that were offered for it.
pub(super) fn control_signed(
    keys: Option<&OfferedKeys>,
    certificates: Certificates,
    member: (&Label, &Label),
    now: OffsetDateTime,
) -> Result<Identity, StepError> {
    let keys = keys.ok_or_else(|| {
        StepError::invalid("control_certificates: this offer has no control_signing_requests")
            .help(format!("leave them out, or name {CONTROL_IDENTITY} in Zone-Features and open a new offer"))
    })?;
    signed(keys, certificates, Role::ZoneControl, member, now)
}

/// The identity of the keys that were offered, with the certificates that were sent for them.
pub(super) fn signed(
    keys: &OfferedKeys,
    certificates: Certificates,
    role: Role,
    member: (&Label, &Label),
    now: OffsetDateTime,
) -> Result<Identity, StepError> {
    let own = keys.with(certificates);
    let (rsa, ec) = keys.public_keys();
    identity(&own, Some((&rsa, &ec)), role, member, now)?;
    Ok(own)
}

/// Checks both certificates of a member: for its keys, in its role and name, valid now. `keys` are the public keys that
/// they must be for; without them, those of the identity itself count.
fn identity(
    own: &Identity,
    keys: Option<(&[u8], &[u8])>,
    role: Role,
    (zone, name): (&Label, &Label),
    now: OffsetDateTime,
) -> Result<(), StepError> {
    let wanted = SpiffeId { zone: zone.clone(), role, name: name.clone() };
    let whose = if role == Role::ZoneControl { "17488's own " } else { "" };
    let rsa = ("RSA certificate", &own.rsa, KeyKind::Rsa(2048), keys.map(|keys| keys.0));
    let ec = ("P-256 certificate", &own.ec, KeyKind::P256, keys.map(|keys| keys.1));
    for (what, pair, kind, key) in [rsa, ec] {
        let what = &format!("{whose}{what}");
        let chain = chain_from_pem(&pair.chain, what).map_err(StepError::invalid)?;
        let Some(leaf) = chain.first() else {
            return Err(StepError::invalid(format!("{what}: no certificate in it")));
        };
        let facts = facts(leaf, what).map_err(StepError::invalid)?;
        if facts.key != kind {
            return Err(StepError::invalid(format!("{what}: its key is {}", describe(facts.key))));
        }
        if key.is_some_and(|key| key != facts.spki) {
            let why = format!("{what}: it is not for the key of this offer's signing request");
            return Err(StepError::invalid(why));
        }
        valid_now(what, &facts, now)?;
        serves_tls(what, leaf)?;
        let read = Leaf::read(leaf).map_err(|error| StepError::invalid(format!("{what}: {error}")))?;
        if read.identity != wanted {
            let why = format!("{what}: it names {}, and the document {wanted}", read.identity);
            return Err(StepError::invalid(why));
        }
    }
    leaves(own, Versions::Tls12).map(drop).map_err(StepError::invalid)
}

/// The trust document that follows the one in force when `sent` is sent.
///
/// Whoever `merges` gets what they sent or a refusal that names what it would take back. A client of the first version
/// knows no other documents than its own and can't say that an anchor is retired: its anchors are obeyed, but for those
/// that are retired, and the denials in force stay. It is told the version that it sent.
pub(super) fn successor(
    current: &Trust,
    sent: Trust,
    merges: bool,
    now: OffsetDateTime,
) -> Result<Trust, ChangeError> {
    trust(&sent, now)?;
    if !merges {
        let merged = with_denials(&sent, current, now).map_err(StepError::invalid)?;
        // What is retired may have been all that it had.
        trust(&merged, now)?;
        return Ok(merged);
    }
    match takes_back(current, &sent, now).map_err(StepError::invalid)? {
        lines if lines.is_empty() => Ok(sent),
        lines => Err(ChangeError::TakesBack(lines)),
    }
}

/// Checks a trust document: every anchor an authority's and valid now, and every entry such that it denies somebody.
pub(super) fn trust(trust: &Trust, now: OffsetDateTime) -> Result<(), StepError> {
    if trust.version > MAX_VERSION {
        return Err(StepError::invalid(format!("trust.version {}: more than {MAX_VERSION}", trust.version)));
    }
    for (index, entry) in trust.deny.iter().enumerate() {
        if let Denied::Certificate { issuer, serial, .. } = entry {
            digits(&format!("trust.deny[{index}].issuer"), issuer, DIGEST_DIGITS..=DIGEST_DIGITS)?;
            digits(&format!("trust.deny[{index}].serial"), serial, 1..=MAX_SERIAL_DIGITS)?;
        }
    }
    for (index, retired) in trust.retired.iter().enumerate() {
        let what = format!("trust.retired[{index}].fingerprint");
        digits(&what, &retired.fingerprint, DIGEST_DIGITS..=DIGEST_DIGITS)?;
    }
    if trust.changed.as_ref().is_some_and(|changed| changed.what.len() > MAX_CHANGE_BYTES) {
        return Err(StepError::invalid(format!("trust.changed.what: more than {MAX_CHANGE_BYTES} bytes")));
    }
    let by_role =
        [(Role::Endpoint, &trust.anchors.endpoint), (Role::ModuleServer, &trust.anchors.module_server)];
    for (role, pems) in by_role {
        let what = format!("trust anchor for {role}");
        if pems.is_empty() {
            return Err(StepError::invalid(format!("{what}: at least one is needed")));
        }
        for pem in pems {
            for der in chain_from_pem(pem, &what).map_err(StepError::invalid)? {
                let facts = facts(&der, &what).map_err(StepError::invalid)?;
                if !facts.authority {
                    return Err(StepError::invalid(format!("{what}: it is no authority's (CA:TRUE)")));
                }
                valid_now(&what, &facts, now)?;
            }
        }
    }
    Ok(())
}

/// Hex digits, this many: an entry that is spelled otherwise would deny nobody, and nobody would notice.
fn digits(what: &str, text: &str, length: RangeInclusive<usize>) -> Result<(), StepError> {
    if length.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    let (least, most) = (length.start(), length.end());
    let wanted = if least == most { most.to_string() } else { format!("{least} to {most}") };
    Err(StepError::invalid(format!("{what}: '{}' is not {wanted} hex digits", printable(text))))
}

fn not_older(document: &Provisioning, current: &State) -> Result<(), StepError> {
    match &current.membership {
        Some(own)
            if own.document.zone == document.zone && own.document.trust.version > document.trust.version =>
        {
            Err(StepError::invalid(format!(
                "trust.version {} is below {}, which is in force",
                document.trust.version, own.document.trust.version
            )))
        }
        _ => Ok(()),
    }
}

fn check_ports(numbers: &PerPort<u16>) -> Result<(), StepError> {
    for (name, port) in [("endpoint", numbers.endpoint), ("module_server", numbers.module_server)] {
        if let Some(why) = ports::reserved(port) {
            return Err(StepError::invalid(format!("ports.{name} {port}: {why}")));
        }
    }
    if numbers.endpoint == numbers.module_server {
        let why = format!("ports.endpoint and ports.module_server are both {}", numbers.endpoint);
        return Err(StepError::invalid(why));
    }
    Ok(())
}

fn check_addresses(name: &str, addresses: &[IpAddr]) -> Result<(), StepError> {
    let why = match addresses.len() {
        0 => "at least one address is needed".to_owned(),
        n if n > MAX_ADDRESSES => format!("{n} addresses, more than {MAX_ADDRESSES}"),
        n if addresses.iter().collect::<BTreeSet<_>>().len() < n => {
            "an address stands there twice".to_owned()
        }
        _ => return Ok(()),
    };
    Err(StepError::invalid(format!("{name}: {why}")))
}

fn valid_now(what: &str, facts: &Facts, now: OffsetDateTime) -> Result<(), StepError> {
    if (facts.not_before..=facts.not_after).contains(&now) {
        return Ok(());
    }
    let why = format!(
        "{what}: it is valid from {} to {}, and this proxy's clock says {}",
        rfc3339(facts.not_before),
        rfc3339(facts.not_after),
        rfc3339(now)
    );
    Err(StepError::invalid(why).help("compare the clocks, and issue it again"))
}

/// Where a certificate lists what it is for, that must include serving TLS (RFC 5280, section 4.2.1.12).
fn serves_tls(what: &str, der: &[u8]) -> Result<(), StepError> {
    let unreadable = |why: String| StepError::invalid(format!("{what}: {why}"));
    let (_, certificate) = X509Certificate::from_der(der).map_err(|error| unreadable(error.to_string()))?;
    match certificate.extended_key_usage().map_err(|error| unreadable(error.to_string()))? {
        Some(usage) if !usage.value.server_auth && !usage.value.any => {
            Err(unreadable("its extended key usage lacks serverAuth".into()))
        }
        _ => Ok(()),
    }
}

fn describe(kind: KeyKind) -> String {
    match kind {
        KeyKind::Rsa(bits) => format!("RSA with {bits} bits"),
        KeyKind::P256 => "of P-256".to_owned(),
        KeyKind::P384 => "of P-384".to_owned(),
        KeyKind::Other => "neither RSA 2048 nor P-256".to_owned(),
    }
}

fn rfc3339(time: OffsetDateTime) -> String {
    time.replace_nanosecond(0).unwrap_or(time).format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}
