//! Dropping privileges for good, and verifying with the kernel that they are gone.
//!
//! Capabilities, securebits and no_new_privs belong to a thread (capabilities(7), prctl(2)): drop before the
//! process has a second one. [`verify`] looks at every thread that there is, and a daemon that holds something
//! afterwards must not serve.

mod account;
mod error;
mod held;

use std::fs;
use std::io;

use caps::CapSet;
use nix::unistd::{Gid, Uid, geteuid, getresuid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits, set_no_new_privs};

pub use account::Account;
pub use error::PrivilegeError;
pub use held::{Facts, Seccomp, Strictness};

/// Root's powers are gone for this process and all that it executes, and no bit of that can be taken back.
const SECURE_BITS: CapabilitiesSecureBits = CapabilitiesSecureBits::NO_ROOT
    .union(CapabilitiesSecureBits::NO_ROOT_LOCKED)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP)
    .union(CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED)
    .union(CapabilitiesSecureBits::KEEP_CAPS_LOCKED)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE)
    .union(CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED);

/// Whether this process was started as root, by any of its user ids.
pub fn is_root() -> bool {
    geteuid().is_root() || getresuid().is_ok_and(|ids| ids.real.is_root() || ids.saved.is_root())
}

/// Becomes an ordinary user for good: groups, group, user, all five capability sets, securebits, no_new_privs.
///
/// Must be called as root and on the only thread. Call [`verify`] afterwards.
pub fn drop_to(account: &Account) -> Result<(), PrivilegeError> {
    let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    empty(CapSet::Ambient, "the ambient set")?;
    empty(CapSet::Bounding, "the bounding set")?;
    set_capabilities_secure_bits(SECURE_BITS).map_err(|error| step("securebits", &error))?;
    setgroups(&[]).map_err(|error| step("supplementary groups", &error))?;
    setresgid(gid, gid, gid).map_err(|error| step("the group", &error))?;
    setresuid(uid, uid, uid).map_err(|error| step("the user", &error))?;
    give_up()
}

/// Clears what an ordinary user can clear: its capabilities, and the way to new ones by executing programs.
pub fn give_up() -> Result<(), PrivilegeError> {
    empty(CapSet::Ambient, "the ambient set")?;
    empty(CapSet::Inheritable, "the inheritable set")?;
    empty(CapSet::Effective, "the effective set")?;
    empty(CapSet::Permitted, "the permitted set")?;
    set_no_new_privs(true).map_err(|error| step("no_new_privs", &error))
}

/// Looks at every thread of this process as the kernel shows it, and returns the facts of the first one.
///
/// An ordinary user can't empty its bounding set, which no_new_privs makes useless: [`Strictness::Bounding`] asks
/// for that too, after [`drop_to`].
pub fn verify(strictness: Strictness) -> Result<Facts, PrivilegeError> {
    let mut held = Vec::new();
    for task in fs::read_dir("/proc/self/task").map_err(PrivilegeError::Unreadable)? {
        let task = task.map_err(PrivilegeError::Unreadable)?;
        let name = task.file_name().to_string_lossy().into_owned();
        match fs::read_to_string(task.path().join("status")) {
            Ok(status) => {
                held.extend(
                    held::held(&status, strictness).into_iter().map(|what| format!("thread {name}: {what}")),
                );
            }
            // It ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(PrivilegeError::Unreadable(error)),
        }
    }
    if !held.is_empty() {
        return Err(PrivilegeError::Held(held));
    }
    let status = fs::read_to_string("/proc/self/status").map_err(PrivilegeError::Unreadable)?;
    Facts::read(&status).ok_or_else(|| PrivilegeError::Unreadable(io::ErrorKind::InvalidData.into()))
}

fn empty(set: CapSet, name: &'static str) -> Result<(), PrivilegeError> {
    // A confined process may be forbidden to change what is empty already.
    if caps::read(None, set).is_ok_and(|held| held.is_empty()) {
        return Ok(());
    }
    caps::clear(None, set).map_err(|error| step(name, &error))
}

fn step(step: &'static str, why: &impl std::fmt::Display) -> PrivilegeError {
    PrivilegeError::Step { step, why: why.to_string() }
}
