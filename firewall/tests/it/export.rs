//! The desired rules in other languages: what reads these takes them, and they let in what our own table lets in.

use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::host::{ADMIN, Host, RELAY, host, missing};

/// Ports and addresses that are tried from outside.
const PORTS: [u16; 4] = [17486, 17487, 17488, 22];
const ADDRESSES: [&str; 3] = ["10.9.0.1", "10.9.0.7", "[fd09::1]"];
/// Root's file and the relay's ports in each case.
const CASES: [(&str, &str); 4] = [
    ("[control]\nopen = true\n", "[]"),
    (
        "[control]\nopen = true\nlisten = [\"10.9.0.7\", \"fd09::1\"]\nnetworks = [\"10.9.0.2/32\", \"fd08::/64\"]\n",
        r#"[{"purpose":"endpoint","port":17486,"listen":["0.0.0.0","::"],"networks":["192.0.2.0/24"],"balancers":["fd09::/64"]}]"#,
    ),
    (
        "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\ninterfaces = [\"other0\"]\n[interfaces]\nendpoint = [\"inside\", \"other0\"]\n",
        r#"[{"purpose":"endpoint","port":17486,"listen":["10.9.0.1"],"networks":[]},
            {"purpose":"module-server","port":17487,"listen":["::"],"networks":["::/0"]}]"#,
    ),
    (
        "",
        r#"[{"purpose":"endpoint","port":17486,"listen":["0.0.0.0"],"networks":["10.9.0.0/30","10.9.0.4/32"]}]"#,
    ),
];

fn record(host: &Host, ports: &str) {
    let record = format!("{{\"version\":1,\"ports\":{ports}}}");
    std::fs::write(host.path("state/relay-ports.json"), record).expect("the record can be written");
}

fn exported(host: &Host, format: &str) -> PathBuf {
    let path = host.path(format);
    std::fs::write(&path, host.ok(&["export", "--format", format])).expect("the file can be written");
    path
}

/// What a host outside reaches, as lines.
fn reached(outside: &Host) -> Vec<String> {
    let places: Vec<_> = PORTS
        .iter()
        .flat_map(|port| ADDRESSES.iter().map(move |address| format!("{address}:{port}")))
        .collect();
    std::thread::scope(|scope| {
        let tries: Vec<_> = places
            .iter()
            .map(|place| scope.spawn(move || outside.reaches(place).then(|| place.clone())))
            .collect();
        tries.into_iter().filter_map(|one| one.join().expect("it ends")).collect()
    })
}

/// A host that listens on all ports and addresses, and one outside.
fn pair(test: &str) -> Option<(Host, Host, Vec<TcpListener>)> {
    let (inside, outside) = (host(test)?, host(test)?);
    inside.with_outside(&outside);
    inside.sh("ip address add 10.9.0.7/24 dev inside; echo 1 >/proc/sys/net/ipv6/bindv6only");
    let places = PORTS.iter().flat_map(|port| ["0.0.0.0", "[::]"].map(|any| format!("{any}:{port}")));
    let listeners = places.map(|place| inside.listen(place.parse().unwrap())).collect();
    Some((inside, outside, listeners))
}

