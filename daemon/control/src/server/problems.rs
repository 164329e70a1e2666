//! The refusals of 17488, each with its words and what to do about it. HTTP is made of errors here and nowhere else.

use std::fmt::Display;

use zone_protocol::identity::printable;
use zone_protocol::problem::Problem;

use crate::transaction::{ChangeError, Step};

/// A proof that does not hold, or none. It says nothing about this host.
pub(super) fn proof_wrong() -> Problem {
    Problem::new(401, "proof-wrong", "No valid proof of a token")
        .help("check that the token is the one this proxy shows now")
}

/// A proof that holds, made with a token whose time is over.
pub(super) fn token_expired() -> Problem {
    Problem::new(401, "token-expired", "The token has expired")
        .help("run `zone-proxy token new` on the proxy's host and use the new token")
}

/// No certificate, or one that is not let in any more.
pub(super) fn certificate_needed(why: impl Display) -> Problem {
    Problem::new(401, "certificate-needed", "Only a Module Server of the zone may ask for this").detail(why)
}

/// No such resource.
pub(super) fn not_found(path: &str) -> Problem {
    Problem::new(404, "not-found", "There is no such resource").detail(printable(path))
}

/// The resource is there, the method is not.
pub(super) fn method_not_allowed(method: &str) -> Problem {
    Problem::new(405, "method-not-allowed", "The method is not allowed here")
        .detail(format!("{} is none of those in the Allow field", printable(method)))
}

/// A body that is not the document that belongs there.
pub(super) fn malformed(why: impl Display) -> Problem {
    Problem::new(400, "malformed", "The request is not understood").detail(why)
}

/// A head beyond the limits.
pub(super) fn head_too_large(why: impl Display) -> Problem {
    Problem::new(431, "malformed", "The request head is too large").detail(why)
}

/// A body beyond the limit.
pub(super) fn body_too_large(limit: usize) -> Problem {
    Problem::new(413, "body-too-large", "The request body is too large")
        .detail(format!("more than {limit} bytes"))
        .help("limits.control_body_bytes in zone-proxy.toml is the limit")
}

/// A request for an offer that is longer than such a request can be: its sender is not known before it is read.
pub(super) fn offer_request_too_large(limit: usize) -> Problem {
    Problem::new(413, "body-too-large", "The request body is too large")
        .detail(format!("more than {limit} bytes"))
        .help("a request for an offer names a zone and a Module Server, and nothing else")
}

/// A request or its answer that took too long.
pub(super) fn timed_out(seconds: f64) -> Problem {
    Problem::new(503, "timed-out", "The request was not done in time")
        .detail(format!("not done in {seconds} s"))
        .help("a change that had begun goes on: ask again for its result")
}

/// One connection too many of those that have authenticated.
pub(super) fn too_many_connections(why: &str) -> Problem {
    Problem::new(503, "too-many-connections", "There are too many connections").detail(why).help("try again")
}

/// Something that only a provisioned proxy can do.
pub(super) fn not_provisioned() -> Problem {
    ChangeError::NotProvisioned.into()
}

/// A change of trust without `If-Match`.
pub(super) fn precondition_required() -> Problem {
    Problem::new(428, "precondition-required", "If-Match is needed")
        .help("send If-Match with the version that you have read, in quotes")
}

/// Something that should not happen.
pub(super) fn internal(why: impl Display) -> Problem {
    Problem::new(500, "internal", "The proxy could not do it").detail(why).help("its log says more")
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let (status, slug) = match &error {
            ChangeError::Step(failed) if failed.no_space => (507, slug(failed.step)),
            ChangeError::Step(failed) => (status(failed.step), slug(failed.step)),
            ChangeError::Busy => (409, "busy"),
            ChangeError::NotProvisioned => (409, "not-provisioned"),
            ChangeError::OfferUnknown(_) => (404, "offer-unknown"),
            ChangeError::PreconditionFailed { .. } => (412, "precondition-failed"),
            ChangeError::LockOut(_) => (409, "lock-out"),
            ChangeError::TakesBack(_) => (409, "takes-back"),
            ChangeError::NotInForce(_) => (503, "not-in-force"),
            ChangeError::Keys(_) | ChangeError::BrokeOff => (500, "internal"),
        };
        Self {
            step: error.step().map(|step| step.as_str().to_owned()),
            detail: error.detail(),
            help: error.help().map(str::to_owned),
            ..Self::new(status, slug, error.title())
        }
    }
}

fn status(step: Step) -> u16 {
    match step {
        Step::Validate => 422,
        Step::Bind => 409,
        Step::Relay | Step::StoreState | Step::Firewall | Step::Accept => 500,
    }
}

fn slug(step: Step) -> &'static str {
    match step {
        Step::Validate => "validation-failed",
        Step::Bind => "bind-failed",
        Step::Relay => "relay-failed",
        Step::StoreState => "store-failed",
        Step::Firewall => "firewall-failed",
        Step::Accept => "accept-failed",
    }
}
