//! The documents of 17488: what is offered, sent and answered, as JSON.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::features::Features;
use crate::identity::{Identity, Label, Role};
use crate::ports;
use crate::token::Token;
use crate::trust::Trust;

/// The longest body of `POST /v1/provisioning` that comes without a certificate, bytes: whose it is shows only once all of it
/// has been read.
pub const MAX_OFFER_REQUEST_BYTES: usize = 4_096;

/// What `zone-proxy show payload` prints and an admin submits centrally (R-41).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// The version of this document: 1.
    pub version: u32,
    /// The proxy's host name, for people.
    pub host: String,
    /// Where 17488 listens; a wildcard stands for the host's addresses.
    pub addresses: Vec<IpAddr>,
    /// 17488.
    pub port: u16,
    /// Whoever holds it may provision this proxy, once.
    pub token: Token,
    /// When it stops being good, by the proxy's clock.
    #[serde(with = "crate::timestamp")]
    pub expires_at: OffsetDateTime,
}

/// Body of `POST /v1/provisioning`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OfferRequest {
    /// The zone that the proxy is to join.
    pub zone: Label,
    /// The Module Server that asks; for the proxy's audit log.
    pub module_server: Label,
}

/// Two certificate signing requests (PKCS #10, PEM). The private keys never leave the proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SigningRequests {
    /// RSA 2048.
    pub rsa: String,
    /// P-256.
    pub ec: String,
}

/// What the proxy says of its host once the Module Server has proved itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Host name.
    pub host: String,
    /// The proxy's version.
    pub version: String,
    /// The operating system, as `/etc/os-release` names it.
    pub os: String,
}

/// Answer to `POST /v1/provisioning` and to `POST /v1/identity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Names the offer in the request that completes it.
    pub id: String,
    /// The requests that are to be signed.
    pub signing_requests: SigningRequests,
    /// The same for the identity that 17488 shows, by keys that no relay sees. With
    /// [`CONTROL_IDENTITY`](crate::features::CONTROL_IDENTITY) only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_signing_requests: Option<SigningRequests>,
    /// The host that the proxy runs on.
    pub host: HostFacts,
    /// The proxy's clock: certificates must be valid by it.
    #[serde(with = "crate::timestamp")]
    pub clock: OffsetDateTime,
    /// When the offer lapses.
    #[serde(with = "crate::timestamp")]
    pub expires_at: OffsetDateTime,
    /// What the proxy can do beyond the first version.
    #[serde(default, skip_serializing_if = "Features::is_empty")]
    pub features: Features,
}

/// Certificate chains (PEM, leaf first) for the two keys of an offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificates {
    /// For the RSA 2048 key.
    pub rsa: String,
    /// For the P-256 key.
    pub ec: String,
}

/// Something that both relay ports have, each its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerPort<T> {
    /// For the endpoint port.
    pub endpoint: T,
    /// For the Module Server port.
    pub module_server: T,
}

impl<T> PerPort<T> {
    /// The one of a role; nobody else dials a relay.
    pub fn of(&self, role: Role) -> Option<&T> {
        match role {
            Role::Endpoint => Some(&self.endpoint),
            Role::ModuleServer => Some(&self.module_server),
            _ => None,
        }
    }
}

/// Body of `PUT /v1/provisioning/{id}`: everything that makes a proxy a member of its zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioning {
    /// The zone.
    pub zone: Label,
    /// The proxy's name in it.
    pub name: Label,
    /// For the keys of the offer; left out, the proxy keeps what it has (re-provisioning only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<Certificates>,
    /// For the keys of the offer's `control_signing_requests`, where it has them; left out, 17488 keeps what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_certificates: Option<Certificates>,
    /// The trust document.
    pub trust: Trust,
    /// The port numbers of both relay ports.
    #[serde(default = "default_ports")]
    pub ports: PerPort<u16>,
    /// Addresses to listen on, at least one per port.
    #[serde(default = "default_listen")]
    pub listen: PerPort<Vec<IpAddr>>,
    /// Networks that may connect; empty means any.
    #[serde(default = "default_networks")]
    pub allowed_networks: PerPort<Vec<IpNet>>,
    /// Limits by name, none above the host's own.
    #[serde(default)]
    pub limits: BTreeMap<String, u64>,
}

