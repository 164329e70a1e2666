//! The inside peer of a zone: its certificate authorities, provisioning of proxies, and sessions to endpoints.
//!
//! - [`zone::Zone`] is the zone directory: authorities, trust document, proxies.
//! - [`provision`] turns a fresh proxy into a member of the zone; [`control::ControlClient`] speaks with it on
//!   17488 afterwards, and [`trust`] keeps its trust document up to date.
//! - [`authority`] replaces one of the zone's authorities while everything runs.
//! - [`proxy::ProxyClient`] reaches endpoints through 17487; [`proxies`] picks the proxy where one is parked.
//! - [`clients::Clients`] is for programs that run long: it follows the zone directory.
//! - [`session::Session`] is the byte stream that results; [`copy`] joins it to local streams.
//!
//! A program that asks an endpoint something, through whichever proxy of the zone can reach it:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use zone_module::copy::join;
//! use zone_module::proxies;
//! use zone_module::session::EndToEnd;
//! use zone_module::zone::Zone;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let zone = Zone::open(Path::new("zone"))?;
//! let target = "host-7:greet".parse()?;
//! let session = proxies::connect(&proxies::clients(&zone)?, &target, EndToEnd::Required).await?;
//! let mut answer = Vec::new();
//! join(session, &b"module-1"[..], &mut answer).await?;
//! println!("{}", String::from_utf8_lossy(&answer));
//! # Ok(())
//! # }
//! ```

pub mod authority;
pub mod clients;
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
mod rfc3339;
pub mod session;
pub mod trust;
pub mod zone;

pub use dial::join_host_port;
pub use error::{Error, Result};
