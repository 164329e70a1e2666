//! Tools that behave, and tools that do not.

use std::fs;
use std::time::{Duration, Instant};

use zone_tool::{Excess, Tool, ToolError, find};

/// Longer than anything here takes, unless something is wrong.
const GENEROUS_TIMEOUT: Duration = Duration::from_secs(60);
/// A time that is over soon.
const SHORT_TIMEOUT: Duration = Duration::from_millis(300);

fn shell(script: &str) -> Tool {
    Tool::new("/bin/sh").args(["-c", script]).timeout(GENEROUS_TIMEOUT)
}

/// Whether a process with this id exists and is no zombie.
fn is_alive(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with('Z'))
}

fn wait_until_gone(pid: &str) {
    let deadline = Instant::now() + GENEROUS_TIMEOUT;
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "process {pid} is still alive");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn input_goes_in_and_both_outputs_come_out() {
    let output = shell("cat; echo words >&2; exit 3").input(b"bytes").run().unwrap();
    assert_eq!(
        (output.stdout, output.stderr, output.status.code()),
        (b"bytes".into(), b"words\n".into(), Some(3))
    );
}

#[test]
fn without_input_there_is_nothing_to_read() {
    let output = shell("readlink /proc/self/fd/0; cat").run().unwrap();
    assert_eq!(output.stdout, b"/dev/null\n");
}

#[test]
fn a_flood_is_read_to_its_end_and_not_held() {
    let flood = shell("head -c 20000000 /dev/zero; echo end >&2");
    let output = flood.max_output_bytes(1000, Excess::Discard).run().unwrap();
    assert_eq!((output.stdout.len(), output.status.code()), (1000, Some(0)));
    assert_eq!(output.stderr, b"end\n");
}

#[test]
fn a_flood_ends_a_tool_whose_output_is_closed_at_the_limit() {
    let begin = Instant::now();
    let output = shell("exec cat /dev/zero").max_output_bytes(1000, Excess::Close).run().unwrap();
    assert!(!output.status.success());
    assert_eq!(output.stdout.len(), 1000);
    assert!(begin.elapsed() < GENEROUS_TIMEOUT);
}

#[test]
fn a_tool_that_never_ends_is_killed_with_all_that_it_has_started() {
    let folder = std::env::temp_dir().join(format!("zone-tool-{}-children", std::process::id()));
    let script = format!("echo $$ > {0}; sleep 600 & echo $! >> {0}; wait; sleep 600", folder.display());
    let begin = Instant::now();
    let error = shell(&script).timeout(SHORT_TIMEOUT).run().unwrap_err();
    assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
    assert_eq!(error.to_string(), "/bin/sh took more than 0 s and was killed");
    assert!(begin.elapsed() < GENEROUS_TIMEOUT);
    let pids = fs::read_to_string(&folder).unwrap();
    fs::remove_file(&folder).unwrap();
    assert_eq!(pids.lines().count(), 2, "it had begun: {pids}");
    pids.lines().for_each(wait_until_gone);
}

#[test]
fn a_child_that_outlives_the_tool_and_holds_its_output_does_not_outlive_the_deadline() {
    let begin = Instant::now();
    let error = shell("sleep 600 & exit 0").timeout(SHORT_TIMEOUT).run().unwrap_err();
    assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
    assert!(begin.elapsed() < GENEROUS_TIMEOUT);
}

#[test]
fn a_tool_that_closes_its_outputs_and_goes_on_is_killed_too() {
    let begin = Instant::now();
    let error = shell("exec sleep 600 >&- 2>&-").timeout(SHORT_TIMEOUT).run().unwrap_err();
    assert!(matches!(error, ToolError::TimedOut { .. }), "{error}");
    assert!(begin.elapsed() < GENEROUS_TIMEOUT);
}

#[test]
fn a_tool_that_does_not_read_its_input_is_waited_for_all_the_same() {
    let output = shell("echo done").input(vec![b'x'; 10_000_000]).run().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout, b"done\n");
}

#[test]
fn a_tool_that_is_missing_is_named() {
    assert_eq!(find("no-such-tool"), None);
    assert_eq!(find("../bin/sh/.."), None);
    let error = Tool::new("/usr/sbin/no-such-tool").run().unwrap_err().to_string();
    assert!(error.starts_with("/usr/sbin/no-such-tool can't be started: No such file"), "{error}");
}

#[test]
fn the_environment_is_clean_and_the_same_for_everybody() {
    let env = Tool::new(find("env").unwrap()).env("EXTRA", "given").run().unwrap();
    let text = String::from_utf8(env.stdout).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["EXTRA=given", "LC_ALL=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]);
    let folder = Tool::new(find("pwd").unwrap()).run().unwrap();
    assert_eq!(folder.stdout, b"/\n");
}

#[test]
fn a_tool_is_in_a_process_group_of_its_own() {
    let output = shell("echo $$; cut -d' ' -f5 /proc/$$/stat").run().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let numbers: Vec<_> = text.lines().collect();
    assert_eq!(numbers[0], numbers[1]);
}
