//! The menu at a real terminal of 80 columns and 24 rows, and at a pipe.

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::possible;

const MENU: &str = env!("CARGO_BIN_EXE_zone-installer");
/// Nothing takes longer, unless something is wrong.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The menu in a tmux of its own, whose screen can be looked at.
struct Screen {
    folder: TempDir,
}

impl Screen {
    fn new(command: &str) -> Self {
        let screen = Self { folder: TempDir::new().unwrap() };
        // The shell stays behind the menu, so that its end and its exit code can be seen, whatever the keys do to it.
        let command = format!("trap : INT QUIT TSTP; {command}; echo \"ended $?\"; exec sleep 60");
        screen.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &command]);
        screen
    }

    fn menu() -> Self {
        let screen = Self::new(MENU);
        screen.wait_for("Z  log out");
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.folder.path().join("socket"))
            .args(["-f", "/dev/null"])
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env("SHELL", "/bin/sh")
            .output()
            .unwrap();
        assert!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Everything since the start, for counting what a screen has lost.
    fn history(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-S", "-"])
    }

    fn wait_for(&self, text: &str) -> String {
        self.wait_until(text, |screen| screen.contains(text))
    }

    fn wait_until(&self, what: &str, done: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + TEST_TIMEOUT;
        loop {
            let screen = self.screen();
            if done(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never: {what}\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The last line that holds anything.
    fn prompt(&self) -> String {
        self.screen().lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let socket = self.folder.path().join("socket");
        let _ = Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output();
    }
}

///
#[test]
fn each_menu_fits_a_terminal_of_80_by_24_with_its_header() {
    if !possible("each_menu_fits_a_terminal_of_80_by_24_with_its_header", &["tmux"]) {
        return;
    }
    let screen = Screen::menu();
    for (keys, prompt, last) in [
        ("A", "A > ", "A  Zone Proxy"),
        ("A", "A-A > ", "0  Remove"),
        ("RR", "> ", "B  Information"),
        ("B", "B > ", "3  Packages"),
    ] {
        screen.keys(&[keys, "Enter"]);
        let shown = screen.wait_until(prompt, |shown| {
            shown.contains(last)
                && shown.trim_end().lines().last().is_some_and(|line| line.trim_end() == prompt.trim_end())
        });
        assert!(shown.contains("Zone Server") && shown.contains("installer 0."), "{shown}");
    }
    screen.keys(&["Z", "Enter"]);
    screen.wait_for("ended 0");
}

#[test]
fn control_keys_at_a_prompt_lead_back_to_the_menu_and_never_out() {
    if !possible("control_keys_at_a_prompt_lead_back_to_the_menu_and_never_out", &["tmux"]) {
        return;
    }
    let screen = Screen::menu();
    for key in ["C-c", "C-z", "C-\\"] {
        screen.keys(&["A-A-0", "Enter"]);
        screen.wait_until("a question", |shown| shown.trim_end().ends_with("[yes, no] >"));
        screen.keys(&["ye", key]);
        screen.wait_until(key, |shown| shown.contains("Interrupted.") && shown.trim_end().ends_with("A-A >"));
        screen.keys(&["RR", "Enter"]);
        screen.wait_until("the main menu", |shown| shown.trim_end().lines().last() == Some(">"));
        screen.keys(&[key]);
        screen.keys(&["B", "Enter"]);
        screen.wait_until("information", |shown| shown.trim_end().ends_with("B >"));
    }
    // Escape, the arrow up, a bell.
    screen.keys(&["Escape", "Up", "C-g", "Enter"]);
    screen.wait_for("type plain text");
    assert!(!screen.history().contains("ended"), "it never ended");
    assert!(screen.prompt().starts_with("B >"));
    screen.keys(&["C-d"]);
    screen.wait_for("ended 0");
}

#[test]
fn a_long_text_is_paged() {
    if !possible("a_long_text_is_paged", &["tmux"]) {
        return;
    }
    let screen = Screen::menu();
    screen.keys(&["B-1", "Enter"]);
    let shown = screen.wait_until("a page", |shown| shown.trim_end().ends_with("Enter: back >"));
    assert!(shown.contains("From a bare host to a first session"), "{shown}");
    screen.keys(&["Enter"]);
    screen.wait_until("the menu", |shown| shown.trim_end().ends_with("B >"));
}

/// The menu at a pipe, as `ssh -T` gives one: what it prints, and its exit code.
fn piped(input: &[u8]) -> (String, Option<i32>) {
    let mut child = Command::new(MENU)
        .arg("menu")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        output.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
    });
    // It may have logged out before it took all.
    let _ = child.stdin.take().unwrap().write_all(input);
    let status = child.wait().unwrap();
    (reader.join().unwrap().unwrap(), status.code())
}

#[test]
fn the_end_of_input_logs_out() {
    let (text, code) = piped(b"");
    assert!(text.contains("Main menu"), "{text}");
    assert_eq!(code, Some(0));
    assert_eq!(piped(b"A-A-0\nye").1, Some(0));
}

#[test]
fn ten_megabytes_without_a_line_are_refused_by_one_line_and_not_held() {
    let mut input = vec![b'x'; 10_000_000];
    input.extend_from_slice(b"\nZ\n");
    let (text, code) = piped(&input);
    assert_eq!(text.matches("too long").count(), 1, "{text}");
    assert!(text.contains("Logged out.") && text.len() < 10_000, "{text}");
    assert_eq!(code, Some(0));
}

#[test]
fn ten_megabytes_of_noise_lead_nowhere() {
    use rand::{Rng as _, SeedableRng as _};
    let mut input = vec![0; 10_000_000];
    rand_chacha::ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut input);
    input.extend_from_slice(b"\nRR\nB-1\nZ\n");
    let (text, code) = piped(&input);
    assert!(
        text.contains("From a bare host") && text.ends_with("Logged out.\n"),
        "{}",
        &text[text.len() - 500..]
    );
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "nothing of it is echoed raw");
    assert_eq!(code, Some(0));
}

#[test]
fn a_login_shell_takes_verbs_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let shell = folder.path().join("zone-menu");
    std::os::unix::fs::symlink(MENU, &shell).unwrap();
    let run = |command: &str| {
        let output = Command::new(&shell).args(["-c", command]).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    for command in
        ["sh", "scp -t /", "/usr/lib/openssh/sftp-server", "rsync --server . /", "list; sh", "$SHELL", "`id`"]
    {
        let (code, text) = run(command);
        assert_eq!((code, text.lines().count()), (Some(1), 1), "{command}: {text}");
        assert!(text.contains("only these verbs are allowed"), "{text}");
    }
    assert_eq!(run("show instructions").0, Some(0));
    assert!(run("install ../x").1.contains("this is no version"));
    let output = Command::new(&shell).args(["-x", "sh"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}
