//! Rules that are changed while they are read.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use zone_ruleset::{Expr, ReadError, Reader, Verdict};

use crate::namespace::namespace;

/// Ends the changes, also if a test fails meanwhile.
struct StopsAtItsEnd<'a>(&'a AtomicBool);

impl Drop for StopsAtItsEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn rules_that_are_replaced_all_the_time_are_read_as_they_were_at_one_moment() {
    let test = "rules_that_are_replaced_all_the_time_are_read_as_they_were_at_one_moment";
    let Some(host) = namespace(test) else { return };
    let stop = AtomicBool::new(false);
    // Each has rules, elements and an anonymous set of its own number only.
    let of = |number: u8| {
        let rules: Vec<String> = (0..200)
            .map(|port| {
                format!("ip saddr {{ 10.0.0.{number}, 10.0.1.{number} }} tcp dport {port} jump of{number}\n")
            })
            .collect();
        let elements: Vec<String> = (0..200).map(|host| format!("10.{number}.0.{host}")).collect();
        format!(
            "flush ruleset\ntable inet t {{ set s {{ type ipv4_addr; elements = {{ {} }}\n }}\n chain of{number} {{ }}\n\
             chain in {{ {} }} }}\n",
            elements.join(", "),
            rules.concat()
        )
    };
    host.nft(&of(1));
    let (mut consistent, mut changing, mut seen) = (0, 0, [false; 2]);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                host.nft(&of(2));
                host.nft(&of(1));
            }
        });
        let stop = StopsAtItsEnd(&stop);
        host.inside(|| {
            let mut reader = Reader::open().expect("a reader");
            let deadline = Instant::now() + Duration::from_secs(20);
            while consistent < 60 && Instant::now() < deadline {
                let ruleset = match reader.ruleset() {
                    Ok(ruleset) => ruleset,
                    Err(ReadError::Changing) => {
                        changing += 1;
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                let [table] = ruleset.tables.as_slice() else { panic!("{ruleset:?}") };
                let elements = &table.set(&"s".into()).expect("the set").elements;
                let number = elements[0].key[1];
                assert_eq!(elements.len(), 200);
                assert!(elements.iter().all(|element| element.key[1] == number));
                let rules = &table.chain(&"in".into()).expect("the chain").rules;
                assert_eq!(rules.len(), 200);
                let jump = Expr::Verdict(Verdict::Jump(format!("of{number}").as_str().into()));
                assert!(rules.iter().all(|rule| rule.exprs.last() == Some(&jump)), "of {number}");
                let anonymous = table.sets.iter().filter(|set| set.flags.anonymous);
                assert!(anonymous.flat_map(|set| &set.elements).all(|element| element.key[3] == number));
                consistent += 1;
                seen[usize::from(number - 1)] = true;
            }
        });
        drop(stop);
    });
    assert!(consistent > 0 && seen == [true; 2], "{consistent} read, {changing} given up, {seen:?}");
}
