//! The requests of 17488 and their answers, as `docs/openapi.json` describes them.

use std::net::SocketAddr;
use std::rc::Rc;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use zone_protocol::features::{Features, TRUST_MERGE};
use zone_protocol::fields;
use zone_protocol::head::{HeadError, RequestHead};
use zone_protocol::identity::printable;
use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{MAX_OFFER_REQUEST_BYTES, NewIdentity, OfferRequest, Provisioning};
use zone_protocol::trust::Trust;
use zone_settings::seconds;

use super::answer::{Answer, JSON};
use super::authentication::{self, Caller, Proved};
use super::peer::Peer;
use super::problems;
use super::request::{Requests, body_length};
use crate::daemon::Daemon;
use crate::metrics::{self, Answered};
use crate::offer::Purpose;
use crate::transaction::Actor;

const OPENAPI: &str = include_str!("../../../../docs/openapi.json");

/// Answers one request within its deadline.
pub(super) async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    daemon: &Rc<Daemon>,
    peer: &Peer,
    head: &RequestHead,
    requests: &mut Requests<S>,
) -> Answer {
    let deadline = daemon.config().timeouts.control_request;
    let (answer, caller) = match timeout(seconds(deadline), handle(daemon, peer, head, requests)).await {
        Ok(handled) => handled,
        Err(_) => (Answer::from(problems::timed_out(deadline)).closing(), None),
    };
    let path = path(&head.target);
    note(daemon, peer, (&head.method, path), &answer);
    answer.proved(|body| caller.and_then(|caller| caller.prove(&head.method, path, body)))
}

/// Answers what is no request that is read here.
pub(super) fn refuse_head(daemon: &Daemon, peer: &Peer, error: &HeadError) -> Answer {
    let problem = match error {
        HeadError::TooLong(_) | HeadError::TooManyFields(_) => problems::head_too_large(error),
        HeadError::Malformed(_) | HeadError::Version => problems::malformed(error),
    };
    let answer = Answer::from(problem).closing();
    note(daemon, peer, ("", ""), &answer);
    answer
}

fn note(daemon: &Daemon, peer: &Peer, (method, path): (&str, &str), answer: &Answer) {
    let (peer, status) = (peer.address, answer.status);
    daemon.metrics.requests.get_or_create(&Answered { status }).inc();
    let (method, path) = (printable(method), printable(path));
    tracing::debug!(%peer, method, path, status, "a request to 17488 was answered");
}

async fn handle<S: AsyncRead + AsyncWrite + Unpin>(
    daemon: &Rc<Daemon>,
    peer: &Peer,
    head: &RequestHead,
    requests: &mut Requests<S>,
) -> (Answer, Option<Caller>) {
    let admitted = match admit(daemon, peer, head, requests).await {
        Ok(admitted) => admitted,
        // Whoever is refused here has to begin anew.
        Err(refused) => return (refused.closing(), None),
    };
    let (route, body, caller) = admitted;
    if let Err(refused) = peer.has_authenticated(daemon) {
        daemon.log_refused(peer.address, refused);
        return (Answer::from(problems::too_many_connections(refused.reason())).closing(), None);
    }
    peer.answering.set(true);
    let actor = Actor::new(caller.name(), peer.address);
    let answer = route.carry_out(daemon, peer, head, &body, actor).await;
    (answer.unwrap_or_else(Answer::from), Some(caller))
}

