//! Leaving the zone while the daemon is not running, whatever is wrong with its state.

use std::rc::Rc;

use crate::config::Config;
use crate::daemon::first_state;
use crate::metrics::Metrics;
use crate::relay::{Program, Supervisor};
use crate::state::Store;
use crate::state::clock::{SystemClock, Time};

/// Ends relays that were left serving, and stores the state of a proxy that belongs to no zone.
pub(crate) async fn without_daemon(config: Config) -> Result<(), String> {
    let store = Store::open(&config.state_dir).map_err(|error| error.to_string())?;
    // An unreadable clock must not stand in the way of what mends it.
    let highest = store.clock().unwrap_or_default();
    let time = Time::new(Rc::new(SystemClock::new()), highest);
    let program = Program::new(&config.relay.program).map_err(|error| error.to_string())?;
    let supervisor = Supervisor::new(Rc::new(program), config.runtime_dir.clone(), Rc::new(Metrics::new()));
    supervisor.begin(None).await;
    let state = first_state(&config, &time)?;
    store.replace(&state).map_err(|error| error.to_string())?.commit();
    store.set_clock(time.advance()).map_err(|error| error.to_string())
}
