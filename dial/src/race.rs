//! Which address is tried when, as a pure state machine: events and times go in, actions come out.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How long the newest attempt may make no progress before the next address is tried beside it (RFC 8305, section 5).
pub const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Addresses that are tried in one race; those behind are not looked at.
pub const MAX_ADDRESSES: usize = 64;

/// A time since the race began.
pub type Time = Duration;

/// Something that happened. Attempts are numbered from 0 in the order of their start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A name was looked up: its addresses in the order of preference.
    Found(Vec<SocketAddr>),
    /// A name could not be looked up.
    NotFound,
    /// An attempt got on: its TCP connection is there, and the handshake begins.
    Advanced(usize),
    /// An attempt failed.
    Failed(usize),
    /// An attempt came to the end of its handshake.
    Succeeded(usize),
    /// Nothing but that time has passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Begin an attempt.
    Start {
        /// Its number.
        attempt: usize,
        /// The address to connect to.
        address: SocketAddr,
    },
    /// Close whatever this attempt has open.
    Abandon(usize),
    /// The race is over. It is the last action.
    End(End),
}

/// How a race ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// This attempt has won.
    Won(usize),
    /// Every name and every address has failed.
    AllFailed,
    /// The deadline has come.
    TooLate,
}

/// A race of addresses, from the lookup of names to the end of a handshake.
#[derive(Debug)]
pub struct Race {
    deadline: Time,
    /// Names that are being looked up.
    lookups: usize,
    /// All addresses that were taken in.
    known: BTreeSet<SocketAddr>,
    waiting: VecDeque<SocketAddr>,
    running: BTreeSet<usize>,
    started: usize,
    /// Whether the newest attempt goes to an IPv4 address.
    last_is_ipv4: Option<bool>,
    /// When the newest attempt has made no progress for too long.
    next_start: Time,
    over: bool,
}

impl Race {
    /// For this number of names, with a deadline for all of it.
    pub fn new(names: usize, deadline: Time) -> Self {
        Self {
            deadline,
            lookups: names,
            known: BTreeSet::new(),
            waiting: VecDeque::new(),
            running: BTreeSet::new(),
            started: 0,
            last_is_ipv4: None,
            next_start: Time::ZERO,
            over: false,
        }
    }

    /// Takes an event in. Those of attempts that are over, and all that come behind the end, are passed over.
    pub fn handle(&mut self, now: Time, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.over {
            return actions;
        }
        match event {
            Event::Found(addresses) => {
                self.lookups = self.lookups.saturating_sub(1);
                self.take_in(addresses);
            }
            Event::NotFound => self.lookups = self.lookups.saturating_sub(1),
            Event::Advanced(attempt) => {
                if self.running.contains(&attempt) && attempt + 1 == self.started {
                    self.next_start = now.saturating_add(CONNECTION_ATTEMPT_DELAY);
                }
            }
            Event::Failed(attempt) => {
                if self.running.remove(&attempt) {
                    self.next_start = now;
                }
            }
            Event::Succeeded(attempt) => {
                if self.running.remove(&attempt) {
                    self.end(End::Won(attempt), &mut actions);
                    return actions;
                }
            }
            Event::Tick => {}
        }
        if now >= self.deadline {
            self.end(End::TooLate, &mut actions);
        } else if now >= self.next_start || self.running.is_empty() {
            self.start(now, &mut actions);
        }
        if self.lookups == 0 && self.waiting.is_empty() && self.running.is_empty() {
            self.end(End::AllFailed, &mut actions);
        }
        actions
    }

    /// When [`Event::Tick`] has something to do if nothing else happens before.
    pub fn next_deadline(&self) -> Time {
        if self.waiting.is_empty() { self.deadline } else { self.next_start.min(self.deadline) }
    }

    fn take_in(&mut self, addresses: Vec<SocketAddr>) {
        for address in addresses {
            if self.known.len() < MAX_ADDRESSES && self.known.insert(address) {
                self.waiting.push_back(address);
            }
        }
    }

    /// Begins the next attempt, if an address waits: of the other family than the last one, where there is one.
    fn start(&mut self, now: Time, actions: &mut Vec<Action>) {
        let other = |address: &SocketAddr| self.last_is_ipv4.is_some_and(|last| last != address.is_ipv4());
        let next = self.waiting.iter().position(other).unwrap_or(0);
        let Some(address) = self.waiting.remove(next) else { return };
        let attempt = self.started;
        self.started += 1;
        self.running.insert(attempt);
        self.last_is_ipv4 = Some(address.is_ipv4());
        self.next_start = now.saturating_add(CONNECTION_ATTEMPT_DELAY);
        actions.push(Action::Start { attempt, address });
    }

