//! Messages that no nft of today sends.

use super::*;
use crate::attributes::append;
use crate::model::{Expr, RegisterSlice, Verdict};

const INET: u8 = 1;

/// A message of a table's family with attributes by number.
fn message(messages: &mut Vec<u8>, kind: u16, attributes: &[(usize, &[u8])]) {
    let mut payload = vec![INET, 0, 0, 0];
    payload.extend(nested(attributes));
    message_into(messages, kind, &payload);
}

fn nested(attributes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, value) in attributes {
        append(&mut bytes, *number, value);
    }
    bytes
}

/// A table `t` with a chain `c` and a set `s`.
fn table_and_chain() -> Vec<u8> {
    let mut messages = Vec::new();
    message(&mut messages, message::NEWTABLE, &[(uapi::table::NAME, b"t\0")]);
    message(&mut messages, message::NEWCHAIN, &[(uapi::chain::TABLE, b"t\0"), (uapi::chain::NAME, b"c\0")]);
    let set =
        [(uapi::set::TABLE, b"t\0".as_slice()), (uapi::set::NAME, b"s\0"), (uapi::set::KEY_LEN, &number(4))];
    message(&mut messages, message::NEWSET, &set);
    messages
}

/// The expressions of a rule in chain `c` of table `t`: their names and attributes.
fn rule(exprs: &[(&[u8], Vec<u8>)]) -> Vec<Expr> {
    let mut list = Vec::new();
    for (name, attributes) in exprs {
        let expr = nested(&[(uapi::expr::NAME, name), (uapi::expr::DATA, attributes)]);
        append(&mut list, 1, &expr);
    }
    let mut messages = table_and_chain();
    message(
        &mut messages,
        message::NEWRULE,
        &[
            (uapi::rule::TABLE, b"t\0"),
            (uapi::rule::CHAIN, b"c\0"),
            (uapi::rule::HANDLE, &7_u64.to_be_bytes()),
            (uapi::rule::EXPRESSIONS, &list),
        ],
    );
    decode(&messages).expect("a ruleset").tables[0].chains[0].rules[0].exprs.clone()
}

fn number(value: u32) -> [u8; 4] {
    value.to_be_bytes()
}

#[test]
fn an_expression_of_a_newer_kernel_is_named_and_may_have_loaded_every_register() {
    let all = Some(RegisterSlice { offset: 0, length: 64 });
    let exprs = rule(&[(b"oracle\0", Vec::new()), (b"dup\0", Vec::new())]);
    assert_eq!(
        exprs,
        [
            Expr::Unknown { name: "oracle".into(), destination: all },
            Expr::Unknown { name: "dup".into(), destination: None },
        ]
    );
}

#[test]
fn an_expression_that_is_not_as_it_should_be_is_unknown() {
    let value = nested(&[(uapi::data::VALUE, &[6])]);
    let compare = |register: u32, op: u32| {
        nested(&[
            (uapi::cmp::SREG, &number(register)),
            (uapi::cmp::OP, &number(op)),
            (uapi::cmp::DATA, &value),
        ])
    };
    let unknown =
        |exprs: Vec<Expr>| matches!(exprs.as_slice(), [Expr::Unknown { name, .. }] if name == "cmp");
    assert!(!unknown(rule(&[(b"cmp\0", compare(1, 0))])), "this one is known");
    assert!(unknown(rule(&[(b"cmp\0", compare(1, 6))])), "another comparison");
    assert!(unknown(rule(&[(b"cmp\0", compare(24, 0))])), "a register behind the last");
    assert!(unknown(rule(&[(b"cmp\0", Vec::new())])), "no attributes");
    assert!(unknown(rule(&[(b"cmp\0", vec![255, 255, 3, 0])])), "an attribute that is longer than all");
}

#[test]
fn a_lookup_in_a_set_that_is_not_there_is_unknown() {
    let lookup = nested(&[(uapi::lookup::SET, b"other\0"), (uapi::lookup::SREG, &number(1))]);
    assert!(matches!(rule(&[(b"lookup\0", lookup)]).as_slice(), [Expr::Unknown { .. }]));
}

#[test]
fn a_verdict_that_is_not_known_is_no_verdict() {
    let immediate = |code: u32| {
        let verdict = nested(&[(uapi::verdict::CODE, &number(code))]);
        let data = nested(&[(uapi::data::VERDICT, &verdict)]);
        nested(&[(uapi::immediate::DREG, &number(0)), (uapi::immediate::DATA, &data)])
    };
    assert_eq!(rule(&[(b"immediate\0", immediate(1))]), [Expr::Verdict(Verdict::Accept)]);
    let stolen = rule(&[(b"immediate\0", immediate(2))]);
    assert!(matches!(stolen.as_slice(), [Expr::Unknown { .. }]), "{stolen:?}");
    let jump = rule(&[(b"immediate\0", immediate((-3_i32).cast_unsigned()))]);
    assert!(matches!(jump.as_slice(), [Expr::Unknown { .. }]), "a jump to no chain: {jump:?}");
}

#[test]
fn names_may_have_any_bytes() {
    let mut messages = Vec::new();
    let name = b"\xff\n \"}\x01\0";
    message(&mut messages, message::NEWTABLE, &[(uapi::table::NAME, name)]);
    message(&mut messages, message::NEWCHAIN, &[(uapi::chain::TABLE, name), (uapi::chain::NAME, name)]);
    let ruleset = decode(&messages).expect("a ruleset");
    assert_eq!(ruleset.tables[0].name.as_bytes(), &name[..6]);
    assert_eq!(ruleset.tables[0].chains[0].name, ruleset.tables[0].name);
}

