//! The firewalls that hosts have before we come. All but the first let ssh in on 22 and nothing else.

use std::time::Duration;

use crate::lab::roots::{APPLIANCE, FIREWALLD, Root};
use crate::lab::{Cmd, Error, Result, Scene};

/// The configuration of Debian's nftables.service.
const NFTABLES_CONF: &str = "/etc/nftables.conf";

/// How a tool shows the rules, without what traffic counted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) name: &'static str,
    /// A line for sh(1).
    pub(super) shown_by: &'static str,
    /// Whether it stays the same while rules come and go that mean the same.
    pub(super) lasting: bool,
}

const RULESET: View =
    View { name: "nft list ruleset", shown_by: "nft --stateless list ruleset", lasting: true };
const CONFIGURATION: View = View { name: NFTABLES_CONF, shown_by: "cat /etc/nftables.conf", lasting: true };

/// How long a firewall may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A host's own firewall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foreign {
    /// No firewall at all.
    Nothing,
    /// A chain that drops what it does not accept, by nftables.service.
    PolicyDrop,
    /// Two such chains in two tables; what one accepts, the other drops.
    TwoTables,
    /// firewalld's default zone.
    Firewalld,
    /// What many a host of the RPM family has: `iptables-nft`, the last rule rejects.
    Iptables,
    /// Statements and objects that tools of a few years ago do not know.
    Modern,
}

const POLICY_DROP: &str = r#"#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iif "lo" accept
		ip protocol icmp accept
		meta l4proto ipv6-icmp accept
		tcp dport 22 counter accept comment "the admins' own ssh"
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
	}
}
"#;

const TWO_TABLES: &str = r"#!/usr/sbin/nft -f
flush ruleset
table ip office {
	chain in {
		type filter hook input priority -10; policy drop;
		ct state { established, related } accept
		ip protocol icmp accept
		tcp dport 22 accept
	}
}
table ip6 office {
	chain in {
		type filter hook input priority -10; policy drop;
		ct state { established, related } accept
		meta l4proto ipv6-icmp accept
		tcp dport 22 accept
	}
}
table inet site {
	set bad {
		type ipv4_addr
		flags interval
		elements = { 198.18.0.0/15 }
	}
	chain services {
		tcp dport 22 accept
	}
	chain input {
		type filter hook input priority 10; policy accept;
		ct state established,related accept
		meta l4proto { icmp, ipv6-icmp } accept
		ip saddr @bad drop
		jump services
		counter drop
	}
}
";

const MODERN: &str = r#"#!/usr/sbin/nft -f
flush ruleset
table inet office {
	synproxy web {
		mss 1460
		wscale 7
		timestamp sack-perm
	}
	ct timeout patient {
		protocol tcp
		l3proto ip
		policy = { established : 7200, close : 20 }
	}
	limit slow {
		rate 10/second
	}
	quota little {
		over 100 mbytes
	}
	map by_port {
		type inet_service : verdict
		elements = { 22 : accept, 25 : drop }
	}
	set seen {
		type ipv4_addr
		size 1024
		flags dynamic,timeout
		timeout 1m
	}
	chain early {
		type filter hook prerouting priority raw; policy accept;
		tcp dport 8443 tcp flags syn notrack
	}
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		iif "lo" accept
		tcp dport 8443 ct state invalid,untracked synproxy name "web"
		tcp dport 8444 ct state invalid,untracked synproxy mss 1460 wscale 7 timestamp sack-perm
		ct state invalid drop
		ip protocol icmp accept
		meta l4proto ipv6-icmp accept
		tcp dport 22 ct timeout set "patient"
		tcp dport 80 limit name "slow" accept
		tcp dport 80 quota name "little" drop
		tcp dport 8080 add @seen { ip saddr limit rate 5/second } accept
		tcp dport vmap @by_port
		tcp dport 81 meta time "2001-01-01 00:00:00"-"2001-01-02 00:00:00" drop
		tcp dport 82 osf name "Linux" counter
		numgen random mod 2 vmap { 0 : continue, 1 : continue }
		jump { counter; }
	}
}
"#;

/// `icmp` or `ipv6-icmp`, and what rejects.
const IPTABLES: &str = "*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p ICMP -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p tcp -m conntrack --ctstate NEW -m tcp --dport 22 -m comment --comment \"the admins' own ssh\" -j ACCEPT
-A INPUT -j REJECT --reject-with PROHIBITED
-A FORWARD -j REJECT --reject-with PROHIBITED
COMMIT
";

