//! Who a party is: labels, roles, SPIFFE identities, and what a session asks for.
//!
//! ```
//! use zone_protocol::identity::{Identity, Role, Service, Target};
//!
//! let endpoint: Identity = "spiffe://plant-7/endpoint/host-7".parse()?;
//! assert_eq!((endpoint.zone.as_str(), endpoint.role), ("plant-7", Role::Endpoint));
//!
//! let target: Target = "host-7:22".parse()?;
//! assert_eq!(target.endpoint, endpoint.name);
//! assert_eq!(target.service, Service::Port(22));
//!
//! let error = "Host-7:22".parse::<Target>().unwrap_err();
//! assert_eq!(error.to_string(), "'Host-7' is not a label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end");
//! # Ok::<(), zone_protocol::identity::IdentityError>(())
//! ```

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a name or an identity was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a DNS label in lower case.
    #[error("'{0}' is not a label: 1 to 63 of a-z, 0-9 and '-', with no '-' at either end")]
    Label(String),
    /// Not `spiffe://<zone>/<role>/<name>`.
    #[error("'{0}' is not spiffe://<zone>/<endpoint|module-server|zone-proxy>/<name>")]
    Spiffe(String),
    /// Neither a name nor a port number.
    #[error("'{0}' is not a service: a label that is not all digits, or a number from 1 to 65535")]
    Service(String),
    /// Not `<endpoint-id>:<service>`.
    #[error("'{0}' is not <endpoint-id>:<service>")]
    Target(String),
}

/// A DNS label in lower case: zone names, endpoint ids, server names and service names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Arc<str>);

impl Label {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text, shared.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl FromStr for Label {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let fits = (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && bytes.first() != Some(&b'-')
            && bytes.last() != Some(&b'-');
        if fits { Ok(Self(text.into())) } else { Err(IdentityError::Label(printable(text))) }
    }
}

impl TryFrom<String> for Label {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0.to_string()
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// What a party is in its zone. A certificate is good for one role only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// A managed machine outside.
    Endpoint,
    /// The server inside that sessions come from.
    ModuleServer,
    /// The daemon in between.
    ZoneProxy,
    /// 17488 of a proxy, by keys that no relay sees. The authority for proxies vouches for it.
    ZoneControl,
    /// A party that has no certificate of its own role yet. To come.
    Enrolment,
    /// Reads status and metrics, and changes nothing. To come.
    Monitor,
    /// A person who changes things. To come.
    Operator,
    /// A service behind an endpoint. To come.
    Service,
    /// An authority that is asked over the network. To come.
    Authority,
    /// A proxy that stands outside. To come.
    Satellite,
}

impl Role {
    /// Those of the first version of this protocol. Each has an authority of its own, and no other role has.
    pub const FIRST_VERSION: [Self; 3] = [Self::Endpoint, Self::ModuleServer, Self::ZoneProxy];
    /// Roles of versions to come. Their names can be read, so that a port which they show themselves at can say
    /// whom it refuses. No port admits them before it names them.
    pub const TO_COME: [Self; 6] =
        [Self::Enrolment, Self::Monitor, Self::Operator, Self::Service, Self::Authority, Self::Satellite];

    /// The path segment that names the role in a SPIFFE id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::ModuleServer => "module-server",
            Self::ZoneProxy => "zone-proxy",
            Self::ZoneControl => "zone-control",
            Self::Enrolment => "enrolment",
            Self::Monitor => "monitor",
            Self::Operator => "operator",
            Self::Service => "service",
            Self::Authority => "authority",
            Self::Satellite => "satellite",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::FIRST_VERSION
            .into_iter()
            .chain([Self::ZoneControl])
            .chain(Self::TO_COME)
            .find(|role| role.as_str() == text)
            .ok_or_else(|| IdentityError::Spiffe(printable(text)))
    }
}

/// `spiffe://<zone>/<role>/<name>`, the URI in a certificate's subject alternative names (SPIFFE-ID, section 2).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    /// The trust domain.
    pub zone: Label,
    /// The role that its authority vouches for.
    pub role: Role,
    /// Its name, unique within zone and role.
    pub name: Label,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}/{}", self.zone, self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || IdentityError::Spiffe(printable(text));
        let mut parts = text.strip_prefix("spiffe://").ok_or_else(wrong)?.split('/');
        let (Some(zone), Some(role), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(wrong());
        };
        Ok(Self {
            zone: zone.parse().map_err(|_| wrong())?,
            role: role.parse().map_err(|_| wrong())?,
            name: name.parse().map_err(|_| wrong())?,
        })
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> Self {
        identity.to_string()
    }
}

/// What an endpoint lets a session reach, by name or by the number that stands for it.
///
/// RFC 9110 wants a number in a CONNECT target; the name is this protocol's extension.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Service {
    /// The service of this name.
    Name(Label),
    /// The service that this number stands for, for clients that know only numbers.
    Port(u16),
}

impl FromStr for Service {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || IdentityError::Service(printable(text));
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse::<u16>() {
                Ok(port) if port > 0 && !text.starts_with('0') => Ok(Self::Port(port)),
                _ => Err(wrong()),
            };
        }
        text.parse().map(Self::Name).map_err(|_| wrong())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

/// The target of a CONNECT: `<endpoint-id>:<service>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    /// The endpoint's id.
    pub endpoint: Label,
    /// The service of that endpoint.
    pub service: Service,
}

impl FromStr for Target {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (endpoint, service) =
            text.split_once(':').ok_or_else(|| IdentityError::Target(printable(text)))?;
        Ok(Self { endpoint: endpoint.parse()?, service: service.parse()? })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.endpoint, self.service)
    }
}

/// `text` cut to 80 characters with control characters escaped, so that a stranger's words can be logged.
pub fn printable(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_dns_label_in_lower_case() {
        for good in ["a", "ssh", "host-7", &"a".repeat(63)] {
            assert_eq!(good.parse::<Label>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "ü", &"a".repeat(64)] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_identity_reads_back_what_it_prints() {
        let text = "spiffe://plant-7/module-server/inside";
        assert_eq!(text.parse::<Identity>().unwrap().to_string(), text);
    }

    #[test]
    fn an_identity_with_anything_more_or_less_is_refused() {
        for bad in [
            "spiffe://z/endpoint",
            "spiffe://z/endpoint/a/b",
            "spiffe://z/endpoint/a?x",
            "spiffe://z/root/a",
            "https://z/endpoint/a",
            "spiffe:///endpoint/a",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_service_is_a_name_or_a_port_number() {
        assert_eq!("22".parse(), Ok(Service::Port(22)));
        assert!(matches!("ssh".parse(), Ok(Service::Name(_))));
        for bad in ["0", "022", "65536", "", "a:b"] {
            assert!(bad.parse::<Service>().is_err(), "{bad}");
        }
    }

    #[test]
    fn words_of_strangers_are_cut_and_escaped_before_they_reach_a_log() {
        assert_eq!(printable("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(printable(&"x".repeat(500)).len(), 80);
    }
}
