//! A zone in use: endpoints by the program, and sessions to them that move data until they are told to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use zone_module::proxies;
use zone_module::session::{EndToEnd, Session};
use zone_module::zone::Zone as Directory;
use zone_tests::host::Host;
use zone_tests::process::Process;
use zone_tests::zone::{Service, Zone};
use zone_tests::{TEST_TIMEOUT, target};

/// Sessions to each endpoint; every fourth is protected end to end.
const SESSIONS_PER_ENDPOINT: usize = 25;
/// Bytes of one round trip.
const MESSAGE: usize = 512;

/// A zone with its proxy and endpoints.
pub(super) struct Busy {
    pub(super) host: Host,
    pub(super) zone: Zone,
    pub(super) endpoints: Vec<Process>,
    trips: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<std::io::Result<()>>>,
    /// Opens one session after the other; how many.
    newcomers: Option<JoinHandle<usize>>,
}

impl Busy {
    /// With so many endpoints, and no session yet.
    pub(super) fn start(endpoints: usize) -> Self {
        let host = Host::start("");
        let zone = Zone::with(&host);
        let echo = target::echo().to_string();
        let services = [
            Service { name: "plain", port: 7, target: echo.clone(), end_to_end: false },
            Service { name: "sealed", port: 8, target: echo, end_to_end: true },
        ];
        let endpoints = (0..endpoints).map(|n| zone.endpoint(&host, &format!("e{n}"), &services)).collect();
        Self {
            host,
            zone,
            endpoints,
            trips: Arc::default(),
            over: Arc::default(),
            sessions: Vec::new(),
            newcomers: None,
        }
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = String> + use<> {
        (0..self.endpoints.len()).map(|number| format!("e{number}"))
    }

    /// The files of an endpoint.
    pub(super) fn files(&self, id: &str) -> PathBuf {
        self.zone.beside(id)
    }

    /// Opens short sessions, one after the other, none of which may fail.
    pub(super) fn open_all_the_time(&mut self) {
        let (over, directory) = (Arc::clone(&self.over), self.zone.path());
        let ids: Vec<_> = self.ids().collect();
        self.newcomers = Some(tokio::spawn(async move {
            let mut opened = 0;
            while !over.load(Ordering::Relaxed) {
                let (id, sealed) = (&ids[opened % ids.len()], opened % 2 == 0);
                let mut session = open(&directory, id, sealed)
                    .await
                    .unwrap_or_else(|error| panic!("session {opened}, {id}: {error}"));
                round_trip(&mut session).await.unwrap_or_else(|error| panic!("session {opened}: {error}"));
                session.shutdown().await.unwrap_or_else(|error| panic!("session {opened}: {error}"));
                opened += 1;
            }
            opened
        }));
    }

    /// Opens sessions to every endpoint, which move data from then on.
    pub(super) async fn move_data(&mut self) {
        for id in self.ids() {
            for number in 0..SESSIONS_PER_ENDPOINT {
                let mut session = self.session(&id, number % 4 == 0).await;
                let (trips, over) = (Arc::clone(&self.trips), Arc::clone(&self.over));
                self.sessions.push(tokio::spawn(async move {
                    while !over.load(Ordering::Relaxed) {
                        round_trip(&mut session).await?;
                        trips.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                    }
                    session.shutdown().await
                }));
            }
        }
        self.move_on().await;
    }

    /// A new session, by what the zone directory says now.
    pub(super) async fn session(&self, id: &str, sealed: bool) -> Session {
        open(&self.zone.path(), id, sealed).await.unwrap_or_else(|error| panic!("{id}: {error}"))
    }

    /// Waits until every session has moved data again.
    pub(super) async fn move_on(&self) {
        let wanted = self.trips.load(Ordering::Relaxed) + 3 * self.sessions.len();
        let moved = async {
            while self.trips.load(Ordering::Relaxed) < wanted {
                assert!(!self.sessions.iter().any(JoinHandle::is_finished), "a session is gone");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        timeout(TEST_TIMEOUT, moved).await.expect("the sessions stand still");
    }

    /// Ends the sessions, none of which was lost; how many they were, and the round trips that they made.
    pub(super) async fn ends_whole(&mut self) -> (usize, usize) {
        self.move_on().await;
        self.over.store(true, Ordering::Relaxed);
        let sessions = std::mem::take(&mut self.sessions);
        let mut count = sessions.len();
        for session in sessions {
            session.await.expect("no panic").expect("a session was lost");
        }
        if let Some(newcomers) = self.newcomers.take() {
            count += newcomers.await.expect("a new session was refused or lost");
        }
        (count, self.trips.load(Ordering::Relaxed))
    }

    /// How many sessions have ended by themselves.
    pub(super) fn lost(&self) -> usize {
        self.sessions.iter().filter(|session| session.is_finished()).count()
    }

    /// Copies what was written for each endpoint to its place. It is not told.
    pub(super) fn deliver(&self, out: &Path) {
        for id in self.ids() {
            copy(&out.join("endpoint").join(&id), &self.files(&id));
        }
    }
}

/// A session, by what a zone directory says now.
async fn open(zone: &Path, id: &str, sealed: bool) -> zone_module::Result<Session> {
    let directory = Directory::open(zone).expect("a zone");
    let (service, policy) = if sealed { ("sealed", EndToEnd::Required) } else { ("plain", EndToEnd::Off) };
    let target = format!("{id}:{service}").parse().expect("a target");
    proxies::connect(&proxies::clients(&directory)?, &target, policy).await
}

/// Copies the files of a directory into another one, one after the other.
pub(super) fn copy(from: &Path, to: &Path) {
    let files = std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    for file in files.flatten() {
        std::fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

/// Sends bytes and waits until they are back.
pub(super) async fn round_trip(session: &mut Session) -> std::io::Result<()> {
    let sent = [0x5a; MESSAGE];
    session.write_all(&sent).await?;
    session.flush().await?;
    let mut received = [0; MESSAGE];
    session.read_exact(&mut received).await?;
    assert_eq!(received, sent, "other bytes");
    Ok(())
}
