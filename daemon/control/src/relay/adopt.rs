//! Taking up relays that outlived the control before this one.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use rustix::process::geteuid;
use tokio::net::UnixStream;
use tokio::time::timeout;
use zone_channel::{ListenerInfo, RelayState};

use super::channel::Hello;
use super::supervise::{Supervisor, Wanted, stop_all};
use super::{Relay, RelayError};

/// For a relay to answer at its rendezvous.
const RENDEZVOUS: Duration = Duration::from_secs(1);

/// A relay found at its rendezvous.
struct Found {
    relay: Rc<Relay>,
    hello: Hello,
}

impl Supervisor {
    /// Starts with what an earlier control left: the relay that serves what is wanted goes on serving, those
    /// that drain go on draining, and the rest is ended. Where nothing serves afterwards, a relay is started.
    pub async fn begin(self: &Rc<Self>, wanted: Option<Wanted>) {
        let found = self.find().await;
        self.inner.borrow_mut().wanted = wanted;
        let mut useless = Vec::new();
        for found in found {
            self.watch(&found.relay);
            self.take_up(found, &mut useless).await;
        }
        // A relay that goes must have let its ports go before they are bound again.
        stop_all(useless).await;
        let inner = self.inner();
        match &inner.serving {
            None if inner.wanted.is_some() => self.keep(),
            Some(serving) => self.renew_if_older(serving, inner.turn),
            None => {}
        }
    }

    async fn take_up(self: &Rc<Self>, found: Found, useless: &mut Vec<Rc<Relay>>) {
        let Found { relay, hello } = found;
        let (generation, pid) = (relay.generation(), relay.pid);
        let wanted = self.inner().wanted.clone();
        let taken = self.inner().serving.is_some();
        match (relay.state(), wanted) {
            (RelayState::Serving, Some(wanted)) if !taken && fits(&hello, &wanted) => {
                {
                    let mut inner = self.inner.borrow_mut();
                    inner.listeners = hello.listeners;
                    inner.serving = Some(Rc::clone(&relay));
                }
                tracing::info!(generation, pid, "took up the relay that serves");
                self.tell_news();
                self.tell_policy(&relay, &wanted).await;
            }
            (RelayState::Serving, Some(wanted)) => {
                tracing::info!(generation, pid, "a relay of an earlier provisioning drains");
                let (same, gone) = hello
                    .listeners
                    .into_iter()
                    .partition(|own| wanted.ports.iter().any(|port| *port == own.info()));
                {
                    let mut inner = self.inner.borrow_mut();
                    if inner.listeners.is_empty() {
                        inner.listeners = same;
                    }
                }
                self.drain(Some(relay), gone);
            }
            (RelayState::Draining, Some(wanted)) => {
                tracing::info!(generation, pid, "took up a relay that drains");
                self.inner.borrow_mut().draining.push(Rc::clone(&relay));
                self.tell_policy(&relay, &wanted).await;
            }
            (state, wanted) => {
                tracing::info!(generation, pid, ?state, "a relay without a purpose is ended");
                if wanted.is_none() {
                    hello.listeners.iter().for_each(super::Listener::close);
                }
                useless.push(relay);
            }
        }
    }

    async fn tell_policy(&self, relay: &Rc<Relay>, wanted: &Wanted) {
        if let Err(error) = relay.set_policy(&wanted.policy).await {
            let generation = relay.generation();
            tracing::error!(generation, %error, "a relay that was taken up does not take the policy and is ended");
            relay.stop().await;
        }
    }

    /// Every relay that answers at a rendezvous in the runtime directory, the newest first.
    async fn find(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for (generation, path) in rendezvous_below(self.runtime_dir()) {
            self.seen(generation);
            match meet(&path).await {
                Ok(Some((relay, hello))) => {
                    self.seen(hello.generation);
                    found.push(Found { relay, hello });
                }
                Ok(None) => {
                    let _ = fs::remove_file(&path);
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a relay can't be taken up");
                }
            }
        }
        found.sort_by_key(|found| std::cmp::Reverse(found.hello.generation));
        found
    }

    /// Generations begin above every one that was ever seen.
    fn seen(&self, generation: u64) {
        let mut inner = self.inner.borrow_mut();
        inner.generation = inner.generation.max(generation);
    }
}

fn fits(hello: &Hello, wanted: &Wanted) -> bool {
    let held =
        |port: &ListenerInfo| hello.listeners.iter().any(|own| own.info() == *port && own.is_listening());
    hello.serves == wanted.state && hello.complete && wanted.ports.iter().all(held)
}

fn rendezvous_below(runtime_dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = fs::read_dir(runtime_dir).into_iter().flatten().filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let generation = name.to_str()?.strip_prefix("relay-")?.strip_suffix(".sock")?.parse().ok()?;
            Some((generation, entry.path()))
        })
        .collect()
}

/// Connects and is greeted; `None` where nobody listens any more.
pub(super) async fn meet(path: &Path) -> Result<Option<(Rc<Relay>, Hello)>, RelayError> {
    let silent = RelayError::Silent { what: "hello", within: RENDEZVOUS };
    let stream = match timeout(RENDEZVOUS, UnixStream::connect(path)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(_)) => return Ok(None),
        Err(_) => return Err(silent),
    };
    // The kernel names whoever made the listener: an earlier control.
    let uid = stream
        .peer_cred()
        .map(|peer| peer.uid())
        .map_err(|error| RelayError::Prepare { what: "peer's user", error: error.to_string() })?;
    if uid != geteuid().as_raw() && uid != 0 {
        return Err(RelayError::Failed {
            step: "rendezvous".into(),
            error: format!("it belongs to user {uid}"),
        });
    }
    let channel: OwnedFd = match stream.into_std() {
        Ok(stream) => stream.into(),
        Err(error) => {
            return Err(RelayError::Prepare { what: "channel", error: error.to_string() });
        }
    };
    Relay::greet(channel, None, RENDEZVOUS).await.map(Some)
}
