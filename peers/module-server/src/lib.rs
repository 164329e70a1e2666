//! The inside peer of a zone: its certificate authorities, provisioning of proxies, and sessions to endpoints.
//!
//! - [`zone::Zone`] is the zone directory: authorities, trust document, proxies.
//! - [`provision`] turns a fresh proxy into a member of the zone; [`control::ControlClient`] speaks with it on
//!   17488 afterwards, and [`trust`] keeps its trust document up to date.
//! - [`proxy::ProxyClient`] reaches endpoints through 17487; [`proxies`] picks the proxy where one is parked.
//! - [`session::Session`] is the byte stream that results; [`copy`] joins it to local streams.

pub mod control;
pub mod copy;
mod dial;
mod end_to_end;
pub mod error;
pub mod events;
pub mod forward;
mod http;
pub mod provision;
pub mod proxies;
pub mod proxy;
pub mod session;
pub mod trust;
pub mod zone;

pub use dial::join_host_port;
pub use error::{Error, Result};