impl Foreign {
    /// All; the slowest first, since cases run side by side.
    pub(super) const ALL: [Self; 6] =
        [Self::Firewalld, Self::Nothing, Self::PolicyDrop, Self::TwoTables, Self::Iptables, Self::Modern];

    /// What its case is called.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Nothing => "on a host without rules of its own",
            Self::PolicyDrop => "on a host whose nftables policy is drop",
            Self::TwoTables => "on a host with two tables that both drop",
            Self::Firewalld => "on a host with firewalld",
            Self::Iptables => "on a host with iptables-nft whose last rule rejects",
            Self::Modern => "on a host whose rules use synproxy, verdict maps and newer objects",
        }
    }

    /// What the host is made of.
    pub(super) fn root(self) -> Root {
        if self == Self::Firewalld { FIREWALLD } else { APPLIANCE }
    }

    /// Its service, which is restarted while we are there.
    pub(super) fn unit(self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::Iptables => None,
            Self::PolicyDrop | Self::TwoTables | Self::Modern => Some("nftables.service"),
            Self::Firewalld => Some("firewalld.service"),
        }
    }

    /// Whether it keeps connections out that it does not know.
    pub(super) fn closes(self) -> bool {
        self != Self::Nothing
    }

    /// What it is, as its own tools tell it.
    pub(super) fn views(self) -> &'static [View] {
        match self {
            Self::Nothing => &[RULESET],
            Self::PolicyDrop | Self::TwoTables | Self::Modern => &[RULESET, CONFIGURATION],
            Self::Firewalld => &[
                RULESET,
                View {
                    name: "/etc/firewalld",
                    shown_by: "find /etc/firewalld -type f -exec sha256sum {} + | sort -k 2",
                    // firewalld keeps a copy of each file that it changes.
                    lasting: false,
                },
            ],
            Self::Iptables => &[
                // iptables-save keeps neither nft's comments nor a rule without a counter.
                View { lasting: false, ..RULESET },
                View {
                    name: "our own table",
                    shown_by: "nft --stateless list table inet zone_proxy 2>/dev/null || true",
                    lasting: true,
                },
                View {
                    name: "iptables-save",
                    shown_by: r"iptables-save | sed -e '/^#/d' -e 's/\[[0-9:]*\]/[0:0]/'",
                    lasting: true,
                },
                View {
                    name: "ip6tables-save",
                    shown_by: r"ip6tables-save | sed -e '/^#/d' -e 's/\[[0-9:]*\]/[0:0]/'",
                    lasting: true,
                },
            ],
        }
    }

    /// Puts it up on the host `proxy`, which has booted.
    pub(super) fn set_up(self, scene: &mut Scene<'_>) -> Result<()> {
        let rules = match self {
            Self::Nothing => return Ok(()),
            Self::PolicyDrop => POLICY_DROP,
            Self::TwoTables => TWO_TABLES,
            Self::Modern => MODERN,
            Self::Firewalld => {
                let running = Cmd::new("firewall-cmd").arg("--state");
                let host = scene.host("proxy")?;
                let up = scene.until(START_TIMEOUT, || host.run(&running).is_ok_and(|output| output.ok()));
                return if up { Ok(()) } else { Err(Error::other("firewalld does not run")) };
            }
            Self::Iptables => {
                for (program, icmp, prohibited) in [
                    ("iptables-restore", "icmp", "icmp-host-prohibited"),
                    ("ip6tables-restore", "ipv6-icmp", "icmp6-adm-prohibited"),
                ] {
                    let rules = IPTABLES.replace("ICMP", icmp).replace("PROHIBITED", prohibited);
                    scene.must("proxy", &Cmd::new(program).input(rules))?;
                }
                let version = scene.must("proxy", &Cmd::new("iptables").arg("--version"))?.stdout;
                return if version.contains("nf_tables") {
                    Ok(())
                } else {
                    Err(Error::other(format!("this is no iptables-nft: {version}")))
                };
            }
        };
        scene.host("proxy")?.put(NFTABLES_CONF, rules.as_bytes(), 0o755)?;
        scene.must("proxy", &Cmd::new("systemctl").args(["restart", "nftables.service"])).map(|_| ())
    }
}
