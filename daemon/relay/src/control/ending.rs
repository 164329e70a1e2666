//! Tests: a relay ends with a task that it can't do without, whatever it is in the middle of.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::unistd::getuid;
use tokio::time::timeout;
use zone_channel::ListenerInfo;
use zone_protocol::identity::Role;

use super::*;
use crate::fixtures::{Authority, policy};
use crate::log;

const TEST_TIMEOUT: Duration = Duration::from_secs(20);
const ACCEPT_LOOPS: usize = 2;

fn relay() -> Relay {
    Relay {
        state: RelayState::Fresh,
        started_by: getuid().as_raw(),
        build: String::new(),
        descriptors: None,
        privileges: ProcessStatus {
            role: "relay".to_owned(),
            pid: std::process::id(),
            uid: getuid().as_raw(),
            capabilities: String::new(),
            no_new_privs: true,
            confinement: None,
        },
        manager: Arc::default(),
        watchdog: Watchdog::new(),
        log: log::start().unwrap(),
        serving: None,
        drain_deadline: None,
        tells_wanted: false,
        tasks: JoinSet::new(),
    }
}

/// A relay that accepts.
fn serving(directory: &tempfile::TempDir) -> Relay {
    let (proxies, endpoints, module_servers) =
        (Authority::new("proxies"), Authority::new("endpoints"), Authority::new("module servers"));
    let listeners = [Role::Endpoint, Role::ModuleServer].map(|role| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (ListenerInfo { role, address: listener.local_addr().unwrap() }, OwnedFd::from(listener))
    });
    let (listeners, mut descriptors): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
    descriptors.push(UnixListener::bind(directory.path().join("rendezvous")).unwrap().into());
    let mut relay = relay();
    let configure = Configure {
        generation: 1,
        state: "1".to_owned(),
        control_uid: getuid().as_raw(),
        listeners,
        lifeline: false,
        notes: false,
        takes_over: false,
        policy: policy(&proxies, &[&endpoints], &[&module_servers]),
    };
    relay.configure(configure, descriptors).unwrap();
    relay.activate().unwrap();
    relay
}

/// A channel with nobody who says anything at the other end.
fn channel() -> (Sender<FromRelay>, Receiver<ToRelay>, UnixStream) {
    let (own, controls) = UnixStream::pair().unwrap();
    let (sender, receiver) = zone_channel::pair(own.into()).unwrap();
    (sender, receiver, controls)
}

async fn end(mut relay: Relay, with_control: bool) -> RelayError {
    let (sender, receiver, controls) = channel();
    let _controls = with_control.then_some(controls);
    let heartbeat = relay.watchdog.register("talk with control");
    timeout(TEST_TIMEOUT, relay.serve_controls(sender, receiver, heartbeat)).await.unwrap().unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_a_task_that_stands_for_the_process_ends_it_with_and_without_a_control() {
    let directory = tempfile::tempdir().unwrap();
    for with_control in [true, false] {
        let mut relay = serving(&directory);
        relay.tasks.spawn(async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            panic!("out of luck");
        });
        let error = end(relay, with_control).await;
        assert!(error.to_string().contains("out of luck"), "{error}");
        assert_eq!(error.exit_status(), EXIT_TASK_ENDED);
        std::fs::remove_file(directory.path().join("rendezvous")).unwrap();
    }
}

/// They are waited for together, so it is enough that each is among them: the accept loops, the switchboard, the ends of
/// certificates, and freed memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_ends_with_each_of_its_loops() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = serving(&directory);
    assert_eq!(relay.tasks.len(), ACCEPT_LOOPS + 3);
    assert_eq!(relay.watchdog.check(TEST_TIMEOUT).await, Ok(()), "and each answers the watchdog");
    relay.tasks.abort_all();
    let error = end(relay, true).await;
    assert_eq!(error.exit_status(), EXIT_TASK_ENDED, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_talk_with_control_that_stands_still_is_named_to_the_watchdog() {
    let directory = tempfile::tempdir().unwrap();
    let mut relay = serving(&directory);
    let watchdog = Arc::clone(&relay.watchdog);
    let heartbeat = watchdog.register("talk with control");
    assert_eq!(
        watchdog.check(Duration::from_millis(200)).await,
        Err("talk with control"),
        "nobody drives it"
    );
    let (sender, receiver, _controls) = channel();
    let checked = async { watchdog.check(TEST_TIMEOUT).await };
    tokio::select! {
        ended = relay.serve_controls(sender, receiver, heartbeat) => panic!("{ended:?}"),
        checked = checked => assert_eq!(checked, Ok(())),
    }
}
