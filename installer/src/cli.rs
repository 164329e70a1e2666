//! The verbs. Confirmations come on standard input, never as arguments.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::net::IpAddr;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};
use ipnet::IpNet;
use serde::Serialize;
use serde_json::json;
use zone_firewall_protocol::{Finding, Reachability};

use crate::call::{CallError, UNEXPECTED_REPLY, call, installed_version, preflight_verdicts};
use crate::packages::{Catalogue, PackageError};
use crate::paths::Paths;
use crate::protocol::{ControlPort, Grade, HostState, LogChange, MAX_LOG_LINES, Reply, Request};
use crate::version::Version;
use crate::{menu, signals, text};

/// The exit code where it was done, and nothing is to be looked at.
const EXIT_FINE: u8 = 0;
/// The exit code of findings; or refused, with nothing changed; or failed, and undone.
const EXIT_NO: u8 = 1;
/// The exit code of `firewall explain` for a port of which it depends whether it is open.
const EXIT_DEPENDS: u8 = 3;
/// The exit code of what failed and was not wholly undone.
const EXIT_NOT_UNDONE: u8 = 3;
/// The longest confirmation, bytes.
const MAX_ANSWER_BYTES: u64 = 64;

/// The command line of `zone-installer`.
#[derive(Debug, Parser)]
#[command(
    name = "zone-installer",
    version,
    about = "Installs Zone Proxy, and looks after it",
    after_help = "Exit codes: 0 done; 1 findings, or refused or failed with the host as before; 2 wrong usage; 3 \
                  failed and not wholly undone.\nWithout a verb: the menu."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lists the packages in /var/lib/zone-installer/packages, with who signed them.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Installs a version, opens 17488, starts the proxy, and shows the payload. Without a version: lists them.
    Install {
        /// Such as 0.1.0-1.
        version: Option<Version>,
        /// An address of this host that 17488 listens on; repeat it for more (default: all IPv4 addresses).
        #[arg(long, value_name = "ADDRESS")]
        listen: Vec<IpAddr>,
        /// A network that may connect to 17488; repeat it for more (default: any, which is warned of).
        #[arg(long, value_name = "NETWORK")]
        allow: Vec<IpNet>,
    },
    /// Goes to a newer version; configuration, provisioning and sessions stay. Without a version: lists them.
    Upgrade {
        /// Such as 0.1.0-2.
        version: Option<Version>,
    },
    /// Removes the proxy and all that it left. Wants the line "yes" on standard input.
    Remove,
    /// Leaves the zone: sessions end, keys and trust are forgotten. Wants the line "yes" on standard input.
    Reset,
    /// Shows what an admin needs to know.
    #[command(subcommand)]
    Show(Show),
    /// Looks whether this host is ready. Changes nothing.
    Preflight {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Says how the proxy is.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Looks at the host's firewall.
    #[command(subcommand)]
    Firewall(Firewall),
    /// Shows the newest lines of the proxy's log.
    Logs {
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LOG_LINES)))]
        lines: u32,
    },
    /// Shows where 17488 is served and to whom, and where the log goes; with options: changes it.
    Settings {
        /// As JSON.
        #[arg(long, conflicts_with_all = ["listen", "allow", "syslog"])]
        json: bool,
        /// An address of this host that 17488 listens on; repeat it for more.
        #[arg(long, value_name = "ADDRESS")]
        listen: Vec<IpAddr>,
        /// A network that may connect to 17488, or 0.0.0.0/0 for any; repeat it for more.
        #[arg(long, value_name = "NETWORK")]
        allow: Vec<IpNet>,
        /// The syslog server that the log goes to, such as 10.0.0.5:6514/tcp, or off.
        #[arg(long, value_name = "SERVER")]
        syslog: Option<LogChange>,
    },
    /// The menu.
    Menu,
}

#[derive(Debug, Subcommand)]
enum Show {
    /// The versions of the installer and of the proxy.
    Version,
    /// What the Module Server needs to register this proxy. It holds a secret.
    Payload,
    /// How to come from a bare host to a first session.
    Instructions,
}

