//! The host's firewall, as far as the proxy has a hand in it: it asks the broker, which alone may change rules.
//!
//! Every request carries the whole set of relay ports, so that asking again is harmless. Whoever asks holds the
//! lock from then on until the state that the set belongs to is in force; and a request that was given up is gone for the
//! broker too, which carries nothing out for somebody who has left. So an older set never overtakes a newer.

use std::cell::{Cell, RefCell};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, timeout};
use zone_firewall_protocol::client::{AskError, ask_on, ask_within};
use zone_firewall_protocol::{Answer, Finding, FindingKind, Level, PortRule, Purpose, Request, WatchReport};
use zone_protocol::identity::Role;
use zone_protocol::provisioning::Provisioning;

use crate::config::{FirewallMode, FirewallOptions};
use crate::socket_file::SocketFile;

/// For the broker to start, to change rules and to answer.
const BROKER_TIMEOUT: Duration = Duration::from_secs(25);
/// How long findings are good for: `status` may be asked often.
const FINDINGS_MAX_AGE: Duration = Duration::from_secs(5);
/// For the broker to say what its watch saw, which it knows already. Metrics wait no longer for it.
const WATCH_TIMEOUT: Duration = Duration::from_secs(2);
/// How long that is good for.
const WATCH_MAX_AGE: Duration = Duration::from_secs(1);

/// Why the firewall is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FirewallError {
    /// The broker does not do it.
    #[error("{why}: {help}")]
    Refused {
        /// The broker's reason.
        why: String,
        /// What an admin can do about it.
        help: String,
    },
    /// Nobody knows whether it was done.
    #[error(
        "{0}; see `systemctl status zone-firewall.socket`, or set firewall.mode = \"none\" and open the ports yourself"
    )]
    Unreachable(String),
}

/// What became of the last request for ports.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Last {
    Unasked,
    Done(Vec<PortRule>),
    Failed(FirewallError),
}

/// Findings, or why there are none, and when they were made.
type Seen = (Instant, Result<Vec<Finding>, String>);

/// The firewall, through its broker or not at all.
#[derive(Debug)]
pub(crate) struct Firewall {
    broker: Option<PathBuf>,
    lock: Mutex<()>,
    last: RefCell<Last>,
    seen: RefCell<Option<Seen>>,
    /// What the broker's watch saw when it was asked last; `None` in it where it did not say.
    watched: RefCell<Option<(Instant, Option<WatchReport>)>>,
    failures: Cell<u32>,
    check: Notify,
}

impl Firewall {
    /// As the configuration has it.
    pub(crate) fn new(options: &FirewallOptions) -> Self {
        Self {
            broker: (options.mode == FirewallMode::Broker).then(|| options.socket.clone()),
            lock: Mutex::default(),
            last: RefCell::new(Last::Unasked),
            seen: RefCell::default(),
            watched: RefCell::default(),
            failures: Cell::default(),
            check: Notify::default(),
        }
    }

    /// Whether there is a broker to ask.
    pub(crate) fn is_managed(&self) -> bool {
        self.broker.is_some()
    }

