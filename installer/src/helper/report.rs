//! What the helper tells whoever asked it.

use std::io::{self, Write as _};

use crate::protocol::{Failure, Message};

/// Tells whoever asked what is being done.
pub(super) fn progress(line: impl Into<String>) {
    say(&Message::Progress(line.into()));
}

/// Writes a message to standard output.
pub(super) fn say(message: &Message) {
    if let Ok(mut line) = serde_json::to_vec(message) {
        line.push(b'\n');
        // Whoever asked may be gone; the change goes on to its end.
        let _ = io::stdout().lock().write_all(&line).and_then(|()| io::stdout().flush());
    }
}

/// A failure before anything was changed.
#[allow(clippy::needless_pass_by_value, reason = "stands in map_err, which hands over the error")]
pub(super) fn untouched(why: impl ToString) -> Failure {
    Failure::untouched(why.to_string())
}
