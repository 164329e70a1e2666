//! Changes are told.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBuf;
use zone_ruleset::{Changes, Reader, Subscription};

use crate::namespace::namespace;

const DEADLINE: Duration = Duration::from_secs(20);

/// What there is to drain within a time, once there is something.
fn next(subscription: &mut Subscription) -> Changes {
    let end = Instant::now() + DEADLINE;
    while Instant::now() < end {
        let mut fds = [PollFd::new(subscription.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(1000_u16)).expect("a descriptor");
        let changes = subscription.drain().expect("changes");
        if !changes.is_empty() {
            return changes;
        }
    }
    panic!("nothing was told within {DEADLINE:?}");
}

#[test]
fn each_transaction_is_told_with_its_number_and_who_made_it() {
    let Some(host) = namespace("each_transaction_is_told_with_its_number_and_who_made_it") else { return };
    host.inside(|| {
        let mut subscription = Subscription::open().expect("a subscription");
        assert!(subscription.drain().expect("nothing").is_empty(), "nothing happened yet");
        host.nft("table inet t { chain c { accept; drop; } }");
        let changes = next(&mut subscription);
        let [commit] = changes.commits.as_slice() else { panic!("{changes:?}") };
        assert!(!changes.lost);
        assert_eq!(commit.number, Reader::open().expect("a reader").generation().expect("one").number);
        let (pid, name) = commit.process.clone().expect("a process");
        assert!(name == *"nft" && pid > 0, "{name} {pid}");
        host.nft("flush ruleset");
        assert_eq!(next(&mut subscription).commits[0].number, commit.number + 1);
    });
}

#[test]
fn reading_the_rules_is_no_change() {
    let Some(host) = namespace("reading_the_rules_is_no_change") else { return };
    host.nft("table inet t { chain c { accept; drop; } }");
    host.inside(|| {
        let mut subscription = Subscription::open().expect("a subscription");
        let mut reader = Reader::open().expect("a reader");
        let before = reader.generation().expect("a number");
        reader.ruleset().expect("rules");
        assert!(subscription.drain().expect("changes").is_empty());
        assert_eq!(reader.generation().expect("a number"), before);
    });
}

#[test]
fn a_large_transaction_is_one_change_and_loses_nothing() {
    let Some(host) = namespace("a_large_transaction_is_one_change_and_loses_nothing") else { return };
    let rules: Vec<String> = (0..20_000).map(|port| format!("tcp dport {port} accept\n")).collect();
    host.inside(|| {
        let mut subscription = Subscription::open().expect("a subscription");
        host.nft(&format!("table inet t {{ chain c {{ {} }} }}", rules.concat()));
        let changes = next(&mut subscription);
        assert!(!changes.lost && changes.commits.len() == 1, "{changes:?}");
    });
}

#[test]
fn more_changes_than_are_kept_are_told_as_lost_and_later_ones_are_heard() {
    let Some(host) = namespace("more_changes_than_are_kept_are_told_as_lost_and_later_ones_are_heard") else {
        return;
    };
    host.inside(|| {
        let mut subscription = Subscription::open().expect("a subscription");
        // The kernel makes of it the smallest there is.
        setsockopt(&subscription, RcvBuf, &1).expect("a smaller buffer");
        for number in 0..20 {
            host.nft(&format!("add table inet flood{number}"));
        }
        let mut lost = false;
        loop {
            let changes = subscription.drain().expect("changes");
            lost |= changes.lost;
            if changes.is_empty() {
                break;
            }
        }
        assert!(lost, "20 transactions are more than are kept");
        host.nft("add table inet after");
        assert_eq!(next(&mut subscription).commits.len(), 1);
    });
}
