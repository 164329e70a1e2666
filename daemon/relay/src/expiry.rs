//! Connections end with their certificates: a park is let go, and a Module Server's connection takes no further CONNECT.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::context::Context;
use zone_watchdog::Heartbeat;

/// Between two looks at who has expired: so long a connection may outlive its certificate.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Looks for as long as the relay lives.
pub(crate) async fn run(context: Arc<Context>, mut heartbeat: Heartbeat) {
    loop {
        tokio::select! {
            () = sleep(CHECK_INTERVAL) => {}
            () = heartbeat.answer() => continue,
        }
        let connections = context.connections.end_expired(Instant::now());
        if connections > 0 {
            tracing::info!(target: "audit", connections, "connections whose certificates have ended were ended");
        }
    }
}