fn default_ports() -> PerPort<u16> {
    PerPort { endpoint: ports::ENDPOINT, module_server: ports::MODULE_SERVER }
}

fn default_listen() -> PerPort<Vec<IpAddr>> {
    let any = vec![IpAddr::from([0, 0, 0, 0])];
    PerPort { endpoint: any.clone(), module_server: any }
}

fn default_networks() -> PerPort<Vec<IpNet>> {
    PerPort { endpoint: Vec::new(), module_server: Vec::new() }
}

/// Answer to `PUT` and `GET /v1/provisioning/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// The offer that was completed; stays the provisioning's name.
    pub id: String,
    /// The zone.
    pub zone: Label,
    /// The proxy's name in it.
    pub name: Label,
    /// Version of the trust document in force.
    pub trust_version: u64,
    /// The ports that it listens on now.
    pub ports: Vec<PortStatus>,
}

/// One listening port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// `control`, `endpoint` or `module-server`.
    pub purpose: String,
    /// The address that it listens on.
    pub address: IpAddr,
    /// The port number.
    pub port: u16,
    /// Whether it accepts connections.
    pub listening: bool,
    /// `none` where no firewall is managed; otherwise `open`, `closed`, or `unknown: ` and why.
    pub firewall: String,
}

/// Body of `PUT /v1/identity`: completes an offer of `POST /v1/identity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewIdentity {
    /// The id of the offer.
    pub offer: String,
    /// Chains for the offer's keys.
    pub certificates: Certificates,
    /// For the keys of the offer's `control_signing_requests`, where it has them; left out, 17488 keeps what it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_certificates: Option<Certificates>,
}

/// Answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `unprovisioned` or `provisioned`.
    pub state: String,
    /// The daemon's version.
    pub version: String,
    /// Host name.
    pub host: String,
    /// The proxy's clock.
    #[serde(with = "crate::timestamp")]
    pub clock: OffsetDateTime,
    /// The zone, once provisioned.
    #[serde(default)]
    pub zone: Option<Label>,
    /// The proxy's name, once provisioned.
    #[serde(default)]
    pub name: Option<Label>,
    /// The provisioning's name.
    #[serde(default)]
    pub provisioning: Option<String>,
    /// Version of the trust document in force.
    #[serde(default)]
    pub trust_version: Option<u64>,
    /// What that document says, a digest as the protocol's description has it. Versions are compared with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_digest: Option<String>,
    /// What 17488 shows, once provisioned: the proxy's own, or one that no relay holds the keys of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_identity: Option<Identity>,
    /// The authorities that the document in force has as anchors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub anchors: Vec<AnchorStatus>,
    /// When the first of the proxy's certificates runs out.
    #[serde(default, with = "crate::timestamp::option")]
    pub certificate_expires_at: Option<OffsetDateTime>,
    /// Every port, listening or not.
    pub ports: Vec<PortStatus>,
    /// The relay that accepts, and those that drain.
    pub relays: Vec<RelayStatus>,
    /// Each process as the kernel shows it.
    pub processes: Vec<ProcessStatus>,
    /// What the proxy can do beyond the first version.
    #[serde(default, skip_serializing_if = "Features::is_empty")]
    pub features: Features,
}

/// An authority that vouches for those who connect to a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnchorStatus {
    /// Whom it vouches for: `endpoint` or `module-server`.
    pub role: String,
    /// The common name in its certificate.
    pub name: String,
    /// SHA-256 over its certificate (DER), hex.
    pub fingerprint: String,
    /// Its first second.
    #[serde(with = "crate::timestamp")]
    pub not_before: OffsetDateTime,
    /// Its last second.
    #[serde(with = "crate::timestamp")]
    pub not_after: OffsetDateTime,
}

