//! People at work, and what they notice.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use tokio::task::JoinSet;
use zone_module::proxies;
use zone_module::session::EndToEnd;
use zone_tests::zone::Zone;

use crate::load::peers::{Inside, round_trip};

/// Between two keystrokes of one person.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
struct Notes {
    latencies: Mutex<Vec<Duration>>,
    errors: Mutex<Vec<String>>,
}

impl Notes {
    fn note(&self, latency: Result<Duration, String>) {
        match latency {
            Ok(latency) => self.latencies.lock().expect("no panic").push(latency),
            Err(error) => self.errors.lock().expect("no panic").push(error),
        }
    }

    fn take(&self) -> Latencies {
        let mut latencies = std::mem::take(&mut *self.latencies.lock().expect("no panic"));
        latencies.sort_unstable();
        Latencies(latencies)
    }

    fn errors(&self) -> Vec<String> {
        self.errors.lock().expect("no panic").clone()
    }
}

/// How long something took, in order.
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The figure that so many percent are below, milliseconds.
    fn percentile(&self, percent: usize) -> f64 {
        self.0.get(self.0.len() * percent / 100).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
    }

    pub(super) fn p99(&self) -> f64 {
        self.percentile(99)
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.2}  {:>8.2}", self.percentile(50), self.p99())
    }
}

/// Sessions in which somebody types. Dropped, they end.
pub(super) struct EchoSessions {
    notes: Arc<Notes>,
    _tasks: JoinSet<()>,
}

impl EchoSessions {
    pub(super) async fn open(inside: &Inside, target: &str, sessions: usize) -> Self {
        let notes = Arc::new(Notes::default());
        let mut tasks = JoinSet::new();
        for _ in 0..sessions {
            let (mut session, notes) = (inside.session(target).await, Arc::clone(&notes));
            tasks.spawn(async move {
                for seed in (0..=u8::MAX).cycle() {
                    let began = Instant::now();
                    let echoed = round_trip(&mut session, seed).await;
                    let broken = echoed.is_err();
                    notes.note(echoed.map(|()| began.elapsed()).map_err(|error| error.to_string()));
                    if broken {
                        return;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { notes, _tasks: tasks }
    }

    /// The latencies since the last call.
    pub(super) fn take(&self) -> Latencies {
        self.notes.take()
    }

    pub(super) fn errors(&self) -> Vec<String> {
        self.notes.errors()
    }
}

/// A session each second, as an operator opens it. Dropped, it ends.
pub(super) struct CallsBySecond {
    notes: Arc<Notes>,
    _tasks: JoinSet<()>,
}

impl CallsBySecond {
    pub(super) fn start(zone: &Zone, target: &str) -> Self {
        let notes = Arc::new(Notes::default());
        let clients = proxies::clients(&zone.directory()).expect("a proxy");
        let (target, told) = (target.parse().expect("a target"), Arc::clone(&notes));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1));
            loop {
                ticks.tick().await;
                let began = Instant::now();
                match proxies::connect(&clients, &target, EndToEnd::Off).await {
                    Ok(mut session) => {
                        let echoed = round_trip(&mut session, 7).await;
                        told.note(echoed.map(|()| began.elapsed()).map_err(|error| error.to_string()));
                    }
                    Err(error) => told.note(Err(error.to_string())),
                }
            }
        });
        Self { notes, _tasks: tasks }
    }

    /// The latencies since the last call.
    pub(super) fn take(&self) -> Latencies {
        self.notes.take()
    }

    pub(super) fn errors(&self) -> Vec<String> {
        self.notes.errors()
    }
}

/// The time that a process's threads have run, by the kernel's clocks of them.
pub(in crate::load) fn processor_time(process: Pid) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).expect("a process");
    let of = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    };
    threads.flatten().filter_map(of).sum()
}

/// How many connections stand to a port, as the kernel lists them (proc_net_tcp).
pub(super) fn connections(port: SocketAddr) -> usize {
    let IpAddr::V4(address) = port.ip() else { panic!("{port} is of IPv6") };
    let local = format!("{:08X}:{:04X}", u32::from_le_bytes(address.octets()), port.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel lists them");
    let stands = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next() == Some(&local) && fields.nth(1) == Some("01")
    };
    table.lines().filter(stands).count()
}

/// How many descriptors a process has open.
pub(super) fn descriptors(process: Pid) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).expect("a process").count()
}
