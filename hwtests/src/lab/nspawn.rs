//! Hosts that boot: a Debian root under systemd-nspawn(1), in a network namespace made beforehand.
//!
//! nspawn can't start a machine again that asked for a reboot when it was given a namespace by path: it ends with
//! 133, and a thread of ours starts it again.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cleanup::Cgroup;
use super::command::{Cmd, Output, must, run};
use super::description::{Host, Nic};
use super::error::{Context, Error, Result};
use super::files::Overlay;
use super::netns::ENVIRONMENT;
use super::network::Namespace;
use super::process::{POLL_INTERVAL, Process};
use super::target::{Probe, Target};
use super::terminal::Terminal;

/// How long a root may take to boot.
pub(crate) const BOOT_TIMEOUT: Duration = Duration::from_secs(60);
/// nspawn's exit status where the machine asked for a reboot (systemd-nspawn(1), --keep-unit).
const REBOOT: i32 = 133;

/// A booted root.
pub(crate) struct Nspawn {
    host: Host,
    namespace: Arc<Namespace>,
    machine: Arc<Machine>,
    supervisor: Option<JoinHandle<()>>,
    dir: PathBuf,
    _cgroup: Cgroup,
    _files: Arc<Overlay>,
}

/// What the thread that keeps it running shares with its users.
struct Machine {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// nspawn itself, while it runs.
    nspawn: Option<Pid>,
    /// How often it was started.
    boots: u32,
    /// It is to end for good.
    stopping: bool,
    /// Why it ended.
    ended: Option<String>,
}

impl Nspawn {
    /// Boots it; [`Target::wait_booted`] says when it is up.
    pub(crate) fn boot(
        host: &Host,
        namespace: Arc<Namespace>,
        files: Arc<Overlay>,
        dir: &Path,
        machine_name: &str,
    ) -> Result<Self> {
        let root = files.path();
        let etc = root.join("etc");
        // With an id, it is no first boot: presets stay unapplied, and nobody is asked for a time zone.
        let id = machine_id(machine_name);
        let writes = [("machine-id", format!("{id}\n")), ("hostname", format!("{}\n", host.name))];
        for (name, text) in writes {
            fs::write(etc.join(name), text).during(|| format!("{}: can't write /etc/{name}", host.name))?;
        }
        if !host.enabled.is_empty() {
            let mut enable = Command::new("chroot");
            enable.arg(root).args(["systemctl", "--quiet", "enable"]).args(&host.enabled);
            super::command::succeed("systemctl enable", enable, b"", BOOT_TIMEOUT)?;
        }
        fs::create_dir_all(dir.join("log")).during(|| format!("can't make {}", dir.display()))?;
        let cgroup = Cgroup::make(machine_name)?;
        let machine = Arc::new(Machine { state: Mutex::default(), changed: Condvar::new() });
        let start = start(host, &namespace, &files, dir, machine_name, &cgroup);
        let supervisor = keep_running(&machine, start)?;
        Ok(Self {
            host: host.clone(),
            namespace,
            machine,
            supervisor: Some(supervisor),
            dir: dir.to_owned(),
            _cgroup: cgroup,
            _files: files,
        })
    }

    /// The machine's own process 1, as this machine numbers it.
    fn leader(&self) -> Result<Pid> {
        let state = self.machine.lock();
        if let Some(why) = &state.ended {
            return Err(Error::other(format!("host {} is down: {why}", self.host.name)));
        }
        state
            .nspawn
            .and_then(first_process_below)
            .ok_or_else(|| Error::other(format!("host {} is not up yet", self.host.name)))
    }

    fn command(&self, cmd: &Cmd) -> Result<Command> {
        let leader = self.leader()?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &leader.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]);
        command.args(["--", "env", "-i", "-C", "/root"]).args(ENVIRONMENT).args(cmd.words());
        Ok(command)
    }

    fn boots(&self) -> u32 {
        self.machine.lock().boots
    }

    /// Waits until the machine was started more often than `before`.
    fn wait_started_after(&self, before: u32, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        let mut state = self.machine.lock();
        while state.boots == before && state.ended.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Overdue { host: self.host.name.clone(), what: "a reboot".into(), limit });
            }
            state = self.machine.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

/// How nspawn is started, each time.
fn start(
    host: &Host,
    namespace: &Namespace,
    files: &Overlay,
    dir: &Path,
    machine_name: &str,
    cgroup: &Cgroup,
) -> impl Fn() -> Result<Child> + Send + 'static {
    let mut words: Vec<String> = [
        "--quiet",
        "--boot",
        "--register=no",
        "--keep-unit",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=pipe",
        // A real machine's root may do this; without a private network nspawn doesn't let it.
        "--capability=CAP_NET_ADMIN",
        // nor by itself this: what a service gives up by landlock.
        "--system-call-filter=landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    ]
    .map(str::to_owned)
    .to_vec();
    words.push(format!("--directory={}", files.path().display()));
    words.push(format!("--machine={machine_name}"));
    words.push(format!("--hostname={}", host.name));
    words.push(format!("--network-namespace-path={}", namespace.path().display()));
    words.extend(
        host.shared.iter().map(|(here, there)| format!("--bind-ro={}:{}", here.display(), there.display())),
    );
    let (console, name) = (dir.join("log/console"), host.name.clone());
    // A namespace outlives its machine, and its rules with it. On a real machine a boot begins without any.
    let forget = format!("nsenter --net='{}' nft flush ruleset || exit 1\n", namespace.path().display());
    let script = format!("{forget}{}exec systemd-nspawn \"$@\"", cgroup.enter_script());
    move || {
        let what = || format!("{name}: can't write {}", console.display());
        let log = File::options().create(true).append(true).open(&console).during(what)?;
        let errors = log.try_clone().during(what)?;
        let mut command = Command::new("sh");
        command.args(["-c", &script, "sh"]).args(&words);
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        command.spawn().map_err(|source| Error::Start {
            host: name.clone(),
            command: "systemd-nspawn".to_owned(),
            source,
        })
    }
}

