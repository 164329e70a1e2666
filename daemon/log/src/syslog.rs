//! Syslog off the box: RFC 5424 messages over UDP (RFC 5426), TCP with octet counting (RFC 6587) or TLS (RFC 5425).
//!
//! While the server is away, records go to a local sink as they come, and the newest of them wait to be sent when it
//! is back.

mod connection;
mod dial;
mod format;
mod server;

use std::collections::VecDeque;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::queue::Sink;
use crate::record::{Level, Record, Source};
use connection::Connection;
use dial::Dialer;
pub use format::MAX_DATAGRAM_BYTES;
use format::MAX_FRAME_BYTES;
pub use server::{Pace, Server, SyslogError, Transport};

/// The port of syslog over UDP, and by custom over TCP (RFC 5426).
pub const PORT: u16 = 514;
/// The port of syslog over TLS (RFC 5425).
pub const TLS_PORT: u16 = 6514;
/// Messages that wait for the server; beyond it the oldest are dropped and counted.
const MAX_WAITING_MESSAGES: usize = 8_192;
/// Bytes of messages that wait for the server.
const MAX_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Between two looks at a dialler that is at work.
const DIAL_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A connection that lasted so long starts the back-off anew.
const STEADY_AFTER: Duration = Duration::from_secs(10);

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

    /// Dials on a thread of its own: records don't wait for that.
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
        let steady = since.elapsed() >= STEADY_AFTER;
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
            Link::Dialling(_) => Some(DIAL_POLL_INTERVAL),
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
        while self.messages.len() > MAX_WAITING_MESSAGES || self.bytes > MAX_WAITING_BYTES {
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
        let longest = if server.transport == Transport::Udp { MAX_DATAGRAM_BYTES } else { MAX_FRAME_BYTES };
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
        assert_eq!(backlog.messages.len(), MAX_WAITING_MESSAGES);
        assert_eq!(backlog.dropped, 100_000 - MAX_WAITING_MESSAGES as u64);
        assert!(backlog.messages.back().unwrap().ends_with(b"number 99999"));
        for _ in 0..1_000 {
            backlog.push(&server, "h", &Record::new(Level::Info, "t", &"long ".repeat(800)));
        }
        assert!(backlog.bytes <= MAX_WAITING_BYTES);
        assert_eq!(backlog.bytes, backlog.messages.iter().map(Vec::len).sum::<usize>());
    }
}
