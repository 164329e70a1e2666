//! Rules read from the kernel and put into words, beside what nft and this program print for them.

use std::collections::BTreeMap;

use zone_ruleset::{Reader, words};

use crate::host::{Host, host};

/// What nft prints and the words leave out, say otherwise, or have no words for.
const DIFFERENCES: [(&str, &str); 8] = [
    // What the bytecode does not say, or the model does not hold.
    ("jhash ip saddr mod 2 0 accept", "meta nfproto ipv4 expression `hash`, not shown mod 2 0 accept"),
    (
        "tcp dport 80 dnat to jhash ip saddr mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
        "tcp dport 80 dnat to expression `hash`, not shown mod 2 map { 0 : 10.0.0.1, 1 : 10.0.0.2 }",
    ),
    ("counter name tcp dport map @cnt", "object name tcp dport map @cnt"),
    ("log prefix \"dropped: \" flags all drop", "log prefix \"dropped: \" drop"),
    ("log group 2 snaplen 100 queue-threshold 5", "log group 2"),
    ("masquerade random", "masquerade"),
    ("tcp option maxseg size set 1000", "expression `exthdr`, not shown"),
    ("osf name \"Linux\"", "expression `osf`, not shown 0x4c696e75780000000000000000000000"),
];

#[test]
fn rules_read_as_nft_lists_them() {
    let Some(host) = host("rules in words") else { return };
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/words.nft");
    host.sh(&format!("ip link add eth0 type veth peer name eth1; nft -f {rules}"));
    let listed = listed(&host);
    let in_words = in_words(&host, words::rule);
    assert_eq!(listed.keys().collect::<Vec<_>>(), in_words.keys().collect::<Vec<_>>());
    let mut differing: Vec<(&str, &str)> = listed
        .iter()
        .map(|(place, listed)| (listed.as_str(), in_words[place].as_str()))
        .filter(|(listed, said)| normal(listed) != normal(said))
        .collect();
    println!("{} of {} rules read as nft lists them", listed.len() - differing.len(), listed.len());
    differing.retain(|difference| !DIFFERENCES.contains(difference));
    assert!(differing.is_empty(), "{differing:#?}");
    assert!(listed.len() > 300, "{}", listed.len());
}

#[test]
fn this_programs_rules_read_in_the_kernel_as_they_were_planned() {
    let Some(host) = host("own rules in words") else { return };
    host.sh("ip link add eth0 type veth peer name eth1");
    host.configure(
        "[control]\nopen = true\nlisten = [\"192.0.2.1\", \"::\"]\ninterfaces = [\"eth0\"]\n\
         networks = [\"10.0.0.0/8\", \"192.0.2.7/32\", \"198.51.100.0/25\", \"2001:db8::/47\"]\n\
         [output]\nallow = [\"10.0.0.5:6514/tcp\", \"[fd00::5]:514/udp\"]\n",
    );
    let plan = host.ok(&["plan"]);
    let planned = plan.lines().filter_map(|line| line.strip_prefix("  + chain ")?.split_once(": "));
    let mut planned: Vec<(String, String)> =
        planned.map(|(chain, rule)| (chain.to_owned(), rule.to_owned())).collect();
    assert!(planned.len() > 20, "{plan}");
    host.ok(&["apply"]);
    let in_words = in_words(&host, words::comparable);
    let mut read: Vec<(String, String)> = in_words
        .into_iter()
        .map(|((chain, _), rule)| (chain.trim_start_matches("inet zone_proxy ").to_owned(), rule))
        .collect();
    planned.sort();
    read.sort();
    assert_eq!(read, planned);
}

/// Each rule by its chain and handle.
type Rules = BTreeMap<(String, u64), String>;

fn in_words(host: &Host, words_of: fn(&zone_ruleset::Rule, &zone_ruleset::Table) -> String) -> Rules {
    let ruleset = host.inside(|| Reader::open().and_then(|mut reader| reader.ruleset())).expect("rules");
    let mut rules = Rules::new();
    for table in &ruleset.tables {
        for chain in table.chains.iter().filter(|chain| !chain.anonymous) {
            let at = words::chain(chain, table);
            rules.extend(chain.rules.iter().map(|rule| ((at.clone(), rule.handle), words_of(rule, table))));
        }
    }
    rules
}

/// The same as nft lists them.
fn listed(host: &Host) -> Rules {
    let mut rules = Rules::new();
    let (mut table, mut chain) = (String::new(), None);
    let mut open: Vec<String> = Vec::new();
    for line in host.sh("nft -s -a list ruleset").lines() {
        let words = line.trim();
        if let Some(name) = line.strip_prefix("table ").and_then(|rest| rest.split_once(" {")) {
            name.0.clone_into(&mut table);
        } else if line == "\t}" {
            chain = None;
        } else if let Some(name) = line.strip_prefix("\tchain ").and_then(|rest| rest.split_once(" {")) {
            chain = Some(format!("{table} {}", name.0));
        } else if let Some(chain) = &chain {
            // An anonymous chain takes several lines.
            if words.ends_with('{') {
                open.push(words.to_owned());
                continue;
            }
            if !open.is_empty() && !words.starts_with('}') {
                open.push(format!("{}{words}", if open.len() > 1 { "; " } else { "" }));
                continue;
            }
            let words = match open.split_first() {
                Some((first, rest)) => format!("{first} {} {words}", rest.concat()),
                None => words.to_owned(),
            };
            open.clear();
            if let Some((rule, handle)) = words.rsplit_once(" # handle ") {
                let handle = handle.parse().expect("a number");
                rules.insert((chain.clone(), handle), rule.to_owned());
            }
        }
    }
    rules
}

/// What versions of nft say each in its own way: flags, a burst that is the usual one, the size of a meter, the order of elements.
fn normal(rule: &str) -> String {
    let rule = rule.replace(" burst 5 packets", "");
    let words: Vec<&str> = rule.split(' ').collect();
    let mut plain = Vec::new();
    let mut at = 0;
    while at < words.len() {
        match &words[at..] {
            ["size", number, ..] if number.parse::<u32>().is_ok() => at += 2,
            ["flags", "!=", flags, "/", mask, ..] => {
                plain.push(format!("flags & {} != {}", parenthesised(mask), flags.replace(',', " | ")));
                at += 5;
            }
            ["flags", flags, "/", mask, ..] => {
                plain.push(format!("flags & {} == {}", parenthesised(mask), flags.replace(',', " | ")));
                at += 4;
            }
            ["{", elements @ ..] => {
                let end = elements.iter().position(|word| *word == "}").unwrap_or(elements.len());
                let joined = elements[..end].join(" ");
                let mut elements: Vec<&str> = joined.split(", ").collect();
                elements.sort_unstable();
                plain.push(format!("{{ {} }}", elements.join(", ")));
                at += end + 2;
            }
            [word, ..] => {
                plain.push((*word).to_owned());
                at += 1;
            }
            [] => break,
        }
    }
    plain.join(" ")
}

fn parenthesised(flags: &str) -> String {
    if flags.contains(',') { format!("({})", flags.replace(',', " | ")) } else { flags.to_owned() }
}
