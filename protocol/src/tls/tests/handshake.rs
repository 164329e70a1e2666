//! A handshake between two configurations, in memory.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};

use crate::tls::refusal::{Refusal, capture};

/// One side of a handshake, and what it found wrong.
pub(super) struct Side {
    pub(super) connection: Connection,
    pub(super) error: Option<rustls::Error>,
    pub(super) refusal: Option<Refusal>,
}

impl Side {
    fn new(connection: impl Into<Connection>) -> Self {
        Self { connection: connection.into(), error: None, refusal: None }
    }

    /// Gives the other side all that this one has to say; `false` where it has nothing.
    fn speak(&mut self, to: &mut Self) -> bool {
        let mut bytes = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut bytes).unwrap();
        }
        let mut left = bytes.as_slice();
        while !left.is_empty() && to.error.is_none() {
            to.connection.read_tls(&mut left).unwrap();
            let (read, refusal) = capture(|| to.connection.process_new_packets().map(drop));
            to.error = read.err();
            to.refusal = refusal;
        }
        !bytes.is_empty()
    }
}

/// Both sides after everything was said.
pub(super) struct Handshake {
    pub(super) client: Side,
    pub(super) server: Side,
}

impl Handshake {
    pub(super) fn of(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Self {
        let name = ServerName::try_from("zone").unwrap();
        let mut client = Side::new(ClientConnection::new(Arc::clone(client), name).unwrap());
        let mut server = Side::new(ServerConnection::new(Arc::clone(server)).unwrap());
        while client.speak(&mut server) | server.speak(&mut client) {}
        Self { client, server }
    }

    pub(super) fn succeeded(&self) -> bool {
        [&self.client, &self.server]
            .iter()
            .all(|side| side.error.is_none() && !side.connection.is_handshaking())
    }
}
