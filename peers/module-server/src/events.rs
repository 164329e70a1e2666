//! Presence of endpoints as server-sent events (HTML Standard, section 9.2).

use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zone_protocol::provisioning::{EndpointStatus, Endpoints};

use crate::dial::{Link, explain};
use crate::error::{Error, Result};
use crate::http::{self, Connection};

/// A stream that brings nothing for so long is dead: the proxy sends a comment every 20 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);
/// The longest event that is taken.
const MAX_EVENT_BYTES: usize = 16 * 1024 * 1024;
const EVENTS_PATH: &str = "/v1/endpoints/events";

/// One event of one proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// All endpoints; whatever was known before is replaced by it.
    Snapshot(Endpoints),
    /// An endpoint's first connection.
    Joined(Change),
    /// An endpoint's last connection is gone.
    Left(Change),
    /// Its numbers changed.
    Changed(Change),
    /// Some events were missed, because we read too slowly; a snapshot follows.
    Resync,
}

/// What an event says of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Grows by one with each event of one boot of the proxy's relay.
    pub sequence: u64,
    /// The endpoint as it is now.
    pub endpoint: EndpointStatus,
}

/// An open stream of events.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    connection: Connection,
    parser: Parser,
}

impl Events {
    pub(crate) async fn open(link: Link) -> Result<Self> {
        let (response, connection) = http::open(link, EVENTS_PATH).await?;
        Ok(Self { body: response.into_body(), connection, parser: Parser::default() })
    }

    /// The next event; `None` where the proxy ended the stream.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some((name, data)) = self.parser.take() {
                match event(&name, &data) {
                    Ok(Some(event)) => return Ok(Some(event)),
                    // Kinds of event that later versions add.
                    Ok(None) => continue,
                    Err(error) => return Err(self.broken(format!("event '{name}' can't be read: {error}"))),
                }
            }
            let frame = match timeout(SILENCE_TIMEOUT, self.body.frame()).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => return Err(self.broken(explain(&error))),
                Ok(None) => return Ok(None),
                Err(_) => {
                    return Err(self.broken(format!("nothing came for {} s", SILENCE_TIMEOUT.as_secs())));
                }
            };
            if let Some(data) = frame.data_ref() {
                self.parser.feed(data);
            }
            if self.parser.held() > MAX_EVENT_BYTES {
                return Err(self.broken(format!("an event is longer than {MAX_EVENT_BYTES} bytes")));
            }
        }
    }

    /// The proxy that sends them, for messages.
    pub fn peer(&self) -> &str {
        &self.connection.peer
    }

    fn broken(&self, why: String) -> Error {
        self.connection.broken("presence events", why)
    }
}

fn event(name: &str, data: &str) -> serde_json::Result<Option<Event>> {
    Ok(Some(match name {
        "snapshot" => Event::Snapshot(serde_json::from_str(data)?),
        "joined" => Event::Joined(serde_json::from_str(data)?),
        "left" => Event::Left(serde_json::from_str(data)?),
        "changed" => Event::Changed(serde_json::from_str(data)?),
        "resync" => Event::Resync,
        _ => return Ok(None),
    }))
}

/// Puts events together from lines that come in pieces.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    /// How much of `bytes` is known to hold no line end.
    searched: usize,
    name: String,
    data: String,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    fn held(&self) -> usize {
        self.bytes.len() + self.data.len()
    }

    /// The next complete event's name and data.
    fn take(&mut self) -> Option<(String, String)> {
        while let Some(end) = self.bytes[self.searched..].iter().position(|b| *b == b'\n') {
            let line: Vec<u8> = self.bytes.drain(..=self.searched + end).collect();
            self.searched = 0;
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if line.is_empty() {
                let complete = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                if !complete.0.is_empty() || !complete.1.is_empty() {
                    return Some(complete);
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut self.name),
                "data" => {
                    if !self.data.is_empty() {
                        self.data.push('\n');
                    }
                    self.data.push_str(value);
                }
                _ => {}
            }
        }
        self.searched = self.bytes.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_they_were_cut() {
        let text = ":\r\n\nevent: joined\nid: b-7\ndata: {\"a\":\ndata: 1}\n\nevent: resync\ndata:\n\n";
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let mut events = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.feed(piece);
                events.extend(std::iter::from_fn(|| parser.take()));
            }
            let expected = [("joined", "{\"a\":\n1}"), ("resync", "")];
            assert_eq!(events, expected.map(|(name, data)| (name.to_owned(), data.to_owned())), "{size}");
        }
    }

    #[test]
    fn an_event_of_a_later_version_is_passed_over() {
        assert_eq!(event("renamed", "{}").unwrap(), None);
        assert!(event("joined", "{}").is_err());
    }
}
