//! The runtime that a relay's tasks share.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// How many turns of tasks a worker takes before it asks the kernel what has become ready meanwhile. tokio's own number is
/// 61; a session that copies takes its next turn at once, so whoever is woken by the kernel would wait for 61 of them.
/// With [`TURN_BYTES`](crate::TURN_BYTES) it bounds what copies move before a keystroke has its turn.
pub const TURNS_BETWEEN_LOOKS: u32 = 5;

/// A runtime with as many workers, and clocks and sockets.
///
/// # Errors
///
/// Where the system gives no thread or no descriptor to it.
pub fn build(workers: usize) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .event_interval(TURNS_BETWEEN_LOOKS)
        .enable_all()
        .build()
}
