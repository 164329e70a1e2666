//! The menu: a state machine, and the program around it that carries out what it says.

mod form;
mod items;
pub mod machine;
mod terminal;

use std::io;
use std::process::ExitCode;

use self::machine::{About, Action, Answer, Event, Machine, Task};
use self::terminal::Terminal;
use crate::call::{CallError, call, installed_version, preflight_verdicts};
use crate::helper;
use crate::packages::Catalogue;
use crate::paths::Paths;
use crate::protocol::{Reply, Request};
use crate::settings::Settings;
use crate::text;
use crate::version::Version;

/// The menu, until its user logs out, goes away or is silent for too long.
pub(crate) fn main() -> ExitCode {
    let paths = Paths::default();
    let settings = match Settings::read(&paths) {
        Ok(settings) => settings,
        Err(error) => {
            // The menu must come up all the same: it is the only way in.
            eprintln!("zone-installer: {error}");
            Settings::default()
        }
    };
    let run = || -> io::Result<()> {
        let terminal = Terminal::new(settings.idle())?;
        Session { paths: &paths, settings: &settings, terminal }.run()
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever sat there is gone, and so is the terminal that could tell.
        Err(_) => ExitCode::FAILURE,
    }
}

struct Session<'a> {
    paths: &'a Paths,
    settings: &'a Settings,
    terminal: Terminal,
}

impl Session<'_> {
    fn run(&mut self) -> io::Result<()> {
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let about = About { host: text::plain(&host), role: self.settings.role.clone(), proxy: installed() };
        let mut machine = Machine::new(about);
        let mut event = Event::Start;
        loop {
            let mut next = None;
            for action in machine.handle(event) {
                match action {
                    Action::Print(lines) => self.print(&lines)?,
                    Action::Prompt(prompt) => self.terminal.write(&prompt)?,
                    Action::Run(task) => {
                        let changed = matches!(&task, Task::Ask(request) if request.changes());
                        let answer = self.carry_out(task);
                        if changed {
                            machine.set_proxy(installed());
                        }
                        next = Some(self.terminal.forget_signals().unwrap_or(Event::Answer(answer)));
                    }
                    Action::Leave => return Ok(()),
                }
            }
            event = match next {
                Some(event) => event,
                None => self.terminal.next()?,
            };
        }
    }

    fn print(&self, lines: &[String]) -> io::Result<()> {
        let mut text = lines.join("\n");
        text.push('\n');
        self.terminal.write(&text)
    }

    fn carry_out(&self, task: Task) -> Answer {
        match task {
            Task::Ask(Request::Preflight {}) => match preflight_verdicts() {
                Ok(verdicts) => Answer::Lines(text::verdicts(&verdicts)),
                Err(error) => Answer::Lines(error.lines()),
            },
            Task::Ask(request) => match self.ask(&request) {
                Ok(reply) => answer(reply),
                Err(error) => Answer::Lines(error.lines()),
            },
            Task::Versions => self.versions(),
            Task::Packages => match Catalogue::read(self.paths) {
                Ok(catalogue) => {
                    Answer::Lines(text::catalogue(&catalogue, installed_version().ok().flatten().as_ref()))
                }
                Err(error) => Answer::Lines(vec![error.to_string()]),
            },
            Task::Installed => {
                let proxy = installed();
                let proxy = if proxy.is_empty() { "not installed" } else { &proxy };
                let own = format!("zone-installer {}", env!("CARGO_PKG_VERSION"));
                Answer::Lines(vec![own, format!("zone-proxy {proxy}")])
            }
        }
    }

    /// Asks the helper; its progress is shown as it comes.
    fn ask(&self, request: &Request) -> Result<Reply, CallError> {
        call(request, |line| {
            // The act goes on and has an end of its own, also where nobody can read this.
            let _ = self.print(&text::wrap(&format!("- {}", text::plain(line)), 2));
        })
    }

    fn versions(&self) -> Answer {
        let installed = match installed_version() {
            Ok(installed) => installed,
            Err(error) => return Answer::Lines(error.lines()),
        };
        match Catalogue::read(self.paths) {
            Ok(catalogue) => {
                let format = match helper::package_format(self.settings) {
                    Ok(format) => format,
                    Err(why) => return Answer::Lines(vec![why]),
                };
                if let Some(warning) = catalogue.signed_by.warning() {
                    // It stands in the answer to the act as well.
                    let _ = self.print(&text::wrap(&warning, 2));
                }
                Answer::Versions { available: catalogue.versions(format), installed }
            }
            Err(error) => Answer::Lines(vec![error.to_string()]),
        }
    }
}

/// The installed version; empty if there is none, or if it can't be told.
fn installed() -> String {
    installed_version().ok().flatten().as_ref().map(Version::to_string).unwrap_or_default()
}

fn answer(reply: Reply) -> Answer {
    let line = |line: String| Answer::Lines(vec![line]);
    match reply {
        Reply::Preflight(verdicts) => Answer::Lines(text::verdicts(&verdicts)),
        Reply::Installed { payload, .. } | Reply::Payload(payload) => {
            let mut lines = text::payload(&payload);
            lines.push(String::new());
            lines.extend(text::next_steps(Some(&payload)));
            Answer::Copy(lines)
        }
        Reply::Upgraded { from, to } => line(format!("zone-proxy is upgraded from {from} to {to}.")),
        Reply::Removed => line("zone-proxy is removed; nothing of it is left.".to_owned()),
        Reply::Reset => line("The proxy belongs to no zone. A-A-3 shows its new payload.".to_owned()),
        Reply::Status(status) => Answer::Lines(text::status(&status)),
        Reply::Firewall(findings) => Answer::Lines(text::findings(&findings)),
        Reply::Plan(plan) => Answer::Lines(plan.lines().map(text::plain).collect()),
        Reply::Logs(lines) if lines.is_empty() => line("The log is empty.".to_owned()),
        Reply::Explained { lines, .. } | Reply::Logs(lines) => Answer::Lines(lines),
        Reply::Settings(settings) => Answer::Settings {
            lines: text::settings(&settings),
            control: settings.persistent,
            syslog: settings.syslog,
        },
        Reply::Configured => line("The change is in force.".to_owned()),
    }
}
