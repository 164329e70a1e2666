//! The refusals of 17488, each with its words and what to do about it.

use std::fmt::Display;

use zone_protocol::identity::printable;
use zone_protocol::problem::Problem;

/// A proof that does not hold, or none. It says nothing about this host.
pub fn proof_wrong() -> Problem {
    Problem::new(401, "proof-wrong", "No valid proof of a token")
        .help("check that the token is the one this proxy shows now")
}

/// A proof that holds, made with a token whose time is over.
pub fn token_expired() -> Problem {
    Problem::new(401, "token-expired", "The token has expired")
        .help("run `zone-proxy token new` on the proxy's host and use the new token")
}

/// No certificate, or one that is not let in any more.
pub fn certificate_needed(why: impl Display) -> Problem {
    Problem::new(401, "certificate-needed", "Only a Module Server of the zone may ask for this").detail(why)
}

/// No such resource.
pub fn not_found(path: &str) -> Problem {
    Problem::new(404, "not-found", "There is no such resource").detail(printable(path))
}

/// An offer that was never made, was replaced, has lapsed or is completed.
pub fn offer_unknown(id: &str) -> Problem {
    let id = printable(id);
    Problem::new(404, "offer-unknown", "There is no such offer")
        .detail(format!("offer {id} was never made, was replaced by a newer one, has lapsed or is completed"))
        .help("open a new one")
}

/// The resource is there, the method is not.
pub fn method_not_allowed(method: &str) -> Problem {
    Problem::new(405, "method-not-allowed", "The method is not allowed here")
        .detail(format!("{} is none of those in the Allow field", printable(method)))
}

/// A body that is not the document that belongs there.
pub fn malformed(why: impl Display) -> Problem {
    Problem::new(400, "malformed", "The request is not understood").detail(why)
}

/// A body beyond the limit.
pub fn body_too_large(limit: usize) -> Problem {
    Problem::new(413, "body-too-large", "The request body is too large")
        .detail(format!("more than {limit} bytes"))
        .help("limits.control_body_bytes in zone-proxy.toml is the limit")
}

/// A request or its answer that took too long.
pub fn timed_out(seconds: f64) -> Problem {
    Problem::new(503, "timed-out", "The request was not done in time")
        .detail(format!("not done in {seconds} s"))
        .help("a change that had begun goes on: ask again for its result")
}

/// Another change is under way.
pub fn busy() -> Problem {
    Problem::new(409, "busy", "Another change is under way").help("try again when it is done")
}

/// Something that only a provisioned proxy can do.
pub fn not_provisioned() -> Problem {
    Problem::new(409, "not-provisioned", "The proxy belongs to no zone").help("provision it first")
}

/// A change of trust without `If-Match`.
pub fn precondition_required() -> Problem {
    Problem::new(428, "precondition-required", "If-Match is needed")
        .help("send If-Match with the version that you have read, in quotes")
}

/// A change of trust on top of another version than the one in force.
pub fn precondition_failed(named: u64, current: u64) -> Problem {
    Problem::new(412, "precondition-failed", "Another trust version is in force")
        .detail(format!("If-Match names version {named}, and version {current} is in force"))
        .help("read the one in force, and change that")
}

/// A trust document that does not let its own sender in.
pub fn lock_out(why: impl Display) -> Problem {
    Problem::new(409, "lock-out", "The new trust document would lock its sender out")
        .detail(why)
        .help("send it with a certificate that it lets in")
}

/// Something that should not happen.
pub fn internal(why: impl Display) -> Problem {
    Problem::new(500, "internal", "The proxy could not do it").detail(why).help("its log says more")
}
