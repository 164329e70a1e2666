//! `cargo xtask fresh`: does a clone work on a bare Debian 12 that has only Rust, git and gcc?
//!
//! The bare machine is a directory that a process of its own namespace takes for its root. It shares this machine's
//! kernel and network and sees none of its files; its mounts are gone with its last process.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use nix::unistd::Uid;

use crate::report::{Context, Result, headline, say, seconds};
use crate::{children, tools, workspace};

const SUITE: &str = "bookworm";
const PACKAGES: &str = "gcc,libc6-dev,git,ca-certificates";
/// Where the toolchain and the clone lie on the bare machine. A home directory there is closed to other users.
const RUST: &str = "opt/rust";
const CLONE: &str = "root/zone-proxy";

/// Mounts what a machine has, and becomes its root. Runs in mount and pid namespaces of its own.
const ENTER: &str = r#"
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
shift
exec chroot . "$@"
"#;

/// What a program needs to know to reach the network from here. None of it is a secret.
const NETWORK_SETTINGS: [&str; 14] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "CURL_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
    "CARGO_HTTP_PROXY",
    "CARGO_NET_RETRY",
];

/// Makes the bare machine, runs the demo or the tests there, and says whether that worked.
pub(crate) fn run(test: bool) -> Result<ExitCode> {
    if !Uid::effective().is_root() {
        return Err(
            "a bare machine can only be made by root; run: sudo -E env PATH=\"$PATH\" cargo xtask fresh"
                .to_owned()
                .into(),
        );
    }
    tools::ensure(tools::FRESH)?;
    let begin = Instant::now();
    let outcome = make().and_then(|root| play(&root, if test { "test" } else { "demo" }));
    let verdict = match &outcome {
        Ok(inner) => {
            // A failed run's files may tell why.
            remove(&work_dir().join("root"))?;
            format!("there: {inner}\nfresh: ok, in {}", seconds(begin.elapsed()))
        }
        Err(failure) => {
            format!("fresh: FAILED: {failure} (the machine is in {})", work_dir().join("root").display())
        }
    };
    say(&format!("\n{verdict}"));
    Ok(if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn work_dir() -> PathBuf {
    workspace::target().join("fresh")
}

fn make() -> Result<PathBuf> {
    let root = work_dir().join("root");
    fs::create_dir_all(work_dir()).or_fail(|| format!("can't make {}", work_dir().display()))?;
    remove(&root)?;
    let base = base_archive()?;
    headline("A bare machine");
    fs::create_dir(&root).or_fail(|| format!("can't make {}", root.display()))?;
    children::succeed(Command::new("tar").arg("-xpf").arg(&base).arg("-C").arg(&root))?;
    copy_network_settings(&root)?;
    copy_toolchain(&root)?;
    clone(&root)?;
    Ok(root)
}

/// The bare machine as an archive, made once.
fn base_archive() -> Result<PathBuf> {
    let archive = work_dir().join(format!("{SUITE}.tar"));
    if archive.is_file() {
        return Ok(archive);
    }
    headline("Debian 12 with gcc, git and nothing else");
    let draft = work_dir().join("draft.tar");
    tools::update_lists()?;
    let sources = children::output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
        "Origin: Debian",
    ]))?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", &format!("--include={PACKAGES}")]);
    let transport = work_dir().join("apt.conf");
    fs::write(&transport, apt_transport()?).or_fail(|| format!("can't write {}", transport.display()))?;
    command.arg(format!("--aptopt={}", transport.display()));
    command.arg(SUITE).arg(&draft);
    command.args(
        sources.lines().filter(|line| line.split(' ').nth(2).is_some_and(|name| name.starts_with(SUITE))),
    );
    children::succeed(&mut command)?;
    fs::rename(&draft, &archive).or_fail(|| format!("can't move {}", draft.display()))?;
    Ok(archive)
}

/// How this machine's apt reaches its sources.
fn apt_transport() -> Result<String> {
    let all = children::output(Command::new("apt-config").arg("dump"))?;
    let wanted = ["Acquire::http", "Acquire::https", "Acquire::Check", "Acquire::Retries"];
    Ok(all
        .lines()
        .filter(|line| wanted.iter().any(|start| line.starts_with(start)))
        .fold(String::new(), |text, line| text + line + "\n"))
}

/// Name resolution, certificates and cargo's settings, as they are here.
fn copy_network_settings(root: &Path) -> Result<()> {
    let cargo_home =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
    let cargo_config = cargo_home.map(|home| home.join("config.toml")).filter(|file| file.is_file());
    if let Some(config) = cargo_config {
        let there = root.join("root/.cargo");
        fs::create_dir_all(&there).or_fail(|| format!("can't make {}", there.display()))?;
        fs::copy(&config, there.join("config.toml"))
            .or_fail(|| format!("can't copy {}", config.display()))?;
    }
    for file in ["etc/resolv.conf", "etc/hosts"] {
        let here = Path::new("/").join(file);
        if here.is_file() {
            let _ = fs::remove_file(root.join(file));
            fs::copy(&here, root.join(file)).or_fail(|| format!("can't copy {}", here.display()))?;
        }
    }
    children::succeed(
        Command::new("cp")
            .args(["-RL", "--remove-destination", "/etc/ssl/certs/."])
            .arg(root.join("etc/ssl/certs")),
    )
}

fn copy_toolchain(root: &Path) -> Result<()> {
    say("   copying this machine's Rust toolchain");
    let sysroot =
        children::output(Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace::root()))?;
    let there = root.join(RUST);
    fs::create_dir_all(&there).or_fail(|| format!("can't make {}", there.display()))?;
    for part in ["bin", "lib", "libexec", "etc"] {
        let here = Path::new(sysroot.trim()).join(part);
        if here.is_dir() {
            children::succeed(Command::new("cp").arg("-a").arg(&here).arg(&there))?;
        }
    }
    Ok(())
}

fn clone(root: &Path) -> Result<()> {
    let checkout = workspace::root();
    let git = |args: &[&str]| children::output(Command::new("git").arg("-C").arg(&checkout).args(args));
    let head = git(&["log", "-1", "--format=%h %s"])?;
    say(&format!("   cloning the checkout at {}", head.trim()));
    if !git(&["status", "--porcelain"])?.is_empty() {
        say("   (what is not committed is not in the clone)");
    }
    children::succeed(
        Command::new("git").args(["clone", "--quiet", "--no-hardlinks"]).arg(&checkout).arg(root.join(CLONE)),
    )
}

/// Runs `cargo xtask TASK` in the clone and returns its last line.
fn play(root: &Path, task: &str) -> Result<String> {
    headline(&format!("cargo xtask {task}, there"));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter"]).arg(root);
    command.args(["env", "-C", &format!("/{CLONE}"), "cargo", "xtask", task]);
    command.env_clear().env("HOME", "/root").env("LANG", "C.UTF-8");
    command.env("PATH", format!("/{RUST}/bin:{}", tools::PATH));
    for (name, value) in env::vars_os() {
        if NETWORK_SETTINGS.iter().any(|setting| name == *setting) {
            command.env(name, value);
        }
    }
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .or_fail(|| "can't start unshare".to_owned())?;
    let text = child.stdout.take().map(|pipe| children::pass_on(pipe, std::io::stdout())).unwrap_or_default();
    let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    let status = child.wait().or_fail(|| "can't wait for unshare".to_owned())?;
    if status.success() {
        Ok(last)
    } else {
        Err(format!("cargo xtask {task} said \"{last}\" ({status})").into())
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).or_fail(|| format!("can't remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
