//! Commands that open sessions: connect, forward.

use std::convert::Infallible;
use std::fs::OpenOptions;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{self, AsyncWrite, Stdout};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use zone_module::clients::Clients;
use zone_module::copy::{Totals, join};
use zone_module::forward::Forward;
use zone_module::session::EndToEnd;
use zone_module::zone::Zone;
use zone_module::{Error, Result, proxies, trust};
use zone_protocol::identity::Target;

use super::output::line;

/// How long both directions may take to end after a hang-up.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn connect(zone: &Zone, target: &Target, policy: EndToEnd) -> Result<ExitCode> {
    send_trust_meanwhile(zone);
    let session = proxies::connect(&proxies::clients(zone)?, target, policy).await?;
    let mut joined = pin!(join(session, io::stdin(), StandardOutput(io::stdout())));
    tokio::select! {
        ended = &mut joined => ended?,
        hung_up = hang_up() => {
            hung_up?;
            timeout(SHUTDOWN_TIMEOUT, joined).await.unwrap_or_else(|_| Err(local(io::ErrorKind::TimedOut.into())))?
        }
    };
    Ok(ExitCode::SUCCESS)
}

/// Waits for SIGHUP. OpenSSH sends it to its ProxyCommand and closes the pipes when it is done: the end of
/// standard input still has to become close_notify, or every login would be told as cut off.
async fn hang_up() -> Result<()> {
    signal(SignalKind::hangup()).map_err(local)?.recv().await;
    Ok(())
}

fn local(source: io::Error) -> Error {
    Error::Local { what: "ending after a hang-up", source }
}

pub(super) async fn forward(
    zone: &Zone,
    local: SocketAddr,
    target: Target,
    policy: EndToEnd,
    sessions: usize,
) -> Result<ExitCode> {
    send_trust_meanwhile(zone);
    let clients = Clients::of(zone, Box::new(unusable))?;
    let forward = Forward::bind(local, clients, target.clone(), policy, sessions).await?;
    let address = forward.local_address().map_err(|source| Error::Listen { address: local, source })?;
    line(format_args!("{address} leads to {target}"))?;
    let forwarding = forward.run(|from, ended| match ended {
        Ok(Totals { sent, received }) => {
            eprintln!("zone-module: {from}: done, {sent} bytes sent, {received} received");
        }
        Err(error) => eprintln!("zone-module: {from}: {error}"),
    });
    tokio::select! {
        () = forwarding => Ok(ExitCode::SUCCESS),
        Err(error) = outlive_hang_ups() => Err(error),
    }
}

/// Goes on upon SIGHUP, which is a request to read files again where no terminal is there to hang up: the zone directory is
/// read at each connection anyway.
pub(super) async fn outlive_hang_ups() -> Result<Infallible> {
    if std::io::stdin().is_terminal() {
        return std::future::pending().await;
    }
    let mut hang_ups = signal(SignalKind::hangup()).map_err(local)?;
    while hang_ups.recv().await.is_some() {
        eprintln!(
            "zone-module: SIGHUP: the zone directory is read at each connection anyway; nothing is ended"
        );
    }
    std::future::pending().await
}

/// Says why a long-running command does not go by the zone directory as it is now.
pub(super) fn unusable(error: &Error) {
    eprintln!(
        "zone-module: the zone directory can't be used, what it held before is used until it can: {error}"
    );
}

/// A proxy that missed a revocation gets it at the next contact, whatever the contact is for. A session does
/// not wait for that.
fn send_trust_meanwhile(zone: &Zone) {
    let zone = zone.clone();
    // Those that stay behind are named by `status` and `trust push`.
    drop(tokio::spawn(async move { trust::push_to_lagging(&zone).await }));
}

/// Standard output whose shutdown its reader sees: the end of one direction, while the process lives on for
/// the other.
struct StandardOutput(Stdout);

impl AsyncWrite for StandardOutput {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(context))?;
        // Where it is a socket, standard input may be the same one and keep it open.
        let _ = rustix::net::shutdown(rustix::stdio::stdout(), rustix::net::Shutdown::Write);
        let nothing = OpenOptions::new().write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdout(&nothing)?;
        Poll::Ready(Ok(()))
    }
}
