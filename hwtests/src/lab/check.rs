//! What suites check in common.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use super::target::{Probe, Target};

/// How long a connection attempt waits for an answer. One lost packet is sent again after a second (RFC 6298).
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(1500);

/// Connects from a host to an address, really and at once closed again.
pub fn tcp_probe(from: &dyn Target, to: SocketAddr) -> Probe {
    from.probe(to, PROBE_TIMEOUT)
}

/// The same to many addresses at the same time, in their order.
pub fn probe_all(from: &dyn Target, to: &[SocketAddr], limit: Duration) -> Vec<(SocketAddr, Probe)> {
    thread::scope(|scope| {
        let attempts: Vec<_> =
            to.iter().map(|&address| (address, scope.spawn(move || from.probe(address, limit)))).collect();
        attempts
            .into_iter()
            .map(|(address, attempt)| (address, attempt.join().unwrap_or(Probe::Unreachable)))
            .collect()
    })
}

/// The lines that one text has and the other hasn't, as `-` (missing) and `+` (new), some of each.
pub fn difference(expected: &str, seen: &str) -> String {
    const SHOWN: usize = 20;
    let only = |one: &str, other: &str, sign: char| {
        let others: std::collections::BTreeSet<_> = other.lines().collect();
        let lines: Vec<_> = one.lines().filter(|line| !others.contains(line)).collect();
        let more = lines.len().saturating_sub(SHOWN);
        let mut text: String =
            lines.iter().take(SHOWN).fold(String::new(), |text, line| text + &format!("{sign} {line}\n"));
        if more > 0 {
            let _ = writeln!(text, "{sign} and {more} more");
        }
        text
    };
    let text = only(expected, seen, '-') + &only(seen, expected, '+');
    if text.is_empty() { "the same lines in another order or number".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_line_by_line() {
        assert_eq!(difference("a\nb\n", "a\nc\n"), "- b\n+ c\n");
        assert_eq!(difference("a\nb\n", "b\na\n"), "the same lines in another order or number");
    }
}
