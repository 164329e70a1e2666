//! Random certificates, rules and times, against a plain reading of what is promised.

use std::sync::Arc;

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rustls::pki_types::CertificateDer;

use super::admission::shown;
use super::zone::{Authority, Draft, NOW, Zone, leaf, moment};
use crate::identity::Role;
use crate::tls::certificate::hex;
use crate::tls::verifier::Admission;
use crate::trust::Denied;

const CASES: u32 = 3_000;
const SERIALS: [&[u8]; 4] = [&[1], &[2], &[0x80], &[1, 0]];

/// Whose key signed a certificate. The default is the authority of the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signer {
    Of(Role),
    Stranger,
}

/// Parts of a SPIFFE identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name(&'static str, Role, &'static str);

impl Name {
    fn uri(self) -> String {
        format!("spiffe://{}/{}/{}", self.0, self.1, self.2)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    Certificate { issuer: Signer, serial: usize },
    Identity { name: Name, not_before: i64 },
}

/// One certificate at one port, by one clock. Times are seconds from [`NOW`].
#[derive(Debug, Clone)]
struct Case {
    port: Role,
    names: Vec<Name>,
    signer: Signer,
    not_before: i64,
    not_after: i64,
    now: i64,
    serial: usize,
    deny: Vec<Entry>,
}

/// What makes a case simpler; the name is a good one for its port.
type Change = fn(&mut Case, Name);

impl Case {
    fn random(rng: &mut ChaCha8Rng) -> Self {
        let port = pick(rng, &[Role::Endpoint, Role::ModuleServer]);
        // Mostly what is admitted, or every case would be refused for several reasons at once.
        let name = |rng: &mut ChaCha8Rng| {
            let zone = if rng.random_bool(0.85) { "plant-7" } else { "plant-8" };
            let role = if rng.random_bool(0.7) {
                port
            } else {
                pick(rng, &[Role::Endpoint, Role::ModuleServer, Role::ZoneProxy, Role::ZoneControl])
            };
            Name(zone, role, pick(rng, &["a", "b"]))
        };
        let signer = |rng: &mut ChaCha8Rng| match rng.random_range(0..10) {
            0 => Signer::Stranger,
            1..=3 => Signer::Of(pick(rng, &Role::FIRST_VERSION)),
            _ => Signer::Of(port),
        };
        let names = (0..pick(rng, &[0, 1, 1, 1, 1, 1, 1, 1, 1, 2])).map(|_| name(rng)).collect();
        let not_before = pick(rng, &[-100, -10, -1, 0, 1]);
        let deny = (0..rng.random_range(0..4)).map(|_| {
            if rng.random_bool(0.5) {
                Entry::Certificate { issuer: signer(rng), serial: rng.random_range(0..SERIALS.len()) }
            } else {
                Entry::Identity { name: name(rng), not_before: pick(rng, &[-100, -99, -10, -9, 0, 1]) }
            }
        });
        Self {
            port,
            deny: deny.collect(),
            signer: signer(rng),
            not_before,
            not_after: not_before.max(0) + pick(rng, &[0, 1, 100]),
            now: pick(rng, &[-10, -1, 0, 0, 0, 0, 0, 1, 2, 101]),
            serial: rng.random_range(0..SERIALS.len()),
            names,
        }
    }

    /// What is promised of a certificate that is shown in a handshake.
    fn promised(&self) -> &'static str {
        let [name] = self.names[..] else { return "unreadable" };
        if self.now < self.not_before || self.now > self.not_after {
            return "not_now";
        }
        match self.signer {
            Signer::Of(role) if role == self.port => self.promised_by_rules(name),
            // Proxies dial nobody: no port knows their authority.
            Signer::Stranger | Signer::Of(Role::ZoneProxy) => "unknown_authority",
            Signer::Of(role) if role == name.1 => "wrong_role",
            Signer::Of(_) => "wrong_authority",
        }
    }

