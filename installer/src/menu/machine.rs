//! The menu as a state machine: events go in, actions come out. It knows no terminal, no clock and no helper.

use super::form::{Form, Next};
use super::items::{Act, Choice, Menu};
use crate::protocol::{ControlPort, Request};
use crate::text::{self, WIDTH};
use crate::version::Version;

/// Rows of a terminal that a page of text takes; header and prompt take the rest of 24.
const PAGE_ROWS: usize = 19;
/// Columns of a terminal, by which it breaks lines that may not be broken otherwise.
const COLUMNS: usize = 80;
/// Where a broken line goes on.
const INDENT: usize = 6;
/// What of a wrong answer is shown again, characters.
const MAX_ECHOED_CHARS: usize = 30;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The program starts.
    Start,
    /// A line was typed; its end is not part of it.
    Line(String),
    /// A line was longer than any answer is.
    TooLong,
    /// Ctrl-C, Ctrl-Z or Ctrl-\.
    Interrupt,
    /// There was no input for too long.
    Idle,
    /// There will be no more input.
    End,
    /// What was to be done is done, or failed.
    Answer(Answer),
}

/// What came of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Lines to show.
    Lines(Vec<String>),
    /// Lines that are to be copied, and therefore not broken.
    Copy(Vec<String>),
    /// The drop folder.
    Versions {
        /// What this host could install, the newest first.
        available: Vec<Version>,
        /// What is installed.
        installed: Option<Version>,
    },
    /// The settings.
    Settings {
        /// Lines to show.
        lines: Vec<String>,
        /// Where 17488 is served.
        control: ControlPort,
        /// The syslog server; empty if there is none.
        syslog: String,
    },
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Print lines.
    Print(Vec<String>),
    /// Print a prompt and wait for a line.
    Prompt(String),
    /// Do something, and come back with an [`Event::Answer`].
    Run(Task),
    /// Log out.
    Leave,
}

/// What the program around the machine does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Ask the helper.
    Ask(Request),
    /// Look which versions there are.
    Versions,
    /// Show what is in the drop folder.
    Packages,
    /// Show the versions of what is installed.
    Installed,
}

/// What the header shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The host's name.
    pub host: String,
    /// What it is.
    pub role: String,
    /// The version of the proxy; empty if there is none.
    pub proxy: String,
}

/// The menu.
#[derive(Debug)]
pub struct Machine {
    about: About,
    menu: Menu,
    screen: Screen,
}

/// What the menu shows, and so what a line that is typed means.
#[derive(Debug)]
enum Screen {
    /// A choice is awaited.
    Menu,
    /// An answer to a question is awaited.
    Form(Form),
    /// A text is being read.
    Page(Vec<String>),
    /// Something is being done.
    Busy(Act),
    /// Logged out.
    Left,
}

impl Machine {
    /// At the first menu.
    pub fn new(about: About) -> Self {
        Self { about, menu: Menu::Root, screen: Screen::Menu }
    }

    /// What is installed has changed.
    pub fn set_proxy(&mut self, version: String) {
        self.about.proxy = version;
    }

    /// What is to be done now.
    pub fn handle(&mut self, event: Event) -> Vec<Action> {
        match (event, std::mem::replace(&mut self.screen, Screen::Left)) {
            (_, Screen::Left) | (Event::End, _) => vec![Action::Leave],
            (Event::Idle, _) => self.log_out("No input for too long: logged out."),
            (Event::Answer(answer), Screen::Busy(act)) => self.answered(act, answer),
            // The answer is still to come; whatever is typed meanwhile waits in the terminal.
            (_, Screen::Busy(act)) => {
                self.screen = Screen::Busy(act);
                Vec::new()
            }
            (Event::Start | Event::Answer(_), _) | (Event::Interrupt, Screen::Menu) => {
                self.show_menu(self.menu, None)
            }
            (Event::Interrupt, _) => self.show_menu(self.menu, Some("Interrupted.")),
            (Event::TooLong, screen) => self.again(screen, "That line is too long: type a short answer."),
            (Event::Line(line), screen) if !line.chars().all(|c| c == ' ' || c.is_ascii_graphic()) => {
                self.again(screen, "That held control or foreign characters: type plain text.")
            }
            (Event::Line(line), screen) => self.typed(line.trim(), screen),
        }
    }

