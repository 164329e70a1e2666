//! What rules ask for.

use rand::RngExt;

use super::protocols::Network;
use super::{Grammar, Place};
use crate::model::{Family, Part};

impl Grammar {
    /// A field of the network header that the table's packets have, as `ip saddr`, and whether it is of IPv6.
    pub(super) fn field(&mut self, place: Place, name: &str) -> (bool, String) {
        let v6 = match place.family {
            Family::Ip => false,
            Family::Ip6 => true,
            Family::Inet | Family::Netdev => match self.protocols.network {
                Some(Network::V4) => false,
                Some(Network::V6) => true,
                _ => self.chance(45),
            },
        };
        (v6, format!("{} {name}", if v6 { "ip6" } else { "ip" }))
    }

    /// A condition, each kind about as often as firewalls of hosts have it.
    pub(super) fn condition(&mut self, place: Place) -> Part {
        match self.values.rng.random_range(0..1000) {
            240..290 => self.ports("tcp sport", true),
            290..320 => self.ports("th dport", false),
            320..340 => self.ports("udp dport", false),
            340..500 => self.source(place),
            500..530 => self.destination(place),
            530..580 => self.protocol(place),
            580..680 if place.has_connections => self.connection(place),
            680..740 => self.device(place),
            740..790 => self.mark(),
            790..830 => self.flags(),
            830..900 => self.concatenation(place),
            900..920 => self.text(&[
                "meta pkttype host",
                "meta pkttype != host",
                "meta pkttype { broadcast, multicast }",
                "meta pkttype { host, broadcast }",
            ]),
            920..945 if place.has_connections && place.family != Family::Netdev => self.route(place),
            945..950 => self.text(&[
                "meta length 60",
                "meta length < 100",
                "meta length 1000-2000",
                "meta length != 20",
                "meta length > 200",
            ]),
            950..960 => self.text(&[
                "ether saddr 02:00:00:00:00:01",
                "ether saddr != 02:00:00:00:00:01",
                "ether saddr { 02:00:00:00:00:07, 02:00:00:00:00:08 }",
            ]),
            960..963 => self.undecidable(place),
            _ => self.ports("tcp dport", false),
        }
    }

    fn text(&mut self, texts: &[&str]) -> Part {
        let position = self.up_to(texts.len() - 1);
        Part::Text(texts[position].to_owned())
    }

