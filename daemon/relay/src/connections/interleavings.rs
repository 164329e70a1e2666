//! Interleavings of connections that come and rules that change: whatever the order of their steps, nobody stays
//! connected whom the newest rules do not admit, and nobody is ended whom all rules since its handshake admit. Under an
//! authority that is retired the sessions go on, and no session begins.
//!
//! The model is a table of who is admitted under which rules. The steps are those of `admission.rs` (look at the
//! rules, shake hands, register, look at the rules again, authorise), of a call (begin a session) and of
//! `Context::set_rules` (replace, enforce).

use std::collections::BTreeSet;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustls::pki_types::CertificateDer;
use zone_protocol::tls::certificate::{Anchor, chain_from_pem, hex, issuers};
use zone_protocol::trust::{Denied, Retired};

use super::*;
use crate::fixtures::{Authority, policy};
use crate::identity;

const SEEDS: u64 = 2_000;

/// The certificates: the first two by an authority that is taken out and put back, the third by one that stays.
const LEAVES: usize = 3;

/// What rules say of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It is admitted.
    In,
    /// Its authority is retired: sessions go on.
    SessionsOnly,
    /// It is not admitted.
    Out,
}

use Verdict::{In, Out, SessionsOnly};

/// Who is admitted under which rules: all; all but 1; only 2; all but 0; all again; only 2, the authority of the others
/// being retired; the same, and it is denied.
const VERDICTS: [[Verdict; LEAVES]; 7] = [
    [In, In, In],
    [In, Out, In],
    [Out, Out, In],
    [Out, In, In],
    [In, In, In],
    [SessionsOnly, SessionsOnly, In],
    [Out, Out, In],
];

/// The rules that retire an authority, and others that have forgotten it. No document forgets what it has retired.
const FORGETFUL: [usize; 2] = [5, 2];

/// The rules of [`VERDICTS`] and the certificates.
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
        let anchor = Anchor::read(&chain_from_pem(&leaving.pem, "anchor").unwrap()[0]).unwrap();
        let authority = Denied::Certificate {
            issuer: hex(&anchor.certificate.issuer),
            serial: hex(&anchor.certificate.serial),
            until: None,
        };
        let until = OffsetDateTime::now_utc() + time::Duration::days(1);
        let retired = vec![Retired { fingerprint: anchor.fingerprint, until }];
        let all = policy.trust.anchors.endpoint.clone();
        let one = vec![staying.pem.clone()];
        let rules = [
            (all.clone(), None, Vec::new()),
            (all.clone(), Some(denied(1)), Vec::new()),
            (one.clone(), None, Vec::new()),
            (all.clone(), Some(denied(0)), Vec::new()),
            (all, None, Vec::new()),
            (one.clone(), None, retired.clone()),
            (one, Some(authority), retired),
        ];
        let rules = rules.map(|(anchors, denied, retired)| {
            policy.trust.anchors.endpoint = anchors;
            policy.trust.deny = denied.into_iter().collect();
            policy.trust.retired = retired;
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
    /// It carries a session in the end.
    session: bool,
    /// Whether that session began.
    began: bool,
    /// It leaves by itself in the end.
    leaves: bool,
}

impl Coming {
    const STEPS: usize = 6;

    fn take_step(&mut self, zone: &Zone, connections: &Arc<Connections>, current: usize) {
        let (leaf, issuers) = &zone.leaves[self.leaf];
        match self.step {
            0 => self.before = current,
            // The handshake, by the rules from before, and the registration after it.
            1 if VERDICTS[self.before][self.leaf] != In => self.refused = true,
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
            4 => {
                let begins = self.registered.as_ref().is_some_and(|r| self.session && r.begin_session());
                self.began = begins;
            }
            _ if self.leaves => (self.registered, self.began) = (None, false),
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
                assert_eq!(VERDICTS[self.current][leaf], Out, "{endpoint} is gone, and the rules admit it");
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
fn run(
    zone: &Zone,
    leaves: &[(usize, bool, bool)],
    versions: &[usize],
    order: &[Turn],
) -> Result<(), String> {
    let connections: Arc<Connections> = Arc::default();
    let mut coming: Vec<_> = leaves
        .iter()
        .map(|&(leaf, session, leaves)| Coming { leaf, session, leaves, ..Coming::default() })
        .collect();
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
        let verdict = VERDICTS[changes.current][one.leaf];
        let admitted = verdict == In || (verdict == SessionsOnly && one.began);
        if connected && !admitted {
            return Err(format!("connection {number} stays, and the newest rules do not admit it"));
        }
        let verdicts: Vec<_> = lived.iter().map(|version| VERDICTS[*version][one.leaf]).collect();
        let always = verdicts.iter().all(|verdict| *verdict == In);
        if always && (one.refused || one.terminated()) {
            return Err(format!("connection {number} was ended, and all rules admit it"));
        }
        if one.began && one.terminated() && !verdicts.contains(&Out) {
            return Err(format!("session {number} was ended, and no rules forbid it to go on"));
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
        for versions in (0..VERDICTS.len()).flat_map(|a| (0..VERDICTS.len()).map(move |b| [a, b])) {
            for (leaf, session) in (0..LEAVES).flat_map(|leaf| [(leaf, false), (leaf, true)]) {
                if versions == FORGETFUL {
                    continue;
                }
                if let Err(failure) = run(&zone, &[(leaf, session, false)], &versions, &order) {
                    panic!("leaf {leaf}, session {session}, rules {versions:?}: {failure}\n{order:?}");
                }
                runs += 1;
            }
        }
    }
    assert_eq!(runs, 210 * 48 * 2 * LEAVES);
}

/// Several connections, some of one endpoint, some of which leave again, and a row of changes.
#[test]
fn nobody_whom_the_newest_rules_do_not_admit_stays_connected_in_random_orders() {
    let zone = Zone::new();
    for seed in 0..SEEDS {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let leaves: Vec<_> = (0..rng.random_range(1..6))
            .map(|_| (rng.random_range(0..LEAVES), rng.random_bool(0.5), rng.random_bool(0.2)))
            .collect();
        let mut versions: Vec<_> =
            (0..rng.random_range(0..5)).map(|_| rng.random_range(0..VERDICTS.len())).collect();
        while let Some(at) = versions.windows(2).position(|two| two == FORGETFUL) {
            versions.remove(at);
        }
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
