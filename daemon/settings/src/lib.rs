//! Limits and timeouts: every bound of the daemon by name, as `zone-proxy.toml` has them and control tells them to relays.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds. What is beyond one is refused by name and counted; nothing queues without a bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Connections on 17486 and 17487 together whose peers have authenticated. Each session takes two descriptors.
    pub connections: usize,
    /// How much of [`Limits::connections`] one of the two ports may take, percent: the rest is the other's.
    pub port_share_percent: usize,
    /// Connections on each of 17486 and 17487 whose peer has not authenticated yet. Where there are as many, the oldest that
    /// waits for its peer makes room.
    pub unauthenticated_connections: usize,
    /// Connections on 17486 from one source: an IPv4 address or an IPv6 /64. The default leaves room for
    /// 1,000 endpoints behind one NAT, each with two parks and a session.
    pub endpoint_connections_per_source: usize,
    /// Connections on 17487 from one source.
    pub module_server_connections_per_source: usize,
    /// Connections under one endpoint id, parks and sessions together.
    pub connections_per_endpoint: usize,
    /// Parked connections under one endpoint id; beyond it the oldest is let go.
    pub parks_per_endpoint: usize,
    /// Sessions of one endpoint.
    pub sessions_per_endpoint: usize,
    /// Endpoint ids known at the same time.
    pub endpoints: usize,
    /// Connections of one Module Server.
    pub connections_per_module_server: usize,
    /// Sessions in all.
    pub sessions: usize,
    /// Sessions of one Module Server.
    pub sessions_per_module_server: usize,
    /// CONNECTs that wait for a park of one endpoint.
    pub waiting_per_endpoint: usize,
    /// CONNECTs that wait in all.
    pub waiting: usize,
    /// CONNECTs of one Module Server that have no session yet.
    pub waiting_per_module_server: usize,
    /// Parks on which one CONNECT is tried.
    pub attempts: u32,
    /// Streams of presence events.
    pub event_streams: usize,
    /// Streams of presence events to one Module Server.
    pub event_streams_per_module_server: usize,
    /// Presence events that a slow reader may lag behind before it is told to start over.
    pub event_backlog: usize,
    /// Bytes of a request or response head.
    pub head_bytes: usize,
    /// Fields of a head.
    pub head_fields: usize,
    /// Bytes that a caller may send behind its CONNECT before the endpoint has answered.
    pub early_bytes: usize,
    /// Connections on 17488 whose peers have authenticated.
    pub control_connections: usize,
    /// Connections on 17488 whose peer has not authenticated yet, as [`Limits::unauthenticated_connections`].
    pub control_unauthenticated_connections: usize,
    /// The same from one source.
    pub control_connections_per_source: usize,
    /// Bytes of a request body on 17488.
    pub control_body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_000,
            port_share_percent: 75,
            unauthenticated_connections: 1_024,
            endpoint_connections_per_source: 4_096,
            module_server_connections_per_source: 4_096,
            connections_per_endpoint: 64,
            parks_per_endpoint: 4,
            sessions_per_endpoint: 32,
            endpoints: 10_000,
            connections_per_module_server: 4_096,
            sessions: 4_000,
            sessions_per_module_server: 3_000,
            waiting_per_endpoint: 64,
            waiting: 1_024,
            waiting_per_module_server: 768,
            attempts: 3,
            event_streams: 64,
            event_streams_per_module_server: 48,
            event_backlog: 1_024,
            head_bytes: 8_192,
            head_fields: 32,
            early_bytes: 16_384,
            control_connections: 128,
            control_unauthenticated_connections: 64,
            control_connections_per_source: 32,
            control_body_bytes: 1_048_576,
        }
    }
}

/// What `MemoryMax=` of the packaged zone-relay@.service allows.
pub const PACKAGED_RELAY_MEMORY_BYTES: u64 = 5 << 30;
/// A relay with nobody connected, its waiting log records, and a policy of the largest size while it is read.
const RELAY_BYTES: u64 = 96 << 20;
/// A connection, and what the kernel has for it while nothing waits in its buffers.
const CONNECTION_BYTES: u64 = (12 + 16) << 10;
/// A connection in its handshake, with what rustls holds of it meanwhile.
const HANDSHAKE_BYTES: u64 = 64 << 10;
/// A session whose readers both stall: what the relay keeps for each of them, and what waits in the kernel's buffers of each
/// connection, most of it received and not read.
const SESSION_BYTES: u64 = 2 * ((55 + 512) << 10);

impl Limits {
    /// How many connections one of the two ports may have.
    pub fn connections_per_port(&self) -> usize {
        (self.connections.saturating_mul(self.port_share_percent) / 100).clamp(1, self.connections.max(1))
    }