    /// The same after the handshake, where nobody asks for the signer again and time comes last.
    fn promised_afterwards(&self) -> &'static str {
        let [name] = self.names[..] else { return "unreadable" };
        match self.promised_by_rules(name) {
            "admitted" if self.now < self.not_before || self.now > self.not_after => "not_now",
            promised => promised,
        }
    }

    fn promised_by_rules(&self, name: Name) -> &'static str {
        if name.0 != "plant-7" {
            return "wrong_zone";
        }
        if name.1 != self.port {
            return "wrong_role";
        }
        let denied = self.deny.iter().any(|entry| match entry {
            Entry::Certificate { issuer, serial } => *issuer == self.signer && *serial == self.serial,
            Entry::Identity { name: denied, not_before } => *denied == name && self.not_before < *not_before,
        });
        if denied { "revoked" } else { "admitted" }
    }

    /// Cases with one thing less in them.
    fn simpler(&self) -> Vec<Self> {
        let mut simpler = Vec::new();
        for index in 0..self.deny.len() {
            let mut case = self.clone();
            case.deny.remove(index);
            simpler.push(case);
        }
        let good = Name("plant-7", self.port, "a");
        let changes: [(bool, Change); 4] = [
            (self.names != [good], |case, good| case.names = vec![good]),
            (self.signer != Signer::Of(self.port), |case, _| case.signer = Signer::Of(case.port)),
            (self.serial != 0, |case, _| case.serial = 0),
            ((self.not_before, self.not_after, self.now) != (-100, 100, 0), |case, _| {
                (case.not_before, case.not_after, case.now) = (-100, 100, 0);
            }),
        ];
        for (differs, change) in changes {
            if differs {
                let mut case = self.clone();
                change(&mut case, good);
                simpler.push(case);
            }
        }
        simpler
    }
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

/// What stands behind the cases.
struct World {
    zone: Zone,
    stranger: Authority,
}

impl World {
    fn signer(&self, signer: Signer) -> &Authority {
        match signer {
            Signer::Of(role) => self.zone.authority(role),
            Signer::Stranger => &self.stranger,
        }
    }

    fn issuer(&self, signer: Signer) -> String {
        hex(&leaf(&self.signer(signer).sign(&Draft::of("spiffe://z/endpoint/a"))).issuer)
    }

    fn port(&self, case: &Case) -> Arc<Admission> {
        let deny = case.deny.iter().map(|entry| match *entry {
            Entry::Certificate { issuer, serial } => {
                Denied::Certificate { issuer: self.issuer(issuer), serial: hex(SERIALS[serial]), until: None }
            }
            Entry::Identity { name, not_before } => Denied::Identity {
                identity: name.uri().parse().unwrap(),
                not_before: moment(NOW + not_before),
            },
        });
        self.zone.port_denying(case.port, deny.collect())
    }

    fn certificate(&self, case: &Case) -> CertificateDer<'static> {
        let uris: Vec<_> = case.names.iter().map(|name| name.uri()).collect();
        let uris: Vec<_> = uris.iter().map(String::as_str).collect();
        let draft = Draft {
            not_before: NOW + case.not_before,
            not_after: NOW + case.not_after,
            serial: SERIALS[case.serial].to_vec(),
            ..Draft::with_uris(&uris)
        };
        self.signer(case.signer).sign(&draft)
    }

    /// What the port says in the handshake and after it.
    fn said(&self, case: &Case) -> [&'static str; 2] {
        let (port, certificate) = (self.port(case), self.certificate(case));
        let now = NOW + case.now;
        let afterwards = port.authorise(std::slice::from_ref(&certificate), moment(now)).map(drop);
        [shown(&port, &[certificate], now), afterwards]
            .map(|result| result.map_or_else(|refusal| refusal.label(), |()| "admitted"))
    }

    fn holds(&self, case: &Case) -> bool {
        self.said(case) == [case.promised(), case.promised_afterwards()]
    }
}

#[test]
fn every_port_says_of_every_certificate_what_is_promised() {
    let world = World { zone: Zone::new(), stranger: Authority::new("stranger") };
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut seen = std::collections::BTreeMap::<_, u32>::new();
    for number in 0..CASES {
        let mut case = Case::random(&mut rng);
        *seen.entry(case.promised()).or_default() += 1;
        if world.holds(&case) {
            continue;
        }
        while let Some(simpler) = case.simpler().into_iter().find(|simpler| !world.holds(simpler)) {
            case = simpler;
        }
        let promised = [case.promised(), case.promised_afterwards()];
        panic!("case {number}: {case:?}: {:?}, not {promised:?}", world.said(&case));
    }
    let labels: Vec<_> = seen.keys().copied().collect();
    let all = [
        "admitted",
        "not_now",
        "revoked",
        "unknown_authority",
        "unreadable",
        "wrong_authority",
        "wrong_role",
        "wrong_zone",
    ];
    assert_eq!(labels, all, "every answer was promised at least once");
    assert!(seen.values().all(|times| *times > CASES / 100), "{seen:?}");
}
