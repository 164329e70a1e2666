//! The requests of 17488 and their answers, as `docs/openapi.json` describes them.

use std::net::SocketAddr;
use std::rc::Rc;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, HOST, IF_MATCH};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode, Version};
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use zone_protocol::features::{Features, TRUST_MERGE};
use zone_protocol::fields;
use zone_protocol::head::RequestError;
use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{NewIdentity, OfferRequest, Provisioning};
use zone_protocol::trust::Trust;
use zone_settings::seconds;

use super::answer::{Answer, JSON};
use super::authentication::{self, Caller, Proved};
use super::peer::Peer;
use super::problems;
use crate::daemon::Daemon;
use crate::metrics::{self, Answered};
use crate::offer::Purpose;
use crate::transaction::Actor;

const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// Answers one request within its deadline.
pub(super) async fn answer(
    daemon: &Rc<Daemon>,
    peer: &Peer,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let deadline = daemon.config().timeouts.control_request;
    let (answer, caller) = match timeout(seconds(deadline), handle(daemon, peer, request)).await {
        Ok(handled) => handled,
        Err(_) => (Answer::from(problems::timed_out(deadline)).closing(), None),
    };
    let status = answer.status.as_u16();
    daemon.metrics.requests.get_or_create(&Answered { status }).inc();
    let peer = peer.address;
    tracing::debug!(%peer, %method, path = zone_protocol::identity::printable(&path), status, "a request to 17488 was answered");
    answer.into_response(|body| caller.and_then(|caller| caller.prove(method.as_str(), &path, body)))
}

async fn handle(daemon: &Rc<Daemon>, peer: &Peer, request: Request<Incoming>) -> (Answer, Option<Caller>) {
    let (head, body) = request.into_parts();
    if let Err(problem) = check_head(&head) {
        return (Answer::from(problem).closing(), None);
    }
    let route = match Route::find(&head) {
        Ok(route) => route,
        Err(refused) => return (refused, None),
    };
    let body = match read_body(daemon, body).await {
        Ok(body) => body,
        // What was not read can't be told from a next request.
        Err(problem) => return (Answer::from(problem).closing(), None),
    };
    let caller = match authenticate(daemon, peer, &head, &body, &route) {
        Ok(caller) => caller,
        Err(problem) => return (Answer::from(problem).closing(), None),
    };
    if let Err(refused) = peer.has_authenticated(daemon) {
        daemon.log_refused(peer.address, refused);
        return (Answer::from(problems::too_many_connections(refused.reason())).closing(), None);
    }
    peer.answering.set(true);
    let actor = Actor::new(caller.name(), peer.address);
    let answer = route.carry_out(daemon, peer, &head, &body, actor).await;
    (answer.unwrap_or_else(Answer::from), Some(caller))
}

/// What HTTP/1.1 asks of every request (RFC 9112, section 3.2), and no other version is spoken.
fn check_head(head: &Parts) -> Result<(), Problem> {
    if head.version != Version::HTTP_11 {
        return Err(problems::malformed("only HTTP/1.1 is spoken here"));
    }
    match head.headers.get_all(HOST).iter().count() {
        1 => Ok(()),
        _ => Err(problems::malformed(RequestError::Host)),
    }
}

fn authenticate(
    daemon: &Daemon,
    peer: &Peer,
    head: &Parts,
    body: &[u8],
    route: &Route,
) -> Result<Caller, Problem> {
    if !route.open_to_holders() {
        return authentication::member(daemon, peer);
    }
    let request = Proved {
        method: head.method.as_str(),
        path: head.uri.path(),
        body,
        proof: head.headers.get(fields::PROOF).and_then(|value| value.to_str().ok()),
    };
    authentication::member_or_holder(daemon, peer, &request)
}

async fn read_body(daemon: &Daemon, body: Incoming) -> Result<Bytes, Problem> {
    let limit = daemon.config().limits.control_body_bytes;
    match Limited::new(body, limit).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(problems::body_too_large(limit)),
        Err(error) => Err(problems::malformed(error)),
    }
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    OpenOffer,
    Provisioned,
    Unprovision,
    Provision(String),
    ProvisionedAs(String),
    OfferIdentity,
    SetIdentity,
    Trust,
    SetTrust,
    Status,
    Metrics,
    Openapi,
}