/// One relay process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayStatus {
    /// The number of its generation; each relay that is started has the next one.
    pub generation: u64,
    /// Its process id.
    pub pid: u32,
    /// `starting`, `serving`, `draining` or `silent`.
    pub state: String,
    /// What it carries; absent where it did not answer in time.
    #[serde(default)]
    pub counts: Option<RelayCounts>,
}

/// What a relay carries right now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayCounts {
    /// Endpoints with a park or a session.
    pub endpoints: u64,
    /// Parked connections.
    pub parks: u64,
    /// CONNECTs waiting for a park.
    pub waiting: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// Connections of Module Servers.
    pub module_server_connections: u64,
    /// Bytes of payload that the relay holds at this moment.
    pub buffered_bytes: u64,
}

/// A process of the daemon, as read from `/proc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// `control` or `relay`.
    pub role: String,
    /// Process id.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective capabilities, hex.
    pub capabilities: String,
    /// Whether no_new_privs is set.
    pub no_new_privs: bool,
    /// What it has given up for good; absent where nobody could say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
}

/// What a process has given up for good, so that whoever takes it over does not have it either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The mode of seccomp(2): `off`, `strict` or `filter`.
    pub seccomp: String,
    /// How many filters there are; absent before Linux 5.9, which does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filters: Option<u32>,
    /// What came of landlock, in the process' own words: the kernel shows it to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub landlock: Option<String>,
}

/// Answer to `GET /v1/endpoints` on 17487.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Drawn at every start of a relay.
    pub boot: String,
    /// Of the last presence event that this list holds.
    pub sequence: u64,
    /// In order of id.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint as a Module Server sees it (R-51).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Its id.
    pub id: Label,
    /// Where its newest connection comes from.
    pub address: String,
    /// Parks that can take a session now.
    pub idle: u32,
    /// Parks with a ping or a CONNECT under way.
    pub busy: u32,
    /// Sessions that are open with it.
    pub sessions: u32,
    /// Programs that connect under this id; more than one means a cloned image.
    pub instances: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Denied;

    #[test]
    fn a_provisioning_document_needs_only_what_has_no_default() {
        let text =
            r#"{"zone":"z","name":"p","trust":{"version":1,"anchors":{"endpoint":[],"module_server":[]}}}"#;
        let document: Provisioning = serde_json::from_str(text).unwrap();
        assert_eq!(document.ports, PerPort { endpoint: 17486, module_server: 17487 });
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error =
            serde_json::from_str::<OfferRequest>(r#"{"zone":"z","module_server":"m","x":1}"#).unwrap_err();
        assert!(error.to_string().contains('x'), "{error}");
    }

    #[test]
    fn what_belongs_to_the_identity_of_17488_is_left_out_where_it_is_not_there() {
        let text = r#"{"offer":"1","certificates":{"rsa":"a","ec":"b"}}"#;
        let new: NewIdentity = serde_json::from_str(text).unwrap();
        assert_eq!(
            (new.control_certificates.is_none(), serde_json::to_string(&new).unwrap()),
            (true, text.into())
        );
        let text = r#"{"offer":"1","certificates":{"rsa":"a","ec":"b"},"control_certificates":{"rsa":"c"}}"#;
        let error = serde_json::from_str::<NewIdentity>(text).unwrap_err().to_string();
        assert!(error.contains("missing field `ec`"), "{error}");
    }

    #[test]
    fn both_kinds_of_denial_can_be_told_apart() {
        let one: Denied = serde_json::from_str(r#"{"issuer":"00ff","serial":"1a"}"#).unwrap();
        let other: Denied = serde_json::from_str(
            r#"{"identity":"spiffe://z/endpoint/a","not_before":"2026-01-01T00:00:00Z"}"#,
        )
        .unwrap();
        assert!(matches!(one, Denied::Certificate { .. }));
        assert!(matches!(other, Denied::Identity { .. }));
    }
}
