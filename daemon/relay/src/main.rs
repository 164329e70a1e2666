//! `zone-relay`: started by control or for it by the service manager, with the channel as standard input.

use std::error::Error;
use std::num::NonZero;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::default_provider;
use tokio::runtime::Runtime;
use zone_channel::build;
use zone_confinement::{FILTERS, Files, restrict_calls};
use zone_privileges::{PrivilegeError, Strictness, give_up, is_root, verify};
use zone_protocol::provisioning::{Confinement, ProcessStatus};
use zone_relay::control::{RelayError, RelayProcess};
use zone_service_manager::ServiceManager;

/// For the worker threads to begin. One that is later only finds more forbidden, of what it does without.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "--version") {
        println!("zone-relay {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("zone-relay: {error}");
            error.downcast_ref::<RelayError>().map_or(ExitCode::FAILURE, |error| error.exit_status().into())
        }
    }
}

/// Gives up one thing after the other, and serves when nothing is left but what serving takes. So nobody who takes this
/// process over has more: it has met nobody yet, and control hands it listeners and keys after its hello.
fn run() -> Result<(), Box<dyn Error>> {
    // Before anything else, while there is one thread.
    let mut privileges = without_privileges()?;
    if std::env::args().nth(1).is_some_and(|argument| argument == "end") {
        return Ok(zone_relay::end::run(std::io::stdin().as_fd().try_clone_to_owned()?)?);
    }
    let build = build::of_this_process()?;
    let manager = ServiceManager::from_environment()?;
    // It looks at files, for what the service may have of the machine.
    let workers = available_parallelism().map_or(1, NonZero::get);
    let files = zone_confinement::deny_files();
    let log = zone_relay::log::start()?;
    let descriptors = raise_descriptor_limit();
    let channel = std::io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = zone_relay::runtime::build(workers)?;
    wait_for_workers(&runtime);
    // It is set up at its first use, and looks for a file then.
    let mut random = [0; 1];
    default_provider().secure_random.fill(&mut random).map_err(|_| "there are no random numbers")?;
    let datagrams: Vec<_> = manager.socket().into_iter().collect();
    restrict_calls(&zone_confinement::relay(privileges.pid, &datagrams))?;
    if let Some(confinement) = &mut privileges.confinement {
        "filter".clone_into(&mut confinement.seccomp);
        confinement.filters = confinement.filters.map(|before| before + FILTERS);
        confinement.landlock = Some(files.to_string());
    }
    if !matches!(files, Files::Denied { .. }) {
        tracing::warn!("files are closed to this relay by seccomp alone; landlock: {files}");
    }
    let process = RelayProcess { build, descriptors, privileges, manager, log };
    Ok(runtime.block_on(zone_relay::control::run(channel, process))?)
}

/// Until each worker thread has begun its work, with whatever that takes.
fn wait_for_workers(runtime: &Runtime) {
    let metrics = runtime.metrics();
    let deadline = Instant::now() + WORKERS_TIMEOUT;
    let begun = || (0..metrics.num_workers()).all(|worker| metrics.worker_park_unpark_count(worker) > 0);
    while !begun() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
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
            confinement: Some(Confinement {
                seccomp: facts.seccomp.to_string(),
                filters: facts.filters,
                landlock: None,
            }),
        })
        .map_err(|error: PrivilegeError| error.to_string())
}

/// How many there may be then; `None` where there is no limit, or none that is known.
fn raise_descriptor_limit() -> Option<u64> {
    match zone_accept::raise_descriptor_limit() {
        Ok(descriptors) => {
            tracing::debug!(?descriptors, "this relay has started");
            descriptors
        }
        Err(error) => {
            tracing::warn!("the limit of descriptors stays as it is: {error}");
            None
        }
    }
}