impl Route {
    fn find(head: &Parts) -> Result<Self, Answer> {
        let path = head.uri.path();
        let (method, get) = (&head.method, Method::GET);
        let id = || path.strip_prefix("/v1/provisioning/").unwrap_or_default().to_owned();
        let (allow, route) = match path {
            // CONNECT and `*` have no path: nothing is proxied here.
            _ if *method == Method::CONNECT => ("GET", None),
            "/v1/provisioning" => (
                "GET, POST, DELETE",
                match *method {
                    Method::GET => Some(Self::Provisioned),
                    Method::POST => Some(Self::OpenOffer),
                    Method::DELETE => Some(Self::Unprovision),
                    _ => None,
                },
            ),
            path if path.starts_with("/v1/provisioning/") && !id().is_empty() && !id().contains('/') => (
                "GET, PUT",
                match *method {
                    Method::GET => Some(Self::ProvisionedAs(id())),
                    Method::PUT => Some(Self::Provision(id())),
                    _ => None,
                },
            ),
            "/v1/identity" => (
                "POST, PUT",
                match *method {
                    Method::POST => Some(Self::OfferIdentity),
                    Method::PUT => Some(Self::SetIdentity),
                    _ => None,
                },
            ),
            "/v1/trust" => (
                "GET, PUT",
                match *method {
                    Method::GET => Some(Self::Trust),
                    Method::PUT => Some(Self::SetTrust),
                    _ => None,
                },
            ),
            "/v1/status" => ("GET", (*method == get).then_some(Self::Status)),
            "/metrics" => ("GET", (*method == get).then_some(Self::Metrics)),
            "/v1/openapi.json" => ("GET", (*method == get).then_some(Self::Openapi)),
            _ => return Err(problems::not_found(path).into()),
        };
        let not_allowed = || {
            let mut answer = Answer::from(problems::method_not_allowed(method.as_str()));
            answer.allow = Some(allow);
            answer.closing()
        };
        route.ok_or_else(not_allowed)
    }

    fn open_to_holders(&self) -> bool {
        matches!(self, Self::OpenOffer | Self::Provision(_))
    }

    async fn carry_out(
        self,
        daemon: &Rc<Daemon>,
        peer: &Peer,
        head: &Parts,
        body: &[u8],
        actor: Actor,
    ) -> Result<Answer, Problem> {
        match self {
            Self::OpenOffer => {
                let request: OfferRequest = parse(body)?;
                audit_offer(&actor, peer.address, &request);
                let offer = daemon.open_offer(Purpose::Provisioning(request.zone), &features(head)).await?;
                Ok(Answer::json(StatusCode::CREATED, &offer))
            }
            Self::Provision(id) => {
                let document: Provisioning = parse(body)?;
                Ok(Answer::json(StatusCode::OK, &daemon.provision(id, document, actor).await?))
            }
            Self::Provisioned => {
                let provisioned = daemon.provisioned().ok_or_else(problems::not_provisioned)?;
                Ok(Answer::json(StatusCode::OK, &provisioned))
            }
            Self::ProvisionedAs(id) => match daemon.provisioned() {
                Some(provisioned) if provisioned.id == id => Ok(Answer::json(StatusCode::OK, &provisioned)),
                _ => Err(problems::not_found(head.uri.path())),
            },
            Self::Unprovision => {
                daemon.unprovision(actor).await?;
                Ok(Answer::empty(StatusCode::NO_CONTENT))
            }
            Self::OfferIdentity => {
                daemon.provisioned().ok_or_else(problems::not_provisioned)?;
                let offer = daemon.open_offer(Purpose::Identity, &features(head)).await?;
                Ok(Answer::json(StatusCode::CREATED, &offer))
            }
            Self::SetIdentity => {
                let new: NewIdentity = parse(body)?;
                Ok(Answer::json(StatusCode::OK, &daemon.set_identity(new, actor).await?))
            }
            Self::Trust => {
                let state = daemon.state();
                let membership = state.membership.as_ref().ok_or_else(problems::not_provisioned)?;
                Ok(Answer::trust(&membership.document.trust.for_reader(&features(head))))
            }
            Self::SetTrust => {
                let based_on = if_match(head)?;
                let trust: Trust = parse(body)?;
                let chain = peer.chain.clone();
                let features = features(head);
                let sent = (trust, features.has(TRUST_MERGE));
                let in_force = daemon.set_trust(based_on, sent, chain, actor).await?;
                Ok(Answer::trust(&in_force.for_reader(&features)))
            }
            Self::Status => Ok(Answer::json(StatusCode::OK, &daemon.status().await)),
            Self::Metrics => {
                // Asked first, so that what each relay carries is counted.
                daemon.supervisor.statuses().await;
                let relay = daemon.supervisor.metrics_text().await;
                let text = daemon.metrics.text(relay.as_deref());
                if accepts_openmetrics(head) {
                    return Ok(Answer::new(StatusCode::OK, metrics::OPENMETRICS, text.into()));
                }
                Ok(Answer::new(StatusCode::OK, metrics::PLAIN_TEXT, metrics::plain_text(&text).into()))
            }
            Self::Openapi => Ok(Answer::new(StatusCode::OK, JSON, OPENAPI.into())),
        }
    }
}