    /// Keeps everybody else from asking.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().await
    }

    /// Makes these the relay's open ports, all of them. The caller holds the lock.
    pub(crate) async fn set(&self, rules: Vec<PortRule>) -> Result<(), FirewallError> {
        if !self.is_managed() {
            return Ok(());
        }
        self.seen.take();
        let result = match self.ask(Request::SetRelayPorts(rules.clone())).await {
            Ok(Answer::Done(changes)) => {
                if !changes.is_empty() {
                    tracing::info!(changes = changes.join("; "), "the firewall was changed");
                }
                Ok(())
            }
            Ok(Answer::Refused { why, help }) => Err(FirewallError::Refused { why, help }),
            Ok(_) => Err(other_version()),
            Err(error) => Err(error),
        };
        self.last.replace(match &result {
            Ok(()) => Last::Done(rules),
            Err(error) => Last::Failed(error.clone()),
        });
        result
    }

    /// Whether these are the open ports already, as far as is known.
    pub(crate) fn has(&self, rules: &[PortRule]) -> bool {
        !self.is_managed() || matches!(&*self.last.borrow(), Last::Done(last) if last == rules)
    }

    /// Has the ports looked after now, rather than at the next change.
    pub(crate) fn request_check(&self) {
        self.check.notify_one();
    }

    /// Waits for [`Firewall::request_check`].
    pub(crate) async fn check_requested(&self) {
        self.check.notified().await;
    }

    /// Looks at the live rules, unless that was done a moment ago.
    pub(crate) async fn refresh(&self) {
        let fresh = |seen: &Seen| seen.0.elapsed() < FINDINGS_MAX_AGE;
        if !self.is_managed() || self.seen.borrow().as_ref().is_some_and(fresh) {
            return;
        }
        self.refresh_watch().await;
        let findings = match self.ask(Request::Verify).await {
            Ok(Answer::Verified(findings)) => Ok(findings),
            Ok(Answer::Refused { why, help }) => Err(format!("{why}: {help}")),
            Ok(_) => Err(other_version().to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.seen.replace(Some((Instant::now(), findings)));
    }

    /// What the broker's watch saw, while there are ports that it watches. `None` where it can't be asked, or is of a version that
    /// does not watch.
    pub(crate) async fn watch_report(&self) -> Option<WatchReport> {
        self.refresh_watch().await;
        self.watched.borrow().as_ref().and_then(|(_, report)| report.clone())
    }

    /// Asks for it, unless that was done a moment ago. Without ports there is nothing to watch, and asking would start the
    /// broker for nothing.
    async fn refresh_watch(&self) {
        let has_ports = matches!(&*self.last.borrow(), Last::Done(rules) if !rules.is_empty());
        let Some(socket) = self.broker.clone().filter(|_| has_ports) else {
            self.watched.take();
            return;
        };
        if self.watched.borrow().as_ref().is_some_and(|(at, _)| at.elapsed() < WATCH_MAX_AGE) {
            return;
        }
        // Those who ask meanwhile get what was known before.
        let known = self.watched.borrow().as_ref().and_then(|(_, report)| report.clone());
        self.watched.replace(Some((Instant::now(), known)));
        let asking = tokio::task::spawn_blocking(move || {
            ask_within(connect(&socket)?, &Request::Watch, WATCH_TIMEOUT)
        });
        let report = match timeout(WATCH_TIMEOUT, asking).await {
            Ok(Ok(Ok(Answer::Watched(report)))) => Some(report),
            _ => None,
        };
        self.watched.replace(Some((Instant::now(), report)));
    }

    /// The word for a port that should be open: see [`zone_protocol::provisioning::PortStatus::firewall`].
    pub(crate) fn verdict(&self, purpose: Purpose, port: u16) -> String {
        if !self.is_managed() {
            return "none".to_owned();
        }
        let seen = self.seen.borrow();
        verdict(&self.last.borrow(), seen.as_ref().map(|(_, findings)| findings), purpose, port)
    }

    /// What an admin should look at, one line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Last::Failed(error) = &*self.last.borrow() {
            warnings.push(format!("the firewall was not changed: {error}"));
        }
        match self.seen.borrow().as_ref().map(|(_, findings)| findings) {
            Some(Ok(findings)) => {
                let wrong = findings.iter().filter(|found| !found.is_note());
                warnings.extend(wrong.map(|found| format!("firewall: {}: {}", found.what, found.help)));
            }
            Some(Err(why)) if warnings.is_empty() => {
                warnings.push(format!("the firewall's rules are not known: {why}"));
            }
            Some(Err(_)) | None => {}
        }
        if let Some((_, Some(WatchReport { trouble: Some(trouble), .. }))) = &*self.watched.borrow() {
            warnings.push(format!("the firewall's rules are not watched as they should be: {trouble}"));
        }
        warnings
    }

    /// How long to wait before asking again, after so many failures in a row.
    pub(crate) fn back_off(&self, failed: bool) -> Duration {
        self.failures.set(if failed { self.failures.get().saturating_add(1) } else { 0 });
        Duration::from_secs(1 << self.failures.get().min(6))
    }

    async fn ask(&self, request: Request) -> Result<Answer, FirewallError> {
        let Some(socket) = self.broker.clone() else {
            return Err(FirewallError::Unreachable("there is no broker".to_owned()));
        };
        let asking = tokio::task::spawn_blocking(move || ask_on(connect(&socket)?, &request));
        match timeout(BROKER_TIMEOUT, asking).await {
            Ok(Ok(answer)) => answer.map_err(|error: AskError| FirewallError::Unreachable(error.to_string())),
            Ok(Err(error)) => {
                Err(FirewallError::Unreachable(format!("asking the firewall broker broke off: {error}")))
            }
            Err(_) => {
                let why = format!("the firewall broker did not answer within {} s", BROKER_TIMEOUT.as_secs());
                Err(FirewallError::Unreachable(why))
            }
        }
    }
}

fn connect(socket: &Path) -> Result<UnixStream, AskError> {
    let connected = SocketFile::open(socket).and_then(|file| UnixStream::connect(file.path()));
    connected.map_err(|source| AskError::Connect { path: socket.to_owned(), source })
}

/// The open ports that a provisioning takes. Balancers connect from their own networks, so those are let in too.
pub(crate) fn rules(document: &Provisioning, balancers: &[IpNet]) -> Vec<PortRule> {
    let mut endpoint_networks = document.allowed_networks.endpoint.clone();
    if !endpoint_networks.is_empty() {
        endpoint_networks
            .extend(balancers.iter().filter(|own| !document.allowed_networks.endpoint.contains(own)));
    }
    vec![
        PortRule {
            purpose: Purpose::Endpoint,
            port: document.ports.endpoint,
            listen: document.listen.endpoint.clone(),
            networks: endpoint_networks,
            balancers: balancers.to_vec(),
        },
        PortRule {
            purpose: Purpose::ModuleServer,
            port: document.ports.module_server,
            listen: document.listen.module_server.clone(),
            networks: document.allowed_networks.module_server.clone(),
            balancers: Vec::new(),
        },
    ]
}

