//! `zone-endpoint`: the agent that runs on a managed machine outside.

use std::io::{self, IsTerminal as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand};
use time::OffsetDateTime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, interval_at};
use tracing::info;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use zone_endpoint::{
    Certificates, Config, ConfigError, Credentials, CredentialsError, EndToEnd, Endpoint, Renewal, SetupError,
};
use zone_protocol::expiry::{self, WARNING_INTERVAL};
use zone_protocol::tls::certificate::Leaf;

/// Parks at a zone proxy and serves sessions from a list of services.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Check a configuration and the certificates that it names, and print what it would do.
    CheckConfig(ConfigFile),
    /// Park and serve until SIGTERM or SIGINT; SIGHUP has certificates, key and anchors read again. RUST_LOG sets what is logged to standard error.
    Run(ConfigFile),
}

#[derive(Debug, clap::Args)]
struct ConfigFile {
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "zone-endpoint.toml")]
    config: PathBuf,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("the program can't start: {0}")]
    Start(io::Error),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().verb {
        Verb::CheckConfig(file) => check_config(&file.config),
        Verb::Run(file) => run(&file.config),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("zone-endpoint: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn check_config(path: &Path) -> Result<(), Failure> {
    let config = Config::load(path)?;
    let credentials = Credentials::read(&config)?;
    Endpoint::from_config(&config)?;
    println!("{}: good", path.display());
    println!("  {} parks at {}", credentials.leaf().identity, config.proxies.join(", else at "));
    for service in &config.service {
        let number = service.port.map(|port| format!(" ({port})")).unwrap_or_default();
        let end_to_end = match service.end_to_end {
            EndToEnd::Required => "end to end",
            EndToEnd::Off => "not end to end",
        };
        println!("  service {}{number} -> {}, {end_to_end}", service.name, service.target);
    }
    for warning in warnings(&config, &credentials) {
        println!("  warning: {warning}");
    }
    Ok(())
}

fn run(path: &Path) -> Result<(), Failure> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .compact()
        .init();
    let config = Config::load(path)?;
    let credentials = Credentials::read(&config)?;
    for warning in warnings(&config, &credentials) {
        tracing::warn!("{warning}");
    }
    let endpoint = Endpoint::from_config(&config)?;
    let runtime = tokio::runtime::Runtime::new().map_err(Failure::Start)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::Start)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::Start)?;
        let hang_up = signal(SignalKind::hangup()).map_err(Failure::Start)?;
        tokio::spawn(read_again(endpoint.certificates(), hang_up));
        tokio::spawn(warn_daily(config.clone(), endpoint.certificates()));
        info!(id = %config.id, zone = %config.zone, parks = config.parks, "the endpoint starts");
        endpoint
            .run(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                info!("the endpoint is stopping");
            })
            .await;
        info!("the endpoint has stopped");
        Ok(())
    })
}

/// Reads the certificates again upon each SIGHUP.
async fn read_again(certificates: Certificates, mut hang_up: Signal) {
    while hang_up.recv().await.is_some() {
        if certificates.look() == Renewal::Unchanged {
            info!("SIGHUP: certificate, key and anchors are those in use");
        }
    }
}

/// What works, or may work later, and should be looked at.
fn warnings(config: &Config, credentials: &Credentials) -> Vec<String> {
    let mut warnings = Vec::new();
    if config.service.is_empty() {
        warnings.push("there is no [[service]]: every session will be refused".to_owned());
    }
    let others = |path: &Path| std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o077 != 0);
    if others(&config.key) {
        warnings.push(format!("others can read {}: chmod 600 it", config.key.display()));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    if now < credentials.leaf().not_before {
        let certificate = config.certificate.display();
        warnings.push(format!("{certificate} is not valid yet: look at this machine's clock"));
    }
    warnings.extend(expiry_warning(config, credentials.leaf()));
    warnings
}

/// The line about this endpoint's certificate, where it has run out or soon will.
fn expiry_warning(config: &Config, leaf: &Leaf) -> Option<String> {
    let end = OffsetDateTime::from_unix_timestamp(leaf.not_after).ok()?;
    let todo = format!(
        "have 'zone-module issue endpoint {} --out DIR' run, put its files here: they are taken up while it runs",
        config.id
    );
    expiry::warning(&config.certificate.display().to_string(), end, OffsetDateTime::now_utc(), &todo)
}

/// Says it again every day. A certificate that has run out is said to be so at every dial as well.
async fn warn_daily(config: Config, certificates: Certificates) {
    let mut interval = interval_at(Instant::now() + WARNING_INTERVAL, WARNING_INTERVAL);
    loop {
        interval.tick().await;
        let leaf = certificates.leaf();
        if let Some(warning) = leaf.and_then(|leaf| expiry_warning(&config, &leaf)) {
            tracing::warn!("{warning}");
        }
    }
}