/// Whether the client asks for OpenMetrics by its name; whoever doesn't gets the format that every scraper reads.
fn accepts_openmetrics(head: &Parts) -> bool {
    let accepted = head.headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| {
        let mut parameters = range.split(';').map(str::trim);
        let named =
            parameters.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        named && !parameters.any(|parameter| matches!(parameter, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn audit_offer(actor: &Actor, from: SocketAddr, request: &OfferRequest) {
    let OfferRequest { zone, module_server } = request;
    let who = &actor.who;
    tracing::info!(target: crate::log::AUDIT, change = "offer", who, %from, %zone, %module_server, "opened");
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(problems::malformed)
}

/// What the client has named in its request: it is told nothing that it could not read.
fn features(head: &Parts) -> Features {
    let values = head.headers.get_all(fields::FEATURES).iter().filter_map(|value| value.to_str().ok());
    Features::from_field(&values.collect::<Vec<_>>().join(","))
}

/// The version in `If-Match`, a strong entity tag (RFC 9110, section 13.1.1).
fn if_match(head: &Parts) -> Result<u64, Problem> {
    let field = head.headers.get(IF_MATCH).ok_or_else(problems::precondition_required)?;
    field
        .to_str()
        .ok()
        .and_then(|text| text.trim().strip_prefix('"')?.strip_suffix('"')?.parse().ok())
        .ok_or_else(|| problems::malformed("If-Match must be one version in quotes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(method: &str, target: &str) -> Result<Route, (u16, Option<&'static str>)> {
        let request = Request::builder().method(method).uri(target).body(()).unwrap();
        Route::find(&request.into_parts().0).map_err(|answer| (answer.status.as_u16(), answer.allow))
    }

    #[test]
    fn every_documented_request_has_a_route_and_no_other_has() {
        let description: serde_json::Value = serde_json::from_str(OPENAPI).unwrap();
        let paths = description["paths"].as_object().unwrap();
        for (path, operations) in paths {
            let path = path.replace("{id}", "some-id");
            for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
                let documented = operations.get(method.to_lowercase()).is_some();
                assert_eq!(find(method, &path).is_ok(), documented, "{method} {path}");
            }
        }
    }

    #[test]
    fn a_connect_and_an_unknown_path_are_refused() {
        assert_eq!(find("CONNECT", "host:22"), Err((405, Some("GET"))));
        assert_eq!(find("GET", "/v1/nothing"), Err((404, None)));
        assert_eq!(find("PUT", "/v1/provisioning/"), Err((404, None)));
        assert_eq!(find("PUT", "/v1/provisioning/a/b"), Err((404, None)));
        assert_eq!(find("PATCH", "/v1/trust"), Err((405, Some("GET, PUT"))));
    }
}
