//! What is too much, and what is not permitted.

use caps::{CapSet, Capability};
use zone_ruleset::{DecodeError, ReadError, Reader, decode};

use crate::namespace::namespace;

#[test]
fn more_rules_than_are_read_are_an_error_and_more_elements_a_set_that_is_cut() {
    let test = "more_rules_than_are_read_are_an_error_and_more_elements_a_set_that_is_cut";
    let Some(host) = namespace(test) else { return };
    let elements: Vec<String> = (0..3000).map(|port| port.to_string()).collect();
    host.nft(&format!(
        "table inet t {{ set many {{ type inet_service; elements = {{ {} }}\n }}\n chain c {{ accept; drop; }} }}",
        elements.join(", ")
    ));
    host.inside(|| {
        let open = || Reader::open().expect("a reader");
        let error = open().with_max_rules(1).ruleset().expect_err("two rules are too many");
        assert!(matches!(error, ReadError::Decode(DecodeError::TooManyRules { limit: 1 })), "{error}");
        let mut reader = open().with_max_elements(100);
        let cut = reader.ruleset().expect("rules");
        let set = &cut.tables[0].sets[0];
        assert!(set.cut && set.elements.len() == 100, "{} elements", set.elements.len());
        assert_eq!(cut.rules(), 2, "what comes behind the elements is read all the same");
        let whole = open().with_max_elements(3000).ruleset().expect("rules");
        assert!(!whole.tables[0].sets[0].cut, "as many as are read are not too many");
    });
}

#[test]
fn rules_are_not_read_without_the_right_to_it() {
    let Some(host) = namespace("rules_are_not_read_without_the_right_to_it") else { return };
    host.inside(|| {
        caps::drop(None, CapSet::Effective, Capability::CAP_NET_ADMIN).expect("a thread may lose a right");
        let error = Reader::open().expect("a socket").ruleset().expect_err("no right");
        assert!(matches!(error, ReadError::NotPermitted), "{error}");
    });
}

#[test]
fn what_was_recorded_is_the_same_ruleset() {
    let Some(host) = namespace("what_was_recorded_is_the_same_ruleset") else { return };
    host.nft(
        "table inet t { set s { type ipv4_addr; elements = { 192.0.2.1 }\n }\n\
         chain in { type filter hook input priority 0; ip saddr @s drop; tcp dport { 22, 80 } accept; } }",
    );
    host.inside(|| {
        let mut reader = Reader::open().expect("a reader");
        let recording = reader.record().expect("messages");
        assert_eq!(decode(&recording).expect("a ruleset"), reader.ruleset().expect("rules"));
    });
}

#[test]
fn a_recording_that_is_cut_short_or_changed_in_one_byte_is_an_error_or_another_ruleset_but_never_a_panic() {
    let test = "a_recording_that_is_cut_short_or_changed_in_one_byte_is_an_error_or_another_ruleset_but_never_a_panic";
    let Some(host) = namespace(test) else { return };
    host.nft(
        "table inet t { map m { type ipv4_addr . inet_service : verdict; flags interval;\n\
         elements = { 192.0.2.0/24 . 80-90 : accept }\n }\n limit l { rate 3/minute }\n\
         chain in { type filter hook input priority 0; ip saddr . tcp dport vmap @m; limit name \"l\" drop; } }",
    );
    let recording = host.inside(|| Reader::open().expect("a reader").record().expect("messages"));
    for cut in 0..recording.len() {
        let _ = decode(&recording[..cut]);
    }
    let mut changed = recording.clone();
    for at in 0..recording.len() {
        for byte in [0, 1, 0x7f, 0xff, recording[at] ^ 1] {
            changed[at] = byte;
            let _ = decode(&changed);
        }
        changed[at] = recording[at];
    }
}
