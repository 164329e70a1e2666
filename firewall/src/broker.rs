//! The broker: the one process that may touch the firewall, and does so only within root's ceiling.
//!
//! systemd starts it for a connection to its socket and gives it CAP_NET_ADMIN and nothing else. One connection carries
//! one request; it ends itself when nobody has asked for a while, unless there are ports whose rules it watches.

mod answer;
mod connection_limit;
mod lingering;
mod watch;
mod work;

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::socket_peercred;
use zone_firewall_protocol::{Answer, MAX_LINE_BYTES, Request, RequestError, parse_request};
use zone_log_budget::{LogBudget, within_budget};
use zone_service_manager::ServiceManager;

use crate::access::{Accounts, Peer};
use crate::config;
use crate::host::Host;
use connection_limit::ConnectionLimit;
use lingering::Lingering;
use watch::Watch;
pub(crate) use watch::{Change, FollowError, follow};
use work::Work;

/// The time for a request to arrive, and for an answer to be taken.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for the rest of what is no request, so that its sender can read why it was refused.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the main loop looks up at least; more often where the watchdog or the idle time asks for it.
const LOOP_INTERVAL: Duration = Duration::from_secs(5);
/// The pause after a connection that could not be taken.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The broker does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BrokerError {
    /// There is no socket to listen on.
    #[error("{path}: can't listen: {source}")]
    Socket {
        /// The socket that could not be made.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
    /// Waiting for connections failed.
    #[error("waiting for connections failed: {0}")]
    Wait(io::Error),
    /// The watch can't begin.
    #[error("the rules can't be watched: {0}")]
    Watch(io::Error),
    /// The watch has ended, which it does not do by itself.
    #[error("what watches the rules has died")]
    WatchEnded,
}

struct Broker {
    /// The host, which requests and the watch work on one after the other.
    work: Arc<Work>,
    watch: Watch,
    /// The connections that are open.
    connections: Arc<ConnectionLimit>,
    /// For lines about those who may ask for nothing, and about what is no request.
    log: LogBudget,
}

/// Serves until nobody has asked for `broker.idle` seconds and there is nothing to watch. The socket comes from systemd (`LISTEN_FDS`, sd_listen_fds(3));
/// started by hand it is made at `path`.
pub(crate) fn serve(host: Host, path: &Path) -> Result<(), BrokerError> {
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
    let work = Arc::new(Work::on(host));
    let broker = Arc::new(Broker {
        watch: Watch::start(Arc::clone(&work)).map_err(BrokerError::Watch)?,
        work,
        connections: Arc::default(),
        log: LogBudget::default(),
    });
    let manager = ServiceManager::from_environment().unwrap_or_else(|error| {
        tracing::warn!("systemd can't be notified, NOTIFY_SOCKET is of no use: {error}");
        ServiceManager::default()
    });
    manager.status("waiting for a request");
    manager.ready();
    let interval =
        manager.watchdog().map_or(LOOP_INTERVAL, |interval| interval / 3).min(LOOP_INTERVAL).min(idle);
    let mut last_use = Instant::now();
    let mut lingering = Lingering::default();
    loop {
        if wait(&listener, interval)? {
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Some(refused) = admit(&broker, stream, settings.connections) {
                        lingering.keep(refused, Instant::now());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    tracing::warn!("a connection was lost: {error}");
                    thread::sleep(ACCEPT_RETRY_DELAY);
                }
            }
            last_use = Instant::now();
        }
        lingering.close_old(Instant::now());
        if !broker.work.is_stuck() {
            manager.alive();
        }
        if broker.watch.has_ended() {
            return Err(BrokerError::WatchEnded);
        }
        if broker.connections.open() > 0 || broker.watch.is_on() {
            last_use = Instant::now();
        } else if last_use.elapsed() >= idle {
            break;
        }
    }
    manager.stopping();
    if made.is_some() && made == identity(path) {
        // The next one that is started by hand removes it otherwise.
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// The socket, and which file it is where it was made here.
fn listener(path: &Path) -> Result<(UnixListener, Option<(u64, u64)>), BrokerError> {
    if let Some((_, handed)) = zone_sys::listen_fds().into_iter().next() {
        return Ok((UnixListener::from(handed), None));
    }
    let failed = |source| BrokerError::Socket { path: path.to_owned(), source };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    // Everybody may connect: who may ask is decided by SO_PEERCRED, so that a stranger gets an answer and a line of audit.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666)).map_err(failed)?;
    Ok((listener, identity(path)))
}

/// Tells a file from one that another broker has put in its place.
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).ok().map(|about| (about.dev(), about.ino()))
}

/// Whether somebody connects within the time.
fn wait(listener: &UnixListener, timeout: Duration) -> Result<bool, BrokerError> {
    let mut fds = [PollFd::new(listener, PollFlags::IN)];
    let timeout = rustix::time::Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(1),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(BrokerError::Wait(error.into())),
    }
}