/// As the only rules, each with real connections.
#[test]
fn exported_rules_let_in_exactly_what_our_own_table_lets_in() {
    let test = "exported rules";
    let Some((inside, outside, _listeners)) = pair(test) else { return };
    assert_eq!(reached(&outside).len(), PORTS.len() * ADDRESSES.len(), "the link works");
    let with_iptables = Path::new("/usr/sbin/iptables-nft-restore").exists();
    if !with_iptables {
        missing(test, "/usr/sbin/iptables-nft-restore is missing: apt-get install iptables");
    }
    let mut different = std::collections::BTreeSet::new();
    for (config, ports) in CASES {
        inside.configure(config);
        record(&inside, ports);
        inside.ok(&["apply"]);
        let own = reached(&outside);
        inside.sh("nft flush ruleset");

        let nft = exported(&inside, "nft");
        inside.sh(&format!("nft -c -f {0}; nft -f {0}; nft -f {0}", nft.display()));
        assert_eq!(inside.ruleset().matches("table ").count(), 1, "loaded twice it is there once");
        assert_eq!(reached(&outside), own, "{config}{ports}{}", inside.ruleset());
        inside.sh("nft flush ruleset");

        if with_iptables {
            let (four, six) = (exported(&inside, "iptables"), exported(&inside, "ip6tables"));
            for (program, file) in [("iptables-nft-restore", four), ("ip6tables-nft-restore", six)] {
                let file = file.display();
                inside.sh(&format!(
                    "{program} --test --noflush {file}; {program} --test {file}; {program} {file}"
                ));
            }
            assert_eq!(reached(&outside), own, "{config}{ports}{}", inside.ruleset());
            inside.sh("nft flush ruleset");
        }
        different.insert(own);
    }
    assert_eq!(different.len(), CASES.len(), "the cases differ: {different:#?}");
}

/// Also where it is asked by the broker, which reads what only root and itself can.
#[test]
fn an_admin_who_is_not_root_gets_the_same_export_as_root() {
    let Some(mut host) = host("export by the broker") else { return };
    record(&host, CASES[1].1);
    host.broker();
    let direct = host.ok(&["export", "--format", "csv", "--address", "10.9.0.1"]);
    assert!(direct.contains("endpoint,tcp,ipv4,17486,192.0.2.0/24,10.9.0.1,any\n"), "{direct}");
    let asked = host.send_as(ADMIN, b"{\"export\":{\"format\":\"csv\",\"addresses\":[\"10.9.0.1\"]}}\n");
    assert_eq!(asked["exported"], direct);
    let relay = host.send_as(RELAY, b"{\"export\":{\"format\":\"csv\",\"addresses\":[]}}\n");
    assert!(relay["refused"]["why"].as_str().unwrap().starts_with("zone-relay may not look"), "{relay}");
    assert!(UnixStream::connect(host.socket()).is_ok(), "it goes on serving");
}

/// Which packets come in, as the judge has it of the rules that the kernel has now: for each port and family, ranges of sources and of
/// addresses of this host, by device. How many come at once is left out of account.
fn let_in(host: &Host) -> Vec<String> {
    host.inside(|| {
        let rules = zone_ruleset::Reader::open().and_then(|mut reader| reader.ruleset()).expect("rules");
        let devices = zone_judge::Host::read().expect("devices");
        let judge = zone_judge::Judge::new(&rules, &devices);
        let mut told = Vec::new();
        for (port, v6) in PORTS.into_iter().flat_map(|port| [(port, false), (port, true)]) {
            let answer = judge.ask(&zone_judge::Question::any(v6, port));
            // A wildcard tells packets apart that fare alike: each pair of a source's range and an address stands for itself.
            let open = answer.cases.iter().filter(|case| {
                case.fate == zone_judge::Fate::Accepted
                    && case.conditions.iter().all(|condition| condition.while_quiet == Some(true))
            });
            let mut pairs: Vec<_> = open
                .flat_map(|case| {
                    let by = case.interface.clone();
                    case.destinations.iter().flat_map(move |to| {
                        let by = by.clone();
                        case.sources
                            .iter()
                            .map(move |from| (by.clone(), to.first, to.last, from.first, from.last))
                    })
                })
                .collect();
            pairs.sort();
            told.push(format!("{port} {v6} {:?}", joined(pairs)));
        }
        told
    })
}

type Pair = (Option<zone_ruleset::Name>, u128, u128, u128, u128);

