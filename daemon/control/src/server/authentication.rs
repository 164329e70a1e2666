//! Who asks: a Module Server by its certificate, or the holder of the token by a proof.

use zone_log_budget::within_budget;
use zone_protocol::identity::Identity;
use zone_protocol::problem::Problem;
use zone_protocol::proof::{Exported, Proof, Prover, is_proof};
use zone_protocol::token::Token;

use super::peer::Peer;
use super::problems;
use crate::daemon::Daemon;

/// One request as far as a proof covers it.
pub(super) struct Proved<'a> {
    /// The method, as sent.
    pub(super) method: &'a str,
    /// The path, as sent.
    pub(super) path: &'a str,
    /// The body, as sent.
    pub(super) body: &'a [u8],
    /// The `Zone-Proof` field.
    pub(super) proof: Option<&'a str>,
}

/// Whoever may ask.
pub(super) enum Caller {
    /// A Module Server of the zone.
    Member(Identity),
    /// Somebody who holds the token; the answer is proved likewise.
    Holder(Token, Exported),
}

/// A Module Server of the zone, by the state in force now.
pub(super) fn member(daemon: &Daemon, peer: &Peer) -> Result<Caller, Problem> {
    let tls = daemon.tls();
    let Some(admission) = tls.admission.as_ref().filter(|_| !peer.chain.is_empty()) else {
        return Err(problems::certificate_needed("no certificate was shown"));
    };
    match admission.authorise(&peer.chain, daemon.time.wall()) {
        Ok(leaf) => Ok(Caller::Member(leaf.identity)),
        Err(refusal) => Err(problems::certificate_needed(refusal)),
    }
}

/// Refuses, by its head alone, a request that can't come to be anybody's, before its body is read: from somebody who has shown
/// no certificate, and no proof that looks like one while a token is outstanding.
pub(super) fn may_hold_token(daemon: &Daemon, peer: &Peer, proof: Option<&str>) -> Result<(), Problem> {
    if daemon.state().token.is_none() {
        return Err(wrong(daemon, peer, "no token is outstanding"));
    }
    match proof {
        None => Err(wrong(daemon, peer, "there is no proof")),
        Some(proof) if !is_proof(proof) => Err(wrong(daemon, peer, "the proof is none")),
        Some(_) => Ok(()),
    }
}

/// The holder of the token that is outstanding.
pub(super) fn holder(daemon: &Daemon, peer: &Peer, request: &Proved<'_>) -> Result<Caller, Problem> {
    let Proved { method, path, body, proof } = *request;
    let state = daemon.state();
    let wrong = |error: &'static str| wrong(daemon, peer, error);
    let issued = state.token.as_ref().ok_or_else(|| wrong("no token is outstanding"))?;
    let exported = peer.exported.as_ref().ok_or_else(|| wrong("the connection can't be bound"))?;
    let proof = proof.ok_or_else(|| wrong("there is no proof"))?;
    let expected = Proof { token: &issued.token, prover: Prover::ModuleServer, exported, method, path, body };
    if !expected.verify(proof) {
        return Err(wrong("the proof does not hold"));
    }
    if issued.remaining(&daemon.time).is_none() {
        refused(daemon, peer, "the token has expired");
        return Err(problems::token_expired());
    }
    Ok(Caller::Holder(issued.token.clone(), *exported))
}

fn wrong(daemon: &Daemon, peer: &Peer, error: &'static str) -> Problem {
    daemon.metrics.wrong_proofs.inc();
    refused(daemon, peer, error);
    problems::proof_wrong()
}

fn refused(daemon: &Daemon, peer: &Peer, error: &'static str) {
    within_budget!(
        daemon.log_budget,
        error,
        warn!(peer = %peer.address, step = "proof", error, "a request to 17488 was refused")
    );
}

impl Caller {
    /// For the audit log.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Member(identity) => identity.to_string(),
            Self::Holder(..) => "holder of the token".to_owned(),
        }
    }

    /// The proof of an answer, where its receiver can check one.
    pub(super) fn prove(&self, method: &str, path: &str, body: &[u8]) -> Option<String> {
        match self {
            Self::Member(_) => None,
            Self::Holder(token, exported) => {
                Some(Proof { token, prover: Prover::ZoneProxy, exported, method, path, body }.make())
            }
        }
    }
}
