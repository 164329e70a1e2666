//! Names of the header fields that are this protocol's own.

/// Session id (UUIDv7, lower case) in the heads of both legs and in every log line.
pub const SESSION: &str = "Zone-Session";
/// `required` or `off`: whether TLS runs end to end inside the session; set by the endpoint in its 200.
pub const END_TO_END: &str = "Zone-End-To-End";
/// An [`Instance`](crate::instance::Instance): tells a cloned image from a second park.
pub const INSTANCE: &str = "Zone-Instance";
/// The proof of an offer or provisioning request and of its answer, base64url without padding.
pub const PROOF: &str = "Zone-Proof";
/// How many parks the proxy keeps of one endpoint id, in its 101.
pub const PARKS: &str = "Zone-Parks";
/// A [`ParkEnd`](crate::park_end::ParkEnd), in the last request on a park: why the proxy lets it go.
pub const PARK_END: &str = "Zone-Park-End";
/// The [`Features`](crate::features::Features) of a client of 17488, and of an endpoint in its request for a park; a proxy's
/// stand in its offers and its status.
pub const FEATURES: &str = "Zone-Features";
