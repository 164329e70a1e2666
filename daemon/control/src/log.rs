//! Where this host's log goes: standard error, the journal, or a syslog server. The relays' records go there too.

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use zone_log::syslog::{Pace, Server, Syslog, SyslogError, Transport};
use zone_log::{Level, Sink, Source, StartError, Stderr, stderr_is_the_journal};

use crate::config::{self, Destination};
use crate::journal::Journal;

pub use zone_log::AUDIT;

/// What the lines of this process are known by.
const PROCESS: &str = "zone-proxy";
/// For the last records to be brought out when the daemon ends.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// Changes the severity of a log that runs.
pub type SetLevel = Box<dyn Fn(Level)>;

/// Why the log can't be kept as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `log.to = "journal"` where none runs.
    #[error(
        "log.to: no journal runs on this host ({} is missing): use \"stderr\", or \"auto\", which finds out by itself",
        .0.display()
    )]
    NoJournal(&'static Path),
    /// The syslog server's authority or name.
    #[error("log.syslog: {0}")]
    Syslog(#[from] SyslogError),
    /// The thread that writes.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// The log of this process. Dropped, it brings out what waits.
#[derive(Debug)]
pub struct Running(Rc<zone_log::Log>);

/// Starts the log of this process, with a thread of its own: privileges must be given up before. What goes to
/// [`AUDIT`] is written at every level. A second log in one process (tests) is refused, and the first one stays.
pub fn start(options: &config::Log) -> Result<Running, LogError> {
    let own = Source::own(PROCESS);
    let log = zone_log::start(own.clone(), options.level, sink(options, own)?)?;
    Ok(Running(Rc::new(log)))
}

/// What [`start`] would fail at on this host.
pub fn check(options: &config::Log) -> Result<(), LogError> {
    sink(options, Source::own(PROCESS)).map(drop)
}

impl Running {
    /// Changes its severity.
    pub fn set_level(&self) -> SetLevel {
        let log = Rc::clone(&self.0);
        Box::new(move |level| log.set_level(level))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.flush(LAST_WORDS);
    }
}

fn sink(options: &config::Log, own: Source) -> Result<Box<dyn Sink>, LogError> {
    match options.to {
        Destination::Stderr => Ok(Box::new(Stderr::new())),
        Destination::Auto => Ok(local()),
        Destination::Journal => match Journal::missing() {
            None => Ok(Box::new(Journal::new())),
            Some(socket) => Err(LogError::NoJournal(socket)),
        },
        Destination::Syslog => Ok(Box::new(Syslog::new(server(&options.syslog), own, local())?)),
    }
}

/// The journal for a service whose standard error leads there, standard error otherwise.
fn local() -> Box<dyn Sink> {
    if stderr_is_the_journal() && Journal::missing().is_none() {
        Box::new(Journal::new())
    } else {
        Box::new(Stderr::new())
    }
}

fn server(options: &config::Syslog) -> Server {
    Server {
        host: options.host.clone(),
        port: options.port,
        transport: match (options.transport, options.tls) {
            (config::Transport::Udp, _) => Transport::Udp,
            (config::Transport::Tcp, false) => Transport::Tcp,
            (config::Transport::Tcp, true) => Transport::Tls { ca: options.ca.clone() },
        },
        pace: Pace::default(),
    }
}
