//! Random histories of a zone whose trust is changed in several places, against a plain reading of the rules: what was
//! denied or retired anywhere stays so wherever that was heard of, and nothing else is lost.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest as _, Sha256};
use time::{Duration, OffsetDateTime};

use super::zone::{Authority, NOW, identity, moment};
use crate::identity::Identity;
use crate::merge::{digest, merge, takes_back, with_denials};
use crate::tls::certificate::{Leaf, NameHash, chain_from_pem, hex};
use crate::tls::verifier::DenyList;
use crate::trust::{Anchors, Denied, Retired, Trust, fingerprint};

const HISTORIES: u64 = 1_000;
const STEPS: usize = 12;
const COPIES: usize = 3;
/// Copies of the zone directory first, proxies behind them.
const PARTIES: usize = COPIES + 2;
const NAMES: usize = 2;
const SERIALS: u8 = 4;
/// Where a certificate of each serial number ends, in days from the beginning; the list tells of some.
const ENDS: [(i64, bool); SERIALS as usize] = [(20, true), (40, true), (60, false), (400, true)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    DenyIdentity {
        copy: usize,
        name: usize,
    },
    DenyCertificate {
        copy: usize,
        serial: u8,
    },
    AddAnchor {
        copy: usize,
        anchor: usize,
    },
    RetireAnchor {
        copy: usize,
        anchor: usize,
    },
    /// A copy of the directory and a proxy compare what they have.
    Meet {
        copy: usize,
        proxy: usize,
    },
    /// A client of the first version sends what this copy has, as well as it can say it.
    MeetAsBefore {
        copy: usize,
        proxy: usize,
    },
    Wait {
        days: i64,
    },
}

impl Step {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        let copy = rng.random_range(0..COPIES);
        let proxy = rng.random_range(COPIES..PARTIES);
        match rng.random_range(0..12) {
            0 | 1 => Self::DenyIdentity { copy, name: rng.random_range(0..NAMES) },
            2 | 3 => Self::DenyCertificate { copy, serial: rng.random_range(0..SERIALS) },
            4 => Self::AddAnchor { copy, anchor: rng.random_range(0..3) },
            5 => Self::RetireAnchor { copy, anchor: rng.random_range(0..3) },
            6..=9 => Self::Meet { copy, proxy },
            10 => Self::MeetAsBefore { copy, proxy },
            _ => Self::Wait { days: rng.random_range(0..20) },
        }
    }
}

/// What a party has heard of, by the rules as they are written: nothing in it is ever forgotten.
#[derive(Debug, Clone, Default)]
struct Heard {
    identities: BTreeMap<usize, i64>,
    certificates: BTreeSet<u8>,
    anchors: BTreeSet<usize>,
    retired: BTreeSet<usize>,
}

impl Heard {
    fn denials(&mut self, other: &Self) {
        for (name, time) in &other.identities {
            let known = self.identities.entry(*name).or_insert(*time);
            *known = (*known).max(*time);
        }
        self.certificates.extend(&other.certificates);
        self.retired.extend(&other.retired);
    }

    fn everything(&mut self, other: &Self) {
        self.denials(other);
        self.anchors.extend(&other.anchors);
    }

    fn admits(&self, leaf: &Certificate, now: i64) -> bool {
        self.anchors.contains(&leaf.anchor)
            && !self.retired.contains(&leaf.anchor)
            && now <= leaf.end()
            && !self.certificates.contains(&leaf.serial)
            && self.identities.get(&leaf.name).is_none_or(|time| leaf.not_before >= *time)
    }
}

/// A certificate that somebody could hold. Serial numbers are unique over all issuers here.
#[derive(Debug, Clone, Copy)]
struct Certificate {
    anchor: usize,
    name: usize,
    serial: u8,
    not_before: i64,
}

impl Certificate {
    fn end(&self) -> i64 {
        NOW + ENDS[usize::from(self.serial)].0 * 86_400
    }
}

struct World {
    pems: Vec<String>,
    fingerprints: Vec<String>,
    issuers: Vec<NameHash>,
    names: Vec<Identity>,
    module_servers: String,
}

impl World {
    fn new() -> Self {
        let authorities: Vec<_> =
            (0..3).map(|number| Authority::new(&format!("endpoints {number}"))).collect();
        Self {
            pems: authorities.iter().map(Authority::pem).collect(),
            fingerprints: authorities.iter().map(|authority| fingerprint(&authority.der())).collect(),
            issuers: authorities.iter().map(issuer).collect(),
            names: (0..NAMES).map(named).collect(),
            module_servers: Authority::new("module servers").pem(),
        }
    }

    fn first(&self) -> Trust {
        let anchors = Anchors {
            endpoint: vec![self.pems[0].clone()],
            module_server: vec![self.module_servers.clone()],
        };
        Trust::of(1, anchors, Vec::new())
    }

