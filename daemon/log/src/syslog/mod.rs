//! Syslog off the box: RFC 5424 messages over UDP (RFC 5426), TCP with octet counting (RFC 6587) or TLS (RFC 5425).
//!
//! While the server is away, records go to a local sink as they come, and the newest of them wait to be sent when it
//! is back.

mod connection;
mod format;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::queue::Sink;
use crate::record::{Level, Record, Source};
use connection::{Connection, Dialer};
pub use format::{LONGEST_DATAGRAM, LONGEST_FRAME};

/// The port of syslog over UDP, and by custom over TCP (RFC 5426).
pub const PORT: u16 = 514;
/// The port of syslog over TLS (RFC 5425).
pub const TLS_PORT: u16 = 6514;
/// Messages that wait for the server; beyond it the oldest are dropped and counted.
pub const MOST_WAITING: usize = 8_192;
/// Bytes of messages that wait for the server.
pub const MOST_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Between two looks at a dialler that is at work.
const DIALLING: Duration = Duration::from_millis(50);
/// A connection that lasted so long starts the back-off anew.
const STEADY: Duration = Duration::from_secs(10);

/// A syslog server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How it is spoken to.
    pub transport: Transport,
    /// How patiently.
    pub pace: Pace,
}

/// How a server is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// One datagram for each record; nobody notices one that is lost.
    Udp,
    /// In the clear.
    Tcp,
    /// TLS 1.2 or 1.3; the server's certificate is checked against these authorities and its name.
    Tls {
        /// PEM file.
        ca: PathBuf,
    },
}

/// Deadlines and back-off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// For the server to take one message; it counts as away afterwards.
    pub write: Duration,
    /// Before the second attempt to reach it; each further one waits twice as long.
    pub first_delay: Duration,
    /// The longest wait between two attempts.
    pub longest_delay: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            write: Duration::from_secs(5),
            first_delay: Duration::from_secs(1),
            longest_delay: Duration::from_secs(60),
        }
    }
}