/// Serves a connection in a thread of its own, or refuses it where its user has as many as root's file allows: then it is
/// returned, with its answer written.
fn admit(broker: &Arc<Broker>, stream: UnixStream, max: usize) -> Option<UnixStream> {
    let peer = match peer(&stream) {
        Ok(peer) => peer,
        Err(error) => {
            tracing::warn!("a connection was lost: the kernel does not say whose it is: {error}");
            return None;
        }
    };
    let Some(permit) = broker.connections.admit(peer, &accounts(), max) else {
        let why = format!("the broker already serves {max} connections of yours (broker.connections)");
        let _ = stream.set_nonblocking(true);
        // Whoever has no more connections may as well not read why.
        let _ = send(&stream, &Answer::Refused { why, help: "try again in a moment".to_owned() });
        return Some(stream);
    };
    let broker = Arc::clone(broker);
    let serve = move || {
        let _permit = permit;
        if let Err(error) = serve_connection(&broker, peer, &stream) {
            within_budget!(broker.log, "broke_off", warn!(uid = peer.uid, "a connection broke off: {error}"));
        }
    };
    if let Err(error) = thread::Builder::new().name("connection".to_owned()).spawn(serve) {
        tracing::error!(
            "a connection is closed unanswered, for it gets no thread (TasksMax=, ulimit -u): {error}"
        );
    }
    None
}

/// Who connected, as the kernel says.
fn peer(stream: &UnixStream) -> io::Result<Peer> {
    let credentials = socket_peercred(stream)?;
    Ok(Peer {
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
        pid: credentials.pid.as_raw_nonzero().get(),
    })
}

/// The users of this host; where they can't be read, nobody but root may ask.
fn accounts() -> Accounts {
    Accounts::of_this_host().unwrap_or_else(|error| {
        tracing::error!("/etc/passwd or /etc/group can't be read, so only root may ask: {error}");
        Accounts::default()
    })
}

/// One request and its answer.
fn serve_connection(broker: &Broker, peer: Peer, stream: &UnixStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(REQUEST_TIMEOUT))?;
    let refused = |why: &str, help: &str| {
        let outcome = format!("refused: {why}");
        within_budget!(
            broker.log,
            "no_request",
            info!(target: "audit", uid = peer.uid, pid = peer.pid, outcome, "no request")
        );
        Answer::Refused { why: why.to_owned(), help: help.to_owned() }
    };
    let Some(received) = receive(stream)? else {
        let why = "no request came in time";
        return send(stream, &refused(why, "send one line of JSON within 5 s of connecting"));
    };
    match parse_request(&received) {
        Ok(request) => send(stream, &broker.perform(peer, stream, &request))?,
        Err(error) => {
            let help = match error {
                RequestError::NotARequest => "send one line of JSON, as crate zone-firewall-protocol has it",
                RequestError::TooLong => "name fewer networks",
                RequestError::Empty => "send one line of JSON",
            };
            send(stream, &refused(&error.to_string(), help))?;
            return drain(stream);
        }
    }
    Ok(())
}

/// What was sent: all of it, or as much as [`parse_request`] looks at. `None` where that does not come within the
/// deadline, however slowly it trickles.
fn receive(mut stream: &UnixStream) -> io::Result<Option<Vec<u8>>> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        let count = match stream.read(&mut piece) {
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let new = piece.get(..count).unwrap_or_default();
        received.extend_from_slice(new);
        if count == 0 || new.contains(&b'\n') || received.len() >= MAX_LINE_BYTES {
            return Ok(Some(received));
        }
    }
}

/// Whether the other side has closed the connection for good: it may have shut down its sending side alone.
fn has_left(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0) && fds[0].revents().contains(PollFlags::HUP)
}

/// Closing with bytes unread would take the answer away from the sender.
fn drain(mut stream: &UnixStream) -> io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    let deadline = Instant::now() + DRAIN_TIMEOUT;
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

fn send(mut stream: &UnixStream, answer: &Answer) -> io::Result<()> {
    stream.write_all(fitting(answer).as_bytes())
}

/// An answer as one line that is not longer than promised: lists are cut, and say so.
fn fitting(answer: &Answer) -> String {
    let line = |answer: &Answer| serde_json::to_string(answer).unwrap_or_default() + "\n";
    let whole = line(answer);
    if whole.len() <= MAX_LINE_BYTES {
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
                    help: "ask zone-firewall as root".to_owned(),
                });
            }
        }
        let shorter = line(&cut);
        if shorter.len() <= MAX_LINE_BYTES {
            return shorter;
        }
    }
}

impl Broker {
    /// Answers a request, once nobody else works on the rules where it is about these.
    fn perform(&self, peer: Peer, stream: &UnixStream, request: &Request) -> Answer {
        let accounts = accounts();
        let _turn = (*request != Request::Watch).then(|| self.work.turn());
        if has_left(stream) {
            // Whoever gave it up may have asked for something newer since, which this would undo.
            let why = "whoever asked has left before it was carried out";
            let outcome = format!("refused: {why}");
            within_budget!(
                self.log,
                "dropped",
                info!(target: "audit", uid = peer.uid, pid = peer.pid, outcome, "a request was dropped")
            );
            return Answer::Refused { why: why.to_owned(), help: "ask again".to_owned() };
        }
        let asked = (peer, &accounts, request);
        let answer = answer::answer(&self.work.host, &self.watch, asked, &self.log);
        if matches!((request, &answer), (Request::SetRelayPorts(_), Answer::Done(_))) {
            self.watch.ports_were_set();
        }
        answer
    }
}
