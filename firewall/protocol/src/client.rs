//! Asking the broker.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::message::{Answer, MAX_LINE_BYTES, Request};

/// The time for the broker to start, to change the rules, to read them back and to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// There is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("the firewall broker does not answer at {path}: {source}")]
    Connect {
        /// The socket that it should listen on.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
    /// It went away, or took too long. Whether it acted is not known: ask again, which is harmless.
    #[error("the firewall broker broke off: {0}")]
    Broken(io::Error),
    /// What it said is no answer.
    #[error("the firewall broker answered something else: it is of another version")]
    NotAnAnswer,
}

/// Asks the broker that listens at this path, see [`ask_on`].
pub fn ask(socket: &Path, request: &Request) -> Result<Answer, AskError> {
    let connected = UnixStream::connect(socket);
    ask_on(connected.map_err(|source| AskError::Connect { path: socket.to_owned(), source })?, request)
}

/// Asks the broker at the other end of a connection, and waits for the answer, at most 20 s for each read and write. Blocks.
pub fn ask_on(stream: UnixStream, request: &Request) -> Result<Answer, AskError> {
    ask_within(stream, request, ANSWER_TIMEOUT)
}

/// The same as [`ask_on`] with another time for each read and write, which must not be zero.
pub fn ask_within(mut stream: UnixStream, request: &Request, timeout: Duration) -> Result<Answer, AskError> {
    stream.set_read_timeout(Some(timeout)).map_err(AskError::Broken)?;
    stream.set_write_timeout(Some(timeout)).map_err(AskError::Broken)?;
    let line = serde_json::to_string(request).map_err(|_| AskError::NotAnAnswer)? + "\n";
    let sent = stream.write_all(line.as_bytes()).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = String::new();
    let read = BufReader::new(stream.take(MAX_LINE_BYTES as u64)).read_line(&mut answer);
    // A broker that refuses whoever connects has answered and closed before the request could be written.
    if !answer.ends_with('\n') {
        sent.map_err(AskError::Broken)?;
        read.map_err(AskError::Broken)?;
    }
    if answer.is_empty() {
        return Err(AskError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    serde_json::from_str(&answer).map_err(|_| AskError::NotAnAnswer)
}