/// Why a server can't be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum SyslogError {
    /// The file of authorities.
    #[error(
        "{path}: {why}; it must hold the certificate (PEM) of the authority that vouches for the syslog server"
    )]
    Authority {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The host's name.
    #[error("'{0}' is neither a host name nor an address, so no certificate can be checked against it")]
    Name(String),
    /// The TLS library.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Checks what can be checked of a server without dialling it.
pub fn check(server: &Server) -> Result<(), SyslogError> {
    Dialer::new(server.clone()).map(drop)
}

/// Sends records to a server.
pub struct Syslog {
    own: Source,
    host: String,
    dialer: Arc<Dialer>,
    link: Link,
    delay: Duration,
    backlog: Backlog,
    /// Where records go as well while the server is away.
    local: Box<dyn Sink>,
}

enum Link {
    Down { until: Instant },
    Dialling(mpsc::Receiver<std::io::Result<Connection>>),
    Up { connection: Connection, since: Instant },
}

impl Syslog {
    /// Nothing is dialled yet, only checked.
    pub fn new(server: Server, own: Source, local: Box<dyn Sink>) -> Result<Self, SyslogError> {
        let dialer = Arc::new(Dialer::new(server)?);
        Ok(Self {
            own,
            host: format::host(),
            link: Link::Down { until: Instant::now() },
            delay: dialer.server().pace.first_delay,
            backlog: Backlog::default(),
            dialer,
            local,
        })
    }

    /// Sends what waits, or goes on with the attempts to.
    fn pump(&mut self) {
        match &mut self.link {
            Link::Down { until } if Instant::now() < *until => {}
            Link::Down { .. } => self.dial(),
            Link::Dialling(outcome) => match outcome.try_recv() {
                Ok(outcome) => self.dialled(outcome),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => {
                    self.dialled(Err(std::io::Error::other("the attempt broke off")));
                }
            },
            Link::Up { .. } => self.send(),
        }
    }

    /// Dials on a thread of its own: names are looked up with the resolver's patience, not with ours.
    fn dial(&mut self) {
        let (report, outcome) = mpsc::sync_channel(1);
        let dialer = Arc::clone(&self.dialer);
        // Nobody waits for the report of an attempt that was given up.
        let attempt = move || drop(report.send(dialer.dial()));
        match thread::Builder::new().name("log-dial".to_owned()).spawn(attempt) {
            Ok(_) => self.link = Link::Dialling(outcome),
            Err(error) => self.away(&error),
        }
    }

    fn dialled(&mut self, outcome: std::io::Result<Connection>) {
        match outcome {
            Ok(connection) => {
                self.link = Link::Up { connection, since: Instant::now() };
                let dropped = std::mem::take(&mut self.backlog.dropped);
                let mut record = self.report(Level::Info, "the syslog server is reached");
                if dropped > 0 {
                    record = record.with("dropped", dropped);
                }
                self.local.write(&record);
                // In front: it says what is missing before the rest.
                self.backlog.push_front(self.dialer.server(), &self.host, &record);
                self.send();
            }
            Err(error) => self.away(&error),
        }
    }

    fn send(&mut self) {
        let Link::Up { connection, since } = &mut self.link else { return };
        let steady = since.elapsed() >= STEADY;
        while let Some(message) = self.backlog.messages.front() {
            match connection.send(message) {
                Ok(()) => self.backlog.sent(),
                Err(error) => {
                    if steady {
                        self.delay = self.dialer.server().pace.first_delay;
                    }
                    self.away(&error);
                    return;
                }
            }
        }
    }

    fn away(&mut self, error: &std::io::Error) {
        self.link = Link::Down { until: Instant::now() + self.delay };
        let record = self
            .report(Level::Warn, "the syslog server is away: records are kept and shown here meanwhile")
            .with("error", error)
            .with("seconds_to_next_attempt", self.delay.as_secs_f32());
        self.delay = (self.delay * 2).min(self.dialer.server().pace.longest_delay);
        self.local.write(&record);
    }

    fn report(&self, level: Level, words: &str) -> Record {
        let server = self.dialer.server();
        Record::new(level, env!("CARGO_CRATE_NAME"), words)
            .with("server", format_args!("{}:{}", server.host, server.port))
            .from_source(self.own.clone())
    }
}

impl Sink for Syslog {
    fn write(&mut self, record: &Record) {
        if !matches!(self.link, Link::Up { .. }) {
            self.local.write(record);
        }
        self.backlog.push(self.dialer.server(), &self.host, record);
        self.pump();
    }

    fn idle(&mut self) -> Option<Duration> {
        self.pump();
        match &self.link {
            Link::Down { until } => Some(until.saturating_duration_since(Instant::now())),
            Link::Dialling(_) => Some(DIALLING),
            Link::Up { .. } => None,
        }
    }

    fn flush(&mut self, by: Instant) {
        if let Link::Dialling(outcome) = &self.link
            && let Ok(outcome) = outcome.recv_timeout(by.saturating_duration_since(Instant::now()))
        {
            self.dialled(outcome);
        }
        self.pump();
        self.local.flush(by);
    }
}

/// Messages that are not with the server yet.
#[derive(Debug, Default)]
struct Backlog {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

impl Backlog {
    fn push(&mut self, server: &Server, host: &str, record: &Record) {
        let message = Self::message(server, host, record);
        self.bytes += message.len();
        self.messages.push_back(message);
        while self.messages.len() > MOST_WAITING || self.bytes > MOST_WAITING_BYTES {
            self.sent();
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    fn push_front(&mut self, server: &Server, host: &str, record: &Record) {
        let message = Self::message(server, host, record);
        self.bytes += message.len();
        self.messages.push_front(message);
    }

    fn message(server: &Server, host: &str, record: &Record) -> Vec<u8> {
        let longest = if server.transport == Transport::Udp { LONGEST_DATAGRAM } else { LONGEST_FRAME };
        format::message(record, host, longest)
    }

    /// The oldest is gone.
    fn sent(&mut self) {
        self.bytes -= self.messages.pop_front().map_or(0, |message| message.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_server_is_bounded_and_the_oldest_goes_first() {
        let server = Server { host: "h".into(), port: 1, transport: Transport::Tcp, pace: Pace::default() };
        let mut backlog = Backlog::default();
        for n in 0..100_000 {
            backlog.push(&server, "h", &Record::new(Level::Info, "t", &format!("number {n}")));
        }
        assert_eq!(backlog.messages.len(), MOST_WAITING);
        assert_eq!(backlog.dropped, 100_000 - MOST_WAITING as u64);
        assert!(backlog.messages.back().unwrap().ends_with(b"number 99999"));
        for _ in 0..1_000 {
            backlog.push(&server, "h", &Record::new(Level::Info, "t", &"long ".repeat(800)));
        }
        assert!(backlog.bytes <= MOST_WAITING_BYTES);
        assert_eq!(backlog.bytes, backlog.messages.iter().map(Vec::len).sum::<usize>());
    }
}
