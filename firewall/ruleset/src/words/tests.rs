//! Rules of which the expressions are written by hand.

use rand::{RngExt as _, SeedableRng as _, seq::IndexedRandom as _};
use rand_chacha::ChaCha8Rng;

use crate::model::{
    Bitwise, ByteOrder, Chain, Comparison, CtKey, Dynset, Element, Expr, Family, Fib, Limit, LimitUnit,
    MetaKey, Name, Nat, PayloadBase, Ports, RegisterSlice, Reject, Rule, Set, SetFlags, Table, TableFlags,
    Verdict, XtMatch, XtTarget,
};
use crate::words;

const REG: u8 = 0;

fn table(family: Family) -> Table {
    Table {
        family,
        name: Name::from("t"),
        handle: 1,
        flags: TableFlags::default(),
        comment: None,
        chains: Vec::new(),
        sets: Vec::new(),
        objects: Vec::new(),
        flowtables: Vec::new(),
    }
}

fn slice(offset: u8, length: u8) -> RegisterSlice {
    RegisterSlice { offset, length }
}

fn meta(key: MetaKey) -> Expr {
    Expr::Meta { destination: slice(REG, key.length()), key }
}

fn load(base: PayloadBase, offset: u32, length: u8) -> Expr {
    Expr::Payload { destination: slice(REG, length), base, offset }
}

fn is(op: Comparison, value: &[u8]) -> Expr {
    Expr::Compare { source: slice(REG, u8::try_from(value.len()).unwrap()), op, value: value.into() }
}

fn mask(mask: &[u8]) -> Expr {
    let at = slice(REG, u8::try_from(mask.len()).unwrap());
    Expr::Bitwise {
        source: at,
        destination: at,
        op: Bitwise::Mask { mask: mask.into(), xor: vec![0; mask.len()].into() },
    }
}

fn tcp() -> [Expr; 2] {
    [meta(MetaKey::L4Proto), is(Comparison::Equal, &[6])]
}

fn ipv4() -> [Expr; 2] {
    [meta(MetaKey::NfProto), is(Comparison::Equal, &[2])]
}

fn in_words(exprs: Vec<Expr>) -> String {
    words::rule(&Rule { handle: 1, comment: None, exprs }, &table(Family::Inet))
}

fn compared(exprs: Vec<Expr>, comment: Option<&str>) -> String {
    let comment = comment.map(str::to_owned);
    words::comparable(&Rule { handle: 1, comment, exprs }, &table(Family::Inet))
}

#[test]
fn a_condition_on_a_protocol_is_left_out_where_a_field_says_it() {
    let dport = [load(PayloadBase::Transport, 2, 2), is(Comparison::Equal, &[0, 22])];
    let source = [load(PayloadBase::Network, 12, 4), is(Comparison::Equal, &[10, 0, 0, 1])];
    assert_eq!(in_words([&tcp()[..], &dport].concat()), "tcp dport 22");
    assert_eq!(
        in_words([&ipv4()[..], &source, &tcp()[..], &dport].concat()),
        "ip saddr 10.0.0.1 tcp dport 22"
    );
    assert_eq!(in_words([&ipv4()[..], &tcp()[..], &dport].concat()), "meta nfproto ipv4 tcp dport 22");
    assert_eq!(in_words(tcp().to_vec()), "meta l4proto tcp");
    assert_eq!(in_words(dport.to_vec()), "th dport 22");
}

#[test]
fn fields_that_are_compared_at_once_say_as_much_as_one_by_one() {
    let both = [load(PayloadBase::Network, 8, 2), is(Comparison::Equal, &[64, 6])];
    let dport = [load(PayloadBase::Transport, 2, 2), is(Comparison::Equal, &[0, 22])];
    assert_eq!(in_words([&ipv4()[..], &both, &dport].concat()), "ip ttl 64 ip protocol tcp tcp dport 22");
}

