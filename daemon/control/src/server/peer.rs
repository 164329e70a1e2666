//! The other side of a connection to 17488, as its handshake showed it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;

use rustls::pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use zone_accept::Unauthenticated;
use zone_protocol::proof::{EXPORTER_LABEL, EXPORTER_LENGTH, Exported};

use crate::connection_limit::{ConnectionPermit, Refused};
use crate::daemon::Daemon;

/// What a handler knows of the other side.
pub(super) struct Peer {
    /// The address that it connected from.
    pub(super) address: SocketAddr,
    /// Its certificates, leaf first; none where it showed none.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// What binds a proof to this connection; absent where TLS can't give it.
    pub(super) exported: Option<Exported>,
    /// Whether a request is past its authorisation, so that it gets its answer whatever it changes.
    pub(super) answering: Cell<bool>,
    /// The epoch of the state that it was accepted under, see [`crate::tls::TlsContext::epoch`].
    pub(super) epoch: u64,
    /// Its place, until it has authenticated and from then on.
    place: RefCell<Place>,
}

/// Among which connections one counts.
#[expect(dead_code, reason = "places are held, not read: dropping them gives them back")]
enum Place {
    /// Among those that have not authenticated.
    Unauthenticated(Unauthenticated),
    /// Among the others.
    Authenticated(ConnectionPermit),
}

impl Peer {
    /// The other side of this connection, which was accepted under the state of this epoch.
    pub(super) fn new(
        stream: &TlsStream<TcpStream>,
        address: SocketAddr,
        epoch: u64,
        unauthenticated: Unauthenticated,
    ) -> Self {
        let tls = stream.get_ref().1;
        let exported = tls.export_keying_material([0; EXPORTER_LENGTH], EXPORTER_LABEL, None).ok();
        let chain = tls.peer_certificates().unwrap_or_default();
        Self {
            address,
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
            exported,
            answering: Cell::new(false),
            epoch,
            place: RefCell::new(Place::Unauthenticated(unauthenticated)),
        }
    }

    /// It has shown that it may ask: it makes room for nobody any more, if there is a place for it among the others.
    pub(super) fn has_authenticated(&self, daemon: &Daemon) -> Result<(), Refused> {
        let mut place = self.place.borrow_mut();
        if let Place::Unauthenticated(_) = *place {
            let permit = daemon.connection_limit.authenticated(self.address.ip(), &daemon.config().limits)?;
            *place = Place::Authenticated(permit);
        }
        Ok(())
    }
}
