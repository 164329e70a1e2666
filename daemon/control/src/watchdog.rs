//! What the service manager is told (sd_notify(3)): that the daemon serves, what it does, and, for its watchdog, that it
//! makes progress.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use zone_service_manager::ServiceManager;

use crate::daemon::Daemon;

/// For a relay to serve before the daemon says that it is ready without one.
const RELAY_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two status lines.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// How often progress is proved in the time after which the watchdog ends the daemon.
const CHECKS: u32 = 3;

/// Tells the manager when the daemon serves, what it does, and that it makes progress.
pub(crate) async fn report(daemon: Rc<Daemon>, manager: Rc<ServiceManager>) {
    if !manager.is_there() {
        return;
    }
    serving(&daemon).await;
    manager.status(&line(&daemon).await);
    manager.ready();
    let interval =
        manager.watchdog().map_or(STATUS_INTERVAL, |watchdog| (watchdog / CHECKS).min(STATUS_INTERVAL));
    let mut told = Instant::now();
    loop {
        sleep(interval).await;
        if manager.watchdog().is_some() {
            match daemon.watchdog.check(interval).await {
                Ok(()) => manager.alive(),
                Err(name) => {
                    tracing::error!(name, "a loop of control gives no sign of life: the watchdog is not fed");
                }
            }
        }
        if told.elapsed() >= STATUS_INTERVAL {
            told = Instant::now();
            manager.status(&line(&daemon).await);
        }
    }
}

/// Waits until everything that should be served is, for a time: a port that is taken must not keep 17488 from
/// being reported.
async fn serving(daemon: &Daemon) {
    let mut changes = daemon.supervisor.changes();
    let all = async {
        while !daemon.supervisor.serves() {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    if timeout(RELAY_TIMEOUT, all).await.is_err() {
        tracing::warn!("no relay serves yet");
    }
}

async fn line(daemon: &Rc<Daemon>) -> String {
    let state = daemon.state();
    let Some(membership) = &state.membership else {
        return "unprovisioned: only 17488 listens".to_owned();
    };
    let member = format!("{} in zone {}", membership.document.name, membership.document.zone);
    if let Some(why) = daemon.supervisor.trouble() {
        return format!("{member}: no relay serves: {why}");
    }
    let relays = daemon.supervisor.statuses().await;
    let counts = relays.iter().filter_map(|relay| relay.counts.as_ref());
    let (parks, sessions) = counts.fold((0, 0), |sum, one| (sum.0 + one.parks, sum.1 + one.sessions));
    format!("{member}: {parks} parks, {sessions} sessions, {} relays", relays.len())
}
