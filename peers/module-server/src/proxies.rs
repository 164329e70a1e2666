//! All proxies of the zone at once: a session goes through the one where the endpoint is parked.

use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use zone_protocol::identity::Target;

use crate::dial::Link;
use crate::error::{Error, Result};
use crate::proxy::ProxyClient;
use crate::session::{EndToEnd, Session};
use crate::zone::Zone;

/// A client for every proxy of the zone, or an error where there is none.
pub fn clients(zone: &Zone) -> Result<Vec<ProxyClient>> {
    let own = Arc::new(zone.credentials()?);
    let clients: Vec<_> =
        zone.proxies()?.iter().map(|proxy| ProxyClient::of(proxy, &own)).collect::<Result<_>>()?;
    if clients.is_empty() { Err(Error::NoProxy) } else { Ok(clients) }
}

/// Opens a session through whichever proxy can.
///
/// All are dialed at once. They are asked one after the other, the first to be ready first, so that never two
/// sessions reach the endpoint; one that does not have it, or has no room, leaves it to the next.
pub async fn connect(clients: &[ProxyClient], target: &Target, policy: EndToEnd) -> Result<Session> {
    let mut dials = JoinSet::new();
    for client in clients.iter().cloned() {
        dials.spawn(async move {
            let link = client.dial().await;
            (client, link)
        });
    }
    let mut each = Vec::new();
    while let Some(dialed) = dials.join_next().await {
        let Ok((client, link)) = dialed else { continue };
        let connected = match link {
            Ok(link) => client.connect_over(link, target, policy).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(session) => {
                tokio::spawn(close_unused(dials));
                return Ok(session);
            }
            Err(error) if may_go_elsewhere(&error) => each.push(error),
            Err(error) => return Err(error),
        }
    }
    match each.pop() {
        Some(only) if each.is_empty() => Err(only),
        Some(last) => {
            each.push(last);
            Err(Error::NoneConnected { target: target.clone(), each })
        }
        None => Err(Error::NoProxy),
    }
}

/// Ends connections that were dialed and not needed, so that no proxy logs one that was cut.
async fn close_unused(mut dials: JoinSet<(ProxyClient, Result<Link>)>) {
    while let Some(dialed) = dials.join_next().await {
        if let Ok((_, Ok(mut link))) = dialed {
            // It carried nothing: what fails here is of no interest.
            let _ = link.stream.shutdown().await;
        }
    }
}

fn may_go_elsewhere(error: &Error) -> bool {
    match error {
        Error::Refused { elsewhere, .. } => *elsewhere,
        Error::Dial { .. }
        | Error::Handshake { .. }
        | Error::NotTrusted { .. }
        | Error::Deadline { .. }
        | Error::Broken { .. } => true,
        _ => false,
    }
}
