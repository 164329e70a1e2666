//! The audit: who did what through the helper, and how it ended. Lines go to the system's log (`/dev/log`), under the
//! name `zone-installer-helper` and facility authpriv, where zone-admin can't reach them.

use std::os::unix::net::UnixDatagram;

use super::report::progress;
use crate::protocol::{Failure, HostState, Reply, Request};

/// Facility authpriv, severity notice (RFC 5424, 6.2.1).
const PRIORITY: u8 = 10 * 8 + 5;
/// The longest line, characters.
const MAX_LINE_CHARS: usize = 1000;

/// An act that is being audited.
pub(super) struct Audit {
    actor: String,
    act: String,
}

impl Audit {
    /// For requests that are audited.
    pub(super) fn of(request: &Request) -> Option<Self> {
        if !request.audited() {
            return None;
        }
        // sudo sets these for what it starts; the login uid is the kernel's.
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = variable("SUDO_USER").unwrap_or_else(|| "root".to_owned());
        let uid = variable("SUDO_UID").unwrap_or_else(|| "0".to_owned());
        let login = std::fs::read_to_string("/proc/self/loginuid").unwrap_or_default();
        let act = serde_json::to_string(request).unwrap_or_else(|_| request.verb().to_owned());
        Some(Self { actor: format!("user={user} uid={uid} login_uid={}", login.trim()), act })
    }

    /// Writes that it begins.
    pub(super) fn begin(&self) {
        self.write("begin");
    }

    /// Writes how it ended.
    pub(super) fn outcome(&self, outcome: &Result<Reply, Failure>) {
        self.write(&match outcome {
            Ok(_) => "done".to_owned(),
            Err(failure) => {
                let host = match failure.host {
                    HostState::Untouched => "untouched",
                    HostState::Undone => "undone",
                    HostState::Left(_) => "not-undone",
                };
                format!("failed host={host} why={:?}", failure.why)
            }
        });
    }

    fn write(&self, outcome: &str) {
        let line = format!("audit {} act={} outcome={outcome}", self.actor, self.act);
        let plain: String =
            line.chars().map(|c| if c.is_control() { '?' } else { c }).take(MAX_LINE_CHARS).collect();
        let record = format!("<{PRIORITY}>zone-installer-helper[{}]: {plain}", std::process::id());
        let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(record.as_bytes(), "/dev/log"));
        if sent.is_err() {
            progress("the audit line could not be written: /dev/log does not answer");
        }
    }
}
