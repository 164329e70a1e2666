//! A daemon inside the test, on a loopback address of its own, and relays that the test plays.

use std::cell::{Cell, RefCell};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::task::{LocalSet, spawn_local};
use zone_channel::{
    ChannelError, FromRelay, KnownEndpoint, Policy, Query, RelayState, Reply, ToRelay, pair, show_senders,
};
use zone_protocol::provisioning::{Provisioned, RelayCounts};
use zone_protocol::token::Token;
use zone_proxy::config::Config;
use zone_proxy::confine::Confined;
use zone_proxy::daemon::Daemon;
use zone_proxy::relay::{Started, Starter};
use zone_proxy::run::StartError;
use zone_proxy::state::State;
use zone_proxy::state::clock::{Clock, SystemClock};

use crate::authority::{Party, Zone};
use crate::client::{self, Client};

/// Longer than anything takes that a test waits for.
pub(crate) const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The configuration file beside the state directory.
pub(crate) const FILE: &str = "zone-proxy.toml";

/// Runs a test on one thread, as the daemon does.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let test = async {
        tokio::time::timeout(Duration::from_secs(60), test).await.expect("the test ends");
    };
    LocalSet::new().block_on(&runtime, test);
}

/// A loopback address that no other test of this or another process uses.
pub(crate) fn own_address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let [_, high, low, _] = (process << 8).to_be_bytes();
    Ipv4Addr::new(127, 100 + high % 100, low, NEXT.fetch_add(1, Ordering::Relaxed)).into()
}

/// A daemon with its directories.
pub(crate) struct Proxy {
    pub(crate) daemon: Rc<Daemon>,
    pub(crate) address: IpAddr,
    pub(crate) clock: Rc<SetClock>,
    pub(crate) relays: PlayedRelays,
    pub(crate) directory: TempDir,
}

impl Proxy {
    /// A fresh one.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// A fresh one with a configuration of its own.
    pub(crate) async fn start_with(configure: impl FnOnce(&mut Config)) -> Self {
        let directory = TempDir::new().unwrap();
        let address = own_address();
        let mut config = config_in(&directory, address);
        configure(&mut config);
        let (clock, relays) = (Rc::new(SetClock::default()), PlayedRelays::default());
        fs::write(directory.path().join(FILE), toml::to_string(&config).unwrap()).unwrap();
        let daemon = start(config, Rc::clone(&clock), relays.clone()).await.unwrap();
        Self { daemon, address, clock, relays, directory }
    }

    /// The outstanding token, from the durable state.
    pub(crate) fn token(&self) -> Token {
        self.daemon.state().token.as_ref().expect("a token is outstanding").token.clone()
    }

    /// Provisions it with defaults, by its token.
    pub(crate) async fn provision(&self, zone: &Zone) -> (Provisioned, Party) {
        let mut client = client::by_token(self.address, &self.token()).await.unwrap();
        let offer = client.offer(zone).await;
        let document = zone.document(&offer, "p1", self.address);
        let done = client.put(&format!("/v1/provisioning/{}", offer.id), &document).await.json();
        (done, zone.module_server("inside"))
    }

    /// A connection of a Module Server.
    pub(crate) async fn member(&self, zone: &Zone, party: &Party) -> Client {
        client::by_certificate(self.address, zone, party).await.unwrap()
    }

    /// Whether a port accepts.
    pub(crate) async fn accepts(&self, port: u16) -> bool {
        TcpStream::connect((self.address, port)).await.is_ok()
    }

    /// The metrics as a Module Server reads them.
    pub(crate) fn counted(&self, sample: &str) -> bool {
        self.daemon.metrics().text(None).lines().any(|line| line.starts_with(sample))
    }

    /// The names of the files of the state in force.
    pub(crate) fn state_files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path().join("state/current")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Nothing has changed: the state, its token and the closed ports.
    pub(crate) async fn is_as_before(&self, before: &State) {
        assert_eq!(*self.daemon.state(), *before);
        assert!(self.state_files().contains(&"token.json".to_owned()));
        assert!(!self.accepts(17486).await && !self.accepts(17487).await);
    }
}

