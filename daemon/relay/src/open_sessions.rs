//! The sessions that are open, for a control that takes this relay up: it sees to it that each one that begins in the audit
//! log ends there.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use zone_channel::OpenSession;

use crate::lock::lock;

/// Sessions of one answer to control, so that it stays within the longest message.
const MAX_LISTED: usize = 500;

/// All of them, in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct OpenSessions(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    last: u64,
    open: BTreeMap<u64, OpenSession>,
}

/// An entry among the open sessions. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Entry {
    sessions: Arc<OpenSessions>,
    number: u64,
}

impl OpenSessions {
    /// A session is about to begin in the log; to be dropped just before it ends there.
    pub(crate) fn enter(self: &Arc<Self>, session: OpenSession) -> Entry {
        let mut inner = lock(&self.0);
        inner.last += 1;
        let number = inner.last;
        inner.open.insert(number, session);
        Entry { sessions: Arc::clone(self), number }
    }

    /// Some of those that began after a number, and the number to go on with if there are more.
    pub(crate) fn after(&self, number: u64) -> (Vec<OpenSession>, Option<u64>) {
        let inner = lock(&self.0);
        let mut later = inner.open.range((Bound::Excluded(number), Bound::Unbounded));
        let listed: Vec<_> = later.by_ref().take(MAX_LISTED).collect();
        let next = later.next().and(listed.last().map(|(number, _)| **number));
        (listed.into_iter().map(|(_, session)| session.clone()).collect(), next)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        lock(&self.sessions.0).open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_are_open_are_listed_in_parts() {
        let sessions = Arc::<OpenSessions>::default();
        let enter = |number: usize| {
            let id = number.to_string();
            sessions.enter(OpenSession { id, target: "host-7:ssh".to_owned(), caller: "m".to_owned() })
        };
        let mut open: Vec<_> = (0..2 * MAX_LISTED).map(enter).collect();
        open.remove(1);
        open.push(enter(2 * MAX_LISTED));
        let (mut listed, mut next, mut parts) = (Vec::new(), Some(0), 0);
        while let Some(after) = next {
            let (part, more) = sessions.after(after);
            listed.extend(part.into_iter().map(|session| session.id));
            (next, parts) = (more, parts + 1);
        }
        let expected: Vec<_> =
            (0..=2 * MAX_LISTED).filter(|number| *number != 1).map(|n| n.to_string()).collect();
        assert_eq!((listed, parts), (expected, 2));
        drop(open);
        assert_eq!(sessions.after(0), (Vec::new(), None));
    }
}
