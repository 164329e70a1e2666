//! Interleavings of connections that come and rules that change: whatever the order of their steps, nobody stays
//! connected whom the newest rules do not admit, and nobody is ended whom all rules since its handshake admit.
//!
//! The model is a table of who is admitted under which rules. The steps are those of `admission.rs` (look at the
//! rules, shake hands, register, look at the rules again, authorise) and of `Context::set_rules` (replace, enforce).

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustls::pki_types::CertificateDer;
use zone_protocol::tls::certificate::issuers;
use zone_protocol::trust::Denied;

use super::*;
use crate::fixtures::{Authority, policy};
use crate::identity;

const SEEDS: u64 = 2_000;

/// The certificates: the first two by an authority that is taken out and put back, the third by one that stays.
const LEAVES: usize = 3;

/// Who is admitted under which rules: all; all but 1; only 2; all but 0; all again.
const ADMITTED: [[bool; LEAVES]; 5] =
    [[true, true, true], [true, false, true], [false, false, true], [false, true, true], [true, true, true]];

/// The rules of [`ADMITTED`] and the certificates.
struct Zone {
    rules: Vec<Arc<Rules>>,
    leaves: Vec<(Leaf, Box<[NameHash]>)>,
}

impl Zone {
    fn new() -> Self {
        let (proxies, leaving, staying) =
            (Authority::new("proxies"), Authority::new("leaving"), Authority::new("staying"));
        let certificates = [leaving.leaf(&uri(0)), leaving.leaf(&uri(1)), staying.leaf(&uri(2))];
        let mut policy = policy(&proxies, &[&leaving, &staying], &[&Authority::new("module servers")]);
        let denied = |leaf| Denied::Identity {
            identity: uri(leaf).parse().unwrap(),
            not_before: OffsetDateTime::now_utc(),
        };
        let all = policy.trust.anchors.endpoint.clone();
        let rules = [
            (all.clone(), None),
            (all.clone(), Some(denied(1))),
            (vec![staying.pem.clone()], None),
            (all.clone(), Some(denied(0))),
            (all, None),
        ];
        let rules = rules.map(|(anchors, denied)| {
            policy.trust.anchors.endpoint = anchors;
            policy.trust.deny = denied.into_iter().collect();
            Arc::new(Rules::new(&policy).unwrap())
        });
        let leaf = |der: &CertificateDer<'_>| {
            (Leaf::read(der).unwrap(), issuers(std::slice::from_ref(der)).unwrap())
        };
        Self { rules: rules.into(), leaves: certificates.iter().map(|c| leaf(&c.der)).collect() }
    }
}

fn uri(leaf: usize) -> String {
    format!("spiffe://zone/endpoint/host-{leaf}")
}

/// One that comes, step by step.
#[derive(Default)]
struct Coming {
    leaf: usize,
    step: usize,
    /// The rules in force at each look.
    before: usize,
    asked: usize,
    registered: Option<Registered>,
    refused: bool,
    /// It leaves by itself in the end.
    leaves: bool,
}

impl Coming {
    const STEPS: usize = 5;

    fn take_step(&mut self, zone: &Zone, connections: &Arc<Connections>, current: usize) {
        let (leaf, issuers) = &zone.leaves[self.leaf];
        match self.step {
            0 => self.before = current,
            // The handshake, by the rules from before, and the registration after it.
            1 if !ADMITTED[self.before][self.leaf] => self.refused = true,
            1 => self.registered = Some(connections.register(Port::Endpoint, leaf.clone(), issuers.clone())),
            2 => self.asked = current,
            3 => {
                if let Some(registered) = &self.registered {
                    let (rules, before) = (&zone.rules[self.asked], &zone.rules[self.before]);
                    if identity::authorise(&registered.leaf, issuers, Port::Endpoint, rules, before).is_err()
                    {
                        (self.registered, self.refused) = (None, true);
                    }
                }
            }
            _ if self.leaves => self.registered = None,
            _ => {}
        }
        self.step += 1;
    }

    fn terminated(&self) -> bool {
        self.registered.as_ref().is_some_and(|registered| registered.termination.reason.get().is_some())
    }
}

/// The changes of rules, one after the other: each is made first and enforced afterwards.
struct Changes {
    versions: Vec<usize>,
    step: usize,
    current: usize,
    before: usize,
}

impl Changes {
    fn take_step(&mut self, zone: &Zone, connections: &Connections) {
        if self.step.is_multiple_of(2) {
            self.before = std::mem::replace(&mut self.current, self.versions[self.step / 2]);
        } else {
            let (rules, before) = (&zone.rules[self.current], &zone.rules[self.before]);
            let (_, gone) = connections.enforce(rules, before);
            for endpoint in gone {
                let leaf: usize = endpoint.as_str().trim_start_matches("host-").parse().unwrap();
                assert!(!ADMITTED[self.current][leaf], "{endpoint} is gone, and the rules admit it");
            }
        }
        self.step += 1;
    }
}

