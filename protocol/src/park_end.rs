//! Why a proxy lets a park go that the endpoint should not dial again at once.
//!
//! It stands in the last request on the park, in the field [`fields::PARK_END`](crate::fields::PARK_END), for endpoints that
//! name the feature [`PARK_END`](crate::features::PARK_END). Another end by `close_notify` asks an endpoint to come back at once.
//!
//! ```
//! use zone_protocol::park_end::ParkEnd;
//!
//! assert_eq!(ParkEnd::from_field("evicted"), ParkEnd::Evicted);
//! assert_eq!(ParkEnd::from_field("something-later"), ParkEnd::Other);
//! ```

/// Why the proxy lets a park go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParkEnd {
    /// A newer park of the same endpoint id took its place.
    Evicted,
    /// Its endpoint is new, and as many endpoints as allowed are connected already.
    TooManyEndpoints,
    /// A reason of a later version.
    Other,
}

impl ParkEnd {
    /// From the value of the field.
    pub fn from_field(value: &str) -> Self {
        match value {
            "evicted" => Self::Evicted,
            "too-many-endpoints" => Self::TooManyEndpoints,
            _ => Self::Other,
        }
    }

    /// The value of the field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::TooManyEndpoints => "too-many-endpoints",
            Self::Other => "other",
        }
    }
}
