//! The commands: `run`, and those that an admin of the host types.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rustix::fs::Mode;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;
use zone_protocol::identity::Role;
use zone_protocol::provisioning::Confinement;
use zone_service_manager::ServiceManager;
use zone_settings::PACKAGED_RELAY_MEMORY_BYTES;
use zone_watchdog::EXIT_TASK_ENDED;

use crate::admin::{self, Answer, Question};
use crate::config::Config;
use crate::confine;
use crate::daemon::Daemon;
use crate::lifeline::Lifeline;
use crate::outgoing;
use crate::privileges::leave_root;
use crate::relay::starter;
use crate::reset;
use crate::state::clock::SystemClock;
use crate::status::Report;

/// For the daemon to answer at the admin socket: leaving a zone waits for relays to end.
const DAEMON_TIMEOUT: Duration = Duration::from_secs(60);

/// The command line of `zone-proxy`.
#[derive(Debug, Parser)]
#[command(name = "zone-proxy", version, about = "The control process of Zone Proxy")]
pub struct Cli {
    /// The configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/zone-proxy/zone-proxy.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon in the foreground.
    ///
    /// Before it listens it gives up files but its own (landlock) and system calls but those of its work (seccomp), whoever
    /// started it. `status` shows both.
    Run,
    /// Has the running daemon read its configuration file again, and waits for the result.
    Reload,
    /// Checks the configuration file: prints "ok", or every error in it.
    CheckConfig,
    /// Shows what this proxy is registered by.
    #[command(subcommand)]
    Show(Show),
    /// Makes provisioning tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Says how the proxy is.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Leaves the zone: sessions end, both relay ports close, keys and trust are forgotten.
    Reset {
        /// Does not ask for a typed `yes`.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Show {
    /// The payload, JSON, with the outstanding token: whoever reads it can provision this proxy, once.
    Payload,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Makes a new token; an earlier one is good no more. A provisioned proxy goes on serving meanwhile.
    New,
}

/// Does what the command line says.
pub fn main(cli: &Cli) -> ExitCode {
    let done = match &cli.command {
        Command::CheckConfig => check_config(&cli.config),
        Command::Run => match run(&cli.config) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Command::Reload => reload(&cli.config),
        Command::Show(Show::Payload) => show_payload(&cli.config),
        Command::Token(TokenCommand::New) => new_token(&cli.config),
        Command::Status { json } => show_status(&cli.config, *json),
        Command::Reset { yes } => reset_proxy(&cli.config, *yes),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.lines() {
                eprintln!("zone-proxy: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn check_config(file: &Path) -> Result<(), String> {
    let config = Config::read(file).map_err(|errors| errors.to_string())?;
    crate::log::check(&config.log).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut told = format!("ok\n{}", memory_advice(config.limits.relay_memory_bytes()));
    for note in outgoing::advice(&config.log, file) {
        told.push_str(&note);
        told.push('\n');
    }
    print(&told)
}

/// What is to be changed of a packaged relay's unit, so that a relay which needs so much memory is not killed with all its
/// sessions before its own limits bite.
fn memory_advice(needed: u64) -> String {
    if needed <= PACKAGED_RELAY_MEMORY_BYTES {
        return String::new();
    }
    format!(
        "These limits take more memory than zone-relay@.service lets a relay have. Under systemd, as root, write\n\n\
         [Service]\nMemoryMax={}G\n\n\
         to /etc/systemd/system/zone-relay@.service.d/memory.conf, and run systemctl daemon-reload; relays that start then \
         may have it.\n",
        needed.div_ceil(1 << 30)
    )
}

/// Runs the daemon to its end, and returns its exit status.
fn run(file: &Path) -> Result<ExitCode, String> {
    // First of all: these descriptors have the lowest numbers.
    let passed = zone_sys::listen_fds();
    let config = Config::read(file).map_err(|errors| errors.to_string())?;
    let file = std::path::absolute(file).map_err(|error| format!("{}: {error}", file.display()))?;
    leave_root(&config).map_err(|error| error.to_string())?;
    // Root's file is out of reach after the next step but one.
    let held_back = outgoing::advice(&config.log, &file);
    // Whatever is created from here on is nobody else's.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let files = confine::files(&config, &file).map_err(|error| error.to_string())?;
    let log = crate::log::start(&config.log).map_err(|error| error.to_string())?;
    for note in held_back {
        tracing::warn!("{}", note.trim_start_matches(outgoing::PREFIX));
    }
    raise_descriptor_limit();
    let starter = starter(&config.relay).map_err(|error| error.to_string())?;
    let manager = ServiceManager::from_environment()
        .map_err(|error| format!("the service manager's NOTIFY_SOCKET is of no use: {error}"))?;
    // Relays that are control's children end or stay as control says; those of the manager outlive it.
    let lifeline = (manager.is_there() && !config.relay.socket.as_os_str().is_empty())
        .then(|| Lifeline::take(&manager, passed))
        .transpose()
        .map_err(|error| format!("no pipe can be had: {error}"))?;
    let manager = Rc::new(manager);
    let confined = confine::calls(&config, &files);
    on_one_thread(async {
        let mut signals = Signals::new().map_err(|error| format!("signals can't be had: {error}"))?;
        let clock = Rc::new(SystemClock::new());
        let daemon = Daemon::start(config, &file, clock, starter, lifeline, log.set_level(), confined)
            .await
            .map_err(|error| error.to_string())?;
        daemon.report_to(&manager);
        loop {
            tokio::select! {
                reload = signals.reload_wanted() => if !reload { break },
                why = daemon.task_ended() => {
                    tracing::error!(why, "a loop that this process can't do without has ended, and the process with it");
                    return Ok(ExitCode::from(EXIT_TASK_ENDED));
                }
            }
            // It has said in the log what came of it.
            let _ = daemon.reload().await;
        }
        manager.stopping();
        daemon.stop().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn raise_descriptor_limit() {
    if let Err(error) = zone_accept::raise_descriptor_limit() {
        tracing::warn!("the limit of descriptors stays as it is: {error}");
    }
}

fn reload(file: &Path) -> Result<(), String> {
    match ask(file, Question::Reload)? {
        Answer::Done => Ok(()),
        other => unexpected(other),
    }
}

fn show_payload(file: &Path) -> Result<(), String> {
    match ask(file, Question::Payload)? {
        Answer::Payload(payload) => {
            print(&(serde_json::to_string_pretty(&payload).map_err(|e| e.to_string())? + "\n"))
        }
        other => unexpected(other),
    }
}

fn new_token(file: &Path) -> Result<(), String> {
    match ask(file, Question::NewToken)? {
        Answer::Done => show_payload(file),
        other => unexpected(other),
    }
}

fn show_status(file: &Path, json: bool) -> Result<(), String> {
    match ask(file, Question::Status)? {
        Answer::Status(report) if json => {
            print(&(serde_json::to_string_pretty(&report.status).map_err(|e| e.to_string())? + "\n"))
        }
        Answer::Status(report) => print(&describe(&report)),
        other => unexpected(other),
    }
}

fn reset_proxy(file: &Path, yes: bool) -> Result<(), String> {
    let config = Config::read(file).map_err(|errors| errors.to_string())?;
    if !yes {
        confirm()?;
    }
    if let Ok(stream) = connect(&config) {
        let answer = exchange(stream, Question::Reset)?;
        if !matches!(answer, Answer::Done) {
            return unexpected(answer);
        }
    } else {
        leave_root(&config).map_err(|error| error.to_string())?;
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let _log = crate::log::start(&config.log).map_err(|error| error.to_string())?;
        on_one_thread(reset::without_daemon(config))?;
    }
    print("reset: the proxy belongs to no zone; `zone-proxy show payload` shows its new token\n")
}

fn confirm() -> Result<(), String> {
    print("This ends every session and forgets keys and trust. Type yes to go on: ")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| error.to_string())?;
    if line.trim() == "yes" { Ok(()) } else { Err("nothing was done".to_owned()) }
}

/// Asks the daemon.
fn ask(file: &Path, question: Question) -> Result<Answer, String> {
    let config = Config::read(file).map_err(|errors| errors.to_string())?;
    let stream = connect(&config).map_err(|error| {
        let socket = admin::socket(&config.runtime_dir);
        format!("the daemon does not answer at {} ({error}): is it running?", socket.display())
    })?;
    exchange(stream, question)
}

fn connect(config: &Config) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(admin::socket(&config.runtime_dir))?;
    stream.set_read_timeout(Some(DAEMON_TIMEOUT))?;
    stream.set_write_timeout(Some(DAEMON_TIMEOUT))?;
    Ok(stream)
}

fn exchange(mut stream: UnixStream, question: Question) -> Result<Answer, String> {
    let broken = |error: io::Error| format!("the daemon did not answer: {error}");
    let line = serde_json::to_string(&question).map_err(|error| error.to_string())? + "\n";
    stream.write_all(line.as_bytes()).map_err(broken)?;
    let mut answer = String::new();
    BufReader::new(stream).take(16 * admin::MAX_LINE_BYTES).read_line(&mut answer).map_err(broken)?;
    serde_json::from_str(&answer).map_err(|_| "the daemon closed the connection unanswered".to_owned())
}

fn unexpected(answer: Answer) -> Result<(), String> {
    match answer {
        Answer::Error(error) => Err(error),
        _ => Err("the daemon answered something else: it is of another version".to_owned()),
    }
}

fn describe(report: &Report) -> String {
    let status = &report.status;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("state", status.state.clone());
    line("host", format!("{}, zone-proxy {}", status.host, status.version));
    if let (Some(zone), Some(name)) = (&status.zone, &status.name) {
        line("member", format!("{name} in zone {zone}, trust version {}", status.trust_version.unwrap_or(0)));
    }
    if let Some(identity) = &status.control_identity {
        let shared = if identity.role == Role::ZoneControl { "" } else { ", as the relays do" };
        line("17488 shows", format!("{identity}{shared}"));
    }
    if let Some(expiry) = status.certificate_expires_at {
        line("certificates", format!("until {expiry}"));
    }
    for anchor in &status.anchors {
        let (from, until) = (anchor.not_before, anchor.not_after);
        line("authority", format!("{} vouches for {} from {from} until {until}", anchor.name, anchor.role));
    }
    for port in &status.ports {
        let listens = if port.listening { "listening" } else { "NOT LISTENING" };
        line(
            "port",
            format!("{} {}:{} {listens}, firewall {}", port.purpose, port.address, port.port, port.firewall),
        );
    }
    for relay in &status.relays {
        let carries = relay.counts.as_ref().map_or_else(String::new, |counts| {
            format!(", {} endpoints, {} parks, {} sessions", counts.endpoints, counts.parks, counts.sessions)
        });
        line("relay", format!("{} pid {} {}{carries}", relay.generation, relay.pid, relay.state));
    }
    for process in &status.processes {
        let holds = if process.capabilities.bytes().all(|digit| digit == b'0') {
            "no capabilities".to_owned()
        } else {
            format!("CAPABILITIES {}", process.capabilities)
        };
        let new = if process.no_new_privs { "no_new_privs" } else { "NEW PRIVILEGES POSSIBLE" };
        let confined = process.confinement.as_ref().map_or_else(String::new, confinement);
        let who = format!("{} pid {} user {}", process.role, process.pid, process.uid);
        line("process", format!("{who}, {holds}, {new}{confined}"));
    }
    for warning in &report.warnings {
        line("warning", warning.clone());
    }
    text
}

/// What a process has given up, behind what else is said of it.
fn confinement(confinement: &Confinement) -> String {
    let mut text = format!(", seccomp {}", confinement.seccomp);
    text.extend(confinement.filters.map(|filters| format!(" ({filters})")));
    text.extend(confinement.landlock.iter().map(|word| format!(", landlock: {word}")));
    text
}

fn print(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| error.to_string())
}

fn on_one_thread<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("blocking")
        .build()
        .map_err(|error| error.to_string())?;
    LocalSet::new().block_on(&runtime, work)
}

struct Signals {
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal: whether it asks for a reload rather than for the end.
    async fn reload_wanted(&mut self) -> bool {
        tokio::select! {
            _ = self.hang_up.recv() => true,
            _ = self.terminate.recv() => false,
            _ = self.interrupt.recv() => false,
        }
    }
}
