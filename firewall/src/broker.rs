//! The broker: the one process that may touch the firewall, and does so only within root's ceiling.
//!
//! systemd starts it for a connection to its socket and gives it CAP_NET_ADMIN and nothing else. One connection carries
//! one request; it ends itself when nobody has asked for a while.

pub mod people;
mod request;

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;
use sd_notify::NotifyState;
use zone_firewall_protocol::{Answer, LONGEST, Request};

use crate::config;
use crate::host::Host;
use people::{Peer, People};

/// For a request to arrive, and for an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// For the rest of a request that is too long, so that its sender can read why it was refused.
const DRAIN: Duration = Duration::from_secs(2);
/// The longest time that a request may take before the watchdog is no longer fed. Tools have deadlines far below.
const STUCK: Duration = Duration::from_secs(120);
/// How often the main loop looks up where there is no watchdog.
const TICK: Duration = Duration::from_secs(5);

/// Why the broker does not run.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// There is no socket to listen on.
    #[error("{path}: can't listen: {source}")]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Waiting for connections failed.
    #[error("waiting for connections failed: {0}")]
    Wait(io::Error),
}

struct Broker {
    host: Host,
    /// Changes come one after the other. Holds since when one is at work.
    work: Mutex<()>,
    since: Mutex<Option<Instant>>,
    connections: AtomicUsize,
}

/// Serves until nobody has asked for `broker.idle` seconds. The socket comes from systemd (`LISTEN_FDS`, sd_listen_fds(3));
/// started by hand it is made at `path`.
pub fn serve(host: Host, path: &Path) -> Result<(), BrokerError> {
    // Who asks is told as well; ending here would only have systemd start it again for the same connection.
    let settings = match host.config() {
        Ok(config) => config.broker,
        Err(error) => {
            tracing::error!("{error}");
            config::Broker::default()
        }
    };
    let idle = Duration::from_secs(settings.idle.into());
    let (listener, made) = listener(path)?;
    listener.set_nonblocking(true).map_err(BrokerError::Wait)?;
    let broker = Arc::new(Broker {
        host,
        work: Mutex::new(()),
        since: Mutex::new(None),
        connections: AtomicUsize::new(0),
    });
    notify(&[NotifyState::Ready, NotifyState::Status("waiting for a request")]);
    let tick = sd_notify::watchdog_enabled().map_or(TICK, |interval| interval / 3).min(TICK).min(idle);
    let mut last = Instant::now();
    loop {
        if wait(&listener, tick)? {
            match listener.accept() {
                Ok((stream, _)) => admit(&broker, stream, settings.connections),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!("a connection was lost: {error}");
                    thread::sleep(Duration::from_millis(100));
                }
            }
            last = Instant::now();
        }
        if !broker.is_stuck() {
            notify(&[NotifyState::Watchdog]);
        }
        if broker.connections.load(Ordering::Acquire) > 0 {
            last = Instant::now();
        } else if last.elapsed() >= idle {
            break;
        }
    }
    notify(&[NotifyState::Stopping]);
    if made {
        // The next one that is started by hand removes it otherwise.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

fn listener(path: &Path) -> Result<(UnixListener, bool), BrokerError> {
    if let Some((_, handed)) = zone_sys::listen_fds().into_iter().next() {
        return Ok((UnixListener::from(handed), false));
    }
    let failed = |source| BrokerError::Socket { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Everybody may knock: who may ask is decided by SO_PEERCRED, so that a stranger gets an answer and a line of audit.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok((listener, true))
}

fn wait(listener: &UnixListener, tick: Duration) -> Result<bool, BrokerError> {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let tick = rustix::time::Timespec {
        tv_sec: tick.as_secs().try_into().unwrap_or(1),
        tv_nsec: tick.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&tick)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(BrokerError::Wait(error.into())),
    }
}

fn admit(broker: &Arc<Broker>, stream: UnixStream, most: usize) {
    if broker.connections.fetch_add(1, Ordering::AcqRel) >= most {
        broker.connections.fetch_sub(1, Ordering::AcqRel);
        let why = format!("the broker already serves {most} connections (broker.connections)");
        let _ = stream.set_nonblocking(true);
        send(&stream, &Answer::Refused { why, help: "try again in a moment".to_owned() });
        return;
    }
    let broker = Arc::clone(broker);
    thread::spawn(move || {
        let peer = converse(&broker, &stream);
        if let Err(error) = peer {
            tracing::warn!("a connection broke off: {error}");
        }
        broker.connections.fetch_sub(1, Ordering::AcqRel);
    });
}

fn converse(broker: &Broker, stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let credentials = socket_peercred(stream)?;
    let peer = Peer {
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        pid: credentials.pid.as_raw_nonzero().get(),
    };
    let refused = |why: &str, help: &str| {
        tracing::info!(target: "audit", uid = peer.uid, pid = peer.pid, outcome = format!("refused: {why}"), "no request");
        Answer::Refused { why: why.to_owned(), help: help.to_owned() }
    };
    let answer = match read_request(stream)? {
        Received::Line(line) => match serde_json::from_slice::<Request>(&line) {
            Ok(request) => broker.perform(peer, &request),
            Err(_) => refused(
                "what was sent is no request",
                "send one line of JSON, as crate zone-firewall-protocol has it",
            ),
        },
        Received::TooLong => {
            send(
                stream,
                &refused(&format!("the request is longer than {LONGEST} bytes"), "name fewer networks"),
            );
            return drain(stream);
        }
        Received::Late => {
            refused("no request came in time", "send one line of JSON within 5 s of connecting")
        }
        Received::Nothing => refused("the connection was closed without a request", "send one line of JSON"),
    };
    send(stream, &answer);
    Ok(())
}

enum Received {
    Line(Vec<u8>),
    TooLong,
    Late,
    Nothing,
}

/// One line, or what came before the end; all of it within the deadline, however slowly it trickles.
fn read_request(mut stream: &UnixStream) -> io::Result<Received> {
    let deadline = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Received::Late);
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut piece) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(Received::Late);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let new = piece.get(..count).unwrap_or_default();
        if let Some(end) = new.iter().position(|byte| *byte == b'\n') {
            line.extend_from_slice(&new[..end]);
            return Ok(if line.len() < LONGEST { Received::Line(line) } else { Received::TooLong });
        }
        line.extend_from_slice(new);
        if line.len() >= LONGEST {
            return Ok(Received::TooLong);
        }
        if count == 0 {
            return Ok(if line.is_empty() { Received::Nothing } else { Received::Line(line) });
        }
    }
}

