//! What each expression becomes.

use zone_ruleset::{
    Bitwise, ByteOrder, Comparison, CtKey, Direction, Dynset, Expr, Family, Fib, Limit, LimitUnit, MetaKey,
    Nat, PayloadBase, RegisterSlice, Reject, Verdict,
};

use crate::namespace::{namespace, rules};

#[test]
fn expressions_are_read_as_nft_wrote_them() {
    let Some(host) = namespace("expressions_are_read_as_nft_wrote_them") else { return };
    let cases = cases();
    let mut text = String::from(
        "table inet t {\n\
         counter hits { }\n quota daily { over 5 mbytes }\n\
         set bad { type ipv4_addr; flags interval; elements = { 192.0.2.0/24 } }\n\
         set seen { type ipv4_addr; flags dynamic,timeout; timeout 5m; size 100; }\n\
         map to { type ipv4_addr : ipv4_addr; elements = { 192.0.2.1 : 10.0.0.2 } }\n\
         map ports { type inet_service : verdict; elements = { 22 : accept } }\n\
         map counted { type inet_service : counter; elements = { 22 : \"hits\" } }\n\
         chain sub { }\n chain each {\n",
    );
    for (rule, _) in &cases {
        text.push_str(rule);
        text.push('\n');
    }
    text.push_str("}\n chain redirects { type nat hook prerouting priority dstnat; }\n}\n");
    host.nft(&text);
    let ruleset = host.ruleset();
    let read = rules(&ruleset, "each");
    assert_eq!(read.len(), cases.len());
    for ((text, expected), rule) in cases.iter().zip(read) {
        let end = rule.exprs.len().saturating_sub(expected.len());
        assert_eq!(&rule.exprs[end..], expected, "{text}");
    }
}

#[test]
fn rewritings_of_addresses_name_their_registers() {
    let Some(host) = namespace("rewritings_of_addresses_name_their_registers") else { return };
    host.nft(
        "table inet t { chain pre { type nat hook prerouting priority dstnat;\n\
         meta l4proto tcp dnat ip to 10.0.0.1-10.0.0.9:80-90\n\
         meta l4proto tcp dnat ip6 to [2001:db8::2]:80\n\
         tcp dport 81 redirect to :8080\n tcp dport 82 redirect\n }\n\
         chain post { type nat hook postrouting priority srcnat; masquerade\n ip saddr 192.0.2.1 snat to 10.0.0.1\n }\n\
         chain mangle { type filter hook prerouting priority mangle;\n\
         tcp dport 80 tproxy ip to 127.0.0.1:50080\n tcp dport 80 tproxy to :50080\n } }",
    );
    let ruleset = host.ruleset();
    let last = |chain: &str, rule: usize| rules(&ruleset, chain)[rule].exprs.last().expect("one").clone();
    let nat = |family, length| Nat {
        destination: true,
        family,
        address: Some(slice(0, length)),
        address_max: Some(slice(0, length)),
        port: Some(slice(16, 2)),
        port_max: Some(slice(16, 2)),
        flags: 3,
    };
    assert_eq!(
        last("pre", 0),
        Expr::Nat(Nat {
            address_max: Some(slice(16, 4)),
            port: Some(slice(32, 2)),
            port_max: Some(slice(48, 2)),
            ..nat(Family::Ip, 4)
        })
    );
    assert_eq!(last("pre", 1), Expr::Nat(nat(Family::Ip6, 16)));
    assert_eq!(last("pre", 2), Expr::Redirect { port: Some(slice(0, 2)) });
    assert_eq!(last("pre", 3), Expr::Redirect { port: None });
    assert_eq!(last("post", 0), Expr::Masquerade);
    let snat = Nat { destination: false, port: None, port_max: None, flags: 1, ..nat(Family::Ip, 4) };
    assert_eq!(last("post", 1), Expr::Nat(snat));
    assert_eq!(
        last("mangle", 0),
        Expr::Tproxy { family: Some(Family::Ip), address: Some(slice(0, 4)), port: Some(slice(16, 2)) }
    );
    assert_eq!(last("mangle", 1), Expr::Tproxy { family: None, address: None, port: Some(slice(0, 2)) });
}

