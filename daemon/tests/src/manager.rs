//! A service manager for one proxy, as far as the daemon has to do with one: it takes notifications and keeps
//! descriptors (sd_notify(3)), hands them on (sd_listen_fds(3)), and starts a relay for every connection to a
//! socket (systemd.socket(5), `Accept=yes`). The real one is exercised in the lab.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tempfile::TempDir;

use crate::{USER, as_user, program_for_others, until};

/// See the module. Dropped, it ends the relays that it started.
#[derive(Debug)]
pub struct Manager {
    folder: TempDir,
    received: Arc<Mutex<Received>>,
    relays: Arc<Mutex<Vec<Child>>>,
}

#[derive(Debug, Default)]
struct Received {
    messages: Vec<String>,
    store: Vec<(String, OwnedFd)>,
}

impl Manager {
    /// Listens at its sockets, and starts relays as the daemon's user.
    pub fn start() -> Self {
        Self::start_relays_as(USER)
    }

    /// The same with relays of another user, whom the daemon may not signal.
    pub fn start_relays_as(user: &'static str) -> Self {
        Self::start_programs(user, None, "")
    }

    /// The same with another program in the relay's place, which the daemon's user can start.
    pub fn start_in_place_of_relays(program: &Path) -> Self {
        Self::start_programs(USER, Some(program), "")
    }

    /// The same with relays of this program, which the daemon's user can start, told where to panic
    /// (see [`zone_watchdog::fault`]).
    pub fn start_of(relay: &Path, fault: &str) -> Self {
        Self::start_programs(USER, Some(relay), fault)
    }

    fn start_programs(user: &'static str, in_place: Option<&Path>, fault: &str) -> Self {
        let folder = crate::folder();
        let relay = program_for_others("zone-relay", folder.path());
        let program = in_place.map_or_else(|| relay.clone(), Path::to_owned);
        let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666));
        let notify = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        open(&folder.path().join("notify")).expect("our socket");
        let received = Arc::<Mutex<Received>>::default();
        thread::spawn({
            let received = Arc::clone(&received);
            move || take_messages(&notify, &received)
        });
        let relays = Arc::<Mutex<Vec<Child>>>::default();
        let sockets = [("relay.sock", program, &[][..]), ("relay-end.sock", relay, &["end"][..])];
        for (socket, program, arguments) in sockets {
            let listener = UnixListener::bind(folder.path().join(socket)).expect("a socket");
            open(&folder.path().join(socket)).expect("our socket");
            let (relays, folder) = (Arc::clone(&relays), folder.path().to_owned());
            let fault = fault.to_owned();
            thread::spawn(move || {
                while let Ok((channel, _)) = listener.accept() {
                    let mut relay = Command::new(&program);
                    relay
                        .args(arguments)
                        .stdin(Stdio::from(OwnedFd::from(channel)))
                        .stdout(Stdio::null())
                        .stderr(Stdio::inherit());
                    relay.env("NOTIFY_SOCKET", folder.join("notify")).env("WATCHDOG_USEC", "400000");
                    relay.env(zone_watchdog::fault::VARIABLE, &fault);
                    let started = as_user(&mut relay, user).spawn().expect("a relay");
                    locked(&relays).push(started);
                }
            });
        }
        Self { folder, received, relays }
    }

    /// The line of the configuration that has relays started here.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("relay.sock")
    }

    /// Has a daemon run under this manager: with what it kept for it, and a watchdog that bites after so long.
    pub fn adopt<'a>(&self, command: &'a mut Command, watchdog: &str) -> &'a mut Command {
        let received = locked(&self.received);
        let names: Vec<_> = received.store.iter().map(|(name, _)| name.as_str()).collect();
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        // Descriptors from 3 on, and the number of the very process, take a shell; it opens the kept pipes once more.
        let mut script = String::new();
        for (number, (name, kept)) in received.store.iter().enumerate() {
            let direction = if name.ends_with("reader") { "<" } else { ">" };
            let path = format!("/proc/{}/fd/{}", std::process::id(), kept.as_raw_fd());
            script.extend(["exec ", &(number + 3).to_string(), direction, &path, "; "]);
        }
        script.push_str("LISTEN_PID=$$ exec \"$0\" \"$@\"");
        *command = Command::new("bash");
        command.args(["-c", &script]).arg(program).args(arguments);
        command.env("LISTEN_FDS", received.store.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        command.env("NOTIFY_SOCKET", self.folder.path().join("notify")).env("WATCHDOG_USEC", watchdog)
    }

    /// Closes what it keeps, as a manager does when the service is stopped and not started again.
    pub fn stop(&self) {
        locked(&self.received).store.clear();
    }

    /// How many messages with this line came so far.
    pub fn count(&self, line: &str) -> usize {
        locked(&self.received)
            .messages
            .iter()
            .filter(|message| message.lines().any(|own| own.starts_with(line)))
            .count()
    }

    /// The names of what it keeps.
    pub fn kept(&self) -> Vec<String> {
        locked(&self.received).store.iter().map(|(name, _)| name.clone()).collect()
    }

    /// Waits until one more message with this line has come.
    pub fn hears(&self, line: &str) {
        let before = self.count(line);
        until(&format!("the manager hears {line}"), || self.count(line) > before);
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        for relay in locked(&self.relays).iter_mut() {
            let _ = relay.kill();
            let _ = relay.wait();
        }
    }
}

fn take_messages(socket: &UnixDatagram, received: &Mutex<Received>) {
    let mut bytes = [0; 4096];
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut pieces = [IoSliceMut::new(&mut bytes)];
        let Ok(message) = recvmsg(socket, &mut pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC) else {
            return;
        };
        let mut passed = Vec::new();
        for control in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = control {
                passed.extend(descriptors);
            }
        }
        let text = String::from_utf8_lossy(&bytes[..message.bytes]).into_owned();
        let mut received = locked(received);
        if text.contains("FDSTORE=1") {
            let name =
                text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap_or("stored").to_owned();
            received.store.extend(passed.into_iter().map(|descriptor| (name.clone(), descriptor)));
        }
        received.messages.push(text);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics here")
}
