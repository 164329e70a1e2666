//! What the service manager is told, and what it keeps for the next control (sd_notify(3), systemd.service(5)).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};
use zone_service_manager::ServiceManager;

use crate::admin::{self, Question};
use crate::daemon::Daemon;

/// The descriptors in the manager's store: both ends of the lifeline.
const WRITER: &str = "lifeline";
const READER: &str = "lifeline-reader";
/// For a relay to serve before the daemon says that it is ready without one.
const RELAY: Duration = Duration::from_secs(15);
/// Between two status lines.
const STATUS: Duration = Duration::from_secs(10);
/// How often progress is proved in the time after which the watchdog bites.
const LOOKS: u32 = 3;

/// The pipe by which relays know of a real stop, see [`zone_channel::Configure::lifeline`]. The manager holds it
/// open from the first control to the stop of the service, over every restart in between.
#[derive(Debug)]
pub struct Lifeline {
    /// For relays.
    pub(crate) reader: OwnedFd,
    /// To be held by control, and by nobody else but the manager.
    pub(crate) writer: OwnedFd,
}

impl Lifeline {
    /// The one that the manager kept, or a new one that it is given to keep. `passed` is what it passed on.
    pub fn take(manager: &ServiceManager, passed: Vec<(String, OwnedFd)>) -> io::Result<Self> {
        let (mut reader, mut writer) = (None, None);
        for (name, descriptor) in passed {
            match name.as_str() {
                READER => reader = Some(descriptor),
                WRITER => writer = Some(descriptor),
                _ => tracing::warn!(name, "the service manager passed a descriptor that nobody here knows"),
            }
        }
        if let (Some(reader), Some(writer)) = (reader, writer) {
            return Ok(Self { reader, writer });
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        manager.keep(READER, &reader);
        manager.keep(WRITER, &writer);
        Ok(Self { reader, writer })
    }
}

/// Tells the manager when the daemon serves, what it does, and that it makes progress.
pub(crate) async fn report(daemon: Rc<Daemon>, manager: Rc<ServiceManager>) {
    if !manager.is_there() {
        return;
    }
    serving(&daemon).await;
    manager.status(&line(&daemon).await);
    manager.ready();
    let look = manager.watchdog().map_or(STATUS, |watchdog| (watchdog / LOOKS).min(STATUS));
    let socket = admin::socket(&daemon.config().runtime_dir);
    let mut told = Instant::now();
    loop {
        sleep(look).await;
        if manager.watchdog().is_some() {
            match timeout(look, answered(&socket)).await {
                Ok(Ok(())) => manager.alive(),
                Ok(Err(error)) => tracing::error!(%error, "the admin socket fails: the watchdog is not fed"),
                Err(_) => tracing::error!("the admin socket gives no answer: the watchdog is not fed"),
            }
        }
        if told.elapsed() >= STATUS {
            told = Instant::now();
            manager.status(&line(&daemon).await);
        }
    }
}

/// Waits until everything that should be served is, for a time: a port that is taken must not keep 17488 from
/// being reported.
async fn serving(daemon: &Daemon) {
    let mut news = daemon.supervisor.news();
    let all = async {
        while !daemon.supervisor.serves() {
            if news.changed().await.is_err() {
                return;
            }
        }
    };
    if timeout(RELAY, all).await.is_err() {
        tracing::warn!("no relay serves yet");
    }
}

/// Asks as any admin would. An end without an answer, beyond the limit of askers, is a sign of life too.
async fn answered(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    let question = serde_json::to_string(&Question::Alive)? + "\n";
    let asked = stream.write_all(question.as_bytes()).await;
    match stream.read(&mut [0; 64]).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => asked.and(Err(error)),
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