#[test]
fn what_is_in_nothing_that_is_there_or_there_twice_is_refused() {
    let mut messages = table_and_chain();
    let rule = [
        (uapi::rule::TABLE, b"t\0".as_slice()),
        (uapi::rule::CHAIN, b"d\0"),
        (uapi::rule::HANDLE, &[0, 0, 0, 0, 0, 0, 0, 7]),
    ];
    message(&mut messages, message::NEWRULE, &rule);
    let error = decode(&messages).expect_err("no chain d");
    assert_eq!(error.to_string(), "a rule is in d, which was not there before");
    let mut messages = table_and_chain();
    messages.extend(table_and_chain());
    let error = decode(&messages).expect_err("two tables t");
    assert_eq!(error.to_string(), "there are two of the table t");
}

#[test]
fn comments_are_found_behind_other_userdata() {
    let mut messages = Vec::new();
    let userdata = [3, 2, 9, 9, 0, 3, b'h', b'i', 0];
    let table = [(uapi::table::NAME, b"t\0".as_slice()), (uapi::table::USERDATA, &userdata)];
    message(&mut messages, message::NEWTABLE, &table);
    assert_eq!(decode(&messages).expect("a ruleset").tables[0].comment.as_deref(), Some("hi"));
    let mut messages = Vec::new();
    let table = [(uapi::table::NAME, b"t\0".as_slice()), (uapi::table::USERDATA, &[0, 200, b'h'])];
    message(&mut messages, message::NEWTABLE, &table);
    assert_eq!(decode(&messages).expect("a ruleset").tables[0].comment, None, "it is longer than all");
}

#[test]
fn a_dynset_that_contains_another_ends_there() {
    let dynset = |inner: &[u8]| {
        nested(&[
            (uapi::dynset::SET_NAME, b"s\0"),
            (uapi::dynset::OP, &number(0)),
            (uapi::dynset::SREG_KEY, &number(1)),
            (uapi::dynset::EXPR, &nested(&[(uapi::expr::NAME, b"dynset\0"), (uapi::expr::DATA, inner)])),
        ])
    };
    let mut inner = Vec::new();
    while inner.len() < 60_000 {
        inner = dynset(&inner);
    }
    let exprs = rule(&[(b"dynset\0", inner)]);
    let [Expr::Dynset(outer)] = exprs.as_slice() else { panic!("{exprs:?}") };
    assert!(matches!(outer.exprs.as_slice(), [Expr::Unknown { .. }]), "{outer:?}");
}

#[test]
fn functions_at_hooks_are_chains_programs_and_the_kernels_own() {
    use crate::model::{Family, HookPoint, HookedFunction};
    let hooked = |of: &[(usize, &[u8])]| {
        let mut attributes = vec![
            (uapi::hooked::HOOKNUM, [0, 0, 0, 1].as_slice()),
            (uapi::hooked::PRIORITY, &[255, 255, 255, 251]),
        ];
        attributes.extend(of);
        let mut messages = Vec::new();
        let mut payload = vec![2, 0, 0, 0];
        payload.extend(nested(&attributes));
        message_into(&mut messages, message::HOOK, &payload);
        let hooked = decode(&messages).expect("a ruleset").hooked[0].clone();
        assert_eq!((hooked.family, hooked.point, hooked.priority), (Family::Ip, HookPoint::Input, -5));
        hooked.function
    };
    let info = |kind: u32, description: &[u8]| {
        nested(&[(uapi::hooked_info::TYPE, &number(kind)), (uapi::hooked_info::DESC, description)])
    };
    let function = [(uapi::hooked::FUNCTION_NAME, b"ipt_do_table\0".as_slice())];
    let kernel = HookedFunction::Kernel { function: "ipt_do_table".into(), module: None };
    assert_eq!(hooked(&function), kernel);
    let chain = nested(&[
        (uapi::hooked_chain::TABLE, b"t\0"),
        (uapi::hooked_chain::NAME, b"c\0"),
        (uapi::hooked_chain::FAMILY, &[INET]),
    ]);
    assert_eq!(
        hooked(&[(uapi::hooked::CHAIN_INFO, &info(1, &chain))]),
        HookedFunction::Chain { family: Family::Inet, table: "t".into(), chain: "c".into() }
    );
    let program = nested(&[(uapi::hooked_bpf::ID, &number(7))]);
    assert_eq!(hooked(&[(uapi::hooked::CHAIN_INFO, &info(2, &program))]), HookedFunction::Bpf { id: 7 });
    assert_eq!(hooked(&[(uapi::hooked::CHAIN_INFO, &info(3, &[]))]), HookedFunction::Flowtable);
}

#[test]
fn devices_of_a_hook_may_be_named_by_how_their_names_begin() {
    const DEVICE_NAME: usize = 1;
    const DEVICE_PREFIX: usize = 2;
    let devices = nested(&[(DEVICE_NAME, b"lo\0"), (DEVICE_PREFIX, b"eth")]);
    let hook = nested(&[
        (uapi::hook::HOOKNUM, &number(5)),
        (uapi::hook::PRIORITY, &number(0)),
        (uapi::hook::DEVS, &devices),
    ]);
    let mut messages = Vec::new();
    message(&mut messages, message::NEWTABLE, &[(uapi::table::NAME, b"t\0")]);
    message(
        &mut messages,
        message::NEWCHAIN,
        &[
            (uapi::chain::TABLE, b"t\0"),
            (uapi::chain::NAME, b"c\0"),
            (uapi::chain::HOOK, &hook),
            (uapi::chain::TYPE, b"filter\0"),
        ],
    );
    let ruleset = decode(&messages).expect("a ruleset");
    let hook = ruleset.tables[0].chains[0].hook.as_ref().expect("a base chain");
    assert_eq!(hook.devices, [Name::from("lo"), Name::from("eth*")]);
}
