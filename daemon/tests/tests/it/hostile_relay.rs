//! A relay that is captured, or sick: what it does to control, and that no right outlives its end for its sake.

mod audit;
mod captured;
mod other_user;
mod restarts;
mod silent;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::until;
use zone_tests::zone::Zone;

/// The version of the trust document in force on 17488.
fn trust_version(host: &Host, zone: &Zone) -> u64 {
    let trust: serde_json::Value = Client::member(host, zone).ask("GET", "/v1/trust", &[], b"").document();
    trust["version"].as_u64().expect("a version")
}

/// Whether a process runs: one that has ended and is not waited for yet counts as gone.
fn is_there(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    kill(process, None).is_ok() && !status.contains("State:\tZ")
}

/// Has a process stand still.
pub(crate) fn stop(process: Pid) {
    kill(process, Signal::SIGSTOP).expect("the process is there");
    until("it stands still", || {
        std::fs::read_to_string(format!("/proc/{process}/status"))
            .is_ok_and(|text| text.contains("State:\tT"))
    });
}