/// Rules, and the expressions that they end with.
fn cases() -> Vec<(&'static str, Vec<Expr>)> {
    use Comparison::{Equal, Greater, GreaterOrEqual, LessOrEqual, NotEqual};
    let accept = || Expr::Verdict(Verdict::Accept);
    let lookup = |set: &str, length, destination, verdict, negated| Expr::Lookup {
        source: slice(0, length),
        set: set.into(),
        destination,
        verdict,
        negated,
    };
    let dynset = |deletes, updates, timeout, exprs| {
        let (set, key) = ("seen".into(), slice(0, 4));
        Expr::Dynset(Dynset { set, key, deletes, updates, negated: false, timeout, exprs })
    };
    vec![
        ("accept", vec![accept()]),
        ("drop", vec![Expr::Verdict(Verdict::Drop)]),
        ("return", vec![Expr::Verdict(Verdict::Return)]),
        ("jump sub", vec![Expr::Verdict(Verdict::Jump("sub".into()))]),
        ("goto sub", vec![Expr::Verdict(Verdict::Goto("sub".into()))]),
        ("continue", vec![Expr::Verdict(Verdict::Continue)]),
        (
            "tcp dport 80",
            vec![
                meta(MetaKey::L4Proto, 4),
                compare(0, Equal, &[6]),
                payload(0, 2, PayloadBase::Transport, 2),
                compare(0, Equal, &[0, 80]),
            ],
        ),
        (
            "tcp dport 100-200",
            vec![compare(0, GreaterOrEqual, &[0, 100]), compare(0, LessOrEqual, &[0, 200])],
        ),
        (
            "tcp dport != 300-400",
            vec![Expr::Range {
                source: slice(0, 2),
                from: [1, 44].into(),
                to: [1, 144].into(),
                negated: true,
            }],
        ),
        (
            "ip6 saddr 2001:db8::/33",
            vec![
                payload(0, 16, PayloadBase::Network, 8),
                Expr::Bitwise {
                    source: slice(0, 16),
                    destination: slice(0, 16),
                    op: Bitwise::Mask {
                        mask: [255, 255, 255, 255, 128, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(),
                        xor: [0; 16].into(),
                    },
                },
                compare(0, Equal, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            ],
        ),
        ("ip saddr @bad", vec![lookup("bad", 4, None, false, false)]),
        ("ip saddr != @bad", vec![lookup("bad", 4, None, false, true)]),
        ("tcp dport vmap @ports", vec![lookup("ports", 2, None, true, false)]),
        (
            "ip daddr set ip saddr map @to",
            vec![
                lookup("to", 4, Some(slice(0, 4)), false, false),
                Expr::PayloadWrite { source: slice(0, 4), base: PayloadBase::Network, offset: 16 },
            ],
        ),
        ("iifname \"eth*\"", vec![meta(MetaKey::IifName, 16), compare(0, Equal, b"eth")]),
        ("iif lo", vec![meta(MetaKey::Iif, 4), compare(0, Equal, &1_u32.to_ne_bytes())]),
        ("ether saddr 00:11:22:33:44:55", vec![compare(0, Equal, &[0, 0x11, 0x22, 0x33, 0x44, 0x55])]),
        (
            "meta mark set 0x102",
            vec![
                Expr::Immediate { destination: slice(0, 4), value: 0x102_u32.to_ne_bytes().into() },
                Expr::MetaSet { source: slice(0, 4), key: MetaKey::Mark },
            ],
        ),
        (
            "meta mark set meta mark << 8",
            vec![
                Expr::Bitwise { source: slice(0, 4), destination: slice(0, 4), op: Bitwise::ShiftLeft(8) },
                Expr::MetaSet { source: slice(0, 4), key: MetaKey::Mark },
            ],
        ),
        ("ct mark set 7", vec![Expr::CtSet { source: slice(0, 4), key: CtKey::Mark }]),
        (
            "ct state invalid",
            vec![
                Expr::Ct { destination: slice(0, 4), key: CtKey::State, direction: None },
                Expr::Bitwise {
                    source: slice(0, 4),
                    destination: slice(0, 4),
                    op: Bitwise::Mask { mask: 1_u32.to_ne_bytes().into(), xor: [0; 4].into() },
                },
                compare(0, NotEqual, &[0; 4]),
            ],
        ),
        (
            "ct original ip saddr 192.0.2.1",
            vec![
                Expr::Ct {
                    destination: slice(0, 4),
                    key: CtKey::SaddrIp,
                    direction: Some(Direction::Original),
                },
                compare(0, Equal, &[192, 0, 2, 1]),
            ],
        ),
        (
            "meta time > 1000000",
            vec![
                meta(MetaKey::Time, 8),
                Expr::ByteOrder {
                    source: slice(0, 8),
                    destination: slice(0, 8),
                    op: ByteOrder::ToNetwork,
                    size: 8,
                },
                compare(0, Greater, &1_000_000_000_000_000_u64.to_be_bytes()),
            ],
        ),
        ("counter", vec![Expr::Counter]),
        ("counter name \"hits\"", vec![Expr::Object("hits".into())]),
        (
            "counter name tcp dport map @counted",
            vec![Expr::ObjectMap { source: slice(0, 2), set: "counted".into() }],
        ),
        (
            "limit rate over 3/minute burst 7 packets",
            vec![Expr::Limit(Limit { rate: 3, seconds: 60, burst: 7, unit: LimitUnit::Packets, over: true })],
        ),
        (
            "limit rate 10 mbytes/second",
            vec![Expr::Limit(Limit {
                rate: 10 << 20,
                seconds: 1,
                burst: 0,
                unit: LimitUnit::Bytes,
                over: false,
            })],
        ),
        ("quota over 1 mbytes", vec![Expr::Quota { bytes: 1 << 20, over: true }]),
        ("ct count over 20", vec![Expr::ConnLimit { count: 20, over: true }]),
        (
            "add @seen { ip saddr limit rate 5/second }",
            vec![dynset(
                false,
                false,
                None,
                vec![Expr::Limit(Limit {
                    rate: 5,
                    seconds: 1,
                    burst: 5,
                    unit: LimitUnit::Packets,
                    over: false,
                })],
            )],
        ),
        ("update @seen { ip saddr timeout 3m }", vec![dynset(false, true, Some(180_000), vec![])]),
        ("delete @seen { ip saddr }", vec![dynset(true, false, None, vec![])]),
        ("reject with tcp reset", vec![Expr::Reject(Reject::TcpReset)]),
        ("reject with icmpx type admin-prohibited", vec![Expr::Reject(Reject::Icmpx(3))]),
        ("ip protocol tcp reject with icmp type host-prohibited", vec![Expr::Reject(Reject::Icmp(10))]),
        (
            "log prefix \"in: \" level info",
            vec![Expr::Log { prefix: Some("in: ".into()), group: None, level: Some(6) }],
        ),
        ("log group 3", vec![Expr::Log { prefix: None, group: Some(3), level: None }]),
        (
            "fib saddr . iif oif missing",
            vec![
                Expr::Fib(Fib { destination: slice(0, 1), result: 1, flags: 1 | 8 | 32 }),
                compare(0, Equal, &[0; 4]),
            ],
        ),
        (
            "fib daddr type local",
            vec![
                Expr::Fib(Fib { destination: slice(0, 4), result: 3, flags: 2 }),
                compare(0, Equal, &2_u32.to_ne_bytes()),
            ],
        ),
        (
            "socket transparent 1",
            vec![Expr::Socket { destination: slice(0, 1), key: 0 }, compare(0, Equal, &[1])],
        ),
        (
            "tcp option maxseg size 100",
            vec![
                Expr::ExtHdr { destination: Some(slice(0, 2)), kind: 2, offset: 2, op: 1, presence: false },
                compare(0, Equal, &[0, 100]),
            ],
        ),
        (
            "numgen random mod 10 offset 5 7",
            vec![
                Expr::Numgen { destination: slice(0, 4), modulus: 10, random: true, offset: 5 },
                compare(0, Equal, &7_u32.to_ne_bytes()),
            ],
        ),
        (
            "jhash ip saddr mod 5 seed 0xabc offset 2 1",
            vec![
                payload(16, 4, PayloadBase::Network, 12),
                Expr::Hash { destination: slice(0, 4), modulus: 5, offset: 2 },
                compare(0, Equal, &1_u32.to_ne_bytes()),
            ],
        ),
        ("synproxy mss 1460", vec![Expr::Synproxy]),
    ]
}

fn slice(offset: u8, length: u8) -> RegisterSlice {
    RegisterSlice { offset, length }
}

fn meta(key: MetaKey, length: u8) -> Expr {
    Expr::Meta { destination: slice(0, length), key }
}

fn payload(register: u8, length: u8, base: PayloadBase, offset: u32) -> Expr {
    Expr::Payload { destination: slice(register, length), base, offset }
}

fn compare(register: u8, op: Comparison, value: &[u8]) -> Expr {
    let length = u8::try_from(value.len()).expect("a short value");
    Expr::Compare { source: slice(register, length), op, value: value.into() }
}