#[test]
fn networks_are_known_by_their_mask_or_by_what_is_loaded() {
    let masked = [
        load(PayloadBase::Network, 12, 4),
        mask(&[255, 128, 0, 0]),
        is(Comparison::NotEqual, &[10, 0, 0, 0]),
    ];
    let loaded = [load(PayloadBase::Network, 12, 3), is(Comparison::Equal, &[192, 0, 2])];
    assert_eq!(in_words([&ipv4()[..], &masked].concat()), "ip saddr != 10.0.0.0/9");
    assert_eq!(in_words([&ipv4()[..], &loaded].concat()), "ip saddr 192.0.2.0/24");
}

#[test]
fn flags_read_as_they_are_compared() {
    let flags = || load(PayloadBase::Transport, 13, 1);
    let opening = |op| [&tcp()[..], &[flags(), mask(&[0x17]), is(op, &[2])]].concat();
    assert_eq!(in_words(opening(Comparison::Equal)), "tcp flags & (fin | syn | rst | ack) == syn");
    assert_eq!(compared(opening(Comparison::NotEqual), None), "tcp flags & fin,syn,rst,ack != syn");
    let any = [&tcp()[..], &[flags(), mask(&[3]), is(Comparison::NotEqual, &[0])]].concat();
    assert_eq!(in_words(any), "tcp flags fin,syn");
    let state = Expr::Ct { destination: slice(REG, 4), key: CtKey::State, direction: None };
    let known = |op| vec![state.clone(), mask(&6_u32.to_ne_bytes()), is(op, &[0; 4])];
    assert_eq!(in_words(known(Comparison::NotEqual)), "ct state established,related");
    assert_eq!(in_words(known(Comparison::Equal)), "ct state ! established,related");
}

#[test]
fn a_field_that_is_part_of_a_byte_has_its_name() {
    let dscp = [load(PayloadBase::Network, 1, 1), mask(&[0xfc]), is(Comparison::Equal, &[0x20])];
    assert_eq!(in_words([&ipv4()[..], &dscp].concat()), "ip dscp cs1");
}

