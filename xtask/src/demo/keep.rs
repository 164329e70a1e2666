//! A demo that stays: kept running, explained, and stopped later. And one whose starter is gone, which doesn't.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, getppid};

use super::plan::{END_TIMEOUT, ENDPOINT, Plan};
use crate::children;
use crate::report::{Context, Result, say};
use crate::workspace;

static STAYS: AtomicBool = AtomicBool::new(false);

/// Ends everything should this process' starter vanish without a word.
pub(crate) fn follow_parent(plan: &Plan) {
    let (dir, parent) = (plan.dir.clone(), getppid());
    thread::spawn(move || {
        while !STAYS.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(200));
            if getppid() != parent && !STAYS.load(Ordering::SeqCst) {
                children::end_all(END_TIMEOUT);
                let _ = fs::remove_dir_all(&dir);
                std::process::exit(1);
            }
        }
    });
}

/// Lets the starter go, and stays for as long as anything runs.
pub(crate) fn stay(plan: &Plan) -> Result<()> {
    STAYS.store(true, Ordering::SeqCst);
    // A reader of our output, such as `tee`, must not wait for us.
    let null = File::options()
        .read(true)
        .write(true)
        .open("/dev/null")
        .or_fail(|| "can't open /dev/null".to_owned())?;
    dup2_stdout(&null)
        .and_then(|()| dup2_stderr(&null))
        .or_fail(|| "can't let go of the terminal".to_owned())?;
    let draft = plan.dir.join("kept.draft");
    fs::write(&draft, Pid::this().to_string())
        .and_then(|()| fs::rename(&draft, plan.kept()))
        .or_fail(|| format!("can't write {}", plan.kept().display()))?;
    while waitpid(None::<Pid>, None).is_ok() {}
    Ok(())
}

/// Says what can be tried while it runs.
pub(crate) fn explain(plan: &Plan) {
    let short = |path: PathBuf| -> String {
        let root = workspace::root();
        path.strip_prefix(&root).unwrap_or(&path).display().to_string()
    };
    let (dir, zone, module) =
        (short(plan.dir.clone()), short(plan.zone()), short(plan.program("zone-module")));
    let proxy = plan.proxy();
    say(&format!(
        "\nIt goes on running. From {} you can try:\n
  who is parked            {module} --zone {zone} endpoints
  how the proxy is         {module} --zone {zone} status
  log in to the endpoint   ssh -F {dir}/ssh/config {ENDPOINT}
  a page from it           curl --noproxy '' --proxytunnel --proxy https://{proxy}:17487 \\
                             --proxy-cacert {dir}/module/zone-proxy-ca.crt \\
                             --proxy-cert {dir}/module/module-server.crt \\
                             --proxy-key {dir}/module/module-server.key http://{ENDPOINT}:80/
  what the programs say    tail -f {dir}/logs/*
  stop it                  cargo xtask demo --stop\n",
        workspace::root().display()
    ));
}

/// Ends every kept demo of this checkout.
pub(crate) fn stop() -> Result<ExitCode> {
    let dirs: Vec<_> = [workspace::target(), std::env::temp_dir()]
        .iter()
        .filter_map(|base| fs::read_dir(base).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"demo-")))
        .filter_map(|dir| Some((fs::read_to_string(dir.join("kept")).ok()?.parse().ok()?, dir)))
        .collect();
    if dirs.is_empty() {
        say("demo: nothing is running");
    }
    for (pid, dir) in dirs {
        end(Pid::from_raw(pid), &dir);
        fs::remove_dir_all(&dir).or_fail(|| format!("can't remove {}", dir.display()))?;
        say(&format!("demo: stopped, {} is removed", dir.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the demo's processes, if that process is still the one that belongs to the directory.
fn end(pid: Pid, dir: &Path) {
    let alive = || {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&*dir.to_string_lossy())
    };
    if !alive() {
        return;
    }
    children::end_below(pid, END_TIMEOUT);
    for _ in 0..50 {
        if !alive() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    // It waits for nothing else; ending it is only overdue.
    let _ = signal::kill(pid, Signal::SIGKILL);
}
