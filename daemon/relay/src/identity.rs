//! Who is at the other end of a connection, as its handshake showed.

use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use zone_accept::HandshakeError;
use zone_protocol::tls::TlsError;
use zone_protocol::tls::certificate::{Leaf, NameHash, issuers};
use zone_protocol::tls::refusal::Refusal;
use zone_protocol::tls::verifier::Admission;

/// A connection past its handshake. Boxed, because it is handed on from task to task, and a future holds room for
/// each hand that a value goes through.
pub type Connection = Box<TlsStream<TcpStream>>;

/// How much ciphertext rustls may hold for one connection while the socket does not take it.
pub const TLS_BUFFER: usize = 16 * 1024;

/// Who a connection showed itself to be, in its handshake or in the one that it resumed, and who vouches for that.
pub fn peer(stream: &Connection) -> Result<(Leaf, Box<[NameHash]>), HandshakeError> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let Some(der) = chain.first() else {
        return Err(Refusal::Unreadable("no client certificate was shown".into()).into());
    };
    let unreadable = |error: TlsError| Refusal::Unreadable(error.to_string());
    Ok((Leaf::read(der).map_err(unreadable)?, issuers(chain).map_err(unreadable)?))
}

/// Looks at role, zone, time and deny-list once more: a resumed connection never ran the verifier.
pub fn authorise(leaf: &Leaf, admission: &Admission) -> Result<(), HandshakeError> {
    Ok(admission.still_admits(leaf, OffsetDateTime::now_utc())?)
}
