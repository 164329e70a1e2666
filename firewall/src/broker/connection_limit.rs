//! How many connections whom may hold, so that nobody's silence keeps another from being served.
//!
//! Every user that may ask has a share of its own. Whoever may ask for nothing shares one with all others of that kind:
//! a captured relay, or anybody on this host, can use that one up and no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::{Access, Accounts, CONTROL_USER, Peer};

/// How many shares those who may look hold together; root and control have their own beside that.
const READERS_SHARES: usize = 2;

/// Whose share a connection counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Share {
    /// Root's, or control's.
    Writer(u32),
    /// That of a user that may look.
    Reader(u32),
    /// That of all who may ask for nothing.
    Stranger,
}

impl Share {
    fn of(peer: Peer, accounts: &Accounts) -> Self {
        if peer.uid == 0 || accounts.uid(CONTROL_USER) == Some(peer.uid) {
            Self::Writer(peer.uid)
        } else if accounts.may(peer, Access::Read) {
            Self::Reader(peer.uid)
        } else {
            Self::Stranger
        }
    }
}

/// The connections that are open, by whose they are.
#[derive(Debug, Default)]
pub(crate) struct ConnectionLimit(Mutex<BTreeMap<Share, usize>>);

impl ConnectionLimit {
    /// Counts a connection in, until what is returned is dropped; `None` where its share of `max` is used up.
    pub(crate) fn admit(self: &Arc<Self>, peer: Peer, accounts: &Accounts, max: usize) -> Option<Permit> {
        let share = Share::of(peer, accounts);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let readers =
            open.iter().filter(|(share, _)| matches!(share, Share::Reader(_))).map(|(_, n)| n).sum();
        let full = open.get(&share).is_some_and(|own| *own >= max)
            || matches!(share, Share::Reader(_)) && max.saturating_mul(READERS_SHARES) <= readers;
        if full {
            return None;
        }
        *open.entry(share).or_default() += 1;
        Some(Permit { limit: Arc::clone(self), share })
    }

    /// How many connections are open.
    pub(crate) fn open(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }
}

/// A connection that counts.
#[derive(Debug)]
pub(crate) struct Permit {
    limit: Arc<ConnectionLimit>,
    share: Share,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.limit.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.share) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROL: u32 = 990;
    const STRANGERS: [u32; 2] = [991, 4242];

    fn accounts() -> Accounts {
        let passwd = "root:x:0:0::/:/x\nzone-proxy:x:990:990::/:/x\nzone-relay:x:991:991::/:/x\n\
            olga:x:1000:1000::/:/x\npeter:x:1001:1001::/:/x\nanna:x:1002:1002::/:/x\n";
        Accounts::parse(passwd, "zone-admin:x:992:olga,peter,anna\n")
    }

    fn fill(limit: &Arc<ConnectionLimit>, uid: u32) -> Vec<Permit> {
        std::iter::from_fn(|| limit.admit(Peer { uid, gid: uid, pid: 1 }, &accounts(), 3)).collect()
    }

    #[test]
    fn those_who_may_ask_for_nothing_share_one_share_and_take_none_of_the_others() {
        let limit = Arc::default();
        let held: Vec<_> = STRANGERS.map(|uid| fill(&limit, uid)).into_iter().flatten().collect();
        assert_eq!(held.len(), 3);
        for uid in [0, CONTROL, 1000] {
            assert_eq!(fill(&limit, uid).len(), 3, "{uid}");
        }
    }

    #[test]
    fn those_who_may_look_have_each_their_own_share_and_two_together() {
        let limit = Arc::default();
        let held = [1000, 1001, 1002].map(|uid| fill(&limit, uid));
        assert_eq!(held.each_ref().map(Vec::len), [3, 3, 0]);
        assert_eq!((fill(&limit, 0).len(), fill(&limit, CONTROL).len()), (3, 3));
    }

    #[test]
    fn a_connection_that_ends_makes_room_for_another_one() {
        let limit = Arc::default();
        let mut held = fill(&limit, CONTROL);
        assert_eq!((held.len(), limit.open()), (3, 3));
        held.pop();
        assert_eq!(fill(&limit, CONTROL).len(), 1);
        drop(held);
        assert_eq!(limit.open(), 0);
    }
}