    /// Plays a history; an error says what did not hold, and after which step.
    fn play(&self, steps: &[Step]) -> Result<(), String> {
        let mut documents = vec![self.first(); PARTIES];
        let heard = Heard { anchors: BTreeSet::from([0]), ..Heard::default() };
        let mut heard = vec![heard; PARTIES];
        let mut now = NOW;
        for (number, step) in steps.iter().enumerate() {
            self.step(*step, &mut documents, &mut heard, &mut now);
            self.compare(&documents, &heard, now).map_err(|why| format!("after step {number}: {why}"))?;
        }
        // And what they all would have if they had all met.
        let (mut together, mut known) = (documents[0].clone(), heard[0].clone());
        for (document, other) in documents.iter().zip(&heard).skip(1) {
            together = merge(&together, document, moment(now)).unwrap();
            known.everything(other);
        }
        self.compare(&[together], &[known], now).map_err(|why| format!("when all have met: {why}"))
    }

    fn step(&self, step: Step, documents: &mut [Trust], heard: &mut [Heard], now: &mut i64) {
        let time = moment(*now);
        match step {
            Step::DenyIdentity { copy, name } => {
                let entry = Denied::Identity { identity: named(name), not_before: time };
                documents[copy].deny.push(entry);
                documents[copy].version += 1;
                heard[copy].identities.insert(name, *now);
            }
            Step::DenyCertificate { copy, serial } => {
                let (days, told) = ENDS[usize::from(serial)];
                let until = told.then(|| moment(NOW + days * 86_400));
                for issuer in &self.issuers {
                    let (issuer, serial) = (hex(issuer), format!("0{serial:X}"));
                    documents[copy].deny.push(Denied::Certificate { issuer, serial, until });
                }
                documents[copy].version += 1;
                heard[copy].certificates.insert(serial);
            }
            Step::AddAnchor { copy, anchor } => {
                if !heard[copy].retired.contains(&anchor) && heard[copy].anchors.insert(anchor) {
                    documents[copy].anchors.endpoint.push(self.pems[anchor].clone());
                    documents[copy].version += 1;
                }
            }
            Step::RetireAnchor { copy, anchor } => {
                let left = heard[copy].anchors.difference(&heard[copy].retired).count();
                if heard[copy].anchors.contains(&anchor) && left > 1 {
                    let until = time + Duration::days(4_000);
                    let retired = Retired { fingerprint: self.fingerprints[anchor].to_uppercase(), until };
                    documents[copy].retired.push(retired);
                    documents[copy] = merge(&documents[copy], &documents[copy].clone(), time).unwrap();
                    documents[copy].version += 1;
                    heard[copy].retired.insert(anchor);
                }
            }
            Step::Meet { copy, proxy } => {
                let merged = merge(&documents[copy], &documents[proxy], time).unwrap();
                assert_eq!(merged, merge(&documents[proxy], &documents[copy], time).unwrap());
                let again = merge(&merged, &documents[proxy], time).unwrap();
                assert_eq!((again.version, digest(&again)), (merged.version, digest(&merged)));
                for other in [copy, proxy] {
                    assert!(merged.version >= documents[other].version);
                    let same = digest(&merged).unwrap() == digest(&documents[other]).unwrap();
                    assert!(
                        same || merged.version > documents[other].version,
                        "a version says one thing only"
                    );
                    assert_eq!(takes_back(&documents[other], &merged, time).unwrap(), [""; 0]);
                    documents[other] = merged.clone();
                }
                let theirs = heard[proxy].clone();
                heard[copy].everything(&theirs);
                heard[proxy] = heard[copy].clone();
            }
            Step::MeetAsBefore { copy, proxy } => {
                let sent = documents[copy].in_first_version();
                if sent.version > documents[proxy].version {
                    let taken = with_denials(&sent, &documents[proxy], time).unwrap();
                    let mut known = heard[copy].clone();
                    // What that client can't say it does not tell.
                    known.anchors.retain(|anchor| !heard[copy].retired.contains(anchor));
                    known.retired.clear();
                    known.denials(&heard[proxy]);
                    if !taken.anchors.endpoint.is_empty() {
                        (documents[proxy], heard[proxy]) = (taken, known);
                    }
                }
            }
            Step::Wait { days } => *now += days * 86_400,
        }
    }

    /// Whether each party lets in exactly those whom it should, of all who could ask.
    fn compare(&self, documents: &[Trust], heard: &[Heard], now: i64) -> Result<(), String> {
        for (party, (document, heard)) in documents.iter().zip(heard).enumerate() {
            if document.version == 1 {
                // Nothing has changed here yet.
                continue;
            }
            let list = DenyList::new(&document.deny);
            let anchors: BTreeSet<_> = document
                .anchors
                .endpoint
                .iter()
                .flat_map(|pem| chain_from_pem(pem, "anchor").unwrap())
                .map(|der| fingerprint(&der))
                .collect();
            for certificate in self.certificates(now) {
                let leaf = Leaf {
                    identity: self.names[certificate.name].clone(),
                    issuer: self.issuers[certificate.anchor],
                    serial: Box::new([certificate.serial]),
                    not_before: certificate.not_before,
                    not_after: certificate.end(),
                    shown_with: Box::default(),
                };
                let admitted = anchors.contains(&self.fingerprints[certificate.anchor])
                    && now <= leaf.not_after
                    && !list.denies(&leaf);
                if admitted != heard.admits(&certificate, now) {
                    return Err(format!("party {party}: {certificate:?} is let in: {admitted}"));
                }
            }
        }
        Ok(())
    }