/// Closing with bytes unread would take the answer away from the sender.
fn drain(mut stream: &UnixStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + DRAIN;
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

fn send(mut stream: &UnixStream, answer: &Answer) {
    let line = fitting(answer);
    if let Err(error) = stream.write_all(line.as_bytes()) {
        tracing::warn!("an answer was not taken: {error}");
    }
}

/// An answer as one line that is not longer than promised: lists are cut, and say so.
fn fitting(answer: &Answer) -> String {
    let line = |answer: &Answer| serde_json::to_string(answer).unwrap_or_default() + "\n";
    let whole = line(answer);
    if whole.len() <= LONGEST {
        return whole;
    }
    let mut cut = answer.clone();
    loop {
        match &mut cut {
            Answer::Done(lines) if lines.len() > 1 => {
                lines.truncate(lines.len() / 2);
                lines.push("... and more".to_owned());
                if lines.len() <= 2 {
                    lines.truncate(1);
                }
            }
            Answer::Verified(findings) if findings.len() > 1 => findings.truncate(findings.len() / 2),
            Answer::Plan(text) if text.len() > 64 => {
                let kept: String = text.chars().take(text.chars().count() / 2).collect();
                *text = format!("{}\n... and more", kept.trim_end_matches("\n... and more"));
            }
            _ => {
                return line(&Answer::Refused {
                    why: "the answer is too long for one line".to_owned(),
                    help: "run 'zone-firewall verify' as root".to_owned(),
                });
            }
        }
        let shorter = line(&cut);
        if shorter.len() <= LONGEST {
            return shorter;
        }
    }
}

impl Broker {
    fn perform(&self, peer: Peer, request: &Request) -> Answer {
        let unknown = People::default();
        let people = People::of_this_host().unwrap_or_else(|error| {
            tracing::error!("/etc/passwd or /etc/group can't be read, so only root may ask: {error}");
            unknown
        });
        let _one_at_a_time = self.work.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.set_since(Some(Instant::now()));
        let answer = request::answer(&self.host, peer, &people, request);
        self.set_since(None);
        answer
    }

    fn set_since(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = since;
    }

    fn is_stuck(&self) -> bool {
        let since = *self.since.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        since.is_some_and(|since| since.elapsed() > STUCK)
    }
}

fn notify(states: &[NotifyState<'_>]) {
    // Where nobody has asked to be notified this does nothing.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("systemd was not notified: {error}");
    }
}
