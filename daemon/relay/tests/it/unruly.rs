//! Peers that keep to no order: they send one byte at a time, leave at any byte in any way, and lie about lengths.
//!
//! `ZONE_SEEDS` says how many histories are tried, `ZONE_SEED` names one to try again.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::bench::{ACCEPT, Bench, Stream, connect_request, dial, park_request};

/// Histories where nothing else is said, and how many go on at the same time.
const HISTORIES: u64 = 160;
const AT_A_TIME: usize = 8;
/// More than every deadline of the relay here: whatever a peer waits for has come by then.
const PATIENT: Duration = Duration::from_secs(10);
const PAYLOAD: &str = "payload that nobody may see in a head, and no head may see behind it";

/// How one side behaves.
#[derive(Debug, Clone)]
struct Conduct {
    /// What it says at each of its turns.
    turns: [String; 2],
    /// Whether it sends byte by byte.
    dribbles: bool,
    /// After how many bytes it leaves, if it does.
    leaves_after: Option<usize>,
    /// And how.
    leaves: Leaves,
}

#[derive(Debug, Clone, Copy)]
enum Leaves {
    InOrder,
    WithoutCloseNotify,
    ByReset,
    /// It stays, and says nothing any more.
    Never,
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn conduct(&mut self, turns: [String; 2]) -> Conduct {
        let length = turns.iter().map(String::len).sum::<usize>();
        let leaves =
            [Leaves::InOrder, Leaves::WithoutCloseNotify, Leaves::ByReset, Leaves::Never][self.below(4)];
        Conduct {
            turns,
            dribbles: self.below(3) == 0,
            leaves_after: (self.below(4) > 0).then(|| self.below(length + 1)),
            leaves,
        }
    }
}

/// Issue: whatever peers do, everybody gets an answer or an end, nothing is left of them, and others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_dribble_lie_and_leave_at_any_byte_get_an_answer_or_an_end_and_leave_nothing_behind() {
    let mut bench = Bench::start(|p| {
        let timeouts = &mut p.timeouts;
        (timeouts.handshake, timeouts.head, timeouts.session_idle) = (3.0, 1.0, 1.0);
        (timeouts.first_byte, timeouts.answer, timeouts.connect) = (0.5, 0.5, 2.0);
        (timeouts.ping_after, timeouts.pong, timeouts.idle_connection) = (1.0, 1.0, 1.0);
    })
    .await;
    let caller = bench.client(&bench.module_server("inside"));
    let mut histories = JoinSet::new();
    for seed in seeds() {
        if histories.len() >= AT_A_TIME {
            histories.join_next().await.expect("one of them").expect("no panic");
        }
        let endpoint = bench.client(&bench.endpoint(&format!("host-{seed}")));
        let addresses = (bench.endpoint_address, bench.module_address);
        let caller = Arc::clone(&caller);
        histories.spawn(async move {
            let history = history(seed, addresses, endpoint, caller);
            assert!(
                timeout(PATIENT, Box::pin(history)).await.is_ok(),
                "seed {seed}: somebody waits for ever"
            );
        });
        if seed % 20 == 0 {
            let (mut caller, mut endpoint) = bench.session("in-order").await;
            caller.send("to the endpoint").await;
            endpoint.exactly(b"to the endpoint").await;
        }
    }
    while let Some(ended) = histories.join_next().await {
        ended.expect("no panic");
    }
    bench
        .until("nothing is left of them", |counts| {
            (counts.parks, counts.sessions, counts.waiting) == (0, 0, 0)
                && counts.module_server_connections == 0
                && counts.buffered_bytes == 0
        })
        .await;
    assert!(bench.child.try_wait().expect("our child").is_none(), "{}", bench.log());
    let _works = bench.session("in-order").await;
}

fn seeds() -> RangeInclusive<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("ZONE_SEED") {
        Some(seed) => seed..=seed,
        None => 1..=number("ZONE_SEEDS").unwrap_or(HISTORIES),
    }
}

async fn history(
    seed: u64,
    (endpoint_port, module_port): (std::net::SocketAddr, std::net::SocketAddr),
    endpoint: Arc<ClientConfig>,
    caller: Arc<ClientConfig>,
) {
    let mut random = Random(seed);
    let request =
        random.of(&["", "Content-Length: 7\r\n", "Transfer-Encoding: chunked\r\n", "Zone-Instance: x\r\n"]);
    let park = if random.below(3) > 0 { "" } else { request };
    let park = park_request(u128::from(seed)).replace("\r\n\r\n", &format!("\r\n{park}\r\n"));
    let answer = random.of(&[
        ACCEPT,
        ACCEPT,
        ACCEPT,
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        "HTTP/1.1 404 None\r\nContent-Length: 1000000\r\n\r\nshort",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nZone-End-To-End: off\n\n",
        "200 OK\r\n\r\n",
    ]);
    let endpoint_conduct = random.conduct([park, format!("{answer}{PAYLOAD}")]);
    let target = format!("host-{seed}:ssh");
    let connect = match random.below(4) {
        0 => connect_request(&target).replace("\r\n\r\n", "\r\nContent-Length: 3\r\n\r\n"),
        _ => connect_request(&target),
    };
    let caller_conduct = random.conduct([connect, PAYLOAD.to_owned()]);
    let endpoint =
        act(dial(endpoint_port, endpoint, None).await.expect("an endpoint is let in"), endpoint_conduct);
    let caller = act(dial(module_port, caller, None).await.expect("a caller is let in"), caller_conduct);
    tokio::join!(endpoint, caller);
}

/// Says its turns, each after it has heard something, until it leaves or is left.
async fn act(mut stream: Stream, conduct: Conduct) {
    let mut left = conduct.leaves_after.unwrap_or(usize::MAX);
    let mut heard = [0; 2_048];
    for turn in &conduct.turns {
        let bytes = &turn.as_bytes()[..turn.len().min(left)];
        for piece in bytes.chunks(if conduct.dribbles { 1 } else { bytes.len().max(1) }) {
            if stream.write_all(piece).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
        left -= bytes.len();
        if left == 0 {
            return leave(stream, conduct.leaves).await;
        }
        if !matches!(stream.read(&mut heard).await, Ok(1..)) {
            return;
        }
    }
    leave(stream, if conduct.leaves_after.is_none() { Leaves::Never } else { conduct.leaves }).await;
}

async fn leave(mut stream: Stream, how: Leaves) {
    match how {
        Leaves::InOrder => drop(stream.shutdown().await),
        Leaves::WithoutCloseNotify => {}
        Leaves::ByReset => drop(stream.get_ref().0.set_zero_linger()),
        // Until the relay has had enough.
        Leaves::Never => while matches!(stream.read(&mut [0; 2_048]).await, Ok(1..)) {},
    }
}
