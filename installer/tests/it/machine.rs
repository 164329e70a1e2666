//! The menu's decisions, without a terminal.

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use zone_installer::menu::machine::{About, Action, Answer, Event, Machine, Task};
use zone_installer::protocol::{ControlPort, LogChange, Request};
use zone_installer::version::Version;

fn machine() -> Machine {
    let mut machine =
        Machine::new(About { host: "dmz1".to_owned(), role: "Zone Server".to_owned(), proxy: String::new() });
    machine.handle(Event::Start);
    machine
}

fn line(text: &str) -> Event {
    Event::Line(text.to_owned())
}

fn prompt(actions: &[Action]) -> &str {
    match actions.last() {
        Some(Action::Prompt(prompt)) => prompt,
        other => panic!("no prompt but {other:?}"),
    }
}

fn printed(actions: &[Action]) -> String {
    let lines = actions.iter().filter_map(|action| match action {
        Action::Print(lines) => Some(lines.join("\n")),
        _ => None,
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn versions(installed: Option<&str>) -> Answer {
    let available = ["0.1.0-2", "0.1.0-1"].map(|text| text.parse::<Version>().unwrap()).to_vec();
    Answer::Versions { available, installed: installed.map(|text| text.parse().unwrap()) }
}

/// R-40, R-42
#[test]
fn an_installation_takes_a_letter_or_a_digit_and_enter_at_each_step() {
    let mut menu = machine();
    assert_eq!(prompt(&menu.handle(line("a"))), "A > ");
    assert_eq!(prompt(&menu.handle(line("A"))), "A-A > ");
    assert_eq!(menu.handle(line("2")).last(), Some(&Action::Run(Task::Versions)));
    let asked = menu.handle(Event::Answer(versions(None)));
    assert_eq!(prompt(&asked), "Version [0.1.0-2, 0.1.0-1] > ");
    assert!(printed(&asked).contains("Now: 0.1.0-2 (Enter keeps it)"));
    menu.handle(line(""));
    menu.handle(line("10.0.0.1"));
    let summary = menu.handle(line("10.0.0.0/8"));
    assert_eq!(prompt(&summary), "Type yes to go on [yes, no] > ");
    let run = menu.handle(line("yes"));
    let Some(Action::Run(Task::Ask(Request::Install { version, control }))) = run.last() else {
        panic!("{run:?}")
    };
    assert_eq!((version.to_string().as_str(), control.listen.len()), ("0.1.0-2", 1));
}

/// R-42
#[test]
fn a_path_leads_everywhere_and_r_rr_and_z_lead_back_and_out() {
    let mut menu = machine();
    assert_eq!(prompt(&menu.handle(line("A-A"))), "A-A > ");
    assert_eq!(prompt(&menu.handle(line("r"))), "A > ");
    assert_eq!(prompt(&menu.handle(line("B"))), "A > ", "B is no choice in Operations");
    assert_eq!(prompt(&menu.handle(line("RR"))), "> ");
    assert_eq!(prompt(&menu.handle(line("A-A-9"))), "Type yes to go on [yes, no] > ");
    assert_eq!(prompt(&menu.handle(line("R"))), "A-A > ");
    assert_eq!(menu.handle(line("z")).last(), Some(&Action::Leave));
    assert_eq!(menu.handle(line("A")), [Action::Leave], "nothing follows");
}

/// R-42
#[test]
fn destructive_acts_need_a_typed_yes() {
    for path in ["A-A-0", "A-A-9"] {
        for typed in ["", "y", "no", "YES"] {
            let mut menu = machine();
            menu.handle(line(path));
            let actions = menu.handle(line(typed));
            assert!(printed(&actions).contains("Nothing was done."), "{path} {typed:?}");
            assert_eq!(prompt(&actions), "A-A > ");
        }
    }
}

#[test]
fn an_interrupt_at_any_prompt_leads_back_to_the_menu_and_never_out() {
    for path in ["", "A", "A-A", "A-A-0", "A-A-6", "B-1"] {
        let mut menu = machine();
        menu.handle(line(path));
        for _ in 0..3 {
            let actions = menu.handle(Event::Interrupt);
            assert!(prompt(&actions).ends_with("> ") && !actions.contains(&Action::Leave), "{path}");
            assert!(!prompt(&actions).contains("yes"));
        }
    }
}

#[test]
fn the_end_of_input_and_too_long_a_silence_log_out() {
    for path in ["", "A-A", "A-A-0", "B-1"] {
        for event in [Event::End, Event::Idle] {
            let mut menu = machine();
            menu.handle(line(path));
            assert_eq!(menu.handle(event).last(), Some(&Action::Leave));
        }
    }
}

#[test]
fn control_characters_and_endless_lines_are_answered_by_a_line_and_the_same_prompt() {
    for path in ["A-A", "A-A-0", "B-1", "A-A-6"] {
        let mut menu = machine();
        let before = prompt(&menu.handle(line(path))).to_owned();
        for event in [line("\u{1b}[2J"), line("\t"), line("\u{202e}yes"), Event::TooLong] {
            let actions = menu.handle(event);
            let printed = printed(&actions);
            assert_eq!(prompt(&actions), before, "{path}");
            assert!(printed.contains("type plain text") || printed.contains("too long"), "{printed}");
            assert!(!printed.contains('\u{1b}'));
        }
    }
}

/// R-42
#[test]
fn settings_show_current_and_persistent_values_and_keep_them_on_enter() {
    let mut menu = machine();
    assert_eq!(menu.handle(line("A-A-7")).last(), Some(&Action::Run(Task::Ask(Request::Settings {}))));
    let control = ControlPort { listen: vec!["10.0.0.1".parse().unwrap()], networks: Vec::new() };
    let shown = vec!["Current".to_owned(), "Persistent".to_owned()];
    let syslog = "10.0.0.5:6514/tcp".to_owned();
    let actions =
        menu.handle(Event::Answer(Answer::Settings { lines: shown, control: control.clone(), syslog }));
    assert!(printed(&actions).contains("Current") && printed(&actions).contains("Now: 10.0.0.1"));
    menu.handle(line(""));
    assert!(printed(&menu.handle(line(""))).contains("Now: 10.0.0.5:6514/tcp"));
    menu.handle(line(""));
    let run = menu.handle(line("yes"));
    let log = LogChange::Keep;
    assert_eq!(run.last(), Some(&Action::Run(Task::Ask(Request::Configure { control, log }))));
}

#[test]
fn the_firewall_tells_whether_it_is_right_or_to_whom_a_port_is_open() {
    let mut menu = machine();
    assert_eq!(prompt(&menu.handle(line("A-A-5"))), "Port [1 to 65535, such as 17486] > ");
    let compared = menu.handle(line(""));
    assert_eq!(compared.last(), Some(&Action::Run(Task::Ask(Request::FirewallVerify {}))));
    menu.handle(Event::Answer(Answer::Lines(vec!["The live rules are as they should be.".to_owned()])));
    menu.handle(line(""));

    menu.handle(line("A-A-5"));
    let asked = menu.handle(line("17486"));
    assert_eq!(prompt(&asked), "From [any, or an address or network such as 198.51.100.7] > ");
    let run = menu.handle(line("198.51.100.7"));
    let from = "198.51.100.7/32".parse().ok();
    let explain = Request::FirewallExplain { port: 17486, from };
    assert_eq!(run.last(), Some(&Action::Run(Task::Ask(explain))));
    let rule = "  decided by inet filter input handle 7: ip saddr 198.51.100.0/24 drop";
    let lines = vec!["dropped: from 198.51.100.7 to 192.0.2.1 by eth0".to_owned(), rule.to_owned()];
    let shown = printed(&menu.handle(Event::Answer(Answer::Lines(lines))));
    assert!(shown.contains("dropped: from 198.51.100.7") && shown.contains("handle 7"), "{shown}");
}

#[test]
fn long_texts_come_in_pages() {
    let mut menu = machine();
    menu.handle(line("A-A-4"));
    let lines: Vec<String> = (0..45).map(|n| format!("line {n}")).collect();
    let first = menu.handle(Event::Answer(Answer::Lines(lines)));
    assert!(printed(&first).contains("line 0") && !printed(&first).contains("line 40"));
    assert_eq!(prompt(&first), "Enter: more   R: back > ");
    menu.handle(line(""));
    let last = menu.handle(line(""));
    assert!(printed(&last).contains("line 44"));
    assert_eq!(prompt(&last), "Enter: back > ");
    assert_eq!(prompt(&menu.handle(line(""))), "A-A > ");
}

/// Whatever comes, every screen fits 80 columns and 24 rows, nothing destructive starts without a yes, and the
/// machine goes on until it is told to end.
#[test]
fn garbage_never_leads_out_nor_breaks_the_screen() {
    for seed in 0..300 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut menu = machine();
        for _ in 0..200 {
            let (event, confirmed) = event(&mut random);
            for action in menu.handle(event) {
                match action {
                    Action::Print(lines) => {
                        assert!(lines.len() <= 23, "seed {seed}: {} rows", lines.len());
                        for line in lines {
                            assert!(line.chars().count() <= 79, "seed {seed}: {line}");
                            assert!(!line.chars().any(char::is_control), "seed {seed}: {line:?}");
                        }
                    }
                    Action::Prompt(prompt) => assert!(prompt.len() < 79, "seed {seed}: {prompt}"),
                    Action::Run(Task::Ask(request)) if request.changes() => {
                        assert!(confirmed, "seed {seed}: {request:?}");
                    }
                    Action::Run(_) => {}
                    Action::Leave => panic!("seed {seed}: it left"),
                }
            }
        }
    }
}

/// Something that a person, a cat or an attacker might do; and whether it was a yes.
fn event(random: &mut ChaCha8Rng) -> (Event, bool) {
    let known =
        ["a", "b", "r", "rr", "1", "2", "4", "7", "8", "9", "0", "yes", "", "10.0.0.1", "any", "0.1.0-1"];
    let event = match random.random_range(0..12) {
        0 => Event::Interrupt,
        1 => Event::TooLong,
        2 => Event::Answer(versions(random.random_bool(0.5).then_some("0.1.0-1"))),
        3 => {
            let control = ControlPort { listen: vec!["::".parse().unwrap()], networks: Vec::new() };
            Event::Answer(Answer::Settings {
                lines: vec!["word ".repeat(60)],
                control,
                syslog: String::new(),
            })
        }
        4 => {
            Event::Answer(Answer::Lines((0..random.random_range(0..90)).map(|n| "x".repeat(n * 3)).collect()))
        }
        5 => {
            let mut bytes = vec![0; random.random_range(0..300)];
            random.fill_bytes(&mut bytes);
            Event::Line(String::from_utf8_lossy(&bytes).replace(['z', 'Z'], "y"))
        }
        _ => Event::Line(known[random.random_range(0..known.len())].to_owned()),
    };
    let confirmed = event == line("yes");
    (event, confirmed)
}
