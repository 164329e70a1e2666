//! The log: one line for each event on standard error, with its facts as `key=value`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::Level;

/// The target of what an auditor reads: who changed what, from where, before and after.
pub const AUDIT: &str = "audit";

/// Changes the severity of a log that runs.
pub type SetLevel = Box<dyn Fn(Level)>;

/// Starts the log of this process. What goes to [`AUDIT`] is written at every level.
pub fn start(level: Level) -> SetLevel {
    let builder = tracing_subscriber::fmt()
        .compact()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter(level))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    // A second log in one process (tests) is refused, and the first one stays.
    let _ = builder.try_init();
    Box::new(move |level| {
        if let Err(error) = handle.reload(filter(level)) {
            tracing::error!(%error, "the log level can't be changed");
        }
    })
}

fn filter(level: Level) -> EnvFilter {
    EnvFilter::new(format!("{},{AUDIT}=info", level.as_str()))
}
