//! Who is at the other end of a connection, as its handshake showed, and whether the rules still let it in.

use time::OffsetDateTime;
use zone_accept::HandshakeError;
use zone_protocol::tls::TlsError;
use zone_protocol::tls::certificate::{Leaf, NameHash, issuers};
use zone_protocol::tls::refusal::Refusal;

use crate::connection::Connection;
use crate::rules::{Port, Rules};

/// Who a connection showed itself to be, in its handshake or in the one that it resumed, and who vouches for that.
pub(crate) fn peer(stream: &Connection) -> Result<(Leaf, Box<[NameHash]>), HandshakeError> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let Some((leaf, others)) = chain.split_first() else {
        return Err(Refusal::Unreadable("no client certificate was shown".into()).into());
    };
    let unreadable = |error: TlsError| Refusal::Unreadable(error.to_string());
    Ok((Leaf::read_chain(leaf, others).map_err(unreadable)?, issuers(chain).map_err(unreadable)?))
}

/// Looks at role, zone, time and deny-list once more, for a resumed connection never ran the verifier, and at who
/// vouches for the peer, where the anchors have changed since the rules `before`, which the handshake went by.
pub(crate) fn authorise(
    leaf: &Leaf,
    issuers: &[NameHash],
    port: Port,
    rules: &Rules,
    before: &Rules,
) -> Result<(), HandshakeError> {
    rules.port(port).admission.still_admits(leaf, OffsetDateTime::now_utc())?;
    if rules.anchors != before.anchors && rules.removed_anchors(before, port).refuse(issuers) {
        return Err(Refusal::UnknownAuthority(leaf.identity.clone()).into());
    }
    Ok(())
}