#[test]
fn this_programs_own_rules_have_one_form() {
    let counted = [Expr::Object(Name::from("port_17488_limited")), Expr::Verdict(Verdict::Drop)];
    let limit = Limit { rate: 500, seconds: 1, burst: 4096, unit: LimitUnit::Packets, over: true };
    let meter = Expr::Dynset(Dynset {
        set: Name::from("port_17488_ipv6"),
        key: slice(REG, 16),
        deletes: false,
        updates: true,
        negated: false,
        timeout: Some(60_000),
        exprs: vec![Expr::Limit(limit)],
    });
    let mut all = [0xff; 16];
    all[8..].fill(0);
    let exprs = [
        &[
            meta(MetaKey::NfProto),
            is(Comparison::Equal, &[10]),
            load(PayloadBase::Network, 8, 16),
            mask(&all),
            meter,
        ],
        &counted[..],
    ]
    .concat();
    let mut own = table(Family::Inet);
    own.objects.push(crate::model::Object {
        name: Name::from("port_17488_limited"),
        handle: 2,
        kind: crate::model::ObjectKind::Counter,
    });
    assert_eq!(
        words::comparable(&Rule { handle: 1, comment: None, exprs }, &own),
        "meter port_17488_ipv6 { ip6 saddr & ffff:ffff:ffff:ffff:: timeout 60s limit over 500/second burst 4096 } \
         counter port_17488_limited drop"
    );
    let lo = vec![
        meta(MetaKey::IifName),
        is(Comparison::Equal, b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
        Expr::Verdict(Verdict::Accept),
    ];
    assert_eq!(compared(lo, Some("a \"b\"")), "meta iifname lo accept comment \"a \\\"b\\\"\"");
}

#[test]
fn iptables_has_the_words_that_nft_would_have() {
    let xt = |name: &str, what| Expr::XtMatch { name: name.to_owned(), revision: 0, what };
    let ports = XtMatch::Tcp {
        source: (0, 65535),
        source_negated: false,
        destination: (17486, 17488),
        destination_negated: false,
        flags_mask: 0,
        flags: 0,
        flags_negated: false,
        option: 0,
        option_negated: false,
    };
    let drop = Expr::Verdict(Verdict::Drop);
    assert_eq!(
        in_words([&tcp()[..], &[xt("tcp", ports), drop.clone()]].concat()),
        "tcp dport 17486-17488 drop"
    );
    let several =
        XtMatch::Multiport { of: Ports::Destination, ranges: [(22, 22), (80, 90)].into(), negated: true };
    assert_eq!(in_words([&tcp()[..], &[xt("multiport", several)]].concat()), "tcp dport != { 22, 80-90 }");
    let untracked = XtMatch::CtState { mask: 0x108, negated: false };
    assert_eq!(in_words(vec![xt("conntrack", untracked)]), "ct state new,untracked");
    assert_eq!(in_words(vec![xt("recent", XtMatch::Other), drop]), "xt match `recent`, not shown drop");
    let mark = |mark, mask| {
        in_words(vec![Expr::XtTarget {
            name: "MARK".to_owned(),
            revision: 2,
            what: XtTarget::Mark { mark, mask },
        }])
    };
    assert_eq!(mark(1, u32::MAX), "meta mark set 0x00000001");
    assert_eq!(mark(0x10, 0x10), "meta mark set meta mark | 0x00000010");
    assert_eq!(mark(0, 0x10), "meta mark set meta mark & 0xffffffef");
}

fn anonymous_set(interval: bool, keys: impl IntoIterator<Item = (Vec<u8>, bool)>) -> Set {
    let element = |(key, interval_end): (Vec<u8>, bool)| Element {
        key: key.into(),
        key_end: None,
        interval_end,
        catch_all: false,
        data: None,
        verdict: None,
        object: None,
        exprs: Vec::new(),
        expires: None,
    };
    Set {
        name: Name::from("__set0"),
        handle: 1,
        flags: SetFlags { anonymous: true, interval, ..SetFlags::default() },
        key_type: 13,
        key_len: 2,
        fields: Vec::new(),
        data_type: 0,
        data_len: 0,
        timeout: None,
        elements: keys.into_iter().map(element).collect(),
        cut: false,
    }
}

fn with_set(set: Set) -> String {
    let lookup = Expr::Lookup {
        source: slice(REG, 2),
        set: set.name.clone(),
        destination: None,
        verdict: false,
        negated: false,
    };
    let exprs = [&tcp()[..], &[load(PayloadBase::Transport, 2, 2), lookup]].concat();
    let mut table = table(Family::Inet);
    table.sets.push(set);
    words::rule(&Rule { handle: 1, comment: None, exprs }, &table)
}

#[test]
fn an_anonymous_set_shows_its_elements_and_no_more_than_fit() {
    let ports = |ports: std::ops::Range<u16>| ports.map(|port| (port.to_be_bytes().to_vec(), false));
    assert_eq!(with_set(anonymous_set(false, ports(22..24).rev())), "tcp dport { 22, 23 }");
    let many = with_set(anonymous_set(false, ports(1..101)));
    assert!(many.ends_with("15, 16, ... 84 more }"), "{many}");
    let open = vec![(vec![0, 0], true), (vec![0, 80], false), (vec![0, 91], true), (vec![4, 0], false)];
    assert_eq!(with_set(anonymous_set(true, open)), "tcp dport { 80-90, 1024-65535 }");
}

#[test]
fn an_anonymous_chain_stands_in_the_rule() {
    let mut table = table(Family::Inet);
    let inner = |expr: Expr| Rule { handle: 3, comment: None, exprs: vec![expr] };
    table.chains.push(Chain {
        name: Name::from("__chain1"),
        handle: 2,
        hook: None,
        anonymous: true,
        rules: vec![inner(Expr::Counter), inner(Expr::Verdict(Verdict::Jump(Name::from("__chain1"))))],
    });
    let rule = inner(Expr::Verdict(Verdict::Jump(Name::from("__chain1"))));
    let text = words::rule(&rule, &table);
    assert!(text.starts_with("jump { counter; jump { counter; jump {"), "{text}");
    assert!(text.contains("... 2 more"), "{text}");
}

#[test]
fn whatever_a_rule_consists_of_its_words_are_one_line() {
    let seeds = 20_000;
    for seed in 0..seeds {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let family = *[Family::Inet, Family::Ip, Family::Ip6, Family::Bridge, Family::Arp]
            .choose(&mut random)
            .unwrap();
        let mut table = table(family);
        table.sets.push(anonymous_set(
            random.random(),
            (0..random.random_range(0..5)).map(|_| (bytes(&mut random), seed % 2 == 0)).collect::<Vec<_>>(),
        ));
        table.sets[0].key_type = random.random();
        table.sets[0].data_type = random.random();
        table.sets[0].elements.iter_mut().for_each(|element| element.data = Some(bytes(&mut random).into()));
        let exprs = (0..random.random_range(0..12)).map(|_| any(&mut random)).collect();
        let rule = Rule { handle: 1, comment: Some("a\nb\u{1b}[0m\u{202e}".to_owned()), exprs };
        for text in [words::rule(&rule, &table), words::comparable(&rule, &table)] {
            assert!(!text.contains(char::is_control) && !text.contains('\u{202e}'), "seed {seed}: {text:?}");
        }
    }
}

fn bytes(random: &mut ChaCha8Rng) -> Vec<u8> {
    let length = *[0, 1, 2, 4, 6, 8, 16, 20, 64].choose(random).unwrap();
    (0..length).map(|_| random.random()).collect()
}

fn any(random: &mut ChaCha8Rng) -> Expr {
    let at = slice(random.random_range(0..16) * 4, *[0, 1, 2, 3, 4, 6, 16, 64].choose(random).unwrap());
    let base = *[PayloadBase::Link, PayloadBase::Network, PayloadBase::Transport, PayloadBase::Inner]
        .choose(random)
        .unwrap();
    let name = Name::new(if random.random() { b"__set0" } else { b"\xff\n*" });
    match random.random_range(0..18) {
        0 => Expr::Immediate { destination: at, value: bytes(random).into() },
        1 => Expr::Payload {
            destination: at,
            base,
            offset: *[0, 1, 2, 12, 16, 3, u32::MAX].choose(random).unwrap(),
        },
        2 => Expr::PayloadWrite { source: at, base, offset: random.random_range(0..20) },
        3 => Expr::Meta { destination: at, key: MetaKey::from_number(random.random_range(0..36)) },
        4 => Expr::MetaSet { source: at, key: MetaKey::Mark },
        5 => Expr::Ct { destination: at, key: CtKey::State, direction: None },
        6 => {
            let op = *[
                Comparison::Equal,
                Comparison::NotEqual,
                Comparison::GreaterOrEqual,
                Comparison::LessOrEqual,
            ]
            .choose(random)
            .unwrap();
            Expr::Compare { source: at, op, value: bytes(random).into() }
        }
        7 => Expr::Range {
            source: at,
            from: bytes(random).into(),
            to: bytes(random).into(),
            negated: random.random(),
        },
        8 => {
            let op = match random.random_range(0..3) {
                0 => Bitwise::Mask { mask: bytes(random).into(), xor: bytes(random).into() },
                1 => Bitwise::ShiftRight(random.random()),
                _ => Bitwise::Other,
            };
            Expr::Bitwise { source: at, destination: slice(0, 4), op }
        }
        9 => Expr::ByteOrder { source: at, destination: at, op: ByteOrder::ToHost, size: 4 },
        10 => Expr::Lookup {
            source: at,
            set: name,
            destination: random.random::<bool>().then_some(at),
            verdict: random.random(),
            negated: random.random(),
        },
        11 => Expr::Object(name),
        12 => Expr::ObjectMap { source: at, set: name },
        13 => Expr::Nat(Nat {
            destination: random.random(),
            family: Family::Ip,
            address: Some(at),
            address_max: random.random::<bool>().then_some(slice(8, 4)),
            port: Some(slice(4, 2)),
            port_max: None,
            flags: random.random(),
        }),
        14 => {
            Expr::Unknown { name: "new\u{7}".to_owned(), destination: random.random::<bool>().then_some(at) }
        }
        15 => Expr::Fib(Fib { destination: at, result: random.random_range(0..5), flags: random.random() }),
        16 => Expr::Reject(Reject::Icmp(random.random())),
        _ => Expr::Log { prefix: Some("\r\n".to_owned()), group: None, level: Some(random.random()) },
    }
}
