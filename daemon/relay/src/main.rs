//! `zone-relay`: started by control or for it by the service manager, with the channel as standard input.

use std::os::fd::AsFd;
use std::process::ExitCode;

use zone_channel::build;
use zone_privileges::{PrivilegeError, Strictness, give_up, is_root, verify};
use zone_protocol::provisioning::ProcessStatus;
use zone_relay::control::RelayProcess;
use zone_service_manager::ServiceManager;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "--version") {
        println!("zone-relay {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    // Before anything else, while there is one thread.
    let privileges = match without_privileges() {
        Ok(privileges) => privileges,
        Err(error) => {
            eprintln!("zone-relay: {error}");
            return ExitCode::FAILURE;
        }
    };
    let log = match zone_relay::log::start() {
        Ok(log) => log,
        Err(error) => {
            eprintln!("zone-relay: {error}");
            return ExitCode::FAILURE;
        }
    };
    raise_descriptor_limit();
    let result = std::io::stdin().as_fd().try_clone_to_owned().and_then(|channel| {
        let process = RelayProcess {
            build: build::of_this_process()?,
            privileges,
            manager: ServiceManager::from_environment()?,
            log,
        };
        Ok((channel, process, tokio::runtime::Builder::new_multi_thread().enable_all().build()?))
    });
    match result
        .map(|(channel, process, runtime)| runtime.block_on(zone_relay::control::run(channel, process)))
    {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("zone-relay: {error}");
            ExitCode::from(error.exit_status())
        }
        Err(error) => {
            eprintln!("zone-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Gives up what an ordinary user has. Root's own can only be a mistake here: whoever starts a relay has dropped it.
fn without_privileges() -> Result<ProcessStatus, String> {
    if is_root() {
        let why = "it must not run as root: zone-proxy starts it, as its own user; under systemd, set User=";
        return Err(why.to_owned());
    }
    give_up()
        .and_then(|()| verify(Strictness::Ordinary))
        .map(|facts| ProcessStatus {
            role: "relay".to_owned(),
            pid: std::process::id(),
            uid: facts.uid,
            capabilities: facts.capabilities,
            no_new_privs: facts.no_new_privs,
        })
        .map_err(|error: PrivilegeError| error.to_string())
}

fn raise_descriptor_limit() {
    match zone_accept::raise_descriptor_limit() {
        Ok(descriptors) => tracing::debug!(?descriptors, "this relay has started"),
        Err(error) => tracing::warn!("the limit of descriptors stays as it is: {error}"),
    }
}
