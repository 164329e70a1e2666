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

use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use zone_protocol::ports;
use zone_protocol::provisioning::Payload;

use crate::daemon::{Daemon, StartError};
use crate::status::{self, Report};
use crate::transaction::Actor;

/// The longest line that is read, bytes.
pub const LONGEST_LINE: u64 = 64 * 1024;
/// For a question to arrive, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Connections at the same time.
const MOST: usize = 8;
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Question {
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
    /// A sign of life.
    Alive,
}

/// What is answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
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
pub fn socket(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("admin.sock")
}

/// Makes the socket. The caller holds the lock of the state directory, so an older one is nobody's.
pub fn listen(runtime_dir: &Path) -> Result<UnixListener, StartError> {
    let path = socket(runtime_dir);
    let listen = || -> io::Result<UnixListener> {
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    listen().map_err(|source| StartError::Runtime { path: path.clone(), source })
}

/// Answers for as long as the daemon lives.
pub async fn serve(daemon: Rc<Daemon>, listener: UnixListener) {
    let places = Rc::new(Semaphore::new(MOST));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "the admin socket can't accept for a moment");
                sleep(AFTER_ERROR).await;
                continue;
            }
        };
        let (daemon, places) = (Rc::clone(&daemon), Rc::clone(&places));
        spawn_local(async move {
            // Beyond the limit nobody waits: the connection is closed unanswered.
            let Ok(_place) = places.try_acquire() else { return };
            if let Err(error) = converse(&daemon, stream).await {
                tracing::warn!(%error, "a connection to the admin socket failed");
            }
        });
    }
}

async fn converse(daemon: &Rc<Daemon>, stream: UnixStream) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != 0 && uid != geteuid().as_raw() {
        return Err(io::Error::other(format!("user {uid} may not ask")));
    }
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    timeout(PATIENCE, BufReader::new(reader.take(LONGEST_LINE)).read_line(&mut line)).await??;
    let answer = match serde_json::from_str(&line) {
        Ok(question) => answer(daemon, question, uid).await,
        Err(error) => Answer::Error(format!("this is no question: {error}")),
    };
    let mut line = serde_json::to_string(&answer)?;
    line.push('\n');
    timeout(PATIENCE, writer.write_all(line.as_bytes())).await?
}

async fn answer(daemon: &Rc<Daemon>, question: Question, uid: u32) -> Answer {
    let actor = Actor::new(format!("user {uid} of this host"), "admin socket");
    let done = match question {
        Question::Payload => return payload(daemon).map_or_else(Answer::Error, Answer::Payload),
        Question::Status => return Answer::Status(Box::new(daemon.report().await)),
        Question::Alive => return Answer::Done,
        Question::Reload => {
            return daemon
                .reload()
                .await
                .map_or_else(|errors| Answer::Error(errors.to_string()), |()| Answer::Done);
        }
        Question::NewToken => daemon.new_token(actor).await,
        Question::Reset => daemon.unprovision(actor).await,
    };
    done.map_or_else(|problem| Answer::Error(problem.to_string()), |()| Answer::Done)
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
        host: status::host(),
        addresses: daemon.config().control.listen.clone(),
        port: ports::CONTROL,
        token: issued.token.clone(),
        expires_at: issued.expires_at(&daemon.time),
    })
}
