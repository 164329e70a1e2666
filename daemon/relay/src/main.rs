//! `zone-relay`: started by control, with the channel to it as standard input.

use std::io::IsTerminal as _;
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "--version") {
        println!("zone-relay {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_env("ZONE_LOG").unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = std::io::stdin().as_fd().try_clone_to_owned().and_then(|channel| Ok((channel, runtime?)));
    match result.map(|(channel, runtime)| runtime.block_on(zone_relay::relay::run(channel))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("zone-relay: {error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("zone-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The soft limit of most systems, 1,024, is for programs that use select(2); the hard one is the admin's word.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(descriptors) => tracing::debug!(descriptors, "started"),
        Err(error) => tracing::warn!("the limit of descriptors stays as it is: {error}"),
    }
}
