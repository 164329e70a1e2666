//! An endpoint against the proxy's side of its protocol, over real TLS on loopback.

mod ends;
mod example;
mod parks;
mod program;
mod proxy;
mod renewal;
mod sessions;
mod zone;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use zone_endpoint::{Endpoint, Event, LocalTcp, Protection};

/// Nothing in these tests should take this long.
const WAIT_TIMEOUT: Duration = Duration::from_secs(20);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(WAIT_TIMEOUT, future).await;
    waited.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// An endpoint that runs until it is stopped, and what it tells.
struct Running {
    events: mpsc::UnboundedReceiver<Event>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(endpoint: Endpoint) -> Self {
        let (tell, events) = mpsc::unbounded_channel();
        let (stop, stopped) = oneshot::channel();
        let endpoint = endpoint.with_observer(std::sync::Arc::new(move |event: &Event| {
            let _ = tell.send(event.clone());
        }));
        let task = tokio::spawn(async move {
            endpoint
                .run(async {
                    let _ = stopped.await;
                })
                .await;
        });
        Self { events, stop: Some(stop), task }
    }

    /// The next event that `pick` takes; others are passed over.
    async fn event<T>(&mut self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        soon(what, async {
            loop {
                let event = self.events.recv().await.expect("the endpoint is gone");
                if let Some(picked) = pick(&event) {
                    return picked;
                }
            }
        })
        .await
    }

    /// How the next session ended: bytes received, bytes sent, what broke.
    async fn session_end(&mut self) -> (u64, u64, Option<String>) {
        self.event("the session's end", |event| match event {
            Event::SessionEnded { received, sent, broken, .. } => Some((*received, *sent, broken.clone())),
            _ => None,
        })
        .await
    }

    /// Tells the endpoint to stop.
    fn stop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Stops the endpoint and waits until it has.
    async fn stopped(mut self) {
        self.stop();
        soon("the endpoint to stop", &mut self.task).await.unwrap();
    }
}

/// Adds a service `name`, without end-to-end TLS, whose target is `address`.
fn with_local(endpoint: Endpoint, name: &str, address: SocketAddr) -> Endpoint {
    let target = LocalTcp::new(&address.to_string());
    endpoint.with_service(name.parse().unwrap(), Some(address.port()), Protection::Off, target).unwrap()
}

/// A TCP server that gives every connection to `serve`.
async fn local_service<F, R>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Answers only when it has read to the end: without half-close it would wait for ever.
async fn reverse_all(mut stream: TcpStream) {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    text.reverse();
    stream.write_all(&text).await.unwrap();
}