/// Looks at the head first, and reads the body only of somebody who may ask for this, as far as a head can tell: strangers
/// get no megabyte of memory. The body of a token's holder is covered by the proof, so it is read before that is known.
async fn admit<S: AsyncRead + AsyncWrite + Unpin>(
    daemon: &Daemon,
    peer: &Peer,
    head: &RequestHead,
    requests: &mut Requests<S>,
) -> Result<(Route, Vec<u8>, Caller), Answer> {
    let length = body_length(head).map_err(problems::malformed)?;
    requests.expect_body(head, length);
    let route = Route::find(head)?;
    let proof = head.fields.get(fields::PROOF);
    let by_token = route.open_to_holders() && peer.chain.is_empty();
    if by_token {
        authentication::may_hold_token(daemon, peer, proof)?;
    } else {
        authentication::member(daemon, peer)?;
    }
    let limit = daemon.config().limits.control_body_bytes;
    if by_token && length > MAX_OFFER_REQUEST_BYTES as u64 {
        // The id of the offer that is open is known to them alone who opened it.
        match &route {
            Route::Provision(id) => daemon.has_offer(id).map_err(Problem::from)?,
            _ => return Err(problems::offer_request_too_large(MAX_OFFER_REQUEST_BYTES).into()),
        }
    }
    if length > limit as u64 {
        return Err(problems::body_too_large(limit).into());
    }
    let body = requests.body().await.map_err(problems::malformed)?;
    let caller = if by_token {
        let (method, path) = (head.method.as_str(), path(&head.target));
        authentication::holder(daemon, peer, &Proved { method, path, body: &body, proof })?
    } else {
        // Again, by the state that is in force now that the body is there.
        authentication::member(daemon, peer)?
    };
    Ok((route, body, caller))
}

