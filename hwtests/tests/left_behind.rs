//! A lab that is killed leaves nothing behind.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};

/// How long the kernel, and the lab's janitor, may take.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(15);

/// A word on the command line of every process of the lab, so that this test sees no other lab.
fn marker() -> String {
    format!("left-behind-{}", std::process::id())
}

#[test]
fn a_lab_that_is_killed_leaves_no_process_no_mount_and_no_control_group() {
    if let Some(why) = unable() {
        return skip(&format!("a_lab_that_is_killed_leaves_no_process_no_mount_and_no_control_group: {why}"));
    }
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let roots = target.parent().expect("the target directory").join("lab/roots");
    let lab = target.join(marker());
    fs::create_dir_all(&lab).expect("a directory");
    fs::create_dir_all(&roots).expect("a directory");
    // The roots are the ones that every lab of this checkout uses.
    std::os::unix::fs::symlink(&roots, lab.join("roots")).expect("a link");
    let mut starter = Command::new(env!("CARGO_BIN_EXE_zone-lab"))
        .args(["run", "lab", "--only", "booted root", "--keep", "--lab"])
        .arg(&lab)
        .stdout(Stdio::piped())
        .spawn()
        .expect("zone-lab");
    let stdout = BufReader::new(starter.stdout.take().expect("its output"));
    let up = stdout.lines().map_while(Result::ok).any(|line| line.contains("stay up until Ctrl-C"));
    assert!(up, "the hosts came up");
    let group = format!("zlab-{}", starter.id());
    assert!(!processes().is_empty() && !groups(&group).is_empty(), "there is something to be left behind");

    kill(Pid::from_raw(starter.id().cast_signed()), Signal::SIGKILL).expect("it runs");
    starter.wait().expect("its end");

    let deadline = Instant::now() + CLEANUP_TIMEOUT;
    let left = || (processes(), groups(&group), mounts(&lab));
    while left() != (vec![], vec![], vec![]) {
        assert!(Instant::now() < deadline, "left behind: {:?}", left());
        thread::sleep(Duration::from_millis(50));
    }
    fs::remove_dir_all(&lab).expect("the lab's directory");
}

/// Why no lab can be made here, if so.
fn unable() -> Option<&'static str> {
    let tools = ["/usr/bin/systemd-nspawn", "/usr/bin/mmdebstrap", "/usr/sbin/nft"];
    if !Uid::effective().is_root() {
        return Some("only root may make a lab");
    }
    let missing = !tools.iter().all(|tool| Path::new(tool).is_file());
    missing.then_some("it takes the packages systemd-container, mmdebstrap and nftables")
}

/// Command lines of the lab's processes.
fn processes() -> Vec<String> {
    let marker = marker();
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).ok();
    fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(line)
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&marker))
        .collect()
}

/// Control groups of that name, in each hierarchy.
fn groups(name: &str) -> Vec<PathBuf> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]
        .iter()
        .map(|hierarchy| Path::new(hierarchy).join(name))
        .filter(|path| path.exists())
        .collect()
}

/// Mounts of this machine that come from the lab's directory.
fn mounts(lab: &Path) -> Vec<String> {
    let all = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let name = lab.display().to_string();
    all.lines().filter(|line| line.contains(&name) || line.contains("/run/zlab")).map(str::to_owned).collect()
}

/// Says loudly that a test could not run.
fn skip(why: &str) {
    eprintln!("SKIPPED {why}");
    if let Some(path) = std::env::var_os("ZONE_SKIP_LOG") {
        let mut log = OpenOptions::new().append(true).create(true).open(path).expect("the log of skips");
        writeln!(log, "{why}").expect("the log of skips");
    }
}
