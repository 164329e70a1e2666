//! What the daemon does by itself while it runs: it remembers the clock, warns of certificates that run out, rotates ticket
//! keys, and sees to the firewall.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, interval_at};
use zone_protocol::expiry::WARNING_INTERVAL;
use zone_watchdog::Heartbeat;

use crate::daemon::Daemon;
use crate::firewall::FirewallError;
use crate::state::clock::clock_warning;

/// Between two stores of the highest wall clock.
const STORE_CLOCK_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Between two rotations of ticket keys: half a ticket's life.
const ROTATE_TICKETS_INTERVAL: Duration = Duration::from_secs(12 * 60 * 60);

/// Stores the clock, warns of certificates and rotates ticket keys, for as long as the daemon lives.
pub(crate) async fn clock_and_tickets(daemon: Rc<Daemon>, mut heartbeat: Heartbeat) {
    let now = Instant::now();
    let mut store = interval_at(now + STORE_CLOCK_INTERVAL, STORE_CLOCK_INTERVAL);
    let mut warn = interval_at(now, WARNING_INTERVAL);
    let mut rotate = interval_at(now + ROTATE_TICKETS_INTERVAL, ROTATE_TICKETS_INTERVAL);
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
            _ = rotate.tick() => heartbeat.during(rotate_tickets(&daemon)).await,
            () = heartbeat.answer() => {}
        }
    }
}

async fn rotate_tickets(daemon: &Daemon) {
    let _changing = daemon.change_lock.lock().await;
    let rotated = daemon.tickets.borrow().rotated();
    match rotated {
        Ok(rotated) => {
            daemon.tickets.replace(rotated);
            daemon.renew_tls();
            daemon.push_policy().await;
        }
        Err(error) => tracing::error!("ticket keys stay as they are: {error}"),
    }
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