    fn certificates(&self, now: i64) -> impl Iterator<Item = Certificate> {
        let anchors = 0..self.pems.len();
        anchors.flat_map(move |anchor| {
            (0..NAMES).flat_map(move |name| {
                (0..SERIALS).flat_map(move |serial| {
                    [NOW - 1, now].map(|not_before| Certificate { anchor, name, serial, not_before })
                })
            })
        })
    }
}

fn named(number: usize) -> Identity {
    identity(&format!("spiffe://plant-7/endpoint/e{number}"))
}

fn issuer(authority: &Authority) -> NameHash {
    let der = authority.der();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    Sha256::digest(parsed.subject().as_raw()).into()
}

#[test]
fn whoever_meets_whom_first_everybody_lets_in_whom_the_rules_say() {
    let world = World::new();
    for seed in 0..HISTORIES {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut steps: Vec<_> = (0..STEPS).map(|_| Step::random(&mut rng)).collect();
        let Err(mut why) = world.play(&steps) else { continue };
        let mut index = 0;
        while index < steps.len() {
            let mut fewer = steps.clone();
            fewer.remove(index);
            match world.play(&fewer) {
                Err(still) => (steps, why, index) = (fewer, still, 0),
                Ok(()) => index += 1,
            }
        }
        panic!("history {seed}: {why}, with {steps:?}");
    }
}

#[test]
fn merging_is_associative_and_says_the_same_twice() {
    let world = World::new();
    for seed in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut documents = vec![world.first(); PARTIES];
        let mut heard = vec![Heard { anchors: BTreeSet::from([0]), ..Heard::default() }; PARTIES];
        let mut now = NOW;
        for _ in 0..STEPS {
            world.step(Step::random(&mut rng), &mut documents, &mut heard, &mut now);
        }
        let time = moment(now);
        let both = |one: &Trust, other: &Trust| merge(one, other, time).unwrap();
        let [a, b, c, ..] = &documents[..] else { panic!("three copies") };
        assert_eq!(digest(&both(&both(a, b), c)).unwrap(), digest(&both(a, &both(b, c))).unwrap(), "{seed}");
        let once = both(a, b);
        assert_eq!(both(b, a), once);
        assert_eq!(both(&once, &once), once);
        assert_eq!(both(&once, b), once);
        for one in [a, b] {
            let same = digest(&once).unwrap() == digest(one).unwrap();
            assert!(same || once.version > one.version, "{seed}: a version says one thing only");
        }
    }
}

#[test]
fn a_document_that_takes_something_back_is_told_what() {
    let world = World::new();
    let time: OffsetDateTime = moment(NOW);
    let entry = |at| Denied::Identity { identity: named(0), not_before: moment(at) };
    let certificate =
        Denied::Certificate { issuer: "ab".repeat(32), serial: "0a".into(), until: Some(moment(NOW)) };
    let mut in_force = Trust { deny: vec![entry(NOW), certificate], ..world.first() };
    in_force.anchors.endpoint.push(world.pems[1].clone());
    in_force.retired =
        vec![Retired { fingerprint: world.fingerprints[2].clone(), until: time + Duration::days(1) }];
    let lines = |next: &Trust, now| takes_back(&in_force, next, now).unwrap();
    assert_eq!(lines(&in_force, time), [""; 0]);

    let mut next = in_force.clone();
    next.deny = vec![entry(NOW - 1)];
    next.anchors.endpoint = vec![world.pems[0].clone(), world.pems[2].clone()];
    next.retired.clear();
    let told = lines(&next, time);
    assert_eq!(told.len(), 4, "{told:?}");
    for (line, words) in told.iter().zip([
        "e0 would be let in again",
        "certificate a of",
        "come back",
        "without being retired",
    ]) {
        assert!(line.contains(words), "{line}");
    }
    // A week after its certificate's end, a denial may go; and an anchor whose time is over is retired no more.
    let told = lines(&next, time + Duration::days(8));
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn an_issuer_keeps_the_zeros_that_it_begins_with() {
    let world = World::new();
    let issuer = format!("00{}", "ab".repeat(31));
    let denied = Denied::Certificate { issuer: issuer.clone(), serial: "000".into(), until: None };
    let document = Trust { deny: vec![denied], ..world.first() };
    let merged = merge(&document, &world.first(), moment(NOW)).unwrap();
    assert_eq!(merged.deny, [Denied::Certificate { issuer, serial: "0".into(), until: None }]);
}
