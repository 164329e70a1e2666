//! The control port, 17488: status, provisioning, identity and trust.

use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use zone_protocol::features::Features;
use zone_protocol::fields;
use zone_protocol::identity::{Label, Role};
use zone_protocol::proof::{Proof, Prover};
use zone_protocol::provisioning::{NewIdentity, Offer, OfferRequest, Provisioned, Provisioning, Status};
use zone_protocol::tls::config;
use zone_protocol::tls::policy::Versions;
use zone_protocol::tls::refusal::Refusal;
use zone_protocol::tls::verifier::{Expectation, Pinned};
use zone_protocol::token::Token;
use zone_protocol::trust::Trust;

use crate::dial::{Dialer, Link, peer};
use crate::error::{Error, Result};
use crate::http::{self, ANSWER_TIMEOUT, Answer, Content};
use crate::zone::{Credentials, ProxyEntry, Zone};

/// How long a proxy may take to complete a provisioning: it starts a relay and opens the firewall meanwhile.
const PROVISIONING_TIMEOUT: Duration = Duration::from_secs(90);
/// The roles that a proxy may show itself in on 17488: once it was seen to have an identity there that no relay has...
pub(crate) const NOTED: [Role; 1] = [Role::ZoneControl];
/// ...and before.
pub(crate) const UNKNOWN: [Role; 2] = [Role::ZoneProxy, Role::ZoneControl];
/// How often something is asked for that changes nothing.
const GET_ATTEMPTS: usize = 3;
/// How long to wait before it is asked for again.
const GET_RETRY_DELAY: Duration = Duration::from_millis(100);
/// How long an offer is asked for again of a proxy that is making keys for somebody else, and how often.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
const BUSY_DELAY: Duration = Duration::from_millis(250);

/// What became of a trust document that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// It is in force.
    Done,
    /// Another one is in force than the one that it builds on.
    Stale,
    /// The proxy is making another change.
    Busy,
}

/// A client of one proxy's control port.
#[derive(Debug)]
pub struct ControlClient {
    dialer: Dialer,
    /// Set before provisioning: every request carries a proof made with it, and so must every answer.
    token: Option<Token>,
    /// Set afterwards.
    known: Option<Known>,
}

/// By what a proxy of the zone is known.
#[derive(Debug)]
struct Known {
    /// Where it is noted who was seen to show an identity of 17488 alone.
    zone: Zone,
    /// Its name; `None` for any proxy of the zone.
    name: Option<Label>,
}

impl ControlClient {
    /// For a proxy that is not provisioned: known by the keys that `token` names, and no certificate of ours.
    pub fn by_token(hosts: Vec<String>, port: u16, token: Token) -> Result<Self> {
        let tls = config::client(Pinned::new(*token.pin()), None, Versions::Tls12)?;
        Ok(Self { dialer: Dialer::new(hosts, port, tls), token: Some(token), known: None })
    }

    /// For a proxy of the zone, by mutual TLS; any of its proxies where no name is given. `shows` are the roles that it may
    /// show itself in.
    pub(crate) fn by_certificate(
        zone: &Zone,
        (hosts, port): (Vec<String>, u16),
        own: &Credentials,
        name: Option<Label>,
        shows: &[Role],
    ) -> Result<Self> {
        let (zone_name, anchors) = (own.zone.clone(), &own.proxy_anchors);
        let expected = Expectation::one_of(zone_name, shows, name.clone(), anchors, Versions::Tls12)?;
        let tls = config::client(expected, Some((&own.certificate, &own.key)), Versions::Tls12)?;
        Ok(Self {
            dialer: Dialer::new(hosts, port, tls),
            token: None,
            known: Some(Known { zone: zone.clone(), name }),
        })
    }

