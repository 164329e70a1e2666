//! Tables of iptables-legacy, for kernels that have no list of hooks. What is in them is not read.

use crate::attributes::append;
use crate::model::{Family, Name};
use crate::request::{append_name, append_number, header};
use crate::uapi::hooked;

/// `NF_INET_*` (netfilter.h).
const PREROUTING: u32 = 0;
const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// The hooks of each table by their numbers, with their priorities (`iptable_filter.c` and so on).
const HOOKS: [(&str, &[(u32, i32)]); 5] = [
    ("raw", &[(PREROUTING, -300), (OUTPUT, -300)]),
    ("mangle", &[(PREROUTING, -150), (INPUT, -150), (FORWARD, -150), (OUTPUT, -150), (POSTROUTING, -150)]),
    ("nat", &[(PREROUTING, -100), (INPUT, 100), (OUTPUT, -100), (POSTROUTING, 100)]),
    ("filter", &[(INPUT, 0), (FORWARD, 0), (OUTPUT, 0)]),
    ("security", &[(INPUT, 50), (FORWARD, 50), (OUTPUT, 50)]),
];

/// The hooks of all tables that there are, as the messages that a kernel with a list of hooks would send. Where the kernel does not
/// show the names of tables, or not to this process, there is nothing.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    for (family, names, function, module) in [
        (Family::Ip, "ip_tables_names", "ipt_do_table", "iptable"),
        (Family::Ip6, "ip6_tables_names", "ip6t_do_table", "ip6table"),
    ] {
        // The namespace of this thread, which need not be that of the process.
        let names = std::fs::read_to_string(format!("/proc/thread-self/net/{names}")).unwrap_or_default();
        for (table, hooks) in HOOKS.iter().filter(|(table, _)| names.lines().any(|name| name == *table)) {
            for (number, priority) in *hooks {
                let mut message = header(family.number());
                append_number(&mut message, hooked::HOOKNUM, *number);
                append(&mut message, hooked::PRIORITY, &priority.to_be_bytes());
                append_name(&mut message, hooked::FUNCTION_NAME, &Name::from(function));
                append_name(&mut message, hooked::MODULE_NAME, &Name::from(&*format!("{module}_{table}")));
                messages.push(message);
            }
        }
    }
    messages
}