/// Starts the machine, and a thread that starts it again after each reboot.
fn keep_running(
    machine: &Arc<Machine>,
    start: impl Fn() -> Result<Child> + Send + 'static,
) -> Result<JoinHandle<()>> {
    let note = |machine: &Machine, child: &Child| {
        let pid = Pid::from_raw(child.id().cast_signed());
        machine.change(|state| {
            state.nspawn = Some(pid);
            state.boots += 1;
        });
    };
    let mut child = start()?;
    note(machine, &child);
    let machine = Arc::clone(machine);
    Ok(thread::spawn(move || {
        loop {
            let status = child.wait();
            let code = status.as_ref().ok().and_then(std::process::ExitStatus::code);
            machine.change(|state| state.nspawn = None);
            let again = code == Some(REBOOT) && !machine.lock().stopping;
            let why = match again.then(&start) {
                Some(Ok(new)) => {
                    child = new;
                    note(&machine, &child);
                    continue;
                }
                Some(Err(error)) => error.to_string(),
                None => format!("nspawn ended with {status:?}"),
            };
            machine.change(|state| state.ended = Some(why));
            return;
        }
    }))
}

impl Target for Nspawn {
    fn name(&self) -> &str {
        &self.host.name
    }

    fn nics(&self) -> &[Nic] {
        &self.host.nics
    }

    fn dir(&self) -> PathBuf {
        "/root".into()
    }

    fn run(&self, cmd: &Cmd) -> Result<Output> {
        run(self.name(), &cmd.to_string(), self.command(cmd)?, &cmd.input, cmd.limit)
    }

    fn spawn(&self, name: &str, cmd: &Cmd) -> Result<Process> {
        Process::start(self.name(), name, self.command(cmd)?, &self.dir.join(format!("log/{name}")))
    }

    fn terminal(&self, cmd: &Cmd) -> Result<Terminal> {
        Terminal::start(self.name(), &self.command(cmd)?)
    }

    fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let script = "mkdir -p \"$(dirname \"$1\")\" && cat > \"$1\" && chmod \"$2\" \"$1\"";
        let cmd = Cmd::new("sh").args(["-c", script, "sh", path, &format!("{mode:o}")]).input(bytes);
        must(self.name(), &format!("write {path}"), self.run(&cmd)?).map(|_| ())
    }

    fn get(&self, path: &str) -> Result<Vec<u8>> {
        let path_seen = Path::new("/proc").join(self.leader()?.to_string()).join("root");
        let path_seen = super::files::inside(&path_seen, path);
        fs::read(path_seen).during(|| format!("{}: can't read {path}", self.name()))
    }

    fn reboot(&self) -> Result<()> {
        let before = self.boots();
        // The command may not live to see its own end.
        let _ = self.run(&Cmd::new("systemctl").arg("reboot"))?;
        self.wait_started_after(before, BOOT_TIMEOUT)?;
        self.wait_booted(BOOT_TIMEOUT).map(|_| ())
    }

    fn wait_booted(&self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        let question = Cmd::new("systemctl").args(["is-system-running", "--wait"]).limit(limit);
        loop {
            // Before systemd answers there is nothing else to wait for.
            let answer = self.leader().and_then(|_| self.run(&question)).map(|output| output.stdout);
            match answer.as_deref().map(str::trim) {
                Ok(state @ ("running" | "degraded")) => return Ok(state.to_owned()),
                _ if self.machine.lock().ended.is_some() => {
                    let console = fs::read_to_string(self.dir.join("log/console")).unwrap_or_default();
                    let last = console.lines().last().unwrap_or_default().to_owned();
                    return Err(Error::other(format!("host {} did not boot: {last}", self.host.name)));
                }
                _ if Instant::now() > deadline => {
                    let what = "booting".to_owned();
                    return Err(Error::Overdue { host: self.host.name.clone(), what, limit });
                }
                _ => thread::sleep(POLL_INTERVAL),
            }
        }
    }

    fn probe(&self, to: SocketAddr, limit: Duration) -> Probe {
        self.namespace.probe(to, limit)
    }
}

impl Drop for Nspawn {
    fn drop(&mut self) {
        let nspawn = {
            let mut state = self.machine.lock();
            state.stopping = true;
            state.nspawn
        };
        if let Some(nspawn) = nspawn {
            // The end of its process 1 is the machine's end, whatever runs in it.
            let _ = kill(first_process_below(nspawn).unwrap_or(nspawn), Signal::SIGKILL);
        }
        if let Some(supervisor) = self.supervisor.take() {
            let _ = supervisor.join();
        }
    }
}

/// The child of `parent` that is process 1 of its namespace (`NSpid` in proc_pid_status(5)).
fn first_process_below(parent: Pid) -> Option<Pid> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let is_child = field("PPid:")?.trim() == parent.to_string();
        let is_first = field("NSpid:")?.split_whitespace().last()? == "1";
        (is_child && is_first).then(|| Pid::from_raw(pid))
    })
}

/// A machine id (machine-id(5)): 32 hexadecimal digits, the same for the same name.
fn machine_id(name: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(name).iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