    /// For a proxy that the zone directory knows. Once that has shown an identity which no relay has, nothing less is
    /// taken for it.
    pub fn of(zone: &Zone, proxy: &ProxyEntry, own: &Credentials) -> Result<Self> {
        let at = (proxy.addresses.clone(), proxy.control_port);
        let noted = zone.has_control_identity(&proxy.name);
        Self::by_certificate(zone, at, own, Some(proxy.name.clone()), if noted { &NOTED } else { &UNKNOWN })
    }

    /// `GET /v1/status`.
    pub async fn status(&self) -> Result<Status> {
        self.get("/v1/status").await?.document("the request for its status")
    }

    /// `POST /v1/provisioning`: two signing requests, and what the proxy says of itself.
    pub async fn request_offer(&self, request: &OfferRequest) -> Result<Offer> {
        self.offer("/v1/provisioning", request, "the request for an offer").await
    }

    /// `PUT /v1/provisioning/{id}`: completes the offer; afterwards the proxy is a member of the zone.
    pub async fn complete(&self, offer: &str, provisioning: &Provisioning) -> Result<Provisioned> {
        let path = format!("/v1/provisioning/{offer}");
        self.send(&Method::PUT, &path, provisioning).await?.document("the provisioning")
    }

    /// `GET /v1/provisioning`: what is in force.
    pub async fn provisioned(&self) -> Result<Provisioned> {
        let answer = self.send(&Method::GET, "/v1/provisioning", &()).await?;
        answer.document("the question for its provisioning")
    }

    /// `DELETE /v1/provisioning`: afterwards 17486 and 17487 are closed, and the proxy waits for a new zone.
    pub async fn unprovision(&self) -> Result<()> {
        self.send(&Method::DELETE, "/v1/provisioning", &()).await?.success("the un-provisioning")
    }

    /// `POST /v1/identity`: signing requests for new keys.
    pub async fn request_identity(&self) -> Result<Offer> {
        self.offer("/v1/identity", &(), "the request for new keys").await
    }

    /// `PUT /v1/identity`: from here on the proxy shows these certificates.
    pub async fn replace_identity(&self, identity: &NewIdentity) -> Result<Provisioned> {
        self.send(&Method::PUT, "/v1/identity", identity).await?.document("the new identity")
    }

    /// `GET /v1/trust`.
    pub async fn trust(&self) -> Result<Trust> {
        let answer = self.get("/v1/trust").await?;
        trust(&answer, "the question for its trust document")
    }

    /// `PUT /v1/trust`, if the proxy still has version `current`. `features` are what it has named.
    pub async fn replace_trust(&self, trust: &Trust, current: u64, features: &Features) -> Result<Replaced> {
        let body = encode(&trust.for_reader(features))?;
        let condition = vec![("If-Match", format!("\"{current}\"")), own_features()];
        let content = move |_: &_| Content { body, fields: condition };
        let link = self.dial().await?;
        let answer = http::exchange(link, &Method::PUT, "/v1/trust", ANSWER_TIMEOUT, content).await?;
        match self::trust(&answer, "the trust document") {
            Ok(_) => Ok(Replaced::Done),
            Err(Error::Problem { problem, .. }) if problem.slug() == "busy" => Ok(Replaced::Busy),
            // A document that another one has overtaken would take back what that one says.
            Err(Error::Problem { problem, .. })
                if problem.status == 412 || problem.slug() == "takes-back" =>
            {
                Ok(Replaced::Stale)
            }
            Err(error) => Err(error),
        }
    }

    /// Asks once more where the connection ended without an answer: a proxy ends connections whenever its trust or its
    /// identity changes, those among them whose request is still on its way.
    async fn get(&self, path: &str) -> Result<Answer> {
        let mut attempts = 1;
        loop {
            match self.send(&Method::GET, path, &()).await {
                Err(Error::Broken { .. }) if attempts < GET_ATTEMPTS => attempts += 1,
                answer => return answer,
            }
            sleep(GET_RETRY_DELAY).await;
        }
    }

