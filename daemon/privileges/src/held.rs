//! What a thread holds, by its `/proc/PID/status` (proc(5)).

/// Whether the bounding set must be empty too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// It must: root was dropped.
    Bounding,
    /// It may hold something, since an ordinary user can't change that.
    Ordinary,
}

/// A process as the kernel shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Effective user id.
    pub uid: u32,
    /// Effective capabilities, 16 hexadecimal digits.
    pub capabilities: String,
    /// Whether executing a program can bring no privileges.
    pub no_new_privs: bool,
    /// Whether its system calls are filtered, see seccomp(2).
    pub seccomp: Seccomp,
    /// How many filters there are; `None` before Linux 5.9, which does not tell.
    pub filters: Option<u32>,
}

/// The mode of seccomp(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seccomp {
    /// Every call is carried out.
    Off,
    /// Four calls are.
    Strict,
    /// Filters decide.
    Filter,
}

impl std::fmt::Display for Seccomp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Strict => "strict",
            Self::Filter => "filter",
        })
    }
}

impl Facts {
    /// Reads the text of a `/proc/PID/status`; `None` where it is none.
    pub fn read(status: &str) -> Option<Self> {
        Some(Self {
            uid: ids(status, "Uid")?.get(1).copied()?,
            capabilities: field(status, "CapEff")?.to_owned(),
            no_new_privs: field(status, "NoNewPrivs")? == "1",
            seccomp: match field(status, "Seccomp")? {
                "0" => Seccomp::Off,
                "1" => Seccomp::Strict,
                _ => Seccomp::Filter,
            },
            filters: field(status, "Seccomp_filters").and_then(|number| number.parse().ok()),
        })
    }
}

/// Everything that a thread should not hold, in words.
pub(crate) fn held(status: &str, strictness: Strictness) -> Vec<String> {
    let mut held = Vec::new();
    for (name, what) in [("Uid", "a user id of root"), ("Gid", "a group id of root")] {
        if ids(status, name).is_none_or(|ids| ids.contains(&0)) {
            held.push(what.to_owned());
        }
    }
    if ids(status, "Groups").is_some_and(|groups| groups.contains(&0)) {
        held.push("the group of root".to_owned());
    }
    let sets = [
        ("CapInh", "inheritable"),
        ("CapPrm", "permitted"),
        ("CapEff", "effective"),
        ("CapAmb", "ambient"),
        ("CapBnd", "bounding"),
    ];
    for (name, set) in sets {
        let bits = field(status, name).and_then(|hex| u64::from_str_radix(hex, 16).ok());
        match bits {
            Some(0) => {}
            Some(_) if name == "CapBnd" && strictness == Strictness::Ordinary => {}
            Some(bits) => held.push(format!("{set} {}", names(bits))),
            None => held.push(format!("an unknown {set} set")),
        }
    }
    if field(status, "NoNewPrivs") != Some("1") {
        held.push("no_new_privs is not set".to_owned());
    }
    held
}

fn names(bits: u64) -> String {
    let known = caps::all().into_iter().filter(|capability| bits & capability.bitmask() != 0);
    let mut names: Vec<_> = known.map(|capability| (capability.index(), capability.to_string())).collect();
    names.sort();
    let unknown = caps::all().into_iter().fold(bits, |bits, capability| bits & !capability.bitmask());
    let mut names: Vec<_> = names.into_iter().map(|(_, name)| name).collect();
    if unknown != 0 {
        names.push(format!("{unknown:#x}"));
    }
    names.join(", ")
}

fn ids(status: &str, name: &str) -> Option<Vec<u32>> {
    field(status, name)?.split_whitespace().map(|id| id.parse().ok()).collect()
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uid: &str, effective: &str, bounding: &str, no_new_privs: &str) -> String {
        format!(
            "Name:\tx\nUid:\t{uid}\nGid:\t7\t7\t7\t7\nGroups:\t \nCapInh:\t0000000000000000\n\
             CapPrm:\t0000000000000000\nCapEff:\t{effective}\nCapBnd:\t{bounding}\nCapAmb:\t0000000000000000\n\
             NoNewPrivs:\t{no_new_privs}\n"
        )
    }

    #[test]
    fn a_thread_that_holds_nothing_is_told_from_one_that_does() {
        let zeros = "0000000000000000";
        assert!(held(&status("7\t7\t7\t7", zeros, zeros, "1"), Strictness::Bounding).is_empty());
        let saved_root = held(&status("7\t7\t0\t7", zeros, zeros, "1"), Strictness::Bounding);
        assert_eq!(saved_root, ["a user id of root"]);
        let net_admin = held(&status("7\t7\t7\t7", "0000000000001000", zeros, "0"), Strictness::Bounding);
        assert_eq!(net_admin, ["effective CAP_NET_ADMIN", "no_new_privs is not set"]);
    }

    #[test]
    fn a_bounding_set_counts_only_after_root_was_dropped() {
        let status = status("7\t7\t7\t7", "0000000000000000", "8000000000000400", "1");
        assert!(held(&status, Strictness::Ordinary).is_empty());
        assert_eq!(
            held(&status, Strictness::Bounding),
            ["bounding CAP_NET_BIND_SERVICE, 0x8000000000000000"]
        );
    }

    #[test]
    fn filters_are_told_where_the_kernel_tells_them() {
        let status = status("7\t7\t7\t7", "0000000000000000", "0000000000000000", "1");
        let filtered = Facts::read(&format!("{status}Seccomp:\t2\nSeccomp_filters:\t3\n")).unwrap();
        assert_eq!((filtered.seccomp, filtered.filters), (Seccomp::Filter, Some(3)));
        let older = Facts::read(&format!("{status}Seccomp:\t0\n")).unwrap();
        assert_eq!((older.seccomp, older.filters), (Seccomp::Off, None));
    }

    #[test]
    fn a_text_that_is_no_status_counts_as_holding_everything() {
        assert_eq!(held("", Strictness::Ordinary).len(), 8);
        assert_eq!(Facts::read("Name:\tx\n"), None);
    }
}
