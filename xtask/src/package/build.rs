//! The binaries of the packages, for hosts whose glibc is older than this machine's.
//!
//! zig brings the symbols of every glibc and clang; cargo-zigbuild hands both to cargo. Built on Debian 12 as it is, the
//! programs would ask for GLIBC_2.34, which EL8 does not have.

use std::env;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::elf;
use super::files::{empty, fill, work_dir, write};
use crate::report::{Context, Result, say};
use crate::{children, tools, workspace};

/// The oldest glibc that the packages run on: EL8's.
pub(crate) const GLIBC: &str = "2.28";
pub(crate) const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The programs that are built for the packages.
pub(crate) const PROGRAMS: [&str; 5] =
    ["zone-proxy", "zone-relay", "zone-firewall", "zone-installer", "zone-installer-helper"];
/// What is packaged, what writes its manual, the peers that it is tested with, and what captures a process of it.
const PACKAGES: [&str; 8] = [
    "zone-proxy",
    "zone-relay",
    "zone-firewall",
    "zone-installer",
    "zone-generate",
    "zone-module",
    "zone-endpoint",
    "zone-captured",
];
/// What separates flags in `CARGO_ENCODED_RUSTFLAGS`.
const UNIT: &str = "\u{1f}";

/// Builds the programs and strips them.
pub(crate) fn programs() -> Result<()> {
    let zig = zig()?;
    let mut command = Command::new(zig.join("bin/cargo-zigbuild"));
    command.args(["zigbuild", "--release", "--locked", "--bins"]);
    command.arg("--target").arg(format!("{TARGET}.{GLIBC}"));
    command.args(PACKAGES.map(|package| format!("-p{package}")));
    command.current_dir(workspace::root());
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
        .env("CARGO_TARGET_DIR", work_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags()?.join(UNIT))
        .env("CARGO_ZIGBUILD_ZIG_PATH", zig.join("ziglang/zig"))
        .env("CARGO_ZIGBUILD_CACHE_DIR", work_dir().join("zigbuild"))
        .env("ZIG_GLOBAL_CACHE_DIR", work_dir().join("zig-cache"));
    say(&format!("Building the programs for glibc {GLIBC} (the first time takes some minutes)."));
    children::succeed(&mut command)?;
    fs::create_dir_all(work_dir().join("bin"))
        .or_fail(|| "can't make a folder for the programs".to_owned())?;
    PROGRAMS.iter().try_for_each(|name| strip(name))
}

/// The folder of all programs, as they were built for the packages and not stripped.
pub(crate) fn folder() -> PathBuf {
    work_dir().join(TARGET).join("release")
}

/// A program as it is packaged.
pub(crate) fn stripped(name: &str) -> PathBuf {
    work_dir().join("bin").join(name)
}

/// Manual pages and completions, written by the command definitions that were just built.
pub(crate) fn manual() -> Result<()> {
    let dir = work_dir().join("generated");
    empty(&dir)?;
    children::succeed(Command::new(built("zone-generate")).arg(&dir))?;
    for page in ["zone-relay.8", "zone-menu.8"] {
        let text = fill(&format!("man/{page}"), &[("VERSION", env!("CARGO_PKG_VERSION"))])?;
        write(&dir.join("man").join(page), &text, 0o644)?;
    }
    Ok(())
}

/// Where cargo put a program.
fn built(name: &str) -> PathBuf {
    folder().join(name)
}

fn strip(name: &str) -> Result<()> {
    let (from, to) = (built(name), stripped(name));
    let modified = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    if modified(&to) > modified(&from) {
        return Ok(());
    }
    children::succeed(
        Command::new("strip").args(["-R", ".comment", "-R", ".note"]).arg("-o").arg(&to).arg(&from),
    )?;
    let newest = elf::newest_glibc(&to)?;
    if elf::is_newer(&newest, GLIBC) {
        return Err(format!("{name} asks for GLIBC_{newest}, and the packages promise {GLIBC}").into());
    }
    Ok(())
}

fn rust_flags() -> Result<Vec<String>> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
        .unwrap_or_default();
    Ok(vec![
        // Where this machine keeps its sources is nobody's business, and the same everywhere else.
        format!("--remap-path-prefix={}=/cargo", home.display()),
        format!("--remap-path-prefix={}=/zone-proxy", workspace::root().display()),
        format!("-Lnative={}", libraries()?.display()),
        // This machine's libsystemd is linked against a newer glibc than the one linked here; the host brings its own.
        "-Clink-arg=-Wl,--allow-shlib-undefined".to_owned(),
    ])
}

/// A folder with libsystemd alone: this machine's folder of libraries would bring its glibc as well.
fn libraries() -> Result<PathBuf> {
    let dir = work_dir().join("lib");
    empty(&dir)?;
    let library = Path::new("/usr/lib/x86_64-linux-gnu/libsystemd.so.0");
    symlink(library, dir.join("libsystemd.so")).or_fail(|| format!("can't link to {}", library.display()))?;
    Ok(dir)
}

/// cargo-zigbuild and zig, in the versions and with the sums of `packaging/build-requirements.txt`.
fn zig() -> Result<PathBuf> {
    let dir = workspace::target().join("tools/zig");
    let wanted = workspace::root().join("packaging/build-requirements.txt");
    let done = dir.join("requirements.txt");
    let read = |path: &Path| fs::read(path).ok();
    if read(&done).is_some() && read(&done) == read(&wanted) {
        return Ok(dir);
    }
    say("   cargo-zigbuild   builds for a glibc that is older than this machine's");
    say("   ziglang          is its compiler and linker; both from PyPI, under target/tools");
    empty(&dir)?;
    let pip = tools::find("pip3").ok_or_else(|| "pip3 is missing: apt-get install python3-pip".to_owned())?;
    let mut command = Command::new(pip);
    command.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]);
    command.args(["--disable-pip-version-check", "--root-user-action", "ignore"]);
    command.arg("--target").arg(&dir).arg("--requirement").arg(&wanted);
    children::succeed(&mut command)?;
    fs::copy(&wanted, &done).or_fail(|| format!("can't write {}", done.display()))?;
    Ok(dir)
}