    async fn offer(&self, path: &str, request: &impl Serialize, step: &str) -> Result<Offer> {
        let deadline = Instant::now() + BUSY_TIMEOUT;
        let (answer, offer) = loop {
            let answer = self.send(&Method::POST, path, request).await?;
            match answer.document::<Offer>(step) {
                Err(Error::Problem { problem, .. })
                    if problem.slug() == "busy" && Instant::now() + BUSY_DELAY < deadline => {}
                offer => break (answer, offer?),
            }
            sleep(BUSY_DELAY).await;
        };
        // It becomes part of a path.
        if (1..=64).contains(&offer.id.len())
            && offer.id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        {
            return Ok(offer);
        }
        let why = "the offer's id is not one of letters, digits and '-'".into();
        Err(Error::Broken { peer: answer.peer, step: step.to_owned(), why })
    }

    /// Sends a document (`()` for none). With a token, both proofs are made and checked here.
    async fn send(&self, method: &Method, path: &str, document: &impl Serialize) -> Result<Answer> {
        let body = encode(document)?;
        let deadline = if *method == Method::PUT { PROVISIONING_TIMEOUT } else { ANSWER_TIMEOUT };
        let token = self.token.as_ref();
        let content = |exported: &_| {
            let (prover, method) = (Prover::ModuleServer, method.as_str());
            let proof =
                token.map(|token| Proof { token, prover, exported, method, path, body: &body }.make());
            let proof = proof.map(|proof| (fields::PROOF, proof));
            Content { body, fields: [own_features()].into_iter().chain(proof).collect() }
        };
        let answer = http::exchange(self.dial().await?, method, path, deadline, content).await?;
        if let Some(token) = &self.token
            && (200..300).contains(&answer.status)
        {
            let (exported, body) = (&answer.exported, &answer.body);
            let (prover, method) = (Prover::ZoneProxy, method.as_str());
            let expected = Proof { token, prover, exported, method, path, body };
            if !expected.verify(answer.proof.as_deref().unwrap_or_default()) {
                return Err(Error::AnswerProof { peer: answer.peer, step: format!("{method} {path}") });
            }
        }
        Ok(answer)
    }

    /// A connection to whom it should be: what the handshake let pass is looked at by what is noted now, and noted.
    async fn dial(&self) -> Result<Link> {
        let dialed = self.dialer.dial().await;
        let Some(known) = &self.known else { return dialed };
        let link = match dialed {
            // The relay of another proxy says nothing of this one.
            Err(Error::RelayIdentity { peer, shown: identity }) => {
                return Err(match known.name.clone().filter(|wanted| *wanted != identity.name) {
                    Some(wanted) => {
                        Error::NotTrusted { peer, why: Refusal::WrongName { identity, wanted }.to_string() }
                    }
                    None => Error::RelayIdentity { peer, shown: identity },
                });
            }
            dialed => dialed.map_err(|error| error.of_proxy(known.name.as_ref()))?,
        };
        let peer = peer(&link.address);
        match link.identity() {
            Some(shown) if shown.role == Role::ZoneControl => {
                known.zone.note_control_identity(&shown.name)?;
                Ok(link)
            }
            Some(shown) if known.zone.has_control_identity(&shown.name) => {
                Err(Error::RelayIdentity { peer, shown })
            }
            Some(_) => Ok(link),
            None => Err(Error::NotTrusted { peer, why: "it shows no certificate".into() }),
        }
    }
}

/// What this client can read, in every request: a proxy writes no more than that.
fn own_features() -> (&'static str, String) {
    (fields::FEATURES, Features::own().to_field())
}

fn trust(answer: &Answer, step: &str) -> Result<Trust> {
    answer.success(step)?;
    Trust::from_answer(&answer.body).map_err(|error| answer.unreadable(step, &error))
}

fn encode(document: &impl Serialize) -> Result<Bytes> {
    match serde_json::to_vec(document) {
        Ok(body) if body == b"null" => Ok(Bytes::new()),
        Ok(body) => Ok(body.into()),
        Err(error) => Err(Error::Usage(format!("a document can't be written as JSON: {error}"))),
    }
}
