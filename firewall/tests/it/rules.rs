//! What apply, verify and remove do to rulesets.

use serde_json::Value;

use crate::host::{Finished, host};

#[test]
fn on_a_host_without_rules_only_our_own_table_comes_and_goes() {
    let Some(host) = host("only our own table") else { return };
    host.ok(&["apply"]);
    assert_eq!(host.sh("nft list tables"), "table inet zone_proxy\n");
    assert_eq!(host.findings(), Vec::<String>::new());
    host.ok(&["remove"]);
    assert_eq!(host.ruleset(), "");
}

#[test]
fn applying_twice_changes_nothing_the_second_time() {
    let Some(host) = host("applying twice") else { return };
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; } }");
    host.ok(&["apply"]);
    let first = host.numbered();
    assert_eq!(host.ok(&["apply"]), "nothing to change\n");
    assert_eq!(host.ok(&["plan"]), "nothing to change\n");
    assert_eq!(host.numbered(), first);
}

#[test]
fn two_tables_of_others_that_both_drop_get_one_rule_each_and_lose_it_again() {
    let Some(host) = host("two tables that drop") else { return };
    host.nft(
        "table inet filter {
            chain in { type filter hook input priority 0; policy drop;
                ct state vmap { established : accept, related : accept, invalid : drop }
                iif lo accept
                tcp dport 22 accept
                ip saddr 9.9.9.9 drop
            }
        }
        table ip more {
            chain last { counter reject
            }
            chain in { type filter hook input priority 5; policy accept;
                tcp dport 22 accept
                jump last
            }
        }",
    );
    let before = host.ruleset();
    host.ok(&["apply"]);
    let chain = host.sh("nft -s list chain inet filter in");
    let ours = chain.find("zone-proxy: control").expect("a rule in the first table");
    assert!(ours > chain.find("9.9.9.9").unwrap(), "an admin's denial must come first: {chain}");
    // Where the packets are rejected, behind all that the chain on the hook may deny before it calls that one.
    let chain = host.sh("nft -s list chain ip more last");
    let ours = chain.find("zone-proxy: control").expect("a rule in the second table");
    assert!(ours < chain.find("reject").unwrap(), "{chain}");
    assert_eq!(host.findings(), Vec::<String>::new());
    host.ok(&["remove"]);
    assert_eq!(host.ruleset(), before);
}

#[test]
fn iptables_save_and_restore_keep_our_rules_and_theirs() {
    let Some(host) = host("iptables save and restore") else { return };
    if !std::path::Path::new("/usr/sbin/iptables-nft").exists() {
        crate::host::missing(
            "iptables save and restore",
            "/usr/sbin/iptables-nft is missing: apt-get install iptables",
        );
        return;
    }
    host.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\nnetworks = [\"10.9.0.0/16\", \"fd09::/16\"]\n");
    host.sh("for t in iptables-nft ip6tables-nft; do
            $t -A INPUT -i lo -j ACCEPT; $t -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
            $t -A INPUT -p tcp --dport 22 -m comment --comment 'admin ssh' -j ACCEPT
         done
         iptables-nft -A INPUT -j REJECT --reject-with icmp-host-prohibited; ip6tables-nft -P INPUT DROP");
    let saved = || host.sh("iptables-nft-save | grep -v '^#'; ip6tables-nft-save | grep -v '^#'");
    let restored = || {
        host.sh("iptables-nft-save >$PWD/four; ip6tables-nft-save >$PWD/six; iptables-nft-restore $PWD/four; ip6tables-nft-restore $PWD/six".replace("$PWD", &host.dir.path().display().to_string()).as_str())
    };
    let before = saved();
    host.ok(&["apply"]);
    let with_ours = saved();
    let line = "-A INPUT -s 10.9.0.0/16 -p tcp -m tcp --dport 17488 -m comment --comment \"zone-proxy: control\" -j ACCEPT";
    assert!(with_ours.contains(line), "{with_ours}");
    assert!(with_ours.find(line) < with_ours.find("-j REJECT"), "{with_ours}");
    restored();
    assert_eq!(saved(), with_ours);
    assert_eq!(host.findings(), Vec::<String>::new());
    assert_eq!(host.ok(&["apply"]), "nothing to change\n");
    host.ok(&["remove"]);
    assert_eq!(saved(), before);
}

/// Of each of these the `nftables` crate's types know nothing or lose something.
const STRANGE: &str = include_str!("strange.nft");

#[test]
fn a_ruleset_full_of_things_that_nobody_here_knows_stays_whole() {
    let Some(host) = host("a strange ruleset") else { return };
    host.nft(STRANGE);
    let before = host.ruleset();
    host.ok(&["apply"]);
    let drift = |found: &&Value| found["level"] == "drift";
    assert_eq!(host.all_findings().iter().filter(drift).count(), 0, "{:#?}", host.all_findings());
    let ours = |line: &&str| !line.contains("zone-proxy: ");
    let during = host.sh("nft -s list ruleset");
    let foreign = during.split("table inet zone_proxy").next().unwrap();
    let foreign: Vec<_> = foreign.lines().filter(ours).collect();
    assert_eq!(foreign.join("\n").trim(), before.trim());
    host.ok(&["remove"]);
    assert_eq!(host.ruleset(), before);
}

#[test]
fn drift_is_named_rule_by_rule_and_mended_by_apply() {
    let Some(host) = host("drift") else { return };
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; } }");
    host.ok(&["apply"]);
    host.sh("nft flush chain inet filter in; nft add rule inet zone_proxy input tcp dport 9 drop; \
             nft add rule inet filter in tcp dport 1099 accept comment '\"zone-proxy: endpoint\"'");
    let found = host.findings();
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found.iter().any(|line| line == "unexpected: table inet zone_proxy: there is 'chain input: tcp dport 9 drop'"));
    assert!(
        found.iter().any(|line| line.starts_with("missing: inet filter in: 'tcp dport 17488 accept")),
        "{found:#?}"
    );
    assert!(
        found.iter().any(|line| line.starts_with("unexpected: inet filter in: there is 'tcp dport 1099")),
        "{found:#?}"
    );
    let plan = host.ok(&["plan"]);
    assert!(
        plan.contains("  - chain input: tcp dport 9 drop\n")
            && plan.contains("\n+ inet filter in: tcp dport 17488")
    );
    host.ok(&["apply"]);
    assert_eq!(host.findings(), Vec::<String>::new());
}