/// The defaults, with directories and an address of the test's own.
pub(crate) fn config_in(directory: &TempDir, address: IpAddr) -> Config {
    let mut config = Config {
        state_dir: directory.path().join("state"),
        runtime_dir: directory.path().join("run"),
        ..Config::default()
    };
    config.control.listen = vec![address];
    config
}

/// A daemon as the command starts it, but with a clock and relays of the test's own.
pub(crate) async fn start(
    config: Config,
    clock: Rc<SetClock>,
    relays: PlayedRelays,
) -> Result<Rc<Daemon>, StartError> {
    let file = config.state_dir.with_file_name(FILE);
    Daemon::start(config, &file, clock, Rc::new(relays), None, Box::new(|_| {}), Confined::default()).await
}

/// The machine's clock, which a test can move.
pub(crate) struct SetClock {
    machine: SystemClock,
    ahead: Cell<time::Duration>,
}

impl Default for SetClock {
    fn default() -> Self {
        Self { machine: SystemClock::new(), ahead: Cell::new(time::Duration::ZERO) }
    }
}

impl SetClock {
    /// Sets the wall clock ahead or back; time since boot goes on as it was.
    pub(crate) fn set_ahead(&self, by: time::Duration) {
        self.ahead.set(by);
    }
}

impl Clock for SetClock {
    fn wall(&self) -> OffsetDateTime {
        self.machine.wall() + self.ahead.get()
    }

    fn since_boot(&self) -> Duration {
        self.machine.since_boot()
    }

    fn boot_id(&self) -> &str {
        self.machine.boot_id()
    }
}

/// Relays that speak the channel and carry nothing.
#[derive(Clone, Default)]
pub(crate) struct PlayedRelays(Rc<Play>);

/// How relays are played, and what became of them.
#[derive(Default)]
pub(crate) struct Play {
    /// The command that relays answer with a failure.
    pub(crate) fails_at: Cell<Option<&'static str>>,
    /// While true, relays don't answer `configure`.
    pub(crate) hold: watch::Sender<bool>,
    /// Everything that relays were told, in order: generation and command.
    pub(crate) told: RefCell<Vec<(u64, &'static str)>>,
    /// What relays say that they can do.
    pub(crate) features: RefCell<Vec<String>>,
    /// The endpoints that relays were told to wait for.
    pub(crate) expected: RefCell<Vec<KnownEndpoint>>,
    /// The policy that was taken last.
    pub(crate) policy: RefCell<Option<Policy>>,
    /// Counts relays that serve or have served.
    pub(crate) served: watch::Sender<u64>,
    crash: Notify,
}

impl Deref for PlayedRelays {
    type Target = Play;

    fn deref(&self) -> &Play {
        &self.0
    }
}

impl Play {
    /// The relays end, as if killed.
    pub(crate) fn crash(&self) {
        self.crash.notify_waiters();
    }

    /// What the relay of a generation was told.
    pub(crate) fn told(&self, generation: u64) -> Vec<&'static str> {
        let told = self.told.borrow();
        told.iter().filter(|(of, _)| *of == generation).map(|(_, what)| *what).collect()
    }

    /// Waits until so many relays have served.
    pub(crate) async fn wait_until_served(&self, by: u64) {
        let mut served = self.served.subscribe();
        let waiting = tokio::time::timeout(EVENT_TIMEOUT, served.wait_for(|served| *served >= by));
        waiting.await.expect("a relay serves").unwrap();
    }

