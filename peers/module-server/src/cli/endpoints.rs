//! Which endpoints are connected, once or as it changes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use zone_module::clients::Clients;
use zone_module::events::Event;
use zone_module::proxies;
use zone_module::proxy::ProxyClient;
use zone_module::zone::Zone;
use zone_module::{Result, trust};
use zone_protocol::identity::Label;
use zone_protocol::provisioning::{EndpointStatus, Endpoints};

use super::output::{json, line, table};
use super::sessions::{outlive_hang_ups, unusable};

/// The longest pause before a lost stream of events is opened again.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// Lines that wait for a slow terminal; the proxies' streams wait behind them.
const MAX_WAITING_LINES: usize = 64;

#[derive(Debug, Serialize)]
struct AtProxy {
    proxy: Label,
    #[serde(flatten)]
    endpoints: Endpoints,
}

pub(super) async fn list(zone: &Zone, as_json: bool) -> Result<ExitCode> {
    let mut asked = JoinSet::new();
    for client in proxies::clients(zone)? {
        asked.spawn(async move { (name(&client), client.endpoints().await) });
    }
    let mut answered = Vec::new();
    let mut outcome = ExitCode::SUCCESS;
    for (proxy, endpoints) in asked.join_all().await {
        match endpoints {
            Ok(endpoints) => answered.push(AtProxy { proxy, endpoints }),
            Err(error) => {
                outcome = ExitCode::FAILURE;
                eprintln!("zone-module: {error}");
            }
        }
    }
    answered.sort_by(|one, other| one.proxy.cmp(&other.proxy));
    if as_json {
        json(&answered)?;
        return Ok(outcome);
    }
    let mut rows: Vec<_> = answered
        .iter()
        .flat_map(|at| at.endpoints.endpoints.iter().map(|endpoint| row(&at.proxy, endpoint)))
        .collect();
    rows.sort();
    table(["ENDPOINT", "PROXY", "ADDRESS", "IDLE", "BUSY", "SESSIONS", "INSTANCES"], &rows)?;
    Ok(outcome)
}

fn row(proxy: &Label, endpoint: &EndpointStatus) -> [String; 7] {
    let EndpointStatus { id, address, idle, busy, sessions, instances } = endpoint;
    let flag = if *instances > 1 { " (cloned?)" } else { "" };
    [
        id.to_string(),
        proxy.to_string(),
        printable(address),
        idle.to_string(),
        busy.to_string(),
        sessions.to_string(),
        format!("{instances}{flag}"),
    ]
}

/// Prints events of every proxy until it is interrupted or its reader goes.
pub(super) async fn watch(zone: &Zone) -> Result<ExitCode> {
    let (lines, mut queue) = mpsc::channel(MAX_WAITING_LINES);
    let converging = zone.clone();
    // Best effort: a proxy that can't be reached says so by its missing events.
    let _converging = tokio::spawn(async move { trust::push_to_lagging(&converging).await });
    let clients = Arc::new(Clients::of(zone, Box::new(unusable))?);
    for client in clients.current().iter() {
        tokio::spawn(follow(Arc::clone(&clients), name(client), lines.clone()));
    }
    drop(lines);
    let printing = async {
        while let Some(text) = queue.recv().await {
            line(text)?;
        }
        Ok(ExitCode::SUCCESS)
    };
    tokio::select! {
        printed = printing => printed,
        Err(error) = outlive_hang_ups() => Err(error),
    }
}

/// Follows one proxy for as long as the zone has it, by what the zone directory says at each connection.
async fn follow(clients: Arc<Clients>, proxy: Label, lines: mpsc::Sender<String>) {
    let mut pause = Duration::from_secs(1);
    while let Some(client) = clients.client(&proxy) {
        let ended = match client.events().await {
            Ok(mut events) => loop {
                match events.next().await {
                    Ok(Some(event)) => {
                        pause = Duration::from_secs(1);
                        for text in describe(&proxy, &event) {
                            if lines.send(text).await.is_err() {
                                return;
                            }
                        }
                    }
                    Ok(None) => break "the proxy ended the stream".to_owned(),
                    Err(error) => break error.to_string(),
                }
            },
            Err(error) => error.to_string(),
        };
        eprintln!("zone-module: {proxy}: {ended}; again in {} s", pause.as_secs());
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(MAX_RETRY_DELAY);
    }
}

fn describe(proxy: &Label, event: &Event) -> Vec<String> {
    let state = |what: &str, endpoint: &EndpointStatus| {
        let EndpointStatus { id, address, idle, busy, sessions, .. } = endpoint;
        let address = printable(address);
        format!("{proxy}  {what:8}  {id}  {address}  idle {idle}, busy {busy}, sessions {sessions}")
    };
    match event {
        Event::Snapshot(all) => {
            let heading = format!("{proxy}  snapshot  endpoints {}", all.endpoints.len());
            let present = all.endpoints.iter().map(|endpoint| state("present", endpoint));
            std::iter::once(heading).chain(present).collect()
        }
        Event::Joined(change) => vec![state("joined", &change.endpoint)],
        Event::Left(change) => vec![state("left", &change.endpoint)],
        Event::Changed(change) => vec![state("changed", &change.endpoint)],
        Event::Resync => vec![format!("{proxy}  resync    some events were missed, a snapshot follows")],
    }
}

fn name(client: &ProxyClient) -> Label {
    client.name().clone()
}

fn printable(text: &str) -> String {
    zone_protocol::identity::printable(text)
}
