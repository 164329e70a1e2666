//! Which user the daemon is: root is dropped before anything is served, and what is left is looked up in the kernel.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zone_privileges::{Account, PrivilegeError, Strictness, drop_to, give_up, is_root, verify};

use crate::config::Config;

/// Why the daemon does not start as this user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserError {
    /// Privileges could not be given up, or are still held.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The user of the configuration.
    #[error("{0}; the key `user` in zone-proxy.toml says whom root becomes")]
    Account(PrivilegeError),
    /// A directory can't be made.
    #[error("can't create {path}: {source}")]
    Create {
        /// The directory.
        path: PathBuf,
        /// The file system's answer.
        source: io::Error,
    },
    /// A directory of root's, from a start as root before.
    #[error("{path} belongs to root: give it to the daemon's user with `chown -R {user}: {path}`")]
    RootOwned {
        /// The directory.
        path: PathBuf,
        /// The daemon's user.
        user: String,
    },
    /// A directory of somebody else's.
    #[error(
        "{path} belongs to user {owner}, and the daemon is to run as {user}: name another directory, or another `user`"
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The number of the user that owns it.
        owner: u32,
        /// The daemon's user.
        user: String,
    },
}

/// Leaves root behind, if it is there: makes the directories, gives them to the configured user, becomes it, and
/// verifies that nothing is held. Must come before the first thread.
pub(crate) fn leave_root(config: &Config) -> Result<(), UserError> {
    if !is_root() {
        give_up()?;
        verify(Strictness::Ordinary)?;
        return Ok(());
    }
    let account = Account::named(&config.user).map_err(UserError::Account)?;
    for path in [&config.state_dir, &config.runtime_dir] {
        own_directory(path, &account)?;
    }
    drop_to(&account)?;
    verify(Strictness::Bounding)?;
    Ok(())
}

/// Makes a directory that belongs to the user, or sees to it that the one that is there does.
fn own_directory(path: &Path, account: &Account) -> Result<(), UserError> {
    let create = |source| UserError::Create { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(there) if there.uid() == account.uid => Ok(()),
        // What is no directory is named by whoever opens it.
        Ok(there) if !there.is_dir() => Ok(()),
        Ok(there) if there.uid() == 0 => {
            Err(UserError::RootOwned { path: path.to_owned(), user: account.name.clone() })
        }
        Ok(there) => {
            Err(UserError::Foreign { path: path.to_owned(), owner: there.uid(), user: account.name.clone() })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path, account).map_err(create),
        Err(error) => Err(create(error)),
    }
}

fn make(path: &Path, account: &Account) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    }
    DirBuilder::new().mode(0o700).create(path)?;
    // By its descriptor, so that it is this very directory that is given away.
    let flags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).bits();
    let made: File = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    fchown(made, Some(account.uid), Some(account.gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(uid: u32) -> Account {
        Account { name: "zone-proxy".into(), uid, gid: uid }
    }

    #[test]
    fn a_directory_of_the_users_own_is_taken_and_of_anybody_else_is_named_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let own = fs::metadata(folder.path()).unwrap().uid();
        own_directory(folder.path(), &account(own)).unwrap();
        let told = own_directory(folder.path(), &account(own + 1)).unwrap_err().to_string();
        let path = folder.path().display();
        if own == 0 {
            let words = format!(
                "{path} belongs to root: give it to the daemon's user with `chown -R zone-proxy: {path}`"
            );
            assert_eq!(told, words);
        } else {
            assert!(told.contains(&format!("{path} belongs to user {own}")), "{told}");
        }
    }

    #[test]
    fn a_missing_directory_is_made_with_its_parents_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let uid = fs::metadata(folder.path()).unwrap().uid();
        let path = folder.path().join("a/b");
        own_directory(&path, &account(uid)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }
}
