//! The endpoint's leg: one side's connection in a session, on its way from its park to the caller's task.

use std::net::SocketAddr;
use std::sync::Arc;

use zone_pairing::ParkId;

use crate::connection::Connection;
use crate::connections::Registered;
use crate::limiters::Permits;
use crate::mailbox::Mailbox;

/// An endpoint's connection that accepted a call: its half of a session.
#[derive(Debug)]
pub(crate) struct EndpointLeg {
    /// The park that it was, by which the switchboard knows it.
    pub(crate) park: ParkId,
    /// The connection.
    pub(crate) stream: Connection,
    /// What the endpoint sent right behind its answer.
    pub(crate) early: Vec<u8>,
    /// `Zone-End-To-End` of its answer.
    pub(crate) end_to_end: Option<String>,
    /// The address that it comes from.
    pub(crate) address: SocketAddr,
    /// Its entry among the connections.
    pub(crate) registered: Registered,
    /// Tells it to close.
    pub(crate) mailbox: Arc<Mailbox>,
    /// Its permits.
    pub(crate) permits: Permits,
}