/// Who takes the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Connection(usize),
    Rules,
}

/// Runs one order of steps and checks it against the model.
fn run(zone: &Zone, leaves: &[(usize, bool)], versions: &[usize], order: &[Turn]) -> Result<(), String> {
    let connections: Arc<Connections> = Arc::default();
    let mut coming: Vec<_> =
        leaves.iter().map(|&(leaf, leaves)| Coming { leaf, leaves, ..Coming::default() }).collect();
    let mut changes = Changes { versions: versions.to_vec(), step: 0, current: 0, before: 0 };
    // The rules that were in force at some moment from a connection's handshake on.
    let mut lived: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); coming.len()];
    for turn in order {
        match turn {
            Turn::Connection(number) => coming[*number].take_step(zone, &connections, changes.current),
            Turn::Rules => changes.take_step(zone, &connections),
        }
        for (one, lived) in coming.iter().zip(&mut lived).filter(|(one, _)| one.step > 0) {
            lived.extend([one.before, changes.current]);
        }
    }
    for (number, (one, lived)) in coming.iter().zip(&lived).enumerate() {
        let connected = one.registered.is_some() && !one.terminated();
        let admitted = ADMITTED[changes.current][one.leaf];
        if connected && !admitted {
            return Err(format!("connection {number} stays, and the newest rules do not admit it"));
        }
        let always = lived.iter().all(|version| ADMITTED[*version][one.leaf]);
        if always && (one.refused || one.terminated()) {
            return Err(format!("connection {number} was ended, and all rules admit it"));
        }
    }
    if connections.count(Port::Endpoint) != coming.iter().filter(|one| one.registered.is_some()).count() {
        return Err("entries without a connection".to_owned());
    }
    connections.end_all();
    if coming.iter().any(|one| one.registered.is_some() && !one.terminated()) {
        return Err("one outlives the end of all".to_owned());
    }
    Ok(())
}

/// Every order of one connection's steps among two changes of rules.
#[test]
fn nobody_slips_in_between_a_change_of_rules_and_its_enforcement_in_any_order() {
    let zone = Zone::new();
    let (mut runs, length) = (0, Coming::STEPS + 4);
    for chosen in (0_u32..1 << length).filter(|bits| bits.count_ones() == 4) {
        let order: Vec<_> = (0..length)
            .map(|at| if chosen & 1 << at == 0 { Turn::Connection(0) } else { Turn::Rules })
            .collect();
        for versions in (0..ADMITTED.len()).flat_map(|a| (0..ADMITTED.len()).map(move |b| [a, b])) {
            for leaf in 0..LEAVES {
                if let Err(failure) = run(&zone, &[(leaf, false)], &versions, &order) {
                    panic!("leaf {leaf}, rules {versions:?}: {failure}\n{order:?}");
                }
                runs += 1;
            }
        }
    }
    assert_eq!(runs, 126 * 25 * LEAVES);
}

/// Several connections, some of one endpoint, some of which leave again, and a row of changes.
#[test]
fn nobody_whom_the_newest_rules_do_not_admit_stays_connected_in_random_orders() {
    let zone = Zone::new();
    for seed in 0..SEEDS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let leaves: Vec<_> = (0..rng.random_range(1..6))
            .map(|_| (rng.random_range(0..LEAVES), rng.random_bool(0.2)))
            .collect();
        let versions: Vec<_> =
            (0..rng.random_range(0..5)).map(|_| rng.random_range(0..ADMITTED.len())).collect();
        let mut order: Vec<_> =
            (0..leaves.len()).flat_map(|number| vec![Turn::Connection(number); Coming::STEPS]).collect();
        order.extend(vec![Turn::Rules; 2 * versions.len()]);
        for at in (1..order.len()).rev() {
            order.swap(at, rng.random_range(0..=at));
        }
        if let Err(failure) = run(&zone, &leaves, &versions, &order) {
            // Whole steps of one connection are left out as long as it still fails.
            let mut shortest = order;
            for number in 0..leaves.len() {
                let shorter: Vec<_> =
                    shortest.iter().copied().filter(|turn| *turn != Turn::Connection(number)).collect();
                if run(&zone, &leaves, &versions, &shorter).is_err() {
                    shortest = shorter;
                }
            }
            panic!("seed {seed}, leaves {leaves:?}, rules {versions:?}: {failure}\n{shortest:?}");
        }
    }
}
