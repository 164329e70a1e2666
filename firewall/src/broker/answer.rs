//! One request: who may ask, what is granted, what is done, and the line that tells of it.

use std::time::Instant;

use zone_firewall_protocol::{Answer, PortRule, Request};
use zone_log_budget::LogBudget;

use super::watch::Watch;
use crate::access::{Access, Accounts, CONTROL_USER, Peer, READER, RELAY_USER};
use crate::config::Config;
use crate::desired::{Refusal, within_ceiling};
use crate::explain::{self, ExplainError};
use crate::export::export;
use crate::host::{self, Host, HostError};
use crate::listening;

/// Answers a request, and writes its line of the audit: one for each request of those who may ask, and as many as `log` allows
/// for all others. The watch is asked whenever control is asked for its metrics, which is no line if it is allowed.
pub(super) fn answer(
    host: &Host,
    watch: &Watch,
    (peer, accounts, request): (Peer, &Accounts, &Request),
    log: &LogBudget,
) -> Answer {
    let actor = accounts.name(peer.uid);
    let access = match request {
        Request::SetRelayPorts(_) => Access::Write,
        Request::Plan | Request::Verify | Request::Explain(_) | Request::Export { .. } | Request::Watch => {
            Access::Read
        }
    };
    if !accounts.may(peer, access) {
        let answer = forbidden(&actor, access);
        if let Some(held_back) = log.allows("forbidden", Instant::now()) {
            audit(peer, &actor, request, "", &answer, held_back);
        }
        return answer;
    }
    let before = match request {
        Request::SetRelayPorts(_) => described(&host.recorded()),
        _ => String::new(),
    };
    let done = match request {
        Request::SetRelayPorts(ports) => set_relay_ports(host, accounts, ports),
        Request::Plan => host
            .desired()
            .and_then(|desired| host::preview(&desired))
            .map(|preview| Answer::Plan(preview.diff().join("\n")))
            .map_err(Failure::from),
        Request::Verify => host
            .desired()
            .and_then(|desired| host::verify(&desired))
            .map(Answer::Verified)
            .map_err(Failure::from),
        Request::Explain(question) => {
            explain::explain(question).map(Answer::Explained).map_err(Failure::from)
        }
        Request::Export { format, addresses } => host.desired().map_err(Failure::from).and_then(|desired| {
            export(&desired, *format, addresses).map(Answer::Exported).map_err(Failure::from)
        }),
        Request::Watch => Ok(Answer::Watched(watch.report())),
    };
    let answer = done.unwrap_or_else(Failure::answer);
    if *request != Request::Watch {
        audit(peer, &actor, request, &before, &answer, 0);
    }
    answer
}

enum Failure {
    Refusal(Refusal),
    Host(HostError),
    Explain(ExplainError),
}

impl From<ExplainError> for Failure {
    fn from(error: ExplainError) -> Self {
        Self::Explain(error)
    }
}

impl From<HostError> for Failure {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

impl From<Refusal> for Failure {
    fn from(beyond: Refusal) -> Self {
        Self::Refusal(beyond)
    }
}

impl Failure {
    fn answer(self) -> Answer {
        match self {
            Self::Refusal(Refusal { why, help }) => Answer::Refused { why, help },
            Self::Host(error) => Answer::Refused {
                why: error.to_string(),
                help: "see 'zone-firewall plan' and 'journalctl -u zone-firewall' on this host".to_owned(),
            },
            Self::Explain(error) => Answer::Refused {
                why: error.to_string(),
                help: "see 'zone-firewall explain --help'".to_owned(),
            },
        }
    }
}

/// Rules first, then the record: whoever is killed in between leaves the old record, and the next request or the
/// restoration at boot makes rules and record agree.
fn set_relay_ports(host: &Host, accounts: &Accounts, ports: &[PortRule]) -> Result<Answer, Failure> {
    let config = host.config()?;
    within_ceiling(&config, ports)?;
    let users: Vec<u32> =
        [CONTROL_USER, RELAY_USER].into_iter().filter_map(|name| accounts.uid(name)).collect();
    let listeners = listening::listeners().map_err(|error| Refusal {
        why: format!("who listens can't be told: /proc/net/tcp: {error}"),
        help: "let user zone-firewall read /proc/net/tcp".to_owned(),
    })?;
    listening::all_listen(ports, &listeners, &users)?;

    let _lock = host.store().lock().map_err(HostError::from)?;
    let old = host.recorded();
    let next = host.store().prepare(ports).map_err(HostError::from)?;
    match host::desired_with(&config, ports).and_then(|desired| host::apply(&desired)) {
        Ok(done) => {
            if let Err(error) = next.keep() {
                put_back(&config, &old);
                return Err(HostError::from(error).into());
            }
            Ok(Answer::Done(done))
        }
        Err(error) => {
            next.discard();
            Err(error.into())
        }
    }
}

fn put_back(config: &Config, ports: &[PortRule]) {
    if let Err(error) = host::desired_with(config, ports).and_then(|desired| host::apply(&desired)) {
        tracing::error!("the old rules could not be put back: {error}");
    }
}

fn forbidden(actor: &str, access: Access) -> Answer {
    let (what, who) = match access {
        Access::Write => ("change the firewall", format!("only {CONTROL_USER} and root may")),
        Access::Read => {
            ("look at the firewall", format!("only root, {CONTROL_USER} and members of group {READER} may"))
        }
    };
    Answer::Refused {
        why: format!("{actor} may not {what}: {who}"),
        help: "ask as one of those users".to_owned(),
    }
}

/// One line, at any log level, for this request and for those before it whose lines were held back. All values come from the kernel or from parsed types, so that nobody
/// can forge a line.
fn audit(peer: Peer, actor: &str, request: &Request, before: &str, answer: &Answer, held_back: u64) {
    let (verb, asked) = match request {
        Request::SetRelayPorts(ports) => ("set-relay-ports", described(ports)),
        Request::Plan => ("plan", String::new()),
        Request::Verify => ("verify", String::new()),
        Request::Explain(question) => ("explain", format!("port {}", question.port)),
        Request::Export { format, .. } => ("export", format.to_string()),
        Request::Watch => ("watch", String::new()),
    };
    let outcome = match answer {
        Answer::Done(lines) if lines.is_empty() => "done: nothing to change".to_owned(),
        Answer::Done(lines) => format!("done: {}", lines.join("; ")),
        Answer::Plan(_) | Answer::Exported(_) | Answer::Watched(_) => "told".to_owned(),
        Answer::Verified(findings) => format!("told: {} findings", findings.len()),
        Answer::Explained(explanation) => format!("told: {} cases", explanation.cases.len()),
        Answer::Refused { why, .. } => format!("refused: {why}"),
    };
    let line: String = outcome.chars().filter(|c| !c.is_control()).collect();
    tracing::info!(target: "audit", actor, uid = peer.uid, pid = peer.pid, verb, before, asked, outcome = line, held_back, "request");
}

/// Ports in one line.
fn described(ports: &[PortRule]) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    let one = |rule: &PortRule| {
        let listen = rule.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let from = match rule.networks.len() {
            0 => "any".to_owned(),
            _ => rule.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        };
        format!("{}/{} on {listen} from {from}", rule.port, rule.purpose)
    };
    ports.iter().take(crate::desired::MAX_RELAY_PORTS).map(one).collect::<Vec<_>>().join("; ")
}
