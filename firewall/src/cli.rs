//! The command line.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use clap::{Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;
use zone_firewall_protocol::client::ask;
use zone_firewall_protocol::{Answer, ExportFormat, Finding, FindingKind, Level, Request, SOCKET};

use crate::desired::Refusal;
use crate::explain::{self, ExplainError};
use crate::export::export;
use crate::host::{self, Host, HostError};
use crate::{broker, config, notes, record};

/// The exit code where something is not as it should be.
const EXIT_FINDINGS: u8 = 1;
/// The exit code where it could not be done.
const EXIT_ERROR: u8 = 2;

/// The host's firewall for Zone Proxy: a table of its own, and as few rules elsewhere as open its ports.
///
/// Exit codes: 0 fine, 1 verify has findings, 2 it could not be done. Of explain: 0 open, 1 shut, 2 error, 3 it depends on what was
/// not asked, or is not known.
#[derive(Debug, Parser)]
#[command(name = "zone-firewall", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// What root decides
    #[arg(long, global = true, value_name = "FILE", default_value = config::PATH)]
    config: PathBuf,
    /// The broker's directory
    #[arg(long, global = true, value_name = "DIR", default_value = record::STATE_DIR)]
    state: PathBuf,
    /// The broker's socket
    #[arg(long, global = true, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what apply would change, as a diff
    Plan {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the live rules the desired ones, in one transaction; as root
    Apply {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Compare the live rules with the desired ones
    Verify {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Say what the live rules do with a packet, and which rule decides it
    ///
    /// The packet is the first one of a TCP connection. What is left out may be anything: then the answer has a case for each way
    /// that such packets can fare, with the packets that it is about. Exit codes: 0 open, 1 shut, 2 error, 3 it depends, or is not
    /// known. A rate counts as kept.
    Explain(explain::Arguments),
    /// Print the desired rules for those who write them elsewhere
    Export {
        /// The language: CSV, files for nft, iptables-restore and ip6tables-restore, a policy of firewalld, or PAN-OS commands
        #[arg(long, value_parser = PossibleValuesParser::new(ExportFormat::ALL.map(ExportFormat::as_str)).try_map(format))]
        format: ExportFormat,
        /// An address by which others reach this host, in place of wildcards; as often as there are some
        #[arg(long, value_name = "ADDRESS")]
        address: Vec<IpAddr>,
    },
    /// Compare them now and whenever they change, and print each change of what is found, until it is ended; as root
    Watch {
        /// As JSON, an object on each line
        #[arg(long)]
        json: bool,
    },
    /// Take every rule of ours away, and forget the relay's ports; as root
    Remove {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Serve requests of zone-proxy; started by systemd
    Broker,
    /// Put the rules back at boot, before the network is up; started by systemd
    Restore,
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .without_time()
        .with_max_level(LevelFilter::INFO)
        .init();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("zone-firewall: {error}");
            ExitCode::from(EXIT_ERROR)
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Explain(#[from] ExplainError),
    #[error(transparent)]
    Broker(#[from] broker::BrokerError),
    #[error(transparent)]
    Ask(#[from] zone_firewall_protocol::client::AskError),
    #[error("{why}; {help}")]
    Refused { why: String, help: String },
    #[error(transparent)]
    Follow(#[from] broker::FollowError),
    #[error("the kernel tells of changes to root only: run 'watch' as root, or 'verify'")]
    ListenersOnly,
    #[error("'{0}' is for root: run it as root")]
    RootOnly(&'static str),
}

fn run(cli: &Cli) -> Result<ExitCode, CliError> {
    let root = nix::unistd::geteuid().is_root();
    let host = Host::new(&cli.config, &cli.state);
    match &cli.command {
        Command::Plan { json } if root => {
            let preview = host::preview(&host.desired()?)?;
            print_changes(&preview.diff(), *json);
        }
        Command::Plan { json } => match ask_broker(&cli.socket, &Request::Plan)? {
            Answer::Plan(text) => print_changes(&text.lines().map(str::to_owned).collect::<Vec<_>>(), *json),
            _ => return Err(unexpected_answer()),
        },
        Command::Verify { json } if root => {
            return Ok(print_findings(&host::verify(&host.desired()?)?, *json));
        }
        Command::Verify { json } => match ask_broker(&cli.socket, &Request::Verify)? {
            Answer::Verified(findings) => return Ok(print_findings(&findings, *json)),
            _ => return Err(unexpected_answer()),
        },
        Command::Explain(arguments) => return explain(arguments, root, &cli.socket),
        Command::Export { format, address } if root => {
            let text = export(&host.desired()?, *format, address)
                .map_err(|Refusal { why, help }| CliError::Refused { why, help })?;
            let _ = write!(std::io::stdout(), "{text}");
        }
        Command::Export { format, address } => {
            let request = Request::Export { format: *format, addresses: address.clone() };
            match ask_broker(&cli.socket, &request)? {
                Answer::Exported(text) => drop(write!(std::io::stdout(), "{text}")),
                _ => return Err(unexpected_answer()),
            }
        }
        Command::Watch { .. } if !root => return Err(CliError::ListenersOnly),
        Command::Watch { json } => broker::follow(&host, |change| print_news(change, *json))?,
        Command::Apply { .. } if !root => return Err(CliError::RootOnly("apply")),
        Command::Remove { .. } if !root => return Err(CliError::RootOnly("remove")),
        Command::Apply { json } => print_changes(&apply(&host)?, *json),
        Command::Restore => print_changes(&apply(&host)?, false),
        Command::Remove { json } => {
            let _lock = lock(&host)?;
            let done = host::remove()?;
            host.store().clear().map_err(HostError::from)?;
            print_changes(&done, *json);
        }
        Command::Broker => broker::serve(host, &cli.socket)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn explain(arguments: &explain::Arguments, root: bool, socket: &Path) -> Result<ExitCode, CliError> {
    let question = arguments.question();
    let explanation = match &arguments.ruleset {
        Some(_) if !root => return Err(CliError::RootOnly("explain --ruleset")),
        Some(file) => explain::explain_file(&question, file)?,
        None if root => explain::explain(&question)?,
        None => match ask_broker(socket, &Request::Explain(question))? {
            Answer::Explained(explanation) => explanation,
            _ => return Err(unexpected_answer()),
        },
    };
    if arguments.json {
        print(&serde_json::json!(explanation).to_string());
    } else {
        print(&explain::lines(&explanation).join("\n"));
    }
    Ok(ExitCode::from(explain::exit_code(&explanation)))
}

/// The format of this name; clap has refused all others.
fn format(name: String) -> Result<ExportFormat, String> {
    ExportFormat::ALL.into_iter().find(|format| format.as_str() == name).ok_or(name)
}

fn apply(host: &Host) -> Result<Vec<String>, HostError> {
    let _lock = lock(host)?;
    host::apply(&host.desired()?)
}

/// Before the package's directories are made there is nobody to keep out.
fn lock(host: &Host) -> Result<Option<record::Lock>, HostError> {
    Ok(if host.store().exists() { Some(host.store().lock()?) } else { None })
}

fn ask_broker(socket: &Path, request: &Request) -> Result<Answer, CliError> {
    match ask(socket, request)? {
        Answer::Refused { why, help } => Err(CliError::Refused { why, help }),
        answer => Ok(answer),
    }
}

fn unexpected_answer() -> CliError {
    zone_firewall_protocol::client::AskError::NotAnAnswer.into()
}

/// Changes first, then what is kept shut by others, then notes.
fn print_changes(lines: &[String], json: bool) {
    let is_finding = |line: &str| Level::ALL.iter().any(|level| line.starts_with(&format!("{level}: ")));
    let (notes, rest): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.starts_with(notes::PREFIX));
    let (findings, changes): (Vec<_>, Vec<_>) = rest.into_iter().partition(|line| is_finding(line));
    if json {
        let notes: Vec<_> = notes.iter().filter_map(|note| note.strip_prefix(notes::PREFIX)).collect();
        print(&serde_json::json!({ "changes": changes, "findings": findings, "notes": notes }).to_string());
        return;
    }
    if changes.is_empty() {
        print("nothing to change");
    }
    for line in changes.into_iter().chain(findings).chain(notes) {
        print(line);
    }
}

/// Whether somebody still reads.
fn print_news(change: &broker::Change, json: bool) -> bool {
    let broker::Change { new, gone, by } = change;
    let mut lines = Vec::new();
    if json {
        lines.push(serde_json::json!({ "new": new, "gone": gone, "by": by }).to_string());
    } else {
        let by = if by.is_empty() { String::new() } else { format!(" ({by})") };
        lines.extend(new.iter().map(|finding| format!("{}: {}{by}", finding.id, finding.what)));
        lines.extend(gone.iter().map(|id| format!("gone: {id}{by}")));
        if lines.is_empty() {
            lines.push("ok: the live rules are as they should be".to_owned());
        }
    }
    let mut out = std::io::stdout();
    lines.iter().all(|line| writeln!(out, "{line}").is_ok()) && out.flush().is_ok()
}

/// A reader that has seen enough closes its end, which is no error of ours.
fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn print_findings(findings: &[Finding], json: bool) -> ExitCode {
    if json {
        print(&serde_json::json!({ "findings": findings }).to_string());
    } else if findings.is_empty() {
        print("ok: the live rules are as they should be");
    } else {
        for finding in findings {
            print(&format!("{}: {} ({})", word(finding), finding.what, finding.help));
        }
    }
    if findings.iter().all(Finding::is_note) { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FINDINGS) }
}

/// What a finding is, in a word.
fn word(finding: &Finding) -> String {
    match finding.kind {
        FindingKind::Missing => "missing".to_owned(),
        FindingKind::Unexpected => "unexpected".to_owned(),
        FindingKind::Altered => "altered".to_owned(),
        FindingKind::Blocked => finding.level.to_string(),
        FindingKind::NotListening => "not listening".to_owned(),
    }
}