    fn typed(&mut self, line: &str, screen: Screen) -> Vec<Action> {
        match (line.to_ascii_uppercase().as_str(), screen) {
            ("Z", _) => self.log_out("Logged out."),
            ("RR", _) => self.show_menu(Menu::Root, None),
            ("R", Screen::Menu) => self.show_menu(self.menu.back(), None),
            ("R", _) => self.show_menu(self.menu, None),
            (_, Screen::Form(form)) => match form.answer(line) {
                Next::Ask(form) => self.ask(form, None),
                Next::Again(form, why) => self.ask(form, Some(&clipped(&why))),
                Next::Run(request) => {
                    let act = act_of(&request);
                    self.run(act, Task::Ask(request))
                }
                Next::Leave => self.show_menu(self.menu, Some("Nothing was done.")),
            },
            (_, Screen::Page(rest)) => self.show_page(rest),
            ("", _) => self.show_menu(self.menu, None),
            (typed, _) => {
                let here = self.menu.choose(typed).map(|item| (self.menu, item.choice));
                if let Some((menu, choice)) =
                    here.or_else(|| typed.contains('-').then(|| Menu::follow(typed))?)
                {
                    return self.follow(menu, choice);
                }
                let echoed: String = line.chars().take(MAX_ECHOED_CHARS).collect();
                self.show_menu(self.menu, Some(&format!("'{echoed}' is no choice here.")))
            }
        }
    }

    fn follow(&mut self, menu: Menu, choice: Choice) -> Vec<Action> {
        self.menu = menu;
        match choice {
            Choice::Go(menu) => self.show_menu(menu, None),
            Choice::Do(act) => match act {
                Act::Remove => self.ask(Form::remove(), None),
                Act::Reset => self.ask(Form::reset(), None),
                Act::Logs => self.ask(Form::logs(), None),
                Act::Firewall => self.ask(Form::firewall(), None),
                Act::Instructions => self.show(&text::instructions()),
                Act::Install | Act::Upgrade => self.run(act, Task::Versions),
                Act::Packages => self.run(act, Task::Packages),
                Act::Versions => self.run(act, Task::Installed),
                Act::Preflight => self.run(act, Task::Ask(Request::Preflight {})),
                Act::Payload => self.run(act, Task::Ask(Request::ShowPayload {})),
                Act::Status => self.run(act, Task::Ask(Request::Status {})),
                Act::Settings => self.run(act, Task::Ask(Request::Settings {})),
            },
        }
    }

    fn answered(&mut self, act: Act, answer: Answer) -> Vec<Action> {
        match answer {
            Answer::Lines(lines) => self.show(&lines),
            Answer::Copy(lines) => self.show_page(lines),
            Answer::Settings { lines, control, syslog } => {
                let mut actions = vec![Action::Print(wrapped(&lines)), Action::Print(vec![String::new()])];
                actions.extend(self.ask(Form::configure(control, syslog), None));
                actions
            }
            Answer::Versions { available, installed } => {
                let form = match (act, &installed) {
                    (Act::Upgrade, None) => {
                        return self.show(&["zone-proxy is not installed.".to_owned()]);
                    }
                    (Act::Upgrade, Some(installed)) => Form::upgrade(available, installed),
                    (_, Some(installed)) => {
                        let line =
                            format!("zone-proxy {installed} is installed already: upgrade or remove it.");
                        return self.show(&[line]);
                    }
                    (_, None) => Form::install(available),
                };
                match form {
                    Some(form) => self.ask(form, None),
                    None => self.show(&[
                        "There is no package to go to: B-3 shows what is in the drop folder.".to_owned(),
                    ]),
                }
            }
        }
    }

    fn run(&mut self, act: Act, task: Task) -> Vec<Action> {
        self.screen = Screen::Busy(act);
        vec![Action::Print(vec!["Working ...".to_owned()]), Action::Run(task)]
    }