/// While one provisioning takes the place of another, the ports of both are open.
pub(crate) fn both(old: &[PortRule], new: &[PortRule]) -> Vec<PortRule> {
    let gone = old.iter().filter(|old| new.iter().all(|new| new.port != old.port));
    new.iter().chain(gone).cloned().collect()
}

/// What a relay port is for.
pub(crate) fn purpose(role: Role) -> Purpose {
    if role == Role::Endpoint { Purpose::Endpoint } else { Purpose::ModuleServer }
}

fn other_version() -> FirewallError {
    FirewallError::Unreachable(
        "the firewall broker answered something else: it is of another version".to_owned(),
    )
}

fn verdict(
    last: &Last,
    findings: Option<&Result<Vec<Finding>, String>>,
    purpose: Purpose,
    port: u16,
) -> String {
    if purpose != Purpose::Control {
        match last {
            Last::Unasked => return "unknown: the broker was not asked yet".to_owned(),
            Last::Failed(FirewallError::Refused { .. }) => return "closed".to_owned(),
            Last::Failed(FirewallError::Unreachable(why)) => return format!("unknown: {why}"),
            Last::Done(_) => {}
        }
    }
    let about_rules = |found: &&Finding| {
        let shuts = matches!(found.kind, FindingKind::Missing | FindingKind::Altered | FindingKind::Blocked);
        shuts && found.port == Some(port) && !found.is_note()
    };
    match findings {
        Some(Ok(findings)) => {
            // What is certain counts before what is not.
            let found = findings.iter().filter(about_rules).min_by_key(|found| found.level == Level::Unknown);
            match found {
                Some(found) if found.level == Level::Unknown => format!("unknown: {}", found.what),
                Some(_) => "closed".to_owned(),
                None => "open".to_owned(),
            }
        }
        Some(Err(why)) => format!("unknown: {why}"),
        // The broker has just read the rules back.
        None if matches!(last, Last::Done(_)) => "open".to_owned(),
        None => "unknown: the rules were not looked at yet".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(purpose: Purpose, port: u16) -> PortRule {
        PortRule { purpose, port, listen: Vec::new(), networks: Vec::new(), balancers: Vec::new() }
    }

    fn finding(kind: FindingKind, port: u16) -> Finding {
        let level = if kind == FindingKind::Blocked { Level::Closed } else { Level::Drift };
        let (what, help) = ("a rule".into(), "do something".into());
        Finding { id: format!("{level}:{port}"), level, kind, port: Some(port), what, help }
    }

    #[test]
    fn while_ports_change_the_old_ones_stay_open_beside_the_new_ones() {
        let old = [rule(Purpose::Endpoint, 17486), rule(Purpose::ModuleServer, 17487)];
        let new = [rule(Purpose::Endpoint, 20486), rule(Purpose::ModuleServer, 17487)];
        let ports: Vec<_> = both(&old, &new).iter().map(|rule| rule.port).collect();
        assert_eq!(ports, [20486, 17487, 17486]);
        assert_eq!(both(&[], &new), new);
        assert_eq!(both(&new, &new), new);
    }

    #[test]
    fn a_port_is_open_closed_or_unknown_as_the_broker_says() {
        let done = Last::Done(Vec::new());
        let blocked = Ok(vec![finding(FindingKind::Blocked, 17486)]);
        let of =
            |last: &Last, seen: Option<&Result<_, String>>| verdict(last, seen, Purpose::Endpoint, 17486);
        assert_eq!(of(&done, Some(&blocked)), "closed");
        assert_eq!(verdict(&done, Some(&blocked), Purpose::ModuleServer, 17487), "open");
        let with = |level| Ok(vec![Finding { level, ..finding(FindingKind::Blocked, 17486) }]);
        assert_eq!(of(&done, Some(&with(Level::Unknown))), "unknown: a rule");
        assert_eq!(of(&done, Some(&with(Level::Denied))), "open", "some sources are denied on purpose");
        let other = Ok(vec![finding(FindingKind::NotListening, 17486)]);
        assert_eq!(of(&done, Some(&other)), "open", "that nobody listens is no matter of rules");
        assert_eq!(of(&done, None), "open");
        assert_eq!(of(&Last::Unasked, Some(&Ok(Vec::new()))), "unknown: the broker was not asked yet");
        let refused = FirewallError::Refused { why: "no".into(), help: "ask".into() };
        assert_eq!(of(&Last::Failed(refused), Some(&Ok(Vec::new()))), "closed");
        let gone = Last::Failed(FirewallError::Unreachable("gone".into()));
        assert_eq!(of(&gone, None), "unknown: gone");
        assert_eq!(verdict(&gone, Some(&Ok(Vec::new())), Purpose::Control, 17488), "open");
    }

    #[tokio::test]
    async fn without_a_broker_nothing_is_asked_and_the_word_is_none() {
        let firewall = Firewall::new(&FirewallOptions::default());
        firewall.set(vec![rule(Purpose::Endpoint, 17486)]).await.unwrap();
        firewall.refresh().await;
        assert_eq!(firewall.verdict(Purpose::Endpoint, 17486), "none");
        assert!(firewall.warnings().is_empty());
    }
}