    fn end(&mut self, end: End, actions: &mut Vec<Action>) {
        if !self.over {
            self.over = true;
            self.waiting.clear();
            actions.extend(std::mem::take(&mut self.running).into_iter().map(Action::Abandon));
            actions.push(Action::End(end));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rand::{RngExt as _, SeedableRng as _};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn ms(n: u64) -> Time {
        Duration::from_millis(n)
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| format!("{text}:1").parse().unwrap()).collect()
    }

    fn starts(actions: &[Action]) -> Vec<String> {
        let host = |action: &Action| match action {
            Action::Start { address, .. } => Some(address.ip().to_string()),
            _ => None,
        };
        actions.iter().filter_map(host).collect()
    }

    #[test]
    fn families_take_turns_and_each_address_is_tried_once() {
        let mut race = Race::new(2, ms(60_000));
        let found = addresses(&["192.0.2.1", "192.0.2.2", "[2001:db8::1]", "192.0.2.1", "[2001:db8::2]"]);
        let mut started = starts(&race.handle(ms(0), Event::Found(found)));
        started.extend(starts(&race.handle(ms(1), Event::Found(addresses(&["192.0.2.2", "192.0.2.3"])))));
        while race.next_deadline() < ms(60_000) {
            let now = race.next_deadline();
            started.extend(starts(&race.handle(now, Event::Tick)));
        }
        assert_eq!(
            started,
            ["192.0.2.1", "2001:db8::1", "192.0.2.2", "2001:db8::2", "192.0.2.3"].map(str::to_owned)
        );
    }

    #[test]
    fn an_attempt_that_fails_starts_the_next_at_once_and_one_that_gets_on_has_its_time_anew() {
        let mut race = Race::new(1, ms(10_000));
        let found = addresses(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
        race.handle(ms(0), Event::Found(found));
        assert_eq!(starts(&race.handle(ms(10), Event::Failed(0))), ["192.0.2.2"]);
        assert_eq!(race.handle(ms(200), Event::Advanced(1)), []);
        assert_eq!(race.next_deadline(), ms(450));
        assert_eq!(starts(&race.handle(ms(450), Event::Tick)), ["192.0.2.3"]);
        let won = [Action::Abandon(1), Action::End(End::Won(2))];
        assert_eq!(race.handle(ms(500), Event::Succeeded(2)), won);
        assert_eq!(race.handle(ms(501), Event::Succeeded(1)), []);
    }

    #[test]
    fn a_name_without_addresses_fails_at_once_and_one_that_is_never_found_at_the_deadline() {
        let mut race = Race::new(2, ms(10_000));
        assert_eq!(race.handle(ms(1), Event::Found(Vec::new())), []);
        assert_eq!(race.handle(ms(2), Event::NotFound), [Action::End(End::AllFailed)]);
        let mut race = Race::new(1, ms(10_000));
        assert_eq!(race.next_deadline(), ms(10_000));
        assert_eq!(race.handle(ms(10_000), Event::Tick), [Action::End(End::TooLate)]);
    }

    #[test]
    fn no_more_than_so_many_addresses_are_tried() {
        let mut race = Race::new(1, ms(600_000));
        let many = (0..1_000_u16).map(|port| SocketAddr::new([192, 0, 2, 1].into(), port)).collect();
        let mut actions = race.handle(ms(0), Event::Found(many));
        for attempt in 0..MAX_ADDRESSES {
            actions.extend(race.handle(ms(1), Event::Failed(attempt)));
        }
        assert_eq!(starts(&actions).len(), MAX_ADDRESSES);
        assert_eq!(actions.last(), Some(&Action::End(End::AllFailed)));
    }

    /// What an address does: how long after the start of its attempt it takes TCP, and how long after that it ends the
    /// handshake, well or badly. `None`: never.
    #[derive(Debug, Clone, Copy)]
    struct Host {
        tcp: Option<Time>,
        handshake: Option<(Time, bool)>,
    }

    impl Host {
        fn drawn(rng: &mut ChaCha8Rng) -> Self {
            let tcp = (!rng.random_ratio(1, 4)).then(|| ms(rng.random_range(0..600)));
            let handshake =
                (!rng.random_ratio(1, 3)).then(|| (ms(rng.random_range(0..600)), rng.random_ratio(1, 2)));
            Self { tcp, handshake }
        }
    }

    /// Runs a race of such hosts to its end; when it ended and how.
    fn run(seed: u64) -> (Time, End) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let deadline = ms(rng.random_range(500..20_000));
        let mut race = Race::new(1, deadline);
        let hosts: Vec<_> = (0..rng.random_range(0..12)).map(|_| Host::drawn(&mut rng)).collect();
        let address = |n: usize| {
            let host = u16::try_from(n).unwrap();
            let v6 = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, host);
            let v4 = std::net::Ipv4Addr::new(192, 0, 2, u8::try_from(n).unwrap());
            SocketAddr::new(if n.is_multiple_of(3) { v6.into() } else { v4.into() }, host)
        };
        let found = (0..hosts.len()).map(address).collect();
        let mut due: BTreeMap<(Time, usize), Event> = BTreeMap::from([((ms(5), 0), Event::Found(found))]);
        let mut order = 1;
        let (mut started, mut open, mut last_start) = (BTreeSet::new(), BTreeSet::new(), None);
        let mut failed_at = None;
        loop {
            let tick = race.next_deadline();
            let first = due.first_key_value().map(|((time, _), _)| *time);
            let (now, event) = match first {
                Some(time) if time <= tick => due.pop_first().map(|((t, _), e)| (t, e)).unwrap(),
                _ => (tick, Event::Tick),
            };
            assert!(now <= deadline, "seed {seed}: the race lasts beyond its deadline");
            match event {
                Event::Failed(n) => {
                    open.remove(&n);
                    failed_at = Some(now);
                }
                Event::Succeeded(n) => assert!(open.remove(&n)),
                _ => {}
            }
            for action in race.handle(now, event) {
                match action {
                    Action::Start { attempt, address } => {
                        assert!(started.insert(address), "seed {seed}: {address} is tried twice");
                        let waited = last_start.is_none_or(|last| now >= last + CONNECTION_ATTEMPT_DELAY);
                        assert!(
                            waited || failed_at == Some(now) || open.is_empty(),
                            "seed {seed}: too early"
                        );
                        (last_start, open) = (Some(now), open.into_iter().chain([attempt]).collect());
                        let host = hosts[usize::from(address.port())];
                        let mut add = |at, event| {
                            due.insert((at, order), event);
                            order += 1;
                        };
                        if let Some(tcp) = host.tcp {
                            add(now + tcp, Event::Advanced(attempt));
                            if let Some((handshake, good)) = host.handshake {
                                let ended = if good { Event::Succeeded } else { Event::Failed };
                                add(now + tcp + handshake, ended(attempt));
                            }
                        } else if host.handshake.is_some() {
                            add(now, Event::Failed(attempt));
                        }
                    }
                    Action::Abandon(attempt) => {
                        assert!(open.remove(&attempt), "seed {seed}");
                        due.retain(|_, event| {
                            !matches!(event, Event::Advanced(n) | Event::Failed(n) | Event::Succeeded(n) if *n == attempt)
                        });
                    }
                    Action::End(end) => {
                        assert!(open.is_empty(), "seed {seed}: an attempt is left open");
                        check_end(seed, end, now, deadline, &hosts, started.len());
                        return (now, end);
                    }
                }
            }
        }
    }

