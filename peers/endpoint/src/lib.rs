//! The outside peer of a zone: it dials a proxy, parks there, and serves the sessions that come.
//!
//! An endpoint (R-3) keeps a few idle connections at one of its proxies. The proxy turns one of them into a
//! session when a Module Server asks for a service of this endpoint, and the endpoint joins that session to a
//! local TCP target, byte by byte, if its allow-list names the service. Unless the service says otherwise,
//! TLS runs once more inside the session, so that the proxy can neither read nor alter it.
//!
//! [`Endpoint::from_config`] makes what the `zone-endpoint` program runs. [`Endpoint::new`] is for programs
//! that bring their own TLS configuration, serve sessions themselves ([`Service`]) or watch what happens
//! ([`Event`]).
//!
//! A program that serves sessions itself, until it is interrupted:
//!
//! ```no_run
//! use std::path::Path;
//!
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//! use zone_endpoint::{Config, Credentials, Endpoint, Protection, SessionStream, service_fn};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load(Path::new("zone-endpoint.toml"))?;
//! let credentials = Credentials::read(&config)?;
//! let greet = service_fn(|mut session: SessionStream| async move {
//!     let mut name = String::new();
//!     session.read_to_string(&mut name).await?;
//!     session.write_all(format!("good morning, {name}").as_bytes()).await?;
//!     session.finish().await
//! });
//! let protection = Protection::EndToEnd(credentials.end_to_end_server()?);
//! Endpoint::new(config.id, &config.proxies, credentials.client()?)
//!     .with_service("greet".parse()?, None, protection, greet)?
//!     .run(async { drop(tokio::signal::ctrl_c().await) })
//!     .await;
//! # Ok(())
//! # }
//! ```

mod allowance;
mod back_off;
mod config;
mod credentials;
mod dial;
mod endpoint;
mod events;
mod handshake;
mod life;
mod local;
mod park;
mod proxies;
mod renewal;
mod requests;
mod service;
mod session;
mod shared;
mod stream;
mod timing;

pub use config::{Config, ConfigError, EndToEnd, ServiceConfig};
pub use credentials::{Credentials, CredentialsError};
pub use dial::{DialCause, DialError};
pub use endpoint::{Certificates, Endpoint, SetupError};
pub use events::{Event, Observer};
pub use handshake::HandshakeError;
pub use local::LocalTcp;
pub use renewal::Renewal;
pub use requests::SessionRequest;
pub use service::{Decline, Protection, Serve, ServeFuture, Service, service_fn};
pub use stream::SessionStream;
pub use timing::Timing;
