//! The race on tokio's sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::lookup::look_up;
use crate::place::Place;
use crate::race::{Action, End, Event, MAX_ADDRESSES, Race};

/// An orderly close of a connection that is not needed may take this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection that won.
#[derive(Debug)]
pub struct Reached<S> {
    /// What the attempt gave.
    pub stream: S,
    /// The address that it goes to.
    pub address: SocketAddr,
}

/// An attempt tells by it that its TCP connection is there.
#[derive(Debug)]
pub struct Progress {
    attempt: usize,
    advanced: mpsc::Sender<usize>,
}

impl Progress {
    /// The TCP connection is there, and the handshake begins.
    pub fn connected(&self) {
        // There is room for one word of each attempt.
        let _ = self.advanced.try_send(self.attempt);
    }
}

/// Why nothing was reached: what became of each name and address.
#[derive(Debug)]
pub struct Failure<E> {
    /// Names that gave no address, then addresses in the order in which they were tried.
    pub each: Vec<(Unreached, Trouble<E>)>,
    /// The time that the whole had.
    pub limit: Duration,
}

/// What was not reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreached {
    /// A name that gave no address.
    Name(Place),
    /// An address.
    Address(SocketAddr),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(place) => place.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// What became of one name or address.
#[derive(Debug)]
pub enum Trouble<E> {
    /// The name could not be looked up.
    Lookup(io::Error),
    /// The name has no address.
    NoAddress,
    /// The name was not looked up in time.
    LookupLate,
    /// The attempt failed.
    Failed(E),
    /// There was no TCP connection in time.
    ConnectLate,
    /// The handshake was not done in time.
    HandshakeLate,
}

/// Reaches one of `places`, whichever ends its handshake first, within `limit`.
///
/// `attempt` connects to an address, tells that it has, and shakes hands. The streams of attempts that succeed beside the winner
/// are shut down in an orderly way, the other attempts are dropped.
///
/// # Errors
/// What became of each name and address, where none succeeded in time.
pub async fn reach<S, E, F>(
    places: &[Place],
    limit: Duration,
    attempt: impl Fn(SocketAddr, Progress) -> F,
) -> Result<Reached<S>, Failure<E>>
where
    S: AsyncWrite + Unpin + Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<S, E>> + Send + 'static,
{
    if places.is_empty() {
        return Err(Failure { each: Vec::new(), limit });
    }
    let begun = Instant::now();
    let mut race = Race::new(places.len(), limit);
    let mut runners = Runners::look_up(places);
    loop {
        let event = tokio::select! {
            biased;
            Some(ended) = runners.attempts.join_next_with_id() => runners.ended(ended),
            Some(found) = runners.lookups.join_next() => runners.found(found),
            Some(advanced) = runners.advanced.recv() => runners.connected(advanced),
            () = sleep_until(begun + race.next_deadline()) => Event::Tick,
        };
        for action in race.handle(begun.elapsed(), event) {
            match action {
                Action::Start { attempt: number, address } => {
                    let progress = Progress { attempt: number, advanced: runners.advance.clone() };
                    runners.start(number, address, attempt(address, progress));
                }
                // All that are left are closed at the end, which is behind these.
                Action::Abandon(_) => {}
                Action::End(end) => return runners.end(end, places, limit),
            }
        }
    }
}

/// What is under way, and what became of it.
struct Runners<S, E> {
    lookups: JoinSet<(usize, io::Result<Vec<SocketAddr>>)>,
    attempts: JoinSet<Result<S, E>>,
    numbers: BTreeMap<Id, usize>,
    advance: mpsc::Sender<usize>,
    advanced: mpsc::Receiver<usize>,
    /// By the place of the name in the list; `None` where it has addresses.
    names: BTreeMap<usize, Option<Trouble<E>>>,
    tried: Vec<Tried<E>>,
    winner: Option<S>,
}

struct Tried<E> {
    address: SocketAddr,
    connected: bool,
    failure: Option<E>,
}