    fn negated(&mut self, percent: u32) -> &'static str {
        if self.chance(percent) { " !=" } else { "" }
    }

    fn ports(&mut self, field: &str, source: bool) -> Part {
        let field = if field == "th dport" && self.chance(70) {
            "meta l4proto { tcp, udp } th dport".to_owned()
        } else {
            field.to_owned()
        };
        let not = self.negated(18);
        let kind = "inet_service";
        match self.up_to(9) {
            0..4 => Part::Text(format!("{field}{not} {}", self.values.ports(source, 1, false)[0])),
            4..7 => {
                let count = 1 + self.up_to(3);
                let elements = self.values.ports(source, count, false);
                Part::Listed { before: format!("{field}{not}"), elements }
            }
            7 | 8 => {
                let count = 1 + self.up_to(4);
                let exact = self.chance(40);
                let elements = self.values.ports(source, count, exact);
                let flags = if exact { "" } else { " flags interval;" };
                let name = self.named(false, format!("type {kind};{flags}"), elements);
                Part::Text(format!("{field}{not} @{name}"))
            }
            _ => {
                let masked =
                    ["& 0xff00 == 0x4400", "& 0xfffc == 0x444c", "& 0x0001 == 0x0000", "& 0x000f != 0x0000"];
                let compared = ["> 17487", "< 17487", ">= 17487", "<= 17486"];
                let position = self.up_to(3);
                let rest = if self.chance(60) { masked[position] } else { compared[position] };
                Part::Text(format!("{field} {rest}"))
            }
        }
    }

    fn source(&mut self, place: Place) -> Part {
        let (v6, field) = self.field(place, "saddr");
        let not = self.negated(20);
        let kind = if v6 { "ipv6_addr" } else { "ipv4_addr" };
        match self.up_to(9) {
            0..4 => Part::Text(format!("{field}{not} {}", self.values.addresses(v6, 1, false)[0])),
            4..6 => {
                let count = 1 + self.up_to(3);
                let elements = self.values.addresses(v6, count, false);
                Part::Listed { before: format!("{field}{not}"), elements }
            }
            6..9 => {
                let count = self.up_to(7);
                let exact = self.chance(35);
                let mut elements = self.values.addresses(v6, count, exact);
                let mut header = format!("type {kind};");
                if !exact {
                    header.push_str(" flags interval;");
                } else if self.chance(25) {
                    header.push_str(" flags timeout;");
                    for element in &mut elements {
                        element.push_str(" timeout 1h");
                    }
                } else if self.chance(33) {
                    header.push_str(" counter;");
                }
                let name = self.named(false, header, elements);
                Part::Text(format!("{field}{not} @{name}"))
            }
            _ => {
                let (mask, rest) = self.values.masked(v6);
                let operator = if not.is_empty() { "==" } else { "!=" };
                Part::Text(format!("{field} & {mask} {operator} {rest}"))
            }
        }
    }

    fn destination(&mut self, place: Place) -> Part {
        let (v6, field) = self.field(place, "daddr");
        let not = self.negated(25);
        let ours = if v6 { "<6>" } else { "<4>" };
        match self.up_to(3) {
            0 => Part::Text(format!("{field}{not} {ours}")),
            1 => {
                let mut elements = self.values.addresses(v6, 1, true);
                if self.chance(50) {
                    elements.push(ours.to_owned());
                }
                Part::Listed { before: format!("{field}{not}"), elements }
            }
            2 => Part::Text(format!("{field}{not} {ours}/24")),
            _ => Part::Text(format!("{field}{not} {}", self.values.addresses(v6, 1, false)[0])),
        }
    }

    fn protocol(&mut self, place: Place) -> Part {
        let mut texts = vec![
            "meta l4proto tcp",
            "meta l4proto != tcp",
            "meta l4proto != udp",
            "meta l4proto { icmp, ipv6-icmp }",
            "meta l4proto { tcp, udp }",
            "meta l4proto udp",
            "meta protocol ip",
            "meta protocol ip6",
            "meta protocol { ip, ip6 }",
        ];
        if place.family.has_v4() {
            texts.extend(["ip protocol tcp", "ip protocol != tcp", "ip version 4", "ip protocol icmp"]);
        }
        if place.family.has_v6() {
            texts.extend(["ip6 nexthdr tcp", "ip6 nexthdr != tcp", "icmpv6 type nd-neighbor-solicit"]);
        }
        if place.family == Family::Inet {
            texts.extend(["meta nfproto ipv4", "meta nfproto ipv6", "meta nfproto != ipv4"]);
        }
        self.text(&texts)
    }

    fn connection(&mut self, place: Place) -> Part {
        let (v6, field) = self.field(place, "saddr");
        match self.up_to(19) {
            0 if place.family != Family::Ip6 || v6 => {
                let address = self.values.addresses(v6, 1, false).remove(0);
                Part::Text(format!("ct original {field} {address}"))
            }
            1 => self.text(&[
                "meta l4proto tcp ct original proto-dst 17488",
                "ct protocol tcp",
                "ct l3proto ipv4",
                "ct mark & 0xff == 0x1",
            ]),
            _ => self.text(&[
                "ct state new",
                "ct state established,related",
                "ct state != new",
                "ct state { new, invalid }",
                "ct state & (established | related) == 0",
                "ct state & new != 0",
                "ct state untracked",
                "ct state invalid",
                "ct state != { established, related }",
                "ct state new,untracked",
                "ct direction original",
                "ct direction reply",
                "ct direction != original",
                "ct status assured",
                "ct status & dnat == 0",
                "ct status dnat",
                "ct mark 0x0",
                "ct mark != 0x0",
                "ct mark 0x1",
                "ct state != established",
                "ct state & (new | untracked) != 0",
            ]),
        }
    }

    fn device(&mut self, place: Place) -> Part {
        let mut texts = vec![
            "iifname \"eth0\"",
            "iifname != \"eth0\"",
            "iifname \"lo\"",
            "iifname != \"lo\"",
            "iifname \"eth*\"",
            "iifname \"tun*\"",
            "iifname { \"eth0\", \"eth1\" }",
            "iifname { \"lo\", \"docker0\" }",
            "iifname != { \"lo\", \"docker0\" }",
            "iifgroup 0",
            "iifgroup 7",
            "iifgroup != 0",
            "iiftype ether",
            "iiftype != ether",
            "iiftype loopback",
        ];
        if place.family != Family::Netdev {
            texts.extend(["iif lo", "iif != lo", "iif \"eth0\""]);
        }
        if self.chance(10) {
            let name = self.named(
                false,
                "type ifname;".to_owned(),
                vec!["\"eth0\"".to_owned(), "\"wg0\"".to_owned()],
            );
            return Part::Text(format!("iifname @{name}"));
        }
        self.text(&texts)
    }

    fn mark(&mut self) -> Part {
        let mark = self.values.mark();
        match self.up_to(5) {
            0..3 => Part::Text(format!("meta mark{} {mark}", self.negated(30))),
            3 => Part::Text(format!("meta mark & 0xff == {mark}")),
            4 => Part::Text(format!("meta mark & 0x10 {} 0x0", if self.chance(50) { "==" } else { "!=" })),
            _ => Part::Listed {
                before: "meta mark".to_owned(),
                elements: vec!["0x1".to_owned(), "0x2".to_owned()],
            },
        }
    }

    fn flags(&mut self) -> Part {
        self.text(&[
            "tcp flags syn",
            "tcp flags & (fin | syn | rst | ack) == syn",
            "tcp flags & (fin | syn | rst | ack) != syn",
            "tcp flags != syn",
            "tcp flags & syn != 0x0",
            "tcp flags & syn == 0x0",
            "tcp flags & (syn | ack) == syn | ack",
            "tcp flags { syn, ack }",
            "tcp flags ack",
            "tcp flags & (fin | psh | urg) == fin | psh | urg",
            "tcp flags & (ack | rst) == 0x0",
        ])
    }

    fn route(&mut self, place: Place) -> Part {
        if place.nat {
            return self.text(&["fib daddr type local", "fib daddr type != local"]);
        }
        self.text(&[
            "fib daddr type local",
            "fib daddr type != local",
            "fib daddr type { local, broadcast }",
            "fib daddr type { broadcast, multicast, anycast }",
            "fib daddr type broadcast",
            "fib daddr . iif type local",
            "fib daddr . iif type != local",
            "fib saddr type local",
        ])
    }

    /// What depends on time or on what came before.
    fn undecidable(&mut self, place: Place) -> Part {
        let mut texts = vec![
            "limit rate 5/second",
            "limit rate over 5/minute burst 3 packets",
            "quota 1000 bytes",
            "quota over 500 bytes",
            "numgen random mod 2 0",
            "numgen inc mod 3 < 2",
            "meta hour \"08:00\"-\"17:00\"",
            "meta day \"Monday\"",
            "meta cpu 0",
            "meta random < 1000000",
        ];
        if place.family.has_v4() {
            texts.push("ip ttl < 60");
        }
        self.text(&texts)
    }

    fn concatenation(&mut self, place: Place) -> Part {
        let (fields, kinds, elements) = self.tuples(place);
        let not = self.negated(15);
        if self.chance(50) {
            return Part::Listed { before: format!("{fields}{not}"), elements };
        }
        let name = self.named(false, format!("type {kinds}; flags interval;"), elements);
        Part::Text(format!("{fields}{not} @{name}"))
    }

    /// Fields of a concatenation, their types, and keys: no two of them overlap.
    fn tuples(&mut self, place: Place) -> (String, String, Vec<String>) {
        let (v6, field) = self.field(place, "saddr");
        let address = if v6 { "ipv6_addr" } else { "ipv4_addr" };
        let count = 1 + self.up_to(3);
        match self.up_to(5) {
            0 | 1 => {
                let sources = self.values.addresses(v6, count, false);
                let elements = sources
                    .into_iter()
                    .map(|source| format!("{source} . {}", self.values.ports(false, 1, false)[0]));
                (format!("{field} . tcp dport"), format!("{address} . inet_service"), elements.collect())
            }
            2 => {
                let ports = self.values.ports(false, count, false);
                let elements = ports
                    .into_iter()
                    .map(|port| format!("{port} . {}", self.values.addresses(v6, 1, false)[0]));
                (format!("tcp dport . {field}"), format!("inet_service . {address}"), elements.collect())
            }
            3 => {
                let ports = self.values.ports(false, count, false);
                let elements = ports.into_iter().map(|port| {
                    let device = if self.chance(70) { "\"eth0\"" } else { "\"lo\"" };
                    format!("{device} . {port}")
                });
                ("iifname . tcp dport".to_owned(), "ifname . inet_service".to_owned(), elements.collect())
            }
            4 => {
                let ports = self.values.ports(false, count, false);
                let elements = ports.into_iter().map(|port| {
                    let protocol = if self.chance(70) { "tcp" } else { "udp" };
                    format!("{protocol} . {port}")
                });
                (
                    "meta l4proto . th dport".to_owned(),
                    "inet_proto . inet_service".to_owned(),
                    elements.collect(),
                )
            }
            _ => {
                let sources = self.values.addresses(v6, count, false);
                let elements = sources
                    .into_iter()
                    .map(|source| format!("{source} . {}", self.values.ports(true, 1, false)[0]));
                (format!("{field} . tcp sport"), format!("{address} . inet_service"), elements.collect())
            }
        }
    }

    /// A map from something to a verdict, named or not.
    pub(super) fn verdict_map(&mut self, place: Place) -> Part {
        let (v6, source) = self.field(place, "saddr");
        let address = if v6 { "ipv6_addr" } else { "ipv4_addr" };
        let count = 1 + self.up_to(3);
        let (field, kinds, keys) = match self.up_to(9) {
            0..4 => {
                ("tcp dport".to_owned(), "inet_service".to_owned(), self.values.ports(false, count, false))
            }
            4..6 => (source, address.to_owned(), self.values.addresses(v6, count, false)),
            6 if place.has_connections => {
                let states = ["established", "related", "invalid", "new", "untracked"];
                let keys = states
                    .iter()
                    .filter(|_| self.values.rng.random_bool(0.6))
                    .map(|state| (*state).to_owned());
                let mut keys: Vec<_> = keys.collect();
                if keys.is_empty() {
                    keys.push("new".to_owned());
                }
                ("ct state".to_owned(), "ct_state".to_owned(), keys)
            }
            7 => {
                let keys =
                    if self.chance(50) { vec!["\"eth0\"", "\"lo\""] } else { vec!["\"wg0\"", "\"lo\""] };
                ("iifname".to_owned(), "ifname".to_owned(), keys.into_iter().map(str::to_owned).collect())
            }
            8 => {
                let keys = if self.chance(50) { ["tcp", "udp"] } else { ["icmp", "ipv6-icmp"] };
                let keys = keys.into_iter().map(str::to_owned).collect();
                ("meta l4proto".to_owned(), "inet_proto".to_owned(), keys)
            }
            _ => self.tuples(place),
        };
        let interval = !matches!(kinds.as_str(), "ct_state" | "ifname" | "inet_proto");
        let mut elements: Vec<_> =
            keys.into_iter().map(|key| format!("{key} : {}", self.verdict(place))).collect();
        // The one for all others goes with plain keys; this nft knows none for anonymous concatenations.
        if self.chance(20) && !kinds.contains(" . ") {
            elements.push(format!("* : {}", self.verdict(place)));
        }
        if self.chance(45) {
            let flags = if interval { " flags interval;" } else { "" };
            let name = self.named(true, format!("type {kinds} : verdict;{flags}"), elements);
            return Part::Text(format!("{field} vmap @{name}"));
        }
        Part::Listed { before: format!("{field} vmap"), elements }
    }

    fn verdict(&mut self, place: Place) -> String {
        match self.up_to(9) {
            0..3 => "accept".to_owned(),
            3..6 if !place.nat => "drop".to_owned(),
            6 => "return".to_owned(),
            7 => "continue".to_owned(),
            _ => self.lead(place).unwrap_or_else(|| "accept".to_owned()),
        }
    }

    /// A mark from a map.
    pub(super) fn mark_map(&mut self, place: Place) -> Part {
        let count = 1 + self.up_to(2);
        if self.chance(60) {
            let ports = self.values.ports(false, count, false);
            let elements = ports.into_iter().map(|port| format!("{port} : {}", self.values.mark())).collect();
            return Part::Listed { before: "meta mark set tcp dport map".to_owned(), elements };
        }
        let (v6, field) = self.field(place, "saddr");
        let sources = self.values.addresses(v6, count, false);
        let elements =
            sources.into_iter().map(|source| format!("{source} : {}", self.values.mark())).collect();
        let kind = if v6 { "ipv6_addr" } else { "ipv4_addr" };
        let name = self.named(true, format!("type {kind} : mark; flags interval;"), elements);
        Part::Text(format!("meta mark set {field} map @{name}"))
    }
}
