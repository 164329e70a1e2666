//! What an endpoint tells a program that runs it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use zone_protocol::identity::{Identity, Service};

/// Something that happened. Proxies are named as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A connection is parked and can take a session.
    Parked {
        /// The proxy at the other end.
        proxy: Arc<str>,
        /// The local address of the connection.
        local: SocketAddr,
    },
    /// A parked connection ended before a session took it.
    ParkLost {
        /// The proxy at the other end.
        proxy: Arc<str>,
        /// Whether the proxy closed it in an orderly way and wants the endpoint back at once.
        clean: bool,
        /// One line for a person.
        reason: String,
    },
    /// One proxy could not be parked at; the next one in the list is tried.
    DialFailed {
        /// The proxy that was dialed.
        proxy: Arc<str>,
        /// One line for a person; it names the proxy.
        reason: String,
    },
    /// The next dial waits.
    Waiting {
        /// How long it waits.
        pause: Duration,
    },
    /// A session is set up, end-to-end TLS included; payload may flow.
    SessionStarted {
        /// The session's name, the same in every log on its way.
        id: Uuid,
        /// The service that it reaches.
        service: Service,
        /// Who proved to be at the other end; nobody does where end-to-end TLS is off.
        module_server: Option<Identity>,
    },
    /// A session was refused, or its end-to-end handshake failed.
    SessionRefused {
        /// The session's name, the same in every log on its way.
        id: Uuid,
        /// The service that it asked for.
        service: Service,
        /// One line for a person.
        reason: String,
    },
    /// A started session is over.
    SessionEnded {
        /// The session's name, the same in every log on its way.
        id: Uuid,
        /// Payload bytes that came from the Module Server.
        received: u64,
        /// Payload bytes that went to it.
        sent: u64,
        /// Why it broke off; `None` where both directions ended in an orderly way.
        broken: Option<String>,
    },
}

/// Is called for every event, on the task where it happened: it must not block. A bounded channel's
/// `try_send` serves a reader that may be slow.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
