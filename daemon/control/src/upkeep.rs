//! What the daemon does by itself while it runs: it remembers the clock, warns of certificates that run out, rotates ticket
//! keys, and sees to the firewall.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, interval_at, sleep};
use zone_protocol::expiry::WARNING_INTERVAL;
use zone_watchdog::Heartbeat;

use crate::daemon::Daemon;
use crate::firewall::FirewallError;
use crate::state::clock::clock_warning;

/// Between two stores of the highest wall clock.
const STORE_CLOCK_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Between two rotations of ticket keys: half a ticket's life.
const ROTATE_TICKETS_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);
/// Before a rotation that failed is tried again.
const RETRY_TICKETS_INTERVAL: Duration = Duration::from_secs(60);

/// Stores the clock, warns of certificates and rotates ticket keys, for as long as the daemon lives.
pub(crate) async fn clock_and_tickets(daemon: Rc<Daemon>, mut heartbeat: Heartbeat) {
    let now = Instant::now();
    let mut store = interval_at(now + STORE_CLOCK_INTERVAL, STORE_CLOCK_INTERVAL);
    let mut warn = interval_at(now, WARNING_INTERVAL);
    let mut rotate = pin!(sleep(ROTATE_TICKETS_INTERVAL));
    let mut last_rotation = Rotation::Done;
    loop {
        tokio::select! {
            _ = store.tick() => {
                daemon.store_clock();
                if let Some(back) = daemon.time.set_back_by() {
                    tracing::warn!("{}", clock_warning(back));
                }
            }
            _ = warn.tick() => {
                if let Some(warning) = daemon.expiry_warning() {
                    tracing::warn!("{warning}");
                }
            }
            () = rotate.as_mut() => {
                last_rotation = heartbeat.during(rotate_tickets(&daemon, last_rotation)).await;
                rotate.as_mut().reset(Instant::now() + next_rotation(last_rotation));
            }
            () = heartbeat.answer() => {}
        }
    }
}

/// What a rotation of ticket keys came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    /// The new keys are in use on every port.
    Done,
    /// There are none.
    NotMade,
    /// There are, and a relay goes by those of before.
    NotInForce,
}

/// Replaces the ticket keys of every port, or, where `last` made them already, has the relays take them.
async fn rotate_tickets(daemon: &Daemon, last: Rotation) -> Rotation {
    let _changing = daemon.change_lock.lock().await;
    if last != Rotation::NotInForce {
        let rotated = daemon.tickets.borrow().rotated();
        match rotated {
            Ok(rotated) => daemon.tickets.replace(rotated),
            Err(error) => {
                tracing::error!(%error, again_in = ?RETRY_TICKETS_INTERVAL, "ticket keys stay as they are");
                return Rotation::NotMade;
            }
        };
        daemon.renew_tls();
    }
    match daemon.push_policy().await {
        Ok(()) => Rotation::Done,
        Err(error) => {
            tracing::error!(%error, again_in = ?RETRY_TICKETS_INTERVAL, "new ticket keys are not in use everywhere");
            Rotation::NotInForce
        }
    }
}

/// When the next rotation is due after one that came to this.
fn next_rotation(last: Rotation) -> Duration {
    if last == Rotation::Done { ROTATE_TICKETS_INTERVAL } else { RETRY_TICKETS_INTERVAL }
}

/// Sees to it that the firewall is as the state has it: at the start, and whenever that did not succeed or the
/// configuration changed. The broker opens a port only where something listens, so relays come first.
pub(crate) async fn firewall(daemon: Rc<Daemon>, mut heartbeat: Heartbeat) {
    if !daemon.firewall.is_managed() {
        return;
    }
    let mut changes = daemon.supervisor.changes();
    let mut logged = None;
    loop {
        let failed = match heartbeat.during(settle_firewall(&daemon)).await {
            Ok(()) => {
                logged = None;
                false
            }
            Err(error) => {
                let error = error.to_string();
                if logged.as_ref() != Some(&error) {
                    tracing::error!(error, "the firewall is not as it should be; the broker is asked again");
                }
                logged = Some(error);
                true
            }
        };
        let again = daemon.firewall.back_off(failed);
        let due = async {
            tokio::select! {
                () = tokio::time::sleep(again), if failed => true,
                changed = changes.changed() => changed.is_ok(),
                () = daemon.firewall.check_requested() => true,
            }
        };
        if !heartbeat.during(due).await {
            return;
        }
    }
}

async fn settle_firewall(daemon: &Daemon) -> Result<(), FirewallError> {
    let _asking = daemon.firewall.lock().await;
    let rules = daemon.port_rules(&daemon.state());
    if daemon.firewall.has(&rules) || !daemon.supervisor.serves() {
        return Ok(());
    }
    daemon.firewall.set(rules).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_failed_is_tried_again_in_a_minute() {
        assert_eq!(next_rotation(Rotation::Done), ROTATE_TICKETS_INTERVAL);
        for last in [Rotation::NotMade, Rotation::NotInForce] {
            assert_eq!(next_rotation(last), Duration::from_secs(60));
        }
    }
}