/// Ranges of sources that touch are one, where all else is the same; single addresses of this host stand alone.
fn joined(pairs: Vec<Pair>) -> Vec<Pair> {
    let mut single: Vec<Pair> = pairs
        .into_iter()
        .flat_map(|(by, to, end, from, last)| (to..=end).map(move |to| (by.clone(), to, to, from, last)))
        .collect();
    single.sort();
    let mut joined: Vec<Pair> = Vec::new();
    for pair in single {
        match joined.last_mut() {
            Some(before)
                if (&before.0, before.1) == (&pair.0, pair.1) && before.4.saturating_add(1) >= pair.3 =>
            {
                before.4 = before.4.max(pair.4);
            }
            _ => joined.push(pair),
        }
    }
    joined
}

/// What is desired, at random: networks, addresses and devices, of one family or both.
fn random_desired(random: &mut impl rand::RngExt) -> (String, String) {
    let mut some = |all: &[&str]| -> String {
        let chosen: Vec<_> =
            all.iter().filter(|_| random.random_bool(0.4)).map(|one| format!("{one:?}")).collect();
        chosen.join(",")
    };
    let listen = ["10.9.0.1", "10.9.0.7", "fd09::1", "0.0.0.0", "::"];
    let networks = ["10.9.0.2/32", "10.8.0.0/14", "192.0.2.0/24", "fd09::/64", "fd00::/8", "0.0.0.0/0"];
    let devices = ["inside", "other0"];
    let or_all = |list: String| if list.is_empty() { "\"0.0.0.0\",\"::\"".to_owned() } else { list };
    let config = format!(
        "[control]\nopen = true\nlisten = [{}]\nnetworks = [{}]\ninterfaces = [{}]\n[interfaces]\nendpoint = [{}]\n",
        or_all(some(&listen)),
        some(&networks),
        some(&devices),
        some(&devices)
    );
    let ports = format!(
        r#"[{{"purpose":"endpoint","port":17486,"listen":[{}],"networks":[{}],"balancers":[{}]}},{{"purpose":"module-server","port":17487,"listen":[{}],"networks":[{}]}}]"#,
        or_all(some(&listen)),
        some(&networks),
        some(&networks[..2]),
        or_all(some(&listen)),
        some(&networks)
    );
    (config, ports)
}

/// The judge is held against the kernel by the oracle; here it compares rulesets.
#[test]
fn whatever_is_desired_the_export_lets_in_the_same_packets_as_our_own_table() {
    use rand::SeedableRng as _;
    let Some(inside) = host("exports judged") else { return };
    let Some(outside) = host("exports judged") else { return };
    inside.with_outside(&outside);
    inside.sh("ip address add 10.9.0.7/24 dev inside; ip link add other0 type veth peer name other1; \
               ip link set other0 up; ip address add 10.7.0.1/24 dev other0; ip address add fd07::1/64 dev other0 nodad");
    let with_iptables = Path::new("/usr/sbin/iptables-nft-restore").exists();
    let mut kinds = std::collections::BTreeSet::new();
    for seed in 0..24 {
        let (config, ports) = random_desired(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
        inside.configure(&config);
        record(&inside, &ports);
        inside.ok(&["apply"]);
        let own = let_in(&inside);
        inside.sh("nft flush ruleset");
        inside.sh(&format!("nft -f {}", exported(&inside, "nft").display()));
        assert_eq!(let_in(&inside), own, "seed {seed}: {config}{ports}{}", inside.ruleset());
        inside.sh("nft flush ruleset");
        if with_iptables {
            for (program, format) in
                [("iptables-nft-restore", "iptables"), ("ip6tables-nft-restore", "ip6tables")]
            {
                inside.sh(&format!("{program} {}", exported(&inside, format).display()));
            }
            assert_eq!(let_in(&inside), own, "seed {seed}: {config}{ports}{}", inside.ruleset());
            inside.sh("nft flush ruleset");
        }
        kinds.insert(own);
    }
    assert!(kinds.len() > 12, "the seeds differ: {}", kinds.len());
}
