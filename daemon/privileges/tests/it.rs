//! Dropping, in a process of its own: what is dropped is gone for good.

use std::process::Command;

use zone_privileges::is_root;

/// What the example program says in one of its parts.
fn played(part: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_zone-drop-example")).arg(part).output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// Whether this runs as root, as dropping takes; otherwise it says so, also to the list of what was skipped.
fn may_drop(test: &str) -> bool {
    if !is_root() {
        eprintln!("SKIPPED: {test}: it takes root");
        if let Some(path) = std::env::var_os("ZONE_SKIP_LOG") {
            use std::io::Write as _;
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
            let line = format!("{test}: it takes root");
            file.and_then(|mut file| writeln!(file, "{line}")).expect("the skip log can be written");
        }
    }
    is_root()
}

#[test]
fn root_that_was_dropped_holds_nothing_in_any_set_and_can_not_come_back() {
    if !may_drop("root_that_was_dropped_holds_nothing_in_any_set_and_can_not_come_back") {
        return;
    }
    let said = played("drop");
    assert!(said.contains("capabilities: \"0000000000000000\", no_new_privs: true"), "{said}");
    assert!(said.contains("ROOT false"), "{said}");
    assert!(said.contains("AGAIN privileges can't be dropped: "), "{said}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let empty = format!("{set}:\t0000000000000000");
        assert!(said.contains(&empty), "{set} of a program that it executed: {said}");
    }
    let groups = said.lines().find(|line| line.starts_with("Groups:")).map(str::trim);
    assert_eq!(groups, Some("Groups:"), "{said}");
}

#[test]
fn a_thread_that_was_there_before_the_drop_still_holds_and_is_named() {
    if !may_drop("a_thread_that_was_there_before_the_drop_still_holds_and_is_named") {
        return;
    }
    let said = played("second-thread");
    assert!(said.contains("ERROR not served with privileges: thread "), "{said}");
    assert!(said.contains("bounding CAP_") && said.contains("no_new_privs is not set"), "{said}");
}

#[test]
fn root_that_was_not_dropped_is_found_out() {
    if !may_drop("root_that_was_not_dropped_is_found_out") {
        return;
    }
    let said = played("nothing");
    assert!(said.contains("a user id of root") && said.contains("effective CAP_"), "{said}");
}

#[test]
fn giving_up_clears_every_capability_and_root_is_still_named_as_root() {
    let said = played("give-up");
    if is_root() {
        assert!(said.contains("ERROR") && said.contains("a user id of root"), "{said}");
        assert!(!said.contains("CAP_") && !said.contains("no_new_privs"), "{said}");
    } else {
        assert!(said.contains("VERIFIED"), "{said}");
    }
}