#[test]
fn an_admins_denial_of_our_port_is_reported_and_left() {
    let Some(host) = host("a denial") else { return };
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; tcp dport 17000-18000 drop; } }");
    let before = host.ruleset();
    let said = host.ok(&["apply"]);
    assert!(
        said.contains(
            "closed: port 17488 (control), IPv4: dropped by 'tcp dport 17000-18000 drop' (inet filter in"
        ),
        "{said}"
    );
    assert!(host.ruleset().contains(before.trim()));
    assert!(host.findings().iter().any(|line| line.starts_with("blocked: port 17488")));
}

#[test]
fn a_rule_that_an_admin_puts_behind_ours_makes_it_move() {
    let Some(host) = host("a later denial") else { return };
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; } }");
    host.ok(&["apply"]);
    host.sh("nft add rule inet filter in tcp dport 443 accept");
    assert_eq!(host.findings(), Vec::<String>::new());
    host.sh("nft add rule inet filter in ip saddr 192.0.2.0/24 drop");
    let found = host.findings();
    assert!(found.len() == 1 && found[0].starts_with("altered: inet filter in"), "{found:#?}");
    host.ok(&["apply"]);
    let chain = host.sh("nft list chain inet filter in");
    assert!(chain.find("192.0.2.0/24").unwrap() < chain.find("zone-proxy: control").unwrap(), "{chain}");
    assert_eq!(chain.matches("zone-proxy: control").count(), 1);
}

