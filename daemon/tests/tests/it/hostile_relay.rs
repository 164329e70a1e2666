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

fn stop(process: Pid) {
    kill(process, Signal::SIGSTOP).expect("the process is there");
    until("it stands still", || {
        std::fs::read_to_string(format!("/proc/{process}/status"))
            .is_ok_and(|text| text.contains("State:\tT"))
    });
}

/// The seeds to try: so many, or as many as `ZONE_SEEDS` says, or the one that `ZONE_SEED` names.
fn seeds(usually: u64) -> std::ops::Range<u64> {
    let variable = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match variable("ZONE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("ZONE_SEEDS").unwrap_or(usually),
    }
}

/// Numbers that a seed makes (SplitMix64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }
}