impl<S, E> Runners<S, E>
where
    S: AsyncWrite + Unpin + Send + 'static,
    E: Send + 'static,
{
    fn look_up(places: &[Place]) -> Self {
        let (advance, advanced) = mpsc::channel(MAX_ADDRESSES);
        let mut lookups = JoinSet::new();
        for (n, place) in places.iter().enumerate() {
            let (told, found) = oneshot::channel();
            // Nobody waits for one that is too late.
            look_up(place, |found| drop(told.send(found)));
            let no_thread = |_| Err(io::Error::other("there is no thread left to look it up on"));
            lookups.spawn(async move { (n, found.await.unwrap_or_else(no_thread)) });
        }
        Self {
            lookups,
            attempts: JoinSet::new(),
            numbers: BTreeMap::new(),
            advance,
            advanced,
            names: BTreeMap::new(),
            tried: Vec::new(),
            winner: None,
        }
    }

    fn found(&mut self, found: Result<(usize, io::Result<Vec<SocketAddr>>), JoinError>) -> Event {
        let (name, found) = match found {
            Ok(found) => found,
            Err(failure) => {
                panic_on(failure);
                return Event::NotFound;
            }
        };
        let (trouble, event) = match found {
            Ok(addresses) if addresses.is_empty() => (Some(Trouble::NoAddress), Event::NotFound),
            Ok(addresses) => (None, Event::Found(addresses)),
            Err(error) => (Some(Trouble::Lookup(error)), Event::NotFound),
        };
        self.names.insert(name, trouble);
        event
    }

    fn start(
        &mut self,
        number: usize,
        address: SocketAddr,
        attempt: impl Future<Output = Result<S, E>> + Send + 'static,
    ) {
        let id = self.attempts.spawn(attempt).id();
        self.numbers.insert(id, number);
        self.tried.push(Tried { address, connected: false, failure: None });
    }

    fn connected(&mut self, number: usize) -> Event {
        self.tried[number].connected = true;
        Event::Advanced(number)
    }

    fn ended(&mut self, ended: Result<(Id, Result<S, E>), JoinError>) -> Event {
        let (id, result) = match ended {
            Ok(ended) => ended,
            Err(failure) => {
                let number = self.numbers[&failure.id()];
                panic_on(failure);
                return Event::Failed(number);
            }
        };
        let number = self.numbers[&id];
        match result {
            Ok(stream) => {
                self.winner = Some(stream);
                Event::Succeeded(number)
            }
            Err(error) => {
                self.tried[number].failure = Some(error);
                Event::Failed(number)
            }
        }
    }

    fn end(mut self, end: End, places: &[Place], limit: Duration) -> Result<Reached<S>, Failure<E>> {
        self.attempts.abort_all();
        if !self.attempts.is_empty() {
            tokio::spawn(close(self.attempts));
        }
        if let (End::Won(number), Some(stream)) = (end, self.winner) {
            return Ok(Reached { stream, address: self.tried[number].address });
        }
        let mut each = Vec::new();
        for (n, place) in places.iter().enumerate() {
            if let Some(trouble) = self.names.remove(&n).unwrap_or(Some(Trouble::LookupLate)) {
                each.push((Unreached::Name(place.clone()), trouble));
            }
        }
        for Tried { address, connected, failure } in self.tried {
            let late = || if connected { Trouble::HandshakeLate } else { Trouble::ConnectLate };
            each.push((Unreached::Address(address), failure.map_or_else(late, Trouble::Failed)));
        }
        Err(Failure { each, limit })
    }
}

/// Goes on with the panic of a task. One that was cancelled has no panic: the runtime ends.
fn panic_on(failure: JoinError) {
    if let Ok(panic) = failure.try_into_panic() {
        std::panic::resume_unwind(panic);
    }
}

/// Closes those that came to the end of their handshake beside the winner.
async fn close<S, E>(mut attempts: JoinSet<Result<S, E>>)
where
    S: AsyncWrite + Unpin + Send + 'static,
    E: Send + 'static,
{
    while let Some(ended) = attempts.join_next().await {
        if let Ok(Ok(mut stream)) = ended {
            // It carried nothing: what fails here is of no interest.
            let _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// An attempt whose handshake is one byte from the server.
    async fn one_byte(address: SocketAddr, progress: Progress) -> io::Result<TcpStream> {
        let mut tcp = TcpStream::connect(address).await?;
        progress.connected();
        tcp.read_u8().await?;
        Ok(tcp)
    }

    async fn listener(address: &str) -> (TcpListener, Place) {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let place = Place::parse(&listener.local_addr().unwrap().to_string()).unwrap();
        (listener, place)
    }

    fn greet(listener: TcpListener) {
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tcp.write_u8(1).await.unwrap();
            }
        });
    }

    #[tokio::test]
    async fn an_address_that_takes_tcp_and_hangs_does_not_keep_from_the_next() {
        let ((hangs, first), (greets, second)) = (listener("127.0.0.1").await, listener("127.0.0.2").await);
        greet(greets);
        let reached = reach(&[first, second.clone()], Duration::from_secs(30), one_byte).await.unwrap();
        assert_eq!(reached.address.to_string(), second.to_string());
        let (mut loser, _) = hangs.accept().await.unwrap();
        assert_eq!(loser.read(&mut [0]).await.unwrap(), 0, "the loser is closed");
    }

    #[tokio::test]
    async fn nowhere_to_dial_is_known_at_once() {
        let failure = reach(&[], Duration::from_secs(3600), one_byte).await.unwrap_err();
        assert!(failure.each.is_empty());
    }

    #[tokio::test]
    async fn what_became_of_each_name_and_address_is_told() {
        let (hangs, first) = listener("127.0.0.1").await;
        let (closed, second) = listener("127.0.0.2").await;
        drop(closed);
        let unknown = Place { host: "no.such.name.invalid".to_owned(), port: 1 };
        let places = [unknown.clone(), first, second];
        let failure = reach(&places, Duration::from_millis(500), one_byte).await.unwrap_err();
        drop(hangs);
        let words: Vec<_> = failure
            .each
            .iter()
            .map(|(what, trouble)| match trouble {
                Trouble::Lookup(_) | Trouble::LookupLate => format!("{what} unknown"),
                Trouble::Failed(_) => format!("{what} refused"),
                Trouble::HandshakeLate => format!("{what} hangs"),
                other => format!("{what} {other:?}"),
            })
            .collect();
        let expected =
            [format!("{unknown} unknown"), format!("{} hangs", places[1]), format!("{} refused", places[2])];
        assert_eq!(words, expected);
    }
}
