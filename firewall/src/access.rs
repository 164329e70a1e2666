//! Who may ask for what: the users of this host and their rights.

use std::fs;
use std::io;

/// The user of the control process: the only one beside root that may change ports.
pub(crate) const CONTROL_USER: &str = "zone-proxy";
/// The user of relay processes; it may ask for nothing.
pub(crate) const RELAY_USER: &str = "zone-relay";
/// The user, and the group, that may look.
pub(crate) const READER: &str = "zone-admin";

/// The host's users and groups, as far as they matter here. All are made by sysusers.d, hence in the local files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    users: Vec<(String, u32)>,
    groups: Vec<(String, u32, Vec<String>)>,
}

/// Who is at the other end of a socket (`SO_PEERCRED`, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Process id.
    pub(crate) pid: i32,
}

/// What somebody must be allowed to do for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Change rules.
    Write,
    /// Look at them.
    Read,
}

impl Accounts {
    /// From `/etc/passwd` and `/etc/group`.
    pub(crate) fn of_this_host() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/etc/passwd")?, &fs::read_to_string("/etc/group")?))
    }

    /// From the texts of both files (passwd(5), group(5)).
    pub(crate) fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            Some((name, fields.nth(1)?.parse().ok()?))
        });
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default().split(',').map(str::to_owned).collect();
            Some((name, gid, members))
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// The id of a user.
    pub(crate) fn uid(&self, name: &str) -> Option<u32> {
        self.users.iter().find(|(user, _)| user == name).map(|(_, uid)| *uid)
    }

    /// The name of a user, for messages; without control characters, whatever the file holds.
    pub(crate) fn name(&self, uid: u32) -> String {
        match self.users.iter().find(|(_, id)| *id == uid) {
            Some((name, _)) => name.chars().filter(|c| !c.is_control()).take(64).collect(),
            None => format!("user id {uid}"),
        }
    }

    /// Whether somebody may ask for this.
    pub(crate) fn may(&self, peer: Peer, access: Access) -> bool {
        let is = |name: &str| self.uid(name) == Some(peer.uid);
        let reads = || {
            let name = self.users.iter().find(|(_, uid)| *uid == peer.uid).map(|(name, _)| name.as_str());
            is(READER)
                || self.groups.iter().filter(|(group, ..)| group == READER).any(|(_, gid, members)| {
                    *gid == peer.gid || members.iter().any(|member| Some(member.as_str()) == name)
                })
        };
        peer.uid == 0 || is(CONTROL_USER) || access == Access::Read && reads()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0::/root:/bin/sh\nzone-proxy:x:990:990::/:/x\nzone-relay:x:991:991::/:/x\n\
        zone-admin:x:992:992::/:/x\nolga:x:1000:1000::/:/x\npeter:x:1001:1001::/:/x\nbroken\n";
    const GROUP: &str = "root:x:0:\nzone-admin:x:992:olga,someone\nbroken:x\n";

    fn may(uid: u32, gid: u32, access: Access) -> bool {
        Accounts::parse(PASSWD, GROUP).may(Peer { uid, gid, pid: 1 }, access)
    }

    #[test]
    fn only_root_and_the_control_process_may_change_ports() {
        for (uid, allowed) in
            [(0, true), (990, true), (991, false), (992, false), (1000, false), (4242, false)]
        {
            assert_eq!(may(uid, uid, Access::Write), allowed, "{uid}");
        }
    }

    #[test]
    fn admins_of_the_appliance_may_look() {
        for (uid, allowed) in [(0, true), (990, true), (991, false), (992, true), (1000, true), (1001, false)]
        {
            assert_eq!(may(uid, uid, Access::Read), allowed, "{uid}");
        }
        assert!(may(1001, 992, Access::Read));
    }

    #[test]
    fn where_the_users_are_missing_only_root_may_anything() {
        let empty = Accounts::default();
        assert!(empty.may(Peer { uid: 0, gid: 0, pid: 1 }, Access::Write));
        assert!(!empty.may(Peer { uid: 990, gid: 990, pid: 1 }, Access::Read));
    }
}