#[derive(Debug, Subcommand)]
enum Firewall {
    /// How the live rules differ from what they should be; ends with 1 if they do.
    Verify {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// What would be changed.
    Plan,
    /// To whom a port is open, and which rules decide it; ends with 0 if it is open, 1 if it is shut, 3 if that depends.
    Explain {
        /// The TCP port.
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        port: u16,
        /// Where connections come from, an address or a network; anywhere if left out.
        #[arg(long, value_name = "ADDRESS", value_parser = text::network)]
        from: Option<IpNet>,
    },
}

/// Does what the command line says.
pub fn main(cli: Cli) -> ExitCode {
    let done = match cli.command {
        None if !io::stdin().is_terminal() => {
            eprintln!("{}", Cli::command().render_help());
            return ExitCode::from(2);
        }
        None | Some(Command::Menu) => return menu::main(),
        Some(command) => carry_out(command),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let mut lines = error.lines().into_iter();
            eprintln!("zone-installer: {}", lines.next().unwrap_or_default());
            lines.for_each(|line| eprintln!("{line}"));
            ExitCode::from(error.code())
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum VerbError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error("nothing was done: that takes the line 'yes' on standard input")]
    NotConfirmed,
    #[error("{UNEXPECTED_REPLY}")]
    UnexpectedReply,
    #[error("standard output can't be written: {0}")]
    Output(#[from] io::Error),
}

impl VerbError {
    fn lines(&self) -> Vec<String> {
        match self {
            Self::Call(error) => error.lines(),
            other => vec![other.to_string()],
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Call(CallError::Failed(failure)) if matches!(failure.host, HostState::Left(_)) => {
                EXIT_NOT_UNDONE
            }
            Self::Call(CallError::BrokeOff(_)) => EXIT_NOT_UNDONE,
            _ => EXIT_NO,
        }
    }
}

fn carry_out(command: Command) -> Result<u8, VerbError> {
    match command {
        Command::List { json } => list(json),
        Command::Install { version: None, .. } | Command::Upgrade { version: None } => list(false),
        Command::Install { version: Some(version), listen, allow } => install(version, listen, allow),
        Command::Upgrade { version: Some(version) } => match ask(&Request::Upgrade { version })? {
            Reply::Upgraded { from, to } => say(&[format!("zone-proxy is upgraded from {from} to {to}.")]),
            _ => Err(VerbError::UnexpectedReply),
        },
        Command::Remove => {
            confirm("This ends every session and removes the proxy with its keys and configuration.")?;
            match ask(&Request::Remove {})? {
                Reply::Removed => say(&["zone-proxy is removed; nothing of it is left.".to_owned()]),
                _ => Err(VerbError::UnexpectedReply),
            }
        }
        Command::Reset => {
            confirm("This ends every session and forgets keys and trust.")?;
            match ask(&Request::Reset {})? {
                Reply::Reset => {
                    say(&["The proxy belongs to no zone; 'show payload' shows its new token.".to_owned()])
                }
                _ => Err(VerbError::UnexpectedReply),
            }
        }
        Command::Show(Show::Version) => {
            let version =
                installed_version()?.map_or("not installed".to_owned(), |version| version.to_string());
            say(&[format!("zone-installer {}", env!("CARGO_PKG_VERSION")), format!("zone-proxy {version}")])
        }
        Command::Show(Show::Payload) => match ask(&Request::ShowPayload {})? {
            Reply::Payload(payload) => say(&text::payload(&payload)),
            _ => Err(VerbError::UnexpectedReply),
        },
        Command::Show(Show::Instructions) => say(&text::instructions()),
        Command::Preflight { json } => preflight(json),
        Command::Status { json } => match ask(&Request::Status {})? {
            Reply::Status(status) => {
                if json {
                    print_json(&*status)?
                } else {
                    say(&text::status(&status))?
                };
                Ok(if status.healthy() { EXIT_FINE } else { EXIT_NO })
            }
            _ => Err(VerbError::UnexpectedReply),
        },
        Command::Firewall(Firewall::Verify { json }) => match ask(&Request::FirewallVerify {})? {
            Reply::Firewall(findings) => {
                if json {
                    print_json(&findings)?
                } else {
                    say(&text::findings(&findings))?
                };
                Ok(if findings.iter().all(Finding::is_note) { EXIT_FINE } else { EXIT_NO })
            }
            _ => Err(VerbError::UnexpectedReply),
        },
        Command::Firewall(Firewall::Plan) => match ask(&Request::FirewallPlan {})? {
            Reply::Plan(plan) if plan.trim().is_empty() => say(&["Nothing would be changed.".to_owned()]),
            Reply::Plan(plan) => say(&plan.lines().map(text::plain).collect::<Vec<_>>()),
            _ => Err(VerbError::UnexpectedReply),
        },
        Command::Firewall(Firewall::Explain { port, from }) => {
            match ask(&Request::FirewallExplain { port, from })? {
                Reply::Explained { reachability, lines } => {
                    say(&lines)?;
                    Ok(match reachability {
                        Reachability::Open => EXIT_FINE,
                        Reachability::Shut => EXIT_NO,
                        Reachability::Unknown => EXIT_DEPENDS,
                    })
                }
                _ => Err(VerbError::UnexpectedReply),
            }
        }
        Command::Logs { lines } => match ask(&Request::Logs { lines })? {
            Reply::Logs(lines) => say(&lines),
            _ => Err(VerbError::UnexpectedReply),
        },
        Command::Settings { json, listen, allow, syslog } => settings(json, listen, allow, syslog),
        Command::Menu => Ok(EXIT_FINE),
    }
}

fn list(json: bool) -> Result<u8, VerbError> {
    let catalogue = Catalogue::read(&Paths::default())?;
    // A list is of use also where the helper can't be asked.
    let installed = installed_version().ok().flatten();
    if json {
        return print_json(&json!({ "catalogue": catalogue, "installed": installed }));
    }
    say(&text::catalogue(&catalogue, installed.as_ref()))
}

fn install(version: Version, listen: Vec<IpAddr>, networks: Vec<IpNet>) -> Result<u8, VerbError> {
    let listen = if listen.is_empty() { vec![IpAddr::from([0, 0, 0, 0])] } else { listen };
    let control = ControlPort { listen, networks };
    control.warnings().iter().for_each(|warning| eprintln!("WARNING: {warning}"));
    match ask(&Request::Install { version, control })? {
        Reply::Installed { version, payload } => {
            eprintln!("zone-proxy {version} is installed, and 17488 is served.");
            say(&text::payload(&payload))?;
            for line in text::next_steps(Some(&payload)) {
                eprintln!("{line}");
            }
            Ok(EXIT_FINE)
        }
        _ => Err(VerbError::UnexpectedReply),
    }
}

fn preflight(json: bool) -> Result<u8, VerbError> {
    let verdicts = preflight_verdicts()?;
    if json {
        print_json(&verdicts)?;
    } else {
        say(&text::verdicts(&verdicts))?;
    }
    let failed = verdicts.iter().any(|verdict| verdict.grade == Grade::Fail);
    Ok(if failed { EXIT_NO } else { EXIT_FINE })
}

fn settings(
    json: bool,
    listen: Vec<IpAddr>,
    networks: Vec<IpNet>,
    log: Option<LogChange>,
) -> Result<u8, VerbError> {
    let Reply::Settings(current) = ask(&Request::Settings {})? else {
        return Err(VerbError::UnexpectedReply);
    };
    if listen.is_empty() && networks.is_empty() && log.is_none() {
        return if json { print_json(&current) } else { say(&text::settings(&current)) };
    }
    let listen = if listen.is_empty() { current.persistent.listen } else { listen };
    let networks = if networks.is_empty() { current.persistent.networks } else { networks };
    let control = ControlPort { listen, networks };
    control.warnings().iter().for_each(|warning| eprintln!("WARNING: {warning}"));
    match ask(&Request::Configure { control, log: log.unwrap_or_default() })? {
        Reply::Configured => say(&["The change is in force.".to_owned()]),
        _ => Err(VerbError::UnexpectedReply),
    }
}

/// Asks the helper; progress goes to standard error.
fn ask(request: &Request) -> Result<Reply, CallError> {
    if request.changes() {
        // Ctrl-C would end the telling and not the change.
        signals::block().map_err(|source| CallError::Start { program: "zone-installer", source })?;
    }
    call(request, |line| eprintln!("- {}", text::plain(line)))
}

fn confirm(what: &str) -> Result<(), VerbError> {
    if io::stdin().is_terminal() {
        eprint!("{what} Type yes to go on: ");
        io::stderr().flush()?;
    }
    let mut line = String::new();
    BufReader::new(io::stdin().lock().take(MAX_ANSWER_BYTES)).read_line(&mut line)?;
    if line.trim() == "yes" { Ok(()) } else { Err(VerbError::NotConfirmed) }
}

fn say(lines: &[String]) -> Result<u8, VerbError> {
    let mut output = io::stdout().lock();
    for line in lines {
        writeln!(output, "{line}")?;
    }
    output.flush()?;
    Ok(EXIT_FINE)
}

fn print_json(value: &impl Serialize) -> Result<u8, VerbError> {
    say(&[serde_json::to_string_pretty(value).map_err(io::Error::other)?])
}