    /// Nobody is left out: where the race ends without a winner, no host that was reached in time would have been one.
    fn check_end(seed: u64, end: End, now: Time, deadline: Time, hosts: &[Host], started: usize) {
        let good = |host: &&Host| host.tcp.is_some() && host.handshake.is_some_and(|(_, good)| good);
        match end {
            End::Won(_) => {}
            End::AllFailed => {
                assert_eq!(started, hosts.len(), "seed {seed}");
                assert_eq!(hosts.iter().filter(good).count(), 0, "seed {seed}");
            }
            End::TooLate => {
                assert_eq!(now, deadline, "seed {seed}");
                // Each attempt holds the next one up by two delays and the time of its TCP connection at the most.
                let longest = (ms(600) + 2 * CONNECTION_ATTEMPT_DELAY) * u32::try_from(hosts.len()).unwrap();
                let in_time = longest + ms(1_200) < deadline;
                assert!(!in_time || hosts.iter().filter(good).count() == 0, "seed {seed}");
            }
        }
    }

    #[test]
    fn whatever_addresses_do_the_race_ends_in_time_with_a_good_one_if_there_is_one_and_leaves_nothing_open() {
        let mut ends = BTreeMap::<String, u32>::new();
        for seed in 0..20_000 {
            let (_, end) = run(seed);
            let kind = if let End::Won(_) = end { "won".to_owned() } else { format!("{end:?}") };
            *ends.entry(kind).or_default() += 1;
        }
        assert_eq!(ends.len(), 3, "the hosts that were drawn are too much alike: {ends:?}");
    }
}
