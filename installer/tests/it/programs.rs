//! The verbs and the helper as they are started.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::support::possible;

const HELPER: &str = env!("CARGO_BIN_EXE_zone-installer-helper");
const INSTALLER: &str = env!("CARGO_BIN_EXE_zone-installer");

fn helper(arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(HELPER)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may refuse before it has read anything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
    assert!(output.stdout.is_empty(), "nothing was begun");
    text
}

#[test]
fn the_helper_refuses_whatever_is_not_one_of_its_requests() {
    if !possible("the_helper_refuses_whatever_is_not_one_of_its_requests", &[]) {
        return;
    }
    for arguments in [&[][..], &["sh"], &["install", "0.1.0-1"], &["--help"], &["Remove"], &["status", "-x"]]
    {
        assert!(complaint(&helper(arguments, b"{\"status\":{}}\n")).contains("usage"), "{arguments:?}");
    }
    let control = "{\"listen\":[\"127.0.0.1\"],\"networks\":[]}";
    for (verb, request, named) in [
        ("status", String::new(), "no whole line"),
        ("status", "{\"status\":{}}".to_owned(), "no whole line"),
        ("status", "garbage\n".to_owned(), "no request"),
        ("status", "{\"remove\":{}}\n".to_owned(), "not about status"),
        ("status", "{\"status\":{\"x\":1}}\n".to_owned(), "no request"),
        ("status", format!("{}\n", "x".repeat(10_000_000)), "no whole line"),
        ("logs", "{\"logs\":{\"lines\":0}}\n".to_owned(), "lines"),
        ("logs", "{\"logs\":{\"lines\":\"1 --file=/etc/shadow\"}}\n".to_owned(), "no request"),
        (
            "install",
            format!("{{\"install\":{{\"version\":\"../x\",\"control\":{control}}}}}\n"),
            "no version",
        ),
        ("upgrade", "{\"upgrade\":{\"version\":\"--force\"}}\n".to_owned(), "no version"),
        (
            "configure",
            "{\"configure\":{\"control\":{\"listen\":[],\"networks\":[]}}}\n".to_owned(),
            "at least one",
        ),
    ] {
        let why = complaint(&helper(&[verb], request.as_bytes()));
        assert!(why.contains(named), "{verb}: {why}");
    }
}

#[test]
fn the_helper_is_roots_alone() {
    if !possible("the_helper_is_roots_alone", &["setpriv"]) {
        return;
    }
    // The checkout may be closed to others.
    let folder = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .tempdir()
        .unwrap();
    let copy = folder.path().join("helper");
    std::fs::copy(HELPER, &copy).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .arg("status")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(complaint(&output).contains("must be root's"));
}

///
#[test]
fn destructive_verbs_want_a_yes_on_standard_input() {
    for verb in ["remove", "reset"] {
        for input in ["", "no\n", "yess\n", "YES\n"] {
            let mut child = Command::new(INSTALLER)
                .arg(verb)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{verb} {input:?}: {text}");
            assert!(text.contains("nothing was done"), "{text}");
        }
        let output = Command::new(INSTALLER).args([verb, "--yes"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "there is no argument for it");
    }
}

///
#[test]
fn instructions_and_help_take_no_privileges() {
    let run = |arguments: &[&str]| {
        let output = Command::new(INSTALLER).args(arguments).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = run(&["show", "instructions"]);
    assert!(code == Some(0) && text.contains("zone-module provision"), "{text}");
    let (code, text) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for verb in [
        "list",
        "install",
        "upgrade",
        "remove",
        "reset",
        "show",
        "preflight",
        "status",
        "firewall",
        "logs",
        "menu",
    ] {
        assert!(text.contains(verb), "{verb}");
    }
    assert_eq!(run(&["install", "../x"]).0, Some(2));
}
