//! Users of the host.

use std::io;

use nix::unistd::User;

use crate::error::PrivilegeError;

/// An ordinary user, as the host knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its user id; never root's.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Account {
    /// Looks a user up (getpwnam(3)). Root is refused, under whatever name.
    pub fn named(name: &str) -> Result<Self, PrivilegeError> {
        let user = User::from_name(name)
            .map_err(|errno| PrivilegeError::Lookup {
                name: name.to_owned(),
                source: io::Error::from(errno),
            })?
            .ok_or_else(|| PrivilegeError::NoSuchUser(name.to_owned()))?;
        if user.uid.is_root() || user.gid.as_raw() == 0 {
            return Err(PrivilegeError::IsRoot(name.to_owned()));
        }
        Ok(Self { name: name.to_owned(), uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_no_ordinary_user_and_a_user_that_is_missing_is_named_with_what_to_do() {
        let root = Account::named("root").unwrap_err().to_string();
        assert_eq!(root, "user 'root' is root: name an ordinary user, one that owns nothing else");
        let nobody = Account::named("no-such-user").unwrap_err().to_string();
        assert!(nobody.contains("'no-such-user'") && nobody.contains("systemd-sysusers"), "{nobody}");
    }
}
