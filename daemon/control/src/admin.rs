//! The admin socket: what the commands on the proxy's own host are answered from.
//!
//! One line of JSON is asked, one is answered. Only root and the daemon's own user may ask, and the kernel says
//! who they are (`SO_PEERCRED`).

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use zone_log_budget::within_budget;
use zone_protocol::ports;
use zone_protocol::provisioning::Payload;
use zone_watchdog::Heartbeat;

use crate::daemon::Daemon;
use crate::host;
use crate::status::Report;
use crate::transaction::{Actor, ChangeError};

/// The longest line that is read.
pub(crate) const MAX_LINE_BYTES: u64 = 64 * 1024;
/// For a question to arrive, and for its answer to be taken.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most connections at the same time.
const MAX_CONNECTIONS: usize = 8;
/// After an error of accept(2).
const ACCEPT_DELAY: Duration = Duration::from_millis(100);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Question {
    /// The payload with the outstanding token.
    Payload,
    /// A new token.
    NewToken,
    /// How the proxy is.
    Status,
    /// Leave the zone.
    Reset,
    /// Read the configuration file again.
    Reload,
}

/// The answer to a [`Question`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// The payload.
    Payload(Payload),
    /// The report.
    Status(Box<Report>),
    /// It was done.
    Done,
    /// It was not done; one line for a person.
    Error(String),
}

/// Where the socket is.
pub(crate) fn socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("admin.sock")
}

/// Makes the socket. The caller holds the lock of the state directory, so an older one is nobody's.
pub(crate) fn listen(runtime_dir: &Path) -> io::Result<UnixListener> {
    let path = socket(runtime_dir);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&path)?;
    fs::set_permissions(&path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers for as long as the daemon lives.
pub(crate) async fn serve(daemon: Rc<Daemon>, listener: UnixListener, mut heartbeat: Heartbeat) {
    let permits = Rc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = heartbeat.answer() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the admin socket can't accept for a moment");
                sleep(ACCEPT_DELAY).await;
                continue;
            }
        };
        let (daemon, permits) = (Rc::clone(&daemon), Rc::clone(&permits));
        spawn_local(async move {
            // Beyond the limit nobody waits: the connection is closed unanswered.
            let Ok(_permit) = permits.try_acquire() else { return };
            if let Err(error) = exchange(&daemon, stream).await {
                within_budget!(
                    daemon.log_budget,
                    "admin",
                    warn!(%error, "a connection to the admin socket failed")
                );
            }
        });
    }
}

/// One question and its answer.
async fn exchange(daemon: &Rc<Daemon>, stream: UnixStream) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(io::Error::other(format!("user {uid} may not ask")));
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    timeout(EXCHANGE_TIMEOUT, BufReader::new(reader.take(MAX_LINE_BYTES)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(question) => answer(daemon, question, uid).await,
        Err(error) => Answer::Error(format!("this is no question: {error}")),
    };
    let mut line = serde_json::to_string(&answer)?;
    line.push('\n');
    timeout(EXCHANGE_TIMEOUT, writer.write_all(line.as_bytes())).await?
}

async fn answer(daemon: &Rc<Daemon>, question: Question, uid: u32) -> Answer {
    let actor = Actor::new(format!("user {uid} of this host"), "admin socket");
    let done = match question {
        Question::Payload => return payload(daemon).map_or_else(Answer::Error, Answer::Payload),
        Question::Status => return Answer::Status(Box::new(daemon.report().await)),
        Question::Reload => {
            return daemon
                .reload()
                .await
                .map_or_else(|errors| Answer::Error(errors.to_string()), |()| Answer::Done);
        }
        Question::NewToken => daemon.new_token(actor).await,
        Question::Reset => daemon.unprovision(actor).await,
    };
    done.map_or_else(|error| Answer::Error(line(&error)), |()| Answer::Done)
}

fn payload(daemon: &Daemon) -> Result<Payload, String> {
    let state = daemon.state();
    let Some(issued) = &state.token else {
        return Err(
            "already provisioned; `zone-proxy token new` makes a token for re-provisioning".to_owned()
        );
    };
    if issued.remaining(&daemon.time).is_none() {
        return Err("the token has expired; `zone-proxy token new` makes another one".to_owned());
    }
    Ok(Payload {
        version: 1,
        host: host::name(),
        addresses: daemon.config().control.listen.clone(),
        port: ports::CONTROL,
        token: issued.token.clone(),
        expires_at: issued.expires_at(&daemon.time),
    })
}

/// One line for a person: what is wrong, at which step, and what to do.
fn line(error: &ChangeError) -> String {
    let step = error.step().map(|step| format!(" (step: {}; everything was undone)", step.as_str()));
    let detail = error.detail().map(|detail| format!(": {detail}"));
    let help = error.help().map(|help| format!("; {help}"));
    [Some(error.title().to_owned()), step, detail, help].into_iter().flatten().collect()
}
