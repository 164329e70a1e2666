//! Where the demo's programs run: as an ordinary user, with nothing of the machine changed.
//!
//! As root, a mount namespace of our own holds an account file with one more user in it. Only the demo's processes see
//! it, and it is gone with the last of them.

use std::fs::{self, File, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};

use crate::report::{Context, Result};
use crate::{children, workspace};

const NAME: &str = "zone-demo";
const ID: u32 = 64999;

/// Moves this process into its surroundings and returns the user that sshd lets in.
pub(crate) fn enter(dir: &Path) -> Result<String> {
    if !Uid::effective().is_root() {
        let user = User::from_uid(Uid::effective()).or_fail(|| "can't look up this user".to_owned())?;
        return user
            .map(|user| user.name)
            .ok_or_else(|| "this user has no name; sshd needs one".to_owned().into());
    }
    unshare(CloneFlags::CLONE_NEWNS).or_fail(|| {
        "root may not make a mount namespace here (a container?); run the demo as an ordinary user instead".to_owned()
    })?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .or_fail(|| "can't make mounts private".to_owned())?;
    let home = dir.join("home");
    children::succeed(Command::new("chown").args(["-R", &format!("{ID}:{ID}")]).arg(dir))?;
    add_account(
        dir,
        "/etc/passwd",
        &format!("{NAME}:x:{ID}:{ID}:Zone Proxy demo:{}:/bin/sh\n", home.display()),
    )?;
    add_account(dir, "/etc/group", &format!("{NAME}:x:{ID}:\n"))?;
    open_way(dir)?;
    std::env::set_current_dir(dir).or_fail(|| format!("can't enter {}", dir.display()))?;
    become_user()?;
    Ok(NAME.to_owned())
}

/// Puts a copy with one more line in an account file's place.
///
/// Group `tty` is left out: an sshd that finds it wants terminals to belong to it, which only root can bring about.
fn add_account(dir: &Path, file: &str, line: &str) -> Result<()> {
    let machine = fs::read_to_string(file).or_fail(|| format!("can't read {file}"))?;
    let copy = dir.join(file.trim_start_matches('/').replace('/', "-"));
    let others = machine.lines().filter(|one| !one.starts_with("tty:"));
    let all = others.fold(line.to_owned(), |all, one| all + one + "\n");
    fs::write(&copy, all).or_fail(|| format!("can't write {}", copy.display()))?;
    fs::set_permissions(&copy, Permissions::from_mode(0o644))
        .or_fail(|| format!("can't open up {}", copy.display()))?;
    mount(Some(&copy), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .or_fail(|| format!("can't cover {file}"))
}

/// Lets an ordinary user reach the demo's directory by its own path, even below a home that is closed to others.
fn open_way(dir: &Path) -> Result<()> {
    let Some(closed) = dir.parent().and_then(workspace::closed_to_others) else { return Ok(()) };
    let held = File::open(dir).or_fail(|| format!("can't open {}", dir.display()))?;
    mount(Some("tmpfs"), &closed, Some("tmpfs"), MsFlags::empty(), Some("mode=0755,size=1m"))
        .or_fail(|| format!("can't cover {}", closed.display()))?;
    fs::create_dir_all(dir).or_fail(|| format!("can't make {}", dir.display()))?;
    let held = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
    mount(Some(&held), dir, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .or_fail(|| format!("can't bring {} back", dir.display()))
}

fn become_user() -> Result<()> {
    let (uid, gid) = (Uid::from_raw(ID), Gid::from_raw(ID));
    setgroups(&[])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .or_fail(|| format!("can't become user {ID}"))
}
