//! All proxies of the zone at once: a session goes through the one where the endpoint is parked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use zone_protocol::identity::Target;

use crate::dial::Link;
use crate::error::{Error, Result};
use crate::proxy::ProxyClient;
use crate::session::{EndToEnd, Session};
use crate::zone::Zone;

/// How long a proxy may leave a CONNECT waiting before another one is asked as well.
const NEXT_PROXY_DELAY: Duration = Duration::from_secs(2);

type Dialed = (ProxyClient, Result<Link>);

/// A client for every proxy of the zone, or an error where there is none.
pub fn clients(zone: &Zone) -> Result<Vec<ProxyClient>> {
    let own = Arc::new(zone.credentials()?);
    let clients: Vec<_> =
        zone.proxies()?.iter().map(|proxy| ProxyClient::of(proxy, &own)).collect::<Result<_>>()?;
    if clients.is_empty() { Err(Error::NoProxy) } else { Ok(clients) }
}

/// Opens a session through whichever proxy can.
///
/// All are dialed at once, and asked in the order in which they are ready: the next one when the last has
/// refused for want of the endpoint or of room, or after 2 s, since a proxy that has just started
/// waits for endpoints to come back.
pub async fn connect(clients: &[ProxyClient], target: &Target, policy: EndToEnd) -> Result<Session> {
    let mut dials = JoinSet::new();
    for client in clients.iter().cloned() {
        dials.spawn(async move {
            let link = client.dial().await;
            (client, link)
        });
    }
    let mut ready = VecDeque::new();
    let mut calls = JoinSet::new();
    let mut refused = Vec::new();
    let mut next_at = Instant::now();
    loop {
        let may_ask = calls.is_empty() || next_at <= Instant::now();
        if may_ask && let Some((client, link)) = ready.pop_front() {
            calls.spawn(call(client, link, target.clone(), policy));
            next_at = Instant::now() + NEXT_PROXY_DELAY;
        }
        tokio::select! {
            Some(Ok((client, dialed))) = dials.join_next() => match dialed {
                Ok(link) => ready.push_back((client, link)),
                Err(error) => refused.push(error),
            },
            Some(Ok(called)) = calls.join_next() => match called {
                Ok(session) => {
                    tokio::spawn(close_unused(dials, ready));
                    return Ok(session);
                }
                Err(error) if may_go_elsewhere(&error) => refused.push(error),
                Err(error) => return Err(error),
            },
            () = sleep_until(next_at), if !ready.is_empty() => {}
            else => return Err(none_connected(target, refused)),
        }
    }
}

async fn call(client: ProxyClient, link: Link, target: Target, policy: EndToEnd) -> Result<Session> {
    client.connect_over(link, &target, policy).await
}

/// Ends connections that were dialed and not needed, so that no proxy logs one that was cut.
async fn close_unused(mut dials: JoinSet<Dialed>, ready: VecDeque<(ProxyClient, Link)>) {
    let mut unused: Vec<_> = ready.into_iter().map(|(_, link)| link).collect();
    while let Some(dialed) = dials.join_next().await {
        unused.extend(dialed.ok().and_then(|(_, link)| link.ok()));
    }
    for mut link in unused {
        // It carried nothing: what fails here is of no interest.
        let _ = link.stream.shutdown().await;
    }
}

fn may_go_elsewhere(error: &Error) -> bool {
    match error {
        Error::Refused { elsewhere, .. } => *elsewhere,
        Error::Deadline { .. } | Error::Broken { .. } => true,
        _ => false,
    }
}

fn none_connected(target: &Target, mut each: Vec<Error>) -> Error {
    match each.pop() {
        Some(only) if each.is_empty() => only,
        Some(last) => {
            each.push(last);
            Error::NoneConnected { target: target.clone(), each }
        }
        None => Error::NoProxy,
    }
}