/// The path of a request target: of one in absolute-form as well (RFC 9112, section 3.2.2), without a query.
fn path(target: &str) -> &str {
    let path = match target.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => {
            rest.find('/').map_or("/", |authority| &rest[authority..])
        }
        _ => target,
    };
    path.split(['?', '#']).next().unwrap_or_default()
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
    fn find(head: &RequestHead) -> Result<Self, Answer> {
        // HEAD is answered as GET is, without the body (RFC 9110, section 9.3.2).
        let method = if head.method == "HEAD" { "GET" } else { head.method.as_str() };
        let path = path(&head.target);
        let id = || path.strip_prefix("/v1/provisioning/").unwrap_or_default().to_owned();
        let (allow, route) = match path {
            // CONNECT and `*` have no path: nothing is proxied here.
            _ if method == "CONNECT" => ("GET, HEAD", None),
            "/v1/provisioning" => (
                "GET, HEAD, POST, DELETE",
                match method {
                    "GET" => Some(Self::Provisioned),
                    "POST" => Some(Self::OpenOffer),
                    "DELETE" => Some(Self::Unprovision),
                    _ => None,
                },
            ),
            path if path.starts_with("/v1/provisioning/") && !id().is_empty() && !id().contains('/') => (
                "GET, HEAD, PUT",
                match method {
                    "GET" => Some(Self::ProvisionedAs(id())),
                    "PUT" => Some(Self::Provision(id())),
                    _ => None,
                },
            ),
            "/v1/identity" => (
                "POST, PUT",
                match method {
                    "POST" => Some(Self::OfferIdentity),
                    "PUT" => Some(Self::SetIdentity),
                    _ => None,
                },
            ),
            "/v1/trust" => (
                "GET, HEAD, PUT",
                match method {
                    "GET" => Some(Self::Trust),
                    "PUT" => Some(Self::SetTrust),
                    _ => None,
                },
            ),
            "/v1/status" => ("GET, HEAD", (method == "GET").then_some(Self::Status)),
            "/metrics" => ("GET, HEAD", (method == "GET").then_some(Self::Metrics)),
            "/v1/openapi.json" => ("GET, HEAD", (method == "GET").then_some(Self::Openapi)),
            _ => return Err(problems::not_found(path).into()),
        };
        let not_allowed = || {
            let mut answer = Answer::from(problems::method_not_allowed(method));
            answer.allow = Some(allow);
            answer
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
        head: &RequestHead,
        body: &[u8],
        actor: Actor,
    ) -> Result<Answer, Problem> {
        match self {
            Self::OpenOffer => {
                let request: OfferRequest = parse(body)?;
                let purpose = Purpose::Provisioning(request.zone.clone());
                let offer = daemon.open_offer(purpose, &features(head)).await?;
                audit_offer(&actor, peer.address, &request);
                Ok(Answer::json(201, &offer))
            }
            Self::Provision(id) => {
                let document: Provisioning = parse(body)?;
                Ok(Answer::json(200, &daemon.provision(id, document, actor).await?))
            }
            Self::Provisioned => {
                let provisioned = daemon.provisioned().ok_or_else(problems::not_provisioned)?;
                Ok(Answer::json(200, &provisioned))
            }
            Self::ProvisionedAs(id) => match daemon.provisioned() {
                Some(provisioned) if provisioned.id == id => Ok(Answer::json(200, &provisioned)),
                _ => Err(problems::not_found(path(&head.target))),
            },
            Self::Unprovision => {
                daemon.unprovision(actor).await?;
                Ok(Answer::empty(204))
            }
            Self::OfferIdentity => {
                daemon.provisioned().ok_or_else(problems::not_provisioned)?;
                let offer = daemon.open_offer(Purpose::Identity, &features(head)).await?;
                Ok(Answer::json(201, &offer))
            }
            Self::SetIdentity => {
                let new: NewIdentity = parse(body)?;
                Ok(Answer::json(200, &daemon.set_identity(new, actor).await?))
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
            Self::Status => Ok(Answer::json(200, &daemon.status().await)),
            Self::Metrics => {
                // Asked first, so that what each relay carries is counted.
                daemon.supervisor.statuses().await;
                daemon.metrics.firewall.take(daemon.firewall.watch_report().await.as_ref());
                let relay = daemon.supervisor.metrics_text().await;
                let text = daemon.metrics.text(relay.as_deref());
                if accepts_openmetrics(head) {
                    return Ok(Answer::new(200, metrics::OPENMETRICS, text));
                }
                Ok(Answer::new(200, metrics::PLAIN_TEXT, metrics::plain_text(&text)))
            }
            Self::Openapi => Ok(Answer::new(200, JSON, OPENAPI)),
        }
    }
}

/// Whether the client asks for OpenMetrics by its name; whoever doesn't gets the format that every scraper reads.
fn accepts_openmetrics(head: &RequestHead) -> bool {
    head.fields.all("Accept").flat_map(|value| value.split(',')).any(|range| {
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
fn features(head: &RequestHead) -> Features {
    Features::from_field(&head.fields.all(fields::FEATURES).collect::<Vec<_>>().join(","))
}

/// The version in `If-Match`, a strong entity tag (RFC 9110, section 13.1.1).
fn if_match(head: &RequestHead) -> Result<u64, Problem> {
    let field = head.fields.get("If-Match").ok_or_else(problems::precondition_required)?;
    let version = field.strip_prefix('"').and_then(|field| field.strip_suffix('"')?.parse().ok());
    version.ok_or_else(|| problems::malformed("If-Match must be one version in quotes"))
}

#[cfg(test)]
mod tests {
    use zone_protocol::head::{HeadLimits, parse_request, write_request};

    use super::*;

    fn find(method: &str, target: &str) -> Result<Route, (u16, Option<&'static str>)> {
        let text = write_request(method, target, &[("Host", "proxy")]);
        let (head, _) = parse_request(text.as_bytes(), HeadLimits::default()).unwrap().unwrap();
        Route::find(&head).map_err(|answer| (answer.status, answer.allow))
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
        assert_eq!(find("CONNECT", "host:22"), Err((405, Some("GET, HEAD"))));
        assert_eq!(find("GET", "/v1/nothing"), Err((404, None)));
        assert_eq!(find("PUT", "/v1/provisioning/"), Err((404, None)));
        assert_eq!(find("PUT", "/v1/provisioning/a/b"), Err((404, None)));
        assert_eq!(find("PATCH", "/v1/trust"), Err((405, Some("GET, HEAD, PUT"))));
    }

    #[test]
    fn a_target_with_a_query_or_in_absolute_form_is_the_same_resource() {
        for target in
            ["/v1/status", "/v1/status?x=/y", "https://proxy:17488/v1/status", "HTTPS://p/v1/status?x"]
        {
            assert_eq!(find("GET", target), Ok(Route::Status), "{target}");
        }
        assert_eq!(path("https://proxy"), "/");
        assert_eq!(find("GET", "http://proxy/v1/status"), Err((404, None)), "this port speaks TLS alone");
    }
}
