//! How much memory a process really has.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use zone_tests::TEST_TIMEOUT;

/// Resident memory in KiB, as `/proc/PID/smaps_rollup` (proc(5)) sums it up.
pub(super) fn resident(process: Pid) -> u64 {
    let path = format!("/proc/{process}/smaps_rollup");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.unwrap_or_else(|| panic!("no Rss in {path}:\n{text}"))
}

/// The same once it has not moved for `quiet`.
pub(super) async fn settled(process: Pid, quiet: Duration) -> u64 {
    const STILL: u64 = 64;
    let deadline = Instant::now() + TEST_TIMEOUT;
    let (mut figure, mut since) = (resident(process), Instant::now());
    while since.elapsed() < quiet {
        assert!(Instant::now() < deadline, "the memory of {process} never settles: {figure} KiB");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = resident(process);
        if now.abs_diff(figure) > STILL {
            (figure, since) = (now, Instant::now());
        }
    }
    resident(process)
}