    fn ask(&mut self, form: Form, trouble: Option<&str>) -> Vec<Action> {
        let mut lines: Vec<String> = trouble.map(str::to_owned).into_iter().collect();
        lines.extend(form.lines());
        let prompt = form.prompt();
        self.screen = Screen::Form(form);
        vec![Action::Print(wrapped(&lines)), Action::Prompt(prompt)]
    }

    fn again(&mut self, screen: Screen, why: &str) -> Vec<Action> {
        match screen {
            Screen::Form(form) => self.ask(form, Some(why)),
            Screen::Page(rest) => {
                self.screen = Screen::Page(rest);
                vec![Action::Print(vec![why.to_owned()]), Action::Prompt(self.page_prompt())]
            }
            _ => self.show_menu(self.menu, Some(why)),
        }
    }

    fn show(&mut self, lines: &[String]) -> Vec<Action> {
        self.show_page(wrapped(lines))
    }

    /// One page of a text; the menu after its end.
    fn show_page(&mut self, mut lines: Vec<String>) -> Vec<Action> {
        if lines.is_empty() {
            return self.show_menu(self.menu, None);
        }
        let mut rows = 0;
        let fitting = lines
            .iter()
            .take_while(|line| {
                rows += line.chars().count().div_ceil(COLUMNS).max(1);
                rows <= PAGE_ROWS
            })
            .count();
        let rest = lines.split_off(fitting.max(1));
        let mut page = self.header();
        page.extend(lines);
        self.screen = Screen::Page(rest);
        vec![Action::Print(page), Action::Prompt(self.page_prompt())]
    }

    fn page_prompt(&self) -> String {
        match &self.screen {
            Screen::Page(rest) if !rest.is_empty() => "Enter: more   R: back > ".to_owned(),
            _ => "Enter: back > ".to_owned(),
        }
    }

    fn show_menu(&mut self, menu: Menu, trouble: Option<&str>) -> Vec<Action> {
        self.menu = menu;
        self.screen = Screen::Menu;
        let mut lines = self.header();
        for item in menu.items() {
            lines.push(format!("  {}  {:<14}{}", item.key, item.name, item.what));
        }
        lines.push(String::new());
        lines.push(match menu {
            Menu::Root => "  Z  log out".to_owned(),
            _ => "  R  back   RR  main menu   Z  log out".to_owned(),
        });
        lines.push(trouble.map(clipped).unwrap_or_default());
        let prompt = match menu.path() {
            "" => "> ".to_owned(),
            path => format!("{path} > "),
        };
        vec![Action::Print(lines), Action::Prompt(prompt)]
    }

    /// Host, role and version; then where we are.
    fn header(&self) -> Vec<String> {
        let About { host, role, proxy } = &self.about;
        let proxy = if proxy.is_empty() { "not installed" } else { proxy };
        let first = format!("{role} {host} | zone-proxy {proxy} | installer {}", env!("CARGO_PKG_VERSION"));
        let path = self.menu.path();
        let second = format!("{path}{}{}", if path.is_empty() { "" } else { " " }, self.menu.name());
        vec![String::new(), clipped(&first), clipped(&second), String::new()]
    }

    fn log_out(&mut self, why: &str) -> Vec<Action> {
        self.screen = Screen::Left;
        vec![Action::Print(vec![why.to_owned()]), Action::Leave]
    }
}

/// What the answer to a request belongs to.
fn act_of(request: &Request) -> Act {
    match request {
        Request::Install { .. } => Act::Install,
        Request::Upgrade { .. } => Act::Upgrade,
        Request::Remove {} => Act::Remove,
        Request::Reset {} => Act::Reset,
        Request::Logs { .. } => Act::Logs,
        Request::FirewallVerify {} | Request::FirewallExplain { .. } => Act::Firewall,
        _ => Act::Settings,
    }
}

fn wrapped(lines: &[String]) -> Vec<String> {
    lines.iter().flat_map(|line| text::wrap(line, INDENT)).collect()
}

fn clipped(line: &str) -> String {
    line.chars().take(WIDTH).collect()
}
