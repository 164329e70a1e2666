//! Leaving the zone while the daemon is not running, whatever is wrong with its state.

use std::rc::Rc;

use crate::bootstrap::first_state;
use crate::config::Config;
use crate::firewall::Firewall;
use crate::keys;
use crate::metrics::Metrics;
use crate::relay::{Ender, Supervisor, starter};
use crate::state::Store;
use crate::state::clock::{SystemClock, Time};

/// Stores the state of a proxy that belongs to no zone, and ends relays that were left serving.
pub(crate) async fn without_daemon(config: Config) -> Result<(), String> {
    let store = Store::open(&config.state_dir).map_err(|error| error.to_string())?;
    // An unreadable clock must not stand in the way of what mends it.
    let highest = store.clock().unwrap_or_default();
    let time = Time::new(Rc::new(SystemClock::new()), highest);
    let firewall = Firewall::new(&config.firewall);
    if let Err(error) = firewall.set(Vec::new()).await {
        tracing::warn!(%error, "the firewall still lets the relay's ports through");
    }
    let starter = starter(&config.relay).map_err(|error| error.to_string())?;
    let ender = Ender::new(&config.relay);
    let supervisor = Supervisor::new(
        starter,
        ender,
        config.runtime_dir.clone(),
        Rc::new(Metrics::new()),
        Rc::default(),
        None,
    );
    let identity = keys::bootstrap(time.wall()).map_err(|error| error.to_string())?;
    let state = first_state(identity, &config, &time).map_err(|error| error.to_string())?;
    store.replace(&state).map_err(|error| error.to_string())?.commit();
    supervisor.begin(None).await;
    supervisor
        .release()
        .await
        .map_err(|error| format!("the proxy belongs to no zone, but {error}: end its process"))?;
    store.set_clock(time.advance()).map_err(|error| error.to_string())
}
