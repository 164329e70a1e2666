//! A local TCP port whose every connection becomes a session.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use zone_protocol::identity::Target;

use crate::clients::Clients;
use crate::copy::{Totals, join};
use crate::error::{Error, Result};
use crate::proxies;
use crate::session::EndToEnd;

/// Sessions at a time, unless another number is given. Further connections wait to be accepted.
pub const DEFAULT_MAX_SESSIONS: usize = 64;
/// How long to wait before accepting again where the process has no descriptor left.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(200);

/// How long a client of a session that was cut off may take to read what came before.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is looked whether it has.
const DELIVERY_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A listening port and where its connections go.
#[derive(Debug)]
pub struct Forward {
    listener: TcpListener,
    clients: Arc<Clients>,
    target: Target,
    policy: EndToEnd,
    max_sessions: usize,
}

impl Forward {
    /// Listens on `local`; port 0 picks a free one. Each session goes by what `clients` are at its time.
    pub async fn bind(
        local: SocketAddr,
        clients: impl Into<Clients>,
        target: Target,
        policy: EndToEnd,
        max_sessions: usize,
    ) -> Result<Self> {
        let listener =
            TcpListener::bind(local).await.map_err(|source| Error::Listen { address: local, source })?;
        Ok(Self { listener, clients: Arc::new(clients.into()), target, policy, max_sessions })
    }

    /// The address that it listens on.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until it is dropped. `report` learns how each connection ended.
    pub async fn run(self, report: impl Fn(SocketAddr, Result<Totals>) + Send + Sync + 'static) {
        let report = Arc::new(report);
        let permits = Arc::new(Semaphore::new(self.max_sessions));
        let mut tasks = JoinSet::new();
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            while tasks.try_join_next().is_some() {}
            let Ok((tcp, from)) = self.listener.accept().await else {
                sleep(ACCEPT_RETRY_DELAY).await;
                continue;
            };
            let (clients, target, report) =
                (Arc::clone(&self.clients), self.target.clone(), Arc::clone(&report));
            let policy = self.policy;
            tasks.spawn(async move {
                let _permit = permit;
                report(from, serve(tcp, &clients, &target, policy).await);
            });
        }
    }
}

/// One connection. Whatever is no clean end on both sides is a reset for the local client: it must not take
/// half an answer for a whole one.
async fn serve(mut tcp: TcpStream, clients: &Clients, target: &Target, policy: EndToEnd) -> Result<Totals> {
    let ended = async {
        let session = proxies::connect(&clients.current(), target, policy).await?;
        tcp.set_nodelay(true).map_err(|source| Error::Local { what: "local connection", source })?;
        let (input, output) = tcp.split();
        join(session, input, output).await
    }
    .await;
    if ended.is_err() {
        wait_until_delivered(&tcp).await;
        // What can't be set leaves an ordinary end; there is no better one.
        let _ = tcp.set_zero_linger();
    }
    ended
}

/// Waits until the local client has everything, since a reset throws away what is still queued.
async fn wait_until_delivered(tcp: &TcpStream) {
    let deadline = Instant::now() + DELIVERY_TIMEOUT;
    while Instant::now() < deadline && zone_sys::unsent_bytes(tcp).is_ok_and(|bytes| bytes > 0) {
        // The kernel does not tell when a queue is empty.
        sleep(DELIVERY_POLL_INTERVAL).await;
    }
}