    /// The memory that a relay with these limits can come to, bytes: what a service manager must let it have, so that these
    /// limits bite first, which end no session.
    pub fn relay_memory_bytes(&self) -> u64 {
        let (connections, sessions) = (self.connections as u64, self.sessions as u64);
        let connections = connections.saturating_mul(CONNECTION_BYTES);
        let handshakes = (self.unauthenticated_connections as u64).saturating_mul(2 * HANDSHAKE_BYTES);
        RELAY_BYTES
            .saturating_add(connections)
            .saturating_add(handshakes)
            .saturating_add(sessions.saturating_mul(SESSION_BYTES))
    }
}

/// Spans of time, in seconds; fractions are allowed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timeouts {
    /// For the PROXY protocol header of a balancer's connection.
    pub proxy_header: f64,
    /// For the TLS handshake.
    pub handshake: f64,
    /// For a request head, from its first byte (or from the end of the handshake).
    pub head: f64,
    /// For a Module Server's connection between two requests.
    pub idle_connection: f64,
    /// Silence of a park after which it is pinged.
    pub ping_after: f64,
    /// For the answer to a ping.
    pub pong: f64,
    /// For the first byte of an endpoint's answer to a CONNECT, before another park is tried.
    pub first_byte: f64,
    /// For the rest of that answer.
    pub answer: f64,
    /// For a CONNECT to get a session, waiting for a park included.
    pub connect: f64,
    /// Silence that ends a session, both directions together.
    pub session_idle: f64,
    /// How long an endpoint stays known after its last connection.
    pub remember_endpoint: f64,
    /// How long a new relay lets CONNECTs wait for endpoints that it has not seen yet.
    pub settle: f64,
    /// For the sessions of a relay that is being replaced or stopped.
    pub drain: f64,
    /// Over which a draining relay lets its parks go.
    pub release: f64,
    /// For the CONNECTs that are under way at a relay that is being replaced; its endpoints move to the next one after that.
    pub hand_over: f64,
    /// For a relay without its control before it drains.
    pub orphan: f64,
    /// For a request on 17488, from the end of its head until there is an answer; for that to be taken there is `head` then.
    pub control_request: f64,
    /// For an offer to be completed.
    pub offer: f64,
    /// For a token to be used.
    pub token: f64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            proxy_header: 3.0,
            handshake: 10.0,
            head: 10.0,
            idle_connection: 3_600.0,
            ping_after: 20.0,
            pong: 10.0,
            first_byte: 3.0,
            answer: 10.0,
            connect: 15.0,
            session_idle: 300.0,
            remember_endpoint: 60.0,
            settle: 10.0,
            drain: 28_800.0,
            release: 5.0,
            hand_over: 0.5,
            orphan: 60.0,
            control_request: 60.0,
            offer: 600.0,
            token: 86_400.0,
        }
    }
}

impl Timeouts {
    /// The longest span that is accepted, seconds: a hundred days.
    pub const MAX_SECONDS: f64 = 8_640_000.0;

    /// The name of the first value that is no span of time (negative, zero, not a number, too long).
    pub fn first_invalid(&self) -> Option<String> {
        let value = serde_json::to_value(self).ok()?;
        let fields = value.as_object()?;
        fields
            .iter()
            .find(|(_, v)| !v.as_f64().is_some_and(|s| s > 0.0 && s <= Self::MAX_SECONDS))
            .map(|(name, _)| name.clone())
    }
}

/// A span of seconds as a duration; what is no span of time counts as zero.
pub fn seconds(span: f64) -> Duration {
    Duration::try_from_secs_f64(span.clamp(0.0, Timeouts::MAX_SECONDS)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packaged_unit_lets_a_relay_have_what_its_default_limits_can_take() {
        let unit = include_str!("../../../systemd/zone-relay@.service");
        assert!(unit.contains(&format!("\nMemoryMax={}G\n", PACKAGED_RELAY_MEMORY_BYTES >> 30)));
        let needed = Limits::default().relay_memory_bytes();
        assert!(
            needed < PACKAGED_RELAY_MEMORY_BYTES && needed > PACKAGED_RELAY_MEMORY_BYTES / 4 * 3,
            "{needed}"
        );
        let endless = Limits { connections: usize::MAX, ..Limits::default() };
        assert!(endless.relay_memory_bytes() > needed);
    }

    #[test]
    fn a_span_of_zero_or_not_a_number_is_named() {
        assert_eq!(Timeouts::default().first_invalid(), None);
        assert_eq!(Timeouts { pong: 0.0, ..Timeouts::default() }.first_invalid(), Some("pong".into()));
        assert_eq!(Timeouts { drain: f64::NAN, ..Timeouts::default() }.first_invalid(), Some("drain".into()));
        assert_eq!(Timeouts { head: 1e12, ..Timeouts::default() }.first_invalid(), Some("head".into()));
    }
}
