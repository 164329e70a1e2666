//! What the threat model says that a process may not, held against what is tried.

use zone_captured::{Attempt, Right};

/// What each process has to be denied; all of them are rows of one table.
const THREAT_MODEL: &str = include_str!("../../../../../docs/threat-model.md");

/// A few words of a row, and names of attempts that show them.
type Claim = (&'static str, &'static [&'static str]);

const RELAY: &[Claim] = &[
    (
        "open or find a file",
        &["openat(file, O_RDONLY)", "openat(/, O_PATH)", "open_by_handle_at", "unlink(file)"],
    ),
    ("start a program or a thread", &["execve(/bin/true)", "execveat(/bin/true)", "fork", "clone", "clone3"]),
    (
        "make a socket or a connection",
        &[
            "socket(AF_INET)",
            "socket(AF_UNIX), connect by path, write",
            "socket(AF_NETLINK)",
            "io_uring_setup",
        ],
    ),
    (
        "turn one that it has elsewhere",
        &[
            "accepted, v4: connect(AF_UNSPEC), connect, write",
            "listener, v6: shutdown, connect, write",
            "channel: connect by path, write",
            "listener, v4: shutdown, sendto(MSG_FASTOPEN, address)",
        ],
    ),
    ("listen again", &["listener: shutdown, listen, accept4", "bind(listener)"]),
    (
        "signal or look into another process",
        &[
            "kill(other, SIGCONT)",
            "tgkill(other, SIGCONT)",
            "ptrace(PTRACE_SEIZE, other)",
            "pidfd_open(other)",
        ],
    ),
    ("run memory that it wrote", &["mmap(PROT_EXEC)", "mprotect(PROT_EXEC)", "memfd_create"]),
];

const CONTROL: &[Claim] = &[
    (
        "start a program or a process",
        &["execve(/bin/true)", "execveat(/bin/true)", "fork", "clone", "clone3"],
    ),
    (
        "open another file",
        &["openat(file, O_RDONLY)", "openat(/etc/passwd)", "unlink(file)", "open_by_handle_at"],
    ),
    (
        "make a network connection",
        &[
            "socket(AF_INET), connect, write",
            "socket(AF_INET6), connect, write",
            "socket(AF_INET), sendto(MSG_FASTOPEN, address)",
            "socket(AF_INET), TCP_FASTOPEN_CONNECT",
            "accepted, v4: connect(AF_UNSPEC), connect, write",
            "io_uring_setup",
        ],
    ),
    (
        "send packets",
        &["socket(AF_INET, SOCK_DGRAM), sendto", "socket(AF_INET, SOCK_RAW)", "socket(AF_PACKET)"],
    ),
    (
        "look into another process",
        &["ptrace(PTRACE_SEIZE, other)", "process_vm_readv(other)", "pidfd_open(other), pidfd_getfd"],
    ),
    ("run memory that it wrote", &["mmap(PROT_EXEC)", "mmap(PROT_WRITE | PROT_EXEC)", "mprotect(PROT_EXEC)"]),
    ("touch the firewall", &["socket(AF_NETLINK)"]),
];

#[test]
fn what_the_threat_model_says_that_a_process_may_not_is_what_is_tried_with_it() {
    hold("zone-relay", RELAY, &zone_captured::relay());
    hold("zone-proxy", CONTROL, &zone_captured::control(false));
}

fn hold(process: &str, claims: &[Claim], attempts: &[Attempt]) {
    let begin = format!("| `{process}` |");
    let row = THREAT_MODEL.lines().find(|line| line.starts_with(&begin)).expect("its row");
    let may_not = row.trim_end_matches(" |").rsplit(" | ").next().expect("its last column");
    let claimed: Vec<_> = claims.iter().map(|(words, _)| *words).collect();
    assert_eq!(may_not, claimed.join(", "), "the row of {process}, and what is tried");
    for (words, names) in claims {
        for name in *names {
            let attempt = attempts.iter().find(|attempt| attempt.name == *name);
            let right = attempt.unwrap_or_else(|| panic!("{process}, {words}: '{name}' is not tried")).right;
            let allowed = matches!(right, Right::Harmless(_) | Right::Reaches { .. });
            assert!(!allowed, "{process} may not {words}, it is said, and '{name}' is right: {right:?}");
        }
    }
}
