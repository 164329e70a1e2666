//! What system tests stand on: a host with a proxy on it, a zone, and endpoints, all of them the real programs.
//!
//! Every test has loopback addresses of its own (`127.x.y.z`), because 17488 can't be another number.
//! `ZONE_BIN_DIR` names the folder of the programs; without it, it is the one that the test was built into.
//! `ZONE_OLD_BIN_DIR` names the folder of the programs of an earlier version, which `cargo xtask test` builds.
//! `ZONE_SEEDS` says how many histories of each kind are tried, `ZONE_SEED` names one to try again.
//! `ZONE_PARTS` names the folder of unpacked packages, `ZONE_SKIP_LOG` the file that collects what was skipped.

pub mod control;
pub mod host;
pub mod manager;
pub mod process;
pub mod seeds;
pub mod session;
pub mod target;
pub mod zone;

use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Nothing that a test waits for takes longer, unless something is wrong.
pub const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A loopback address that no other test uses at the same time.
pub fn address() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let [block, own] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, ((block % 3 + 1) << 6) | (high & 0x3f), low, own)
}

/// The folder of the programs under test.
pub fn programs() -> PathBuf {
    std::env::var_os("ZONE_BIN_DIR").map_or_else(built_with_tests, PathBuf::from)
}

/// The folder of the programs that were built together with this test, with debug assertions: they panic on demand.
pub fn built_with_tests() -> PathBuf {
    let own = std::env::current_exe().expect("this test's program");
    own.parent().and_then(Path::parent).expect("its folder's folder").to_owned()
}

/// The folder of the programs of an earlier version, where they were built.
pub fn earlier_programs() -> Option<PathBuf> {
    std::env::var_os("ZONE_OLD_BIN_DIR").map(PathBuf::from)
}

/// One of the programs under test.
pub fn program(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(
        path.exists(),
        "{} is missing: build it with 'cargo build --release --workspace'",
        path.display()
    );
    path
}

/// Whom a daemon becomes that a test starts as root: it is everywhere.
pub const USER: &str = "nobody";

/// A new folder that the daemon's user can look into.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("our folder");
    folder
}

/// One of the programs under test at a path where the daemon's user can start it. What was built below a folder
/// that is closed to others is copied into this one.
pub fn program_for_others(name: &str, folder: &Path) -> PathBuf {
    for_others(&program(name), folder)
}

/// The same for any program that was built.
pub fn for_others(built: &Path, folder: &Path) -> PathBuf {
    let open = |path: &Path| path.metadata().is_ok_and(|about| about.mode() & 0o001 != 0);
    let built = built.canonicalize().expect("a program");
    if built.ancestors().all(open) {
        return built;
    }
    // Programs of two versions have the same names.
    let version = built.parent().expect("a folder").to_string_lossy().replace('/', "-");
    let folder = folder.join(version);
    std::fs::create_dir_all(&folder).expect("a folder");
    let copy = folder.join(built.file_name().expect("a program's name"));
    if !copy.exists() {
        std::fs::hard_link(&built, &copy)
            .or_else(|_| std::fs::copy(&built, &copy).map(drop))
            .expect("a copy of the program");
    }
    copy
}

/// Has a program run as the daemon's user, who may do to it what root may not everywhere, such as change its limits.
pub fn as_daemon(command: &mut Command) -> &mut Command {
    as_user(command, USER)
}

/// Has a program run as a user, where that can be.
pub fn as_user<'a>(command: &'a mut Command, user: &str) -> &'a mut Command {
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name(user).expect("the user database").expect("that user");
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    }
    command
}

/// Waits until `done`, looking again and again; for what nobody can be told of.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says that a test could not run here. The suite lists it, and fails where nothing may be skipped.
pub fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    eprintln!("SKIPPED: {test}: {why}");
    if let Some(path) = std::env::var_os("ZONE_SKIP_LOG") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{test}: {why}")).expect("the skip log can be written");
    }
}
