//! What a session may reach: the services of an endpoint, and its allow-list of them.

use std::borrow::Cow;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rustls::ServerConfig;
use zone_protocol::identity::{Label, Service as ServiceName};

use crate::requests::SessionRequest;
use crate::stream::SessionStream;

/// A future as services give it.
pub type ServeFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries one session to its end. An error says why it broke off.
pub type Serve = Box<dyn FnOnce(SessionStream) -> ServeFuture<'static, io::Result<()>> + Send>;

/// Something that sessions can reach.
pub trait Service: Send + Sync + 'static {
    /// Gets ready for a session. The proxy is told 200 only when this has succeeded; it has
    /// [`Timing::target_connect`](crate::Timing::target_connect).
    fn open<'a>(&'a self, request: &'a SessionRequest) -> ServeFuture<'a, Result<Serve, Decline>>;
}

/// A service made of a function that carries a session; it declines none.
pub fn service_fn<F, R>(serve: F) -> Arc<dyn Service>
where
    F: Fn(SessionStream) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    Arc::new(Function(Arc::new(serve)))
}

struct Function<F>(Arc<F>);

impl<F, R> Service for Function<F>
where
    F: Fn(SessionStream) -> R + Send + Sync + 'static,
    R: Future<Output = io::Result<()>> + Send + 'static,
{
    fn open<'a>(&'a self, _: &'a SessionRequest) -> ServeFuture<'a, Result<Serve, Decline>> {
        let serve = Arc::clone(&self.0);
        Box::pin(async move {
            let serve: Serve = Box::new(move |stream| Box::pin(serve(stream)));
            Ok(serve)
        })
    }
}

/// The answer that refuses a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decline {
    /// 400 to 599.
    pub status: u16,
    /// For people; it is passed on to the caller, so it must not tell what isn't theirs to know.
    pub reason: Cow<'static, str>,
}

impl Decline {
    /// The service is not on the allow-list.
    pub const NO_SUCH_SERVICE: Self = Self { status: 404, reason: Cow::Borrowed("No Such Service") };
    /// This session may not.
    pub const FORBIDDEN: Self = Self { status: 403, reason: Cow::Borrowed("Forbidden") };
    /// The target of the service refused the connection: nothing listens there.
    pub const TARGET_REFUSED: Self = Self { status: 502, reason: Cow::Borrowed("Target Refused") };
    /// The target of the service does not answer.
    pub const TARGET_TIMED_OUT: Self = Self { status: 502, reason: Cow::Borrowed("Target Timed Out") };
    /// The name of the target has no address.
    pub const TARGET_UNKNOWN: Self = Self { status: 502, reason: Cow::Borrowed("Target Name Unknown") };
    /// The endpoint's host may not connect to the target.
    pub const TARGET_FORBIDDEN: Self = Self { status: 502, reason: Cow::Borrowed("Target Forbidden") };
    /// No way leads from the endpoint's host to the target.
    pub const TARGET_UNREACHABLE: Self = Self { status: 502, reason: Cow::Borrowed("Target Unreachable") };
    /// The endpoint carries as many sessions as it may.
    pub const TOO_MANY_SESSIONS: Self = Self { status: 503, reason: Cow::Borrowed("Too Many Sessions") };
}

/// Whether TLS runs end to end inside the sessions of a service.
#[derive(Debug, Clone)]
pub enum Protection {
    /// It does, with the endpoint as its server; this configuration decides which Module Servers come in.
    EndToEnd(Arc<ServerConfig>),
    /// It does, with the certificates that the endpoint's configuration names, as they are when a session begins. For
    /// endpoints that were made by [`Endpoint::from_config`](crate::Endpoint::from_config).
    EndToEndByFiles,
    /// It does not: the service brings its own security, or needs none.
    Off,
}

impl Protection {
    /// The value of the field `Zone-End-To-End`.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::EndToEnd(_) | Self::EndToEndByFiles => "required",
            Self::Off => "off",
        }
    }
}

/// A service on the allow-list.
pub(crate) struct Entry {
    pub(crate) name: Label,
    pub(crate) port: Option<u16>,
    pub(crate) protection: Protection,
    pub(crate) service: Arc<dyn Service>,
}

/// All that sessions may reach.
#[derive(Default)]
pub(crate) struct AllowList(Vec<Arc<Entry>>);

impl AllowList {
    /// Adds a service, unless its name or number is taken.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<(), String> {
        if self.0.iter().any(|other| other.name == entry.name) {
            return Err(format!("two services are named {}", entry.name));
        }
        if let Some(port) = entry.port
            && self.0.iter().any(|other| other.port == Some(port))
        {
            return Err(format!("two services have the number {port}"));
        }
        self.0.push(Arc::new(entry));
        Ok(())
    }

    /// The service that a CONNECT names.
    pub(crate) fn find(&self, wanted: &ServiceName) -> Option<Arc<Entry>> {
        let named = |entry: &&Arc<Entry>| match wanted {
            ServiceName::Name(name) => entry.name == *name,
            ServiceName::Port(port) => entry.port == Some(*port),
        };
        self.0.iter().find(named).map(Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, port: Option<u16>) -> Entry {
        Entry {
            name: name.parse().unwrap(),
            port,
            protection: Protection::Off,
            service: service_fn(|_| async { Ok(()) }),
        }
    }

    #[test]
    fn only_what_is_listed_is_found_by_its_name_or_its_own_number() {
        let mut list = AllowList::default();
        list.add(entry("ssh", Some(22))).unwrap();
        list.add(entry("query", None)).unwrap();
        let found = |text: &str| list.find(&text.parse().unwrap()).map(|e| e.name.to_string());
        assert_eq!(found("ssh").as_deref(), Some("ssh"));
        assert_eq!(found("22").as_deref(), Some("ssh"));
        assert_eq!(found("query").as_deref(), Some("query"));
        assert_eq!(found("23"), None);
        assert_eq!(found("files"), None);
    }

    #[test]
    fn a_name_or_number_that_is_taken_is_refused() {
        let mut list = AllowList::default();
        list.add(entry("ssh", Some(22))).unwrap();
        assert_eq!(list.add(entry("ssh", None)), Err("two services are named ssh".into()));
        assert_eq!(list.add(entry("other", Some(22))), Err("two services have the number 22".into()));
    }
}
