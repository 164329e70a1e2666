//! Leaving nothing behind.
//!
//! All of the lab is made by a worker in mount, process, network, IPC and UTS namespaces of its own, with a tmpfs
//! of its own on /run: namespaces by name, mounts, machines, rules and processes exist in there only, and the kernel
//! takes them down with the worker's first process, which dies with its starter (`PR_SET_PDEATHSIG`, prctl(2)).
//! Control groups alone are the machine's. They carry the starter's process id; a janitor outlives the starter to remove
//! them, and each run removes those whose starter is gone.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use nix::mount::{MsFlags, mount};

use super::error::{Context, Result};

/// What everything of ours that has a name on this machine begins with.
pub const PREFIX: &str = "zlab-";
/// Where a worker keeps its files. In memory, and gone with it.
pub(crate) const RUN_DIR: &str = "/run/zlab";
/// Where the worker shows the programs to every user of this machine, for hosts that have files of their own.
pub const PROGRAMS: &str = "/run/zlab/programs";
/// Names the worker's control groups.
const STARTER: &str = "ZONE_LAB_STARTER";
/// The worker's memory for files that hosts write, at most.
const MEMORY: &str = "6g";

/// Becomes the worker's first process: mounts, and then waits for the worker, which needs somebody to take in the
/// processes that lose their parent.
const FIRST: &str = r#"
mount -t tmpfs -o mode=755,size=$1 tmpfs /run || exit 125
mkdir -p /run/netns /run/systemd/nspawn /run/zlab /run/lock /run/sshd || exit 125
ip link set lo up || exit 125
shift
"$@" &
wait $!
"#;

/// Waits for the end of the lab's starter, however it ends, and then removes the control groups that it left, as soon
/// as the last process in them is gone.
const JANITOR: &str = r#"
read -r _
for _ in 1 2 3 4 5 6 7 8 9 10; do
    found=$(find /sys/fs/cgroup -maxdepth 2 -type d -name "$1" 2>/dev/null)
    [ -n "$found" ] || exit 0
    find $found -depth -type d -exec rmdir {} \; 2>/dev/null
    sleep 0.5
done
"#;

/// Runs this program again with `args` as the worker, and waits for it.
pub fn run_worker(args: &[OsString]) -> Result<ExitStatus> {
    sweep();
    // In a session of its own, where no Ctrl-C finds it.
    let mut janitor = Command::new("setsid");
    janitor.args(["sh", "-c", JANITOR, "sh"]).arg(format!("{PREFIX}{}", std::process::id()));
    janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // This process alone holds the other end of its input.
    let _janitor = janitor.spawn().during(|| "can't start setsid".to_owned())?;
    let program = std::env::current_exe().during(|| "can't find this program".to_owned())?;
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare"]);
    command.args(["--mount", "--pid", "--net", "--ipc", "--uts", "--propagation", "private"]);
    command.args(["--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", FIRST, "sh", MEMORY]).arg(program).args(args);
    command.env(STARTER, std::process::id().to_string());
    // Ctrl-C at a terminal goes to this process alone, and the kernel ends the rest.
    command.process_group(0);
    let status =
        command.status().during(|| "can't start the lab's worker with setpriv and unshare".to_owned());
    sweep();
    status
}

/// Shows a directory under a name in the worker's own place. One that isn't there is shown empty.
pub(crate) fn show(dir: &Path, name: &str) -> Result<PathBuf> {
    let shown = Path::new(RUN_DIR).join(name);
    fs::create_dir_all(&shown).during(|| format!("can't make {}", shown.display()))?;
    if dir.is_dir() {
        mount(Some(dir), &shown, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .during(|| format!("can't show {} as {}", dir.display(), shown.display()))?;
    }
    Ok(shown)
}

/// Where control groups can be made: one place on a unified hierarchy, two where systemd's is apart.
fn hierarchies() -> impl Iterator<Item = PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]
        .into_iter()
        .map(PathBuf::from)
        .filter(|path| path.join("cgroup.procs").is_file())
}

/// Removes the control groups of runs that are over, this process' own included if nothing is in them.
fn sweep() {
    for hierarchy in hierarchies() {
        let Ok(entries) = fs::read_dir(&hierarchy) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(starter) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
            let mine = starter == std::process::id().to_string();
            if mine || !Path::new("/proc").join(starter).exists() {
                // What is busy belongs to somebody after all.
                let _ = remove_group(&entry.path());
            }
        }
    }
}

/// Removes a control group with those below it. Only empty ones can be.
fn remove_group(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_group(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// A control group of its own for a machine: nspawn makes more below it, by fixed names.
#[derive(Debug)]
pub(crate) struct Cgroup {
    paths: Vec<PathBuf>,
}

impl Cgroup {
    pub(crate) fn make(machine_name: &str) -> Result<Self> {
        let starter = std::env::var(STARTER).unwrap_or_else(|_| std::process::id().to_string());
        let paths: Vec<_> = hierarchies()
            .map(|hierarchy| hierarchy.join(format!("{PREFIX}{starter}")).join(machine_name))
            .collect();
        for path in &paths {
            fs::create_dir_all(path).during(|| format!("can't make {}", path.display()))?;
        }
        Ok(Self { paths })
    }

    /// Lines for sh(1) that move the shell into it.
    pub(crate) fn enter_script(&self) -> String {
        self.paths.iter().fold(String::new(), |script, path| {
            script + &format!("echo 0 > '{}/cgroup.procs' || exit 1\n", path.display())
        })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for path in &self.paths {
            // The last process may still be leaving; the starter comes by again.
            let _ = remove_group(path);
        }
    }
}