    /// Waits until a relay was told something.
    pub(crate) async fn wait_until_told(&self, generation: u64, what: &str) {
        let waiting = async {
            while !self.told(generation).contains(&what) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(EVENT_TIMEOUT, waiting).await.expect("the relay is told");
    }

    async fn relay(self: Rc<Self>, channel: OwnedFd) -> Result<(), ChannelError> {
        let (sender, mut receiver) = pair::<FromRelay, ToRelay>(channel)?;
        let hello = FromRelay::Hello {
            pid: std::process::id(),
            version: "played".into(),
            build: "played".into(),
            process: None,
            features: self.features.borrow().clone(),
            state: RelayState::Fresh,
            generation: 0,
            serves: String::new(),
            listeners: Vec::new(),
        };
        sender.send(&hello, &[]).await?;
        let (mut generation, mut state, mut held) = (0, RelayState::Fresh, Vec::new());
        let mut takes_over = false;
        loop {
            let (message, descriptors) = tokio::select! {
                message = receiver.receive() => message?,
                () = self.crash.notified() => return Ok(()),
            };
            held.extend(descriptors);
            let (what, then) = match message {
                ToRelay::Configure(configure) => {
                    (generation, takes_over) = (configure.generation, configure.takes_over);
                    self.policy.replace(Some(configure.policy));
                    ("configure", RelayState::Ready)
                }
                ToRelay::Activate => ("activate", RelayState::Serving),
                ToRelay::Policy(policy) => {
                    self.policy.replace(Some(*policy));
                    ("policy", state)
                }
                ToRelay::Drain => ("drain", RelayState::Draining),
                ToRelay::Stop => {
                    self.told.borrow_mut().push((generation, "stop"));
                    return Ok(());
                }
                // These are not answered.
                ToRelay::AcceptEndpoints => {
                    self.told.borrow_mut().push((generation, "accept endpoints"));
                    continue;
                }
                ToRelay::Release { .. } => {
                    self.told.borrow_mut().push((generation, "release"));
                    continue;
                }
                ToRelay::Expect { endpoints } => {
                    self.expected.borrow_mut().extend(endpoints);
                    continue;
                }
                ToRelay::Elsewhere { .. } => continue,
                ToRelay::Ask { id, query } => {
                    let reply = match query {
                        Query::Counts => Reply::Counts(RelayCounts { parks: 7, ..RelayCounts::default() }),
                        Query::Endpoints { .. } => {
                            let known = KnownEndpoint { id: "host-7".parse().unwrap(), seconds: 60 };
                            Reply::Endpoints { endpoints: vec![known], next: None }
                        }
                        Query::Sessions { .. } => Reply::Sessions { sessions: Vec::new(), next: None },
                        Query::Metrics => Reply::Metrics("zone_relay_played 1\n# EOF\n".into()),
                    };
                    sender.send(&FromRelay::Reply { id, reply }, &[]).await?;
                    continue;
                }
            };
            self.told.borrow_mut().push((generation, what));
            let mut hold = self.hold.subscribe();
            if what == "configure" {
                let _ = hold.wait_for(|hold| !hold).await;
            }
            if self.fails_at.get() == Some(what) {
                let failed = FromRelay::Failed { step: what.into(), error: "as the test wants it".into() };
                sender.send(&failed, &[]).await?;
                continue;
            }
            state = then;
            if what == "activate" {
                self.served.send_modify(|served| *served += 1);
            }
            sender.send(&FromRelay::Done(state), &[]).await?;
            if what == "activate" && takes_over {
                // A call was there at once.
                let endpoints = vec!["host-7".parse().unwrap()];
                sender.send(&FromRelay::Wanted { endpoints }, &[]).await?;
            }
        }
    }
}

impl Starter for PlayedRelays {
    fn start(&self) -> io::Result<Started> {
        let (channel, relays) = UnixStream::pair()?;
        show_senders(&channel)?;
        let play = Rc::clone(&self.0);
        spawn_local(async move {
            // A closed channel is the usual end.
            let _ = play.relay(relays.into()).await;
        });
        Ok(Started { channel: channel.into(), child: None })
    }

    fn name(&self) -> String {
        "a played relay".to_owned()
    }
}