#[test]
fn removal_takes_away_also_what_a_crash_has_left() {
    let Some(host) = host("removal of orphans") else { return };
    host.nft(
        "table inet filter { chain in { type filter hook input priority 0; policy drop; } }
              table ip other { chain odd { tcp dport 2001 accept comment \"zone-proxy: endpoint\"; } }",
    );
    host.sh("nft add rule inet filter in tcp dport 2005 accept comment '\"zone-proxy: module-server\"'");
    host.ok(&["remove"]);
    assert_eq!(
        host.ruleset(),
        "table inet filter {\n\tchain in {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n}\n\
         table ip other {\n\tchain odd {\n\t}\n}\n"
    );
    assert_eq!(host.ok(&["remove"]), "nothing to change\n");
}

#[test]
fn a_host_without_nft_is_told_so_in_one_line() {
    let Some(host) = host("no nft") else { return };
    let hidden = "mount -t tmpfs none /usr/sbin && exec \"$@\"";
    let mut command = host.command("unshare");
    command.args(["-m", "sh", "-c", hidden, "sh", env!("CARGO_BIN_EXE_zone-firewall"), "apply"]);
    command.arg("--config").arg(host.path("firewall.toml")).arg("--state").arg(host.path("state"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(said, "zone-firewall: there is no nft(8) on this host: install the package nftables\n");
}

#[test]
fn without_the_capability_the_reason_is_told_in_one_line() {
    let Some(host) = host("no capability") else { return };
    let mut command = host.command("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", env!("CARGO_BIN_EXE_zone-firewall")]);
    command
        .arg("--config")
        .arg(host.path("firewall.toml"))
        .arg("--state")
        .arg(host.path("state"))
        .arg("apply");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("CAP_NET_ADMIN") && said.lines().count() == 1, "{said}");
    assert!(!said.contains("nf_tables"), "the kernel is all right: {said}");
}

#[test]
fn what_may_not_be_meant_is_noted_by_plan_and_is_no_change() {
    let Some(host) = host("notes") else { return };
    host.sh(
        "ip link add br0 type bridge; ip link add eth7 type veth peer name eth8; ip link set eth7 master br0",
    );
    host.configure("[control]\nopen = true\ninterfaces = [\"mgmt0\", \"eth7\", \"br0\"]\n");
    let notes = "note: 17488 listens on 0.0.0.0 only: IPv6 is closed; add \"::\" to control.listen to open it\n\
        note: control.interfaces names eth7, which is a port of br0: packets come in by br0, so name that one\n\
        note: control.interfaces names mgmt0, and this host has no such device: nothing is open there until it has one\n";
    let plan = host.ok(&["plan"]);
    assert!(plan.starts_with("add table inet zone_proxy\n") && plan.ends_with(notes), "{plan}");
    assert!(!host.ok(&["apply"]).contains("note: "));
    assert_eq!(host.ok(&["plan"]), format!("nothing to change\n{notes}"));
    let json: serde_json::Value = serde_json::from_str(&host.ok(&["plan", "--json"])).unwrap();
    assert_eq!((json["changes"].as_array().unwrap().len(), json["notes"].as_array().unwrap().len()), (0, 3));
    assert_eq!(host.findings(), Vec::<String>::new());
}

#[test]
fn a_wrong_file_is_refused_and_nothing_changes() {
    let Some(host) = host("a wrong file") else { return };
    host.configure("[control]\nopen = yes\n");
    let said = host.run(&["apply"]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("firewall.toml:2: "), "{}", said.err);
    assert_eq!(host.ruleset(), "");
}

#[test]
fn where_firewalld_refuses_its_part_nothing_stays_changed() {
    let Some(host) = host("firewalld refuses") else { return };
    host.nft("table inet filter { chain in { type filter hook input priority 0; policy drop; } }");
    host.configure("");
    host.ok(&["apply"]);
    let before = host.ruleset();
    host.configure("[control]\nopen = true\n");
    // A firewalld that runs and refuses every change: only then can the failure be had at will.
    std::fs::create_dir(host.path("bin")).unwrap();
    let script = "#!/bin/sh\n[ \"$1\" = --state ] && exit 0\necho 'Authorization failed.' >&2; exit 253\n";
    std::fs::write(host.path("bin/firewall-cmd"), script).unwrap();
    host.sh(&format!("chmod 755 {}", host.path("bin/firewall-cmd").display()));
    let over = format!(
        "mount -t overlay none -o lowerdir={}:/usr/bin /usr/bin && exec \"$@\"",
        host.path("bin").display()
    );
    let output = host.program_under(&["sh", "-c", &over, "sh"], &["apply"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("firewalld: /usr/bin/firewall-cmd: Authorization failed."), "{said}");
    assert_eq!(host.ruleset(), before);
    host.configure("");
    assert_eq!(host.ok(&["apply"]), "nothing to change\n");
}

#[test]
fn a_kernel_without_nftables_is_named_in_one_line_and_nothing_is_changed() {
    let test = "no nftables in the kernel";
    let Some(host) = host(test) else { return };
    if !std::path::Path::new("/usr/bin/strace").exists() {
        crate::host::missing(test, "/usr/bin/strace is missing: apt-get install strace");
        return;
    }
    // What such a kernel answers to whoever asks for a netfilter socket.
    let kernel = ["/usr/bin/strace", "-f", "-o", "/dev/null", "-e", "inject=socket:error=EPROTONOSUPPORT"];
    for verb in ["plan", "apply", "verify", "remove"] {
        let said: Finished = host.program_under(&kernel, &[verb]).output().expect("strace runs").into();
        assert_eq!(said.code, Some(2), "{verb}: {}{}", said.out, said.err);
        assert_eq!(said.err.lines().count(), 1, "{}", said.err);
        assert!(said.err.contains("the kernel needs nf_tables"), "{}", said.err);
        assert!(!said.err.contains("CAP_NET_ADMIN"), "{}", said.err);
    }
    assert_eq!(host.ruleset(), "");
}

#[test]
fn an_nft_that_crashes_or_says_nonsense_is_told_from_a_kernel_that_refuses() {
    let Some(host) = host("a broken nft") else { return };
    std::fs::create_dir(host.path("bin")).unwrap();
    let over = format!(
        "mount -t overlay none -o lowerdir={}:/usr/sbin /usr/sbin && exec \"$@\"",
        host.path("bin").display()
    );
    for (script, why) in [
        ("kill -ABRT $$", "/usr/sbin/nft crashed (signal 6); this is a fault of nft"),
        ("echo nonsense", "the rules that were loaded are not as meant"),
        ("echo 'nft: no space left' >&2; exit 1", "/usr/sbin/nft: nft: no space left"),
    ] {
        std::fs::write(host.path("bin/nft"), format!("#!/bin/sh\n{script}\n")).unwrap();
        host.sh(&format!("chmod 755 {}", host.path("bin/nft").display()));
        let said: Finished =
            host.program_under(&["sh", "-c", &over, "sh"], &["apply"]).output().expect("sh runs").into();
        assert_eq!((said.code, said.err.lines().count()), (Some(2), 1), "{}", said.err);
        assert!(said.err.contains(why) && !said.err.contains("CAP_NET_ADMIN"), "{}", said.err);
    }
    assert_eq!(host.ruleset(), "");
}
