//! The judge against the kernel, by the hundred thousand.
//!
//! Work is handed out in units: some rulesets that are loaded in one batch, and some by themselves, as a batch has
//! neither policies nor priorities nor tables of their own.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use zone_random_rulesets::{Destination, Generated, Shape, batch, generate};
use zone_ruleset::Reader;

use crate::error::{Error, Result};
use crate::failure::{self, Failure};
use crate::ground::{ADDRESSES, Ground, Look, Seen, Tracing};
use crate::opinion::{Comparison, Opinions, Standing, kernels};
use crate::syn::{self, Syn};
use crate::tally::Tally;
use crate::trace;

/// Rulesets of a unit.
const UNIT: u64 = 180;
/// After so many rulesets it is said how far it is.
const NEWS: u64 = 10_000;
/// After so many failures the rest of them would say nothing new.
const ENOUGH_FAILURES: u64 = 20;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    pub(crate) rulesets: u64,
    pub(crate) seed: u64,
    /// Packets for each ruleset.
    pub(crate) syns: usize,
    /// Each one of so many is loaded by itself; which ones, depends on their numbers alone.
    pub(crate) alone: u64,
    pub(crate) tracing: Tracing,
    /// Where failures are written.
    pub(crate) out: PathBuf,
    /// Threads, each with namespaces of its own.
    pub(crate) workers: usize,
}

/// Runs all of it.
pub(crate) fn run(wishes: &Wishes) -> Result<Tally> {
    let next = AtomicU64::new(0);
    let failures = AtomicU64::new(0);
    let total = Mutex::new(Tally::default());
    let mut ends = Vec::new();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..wishes.workers)
            .map(|processor| {
                let (next, failures, total) = (&next, &failures, &total);
                scope.spawn(move || -> Result<()> {
                    let mut worker = Worker::new(wishes, processor)?;
                    loop {
                        let first = next.fetch_add(1, Ordering::Relaxed) * UNIT;
                        if first >= wishes.rulesets || failures.load(Ordering::Relaxed) >= ENOUGH_FAILURES {
                            return Ok(());
                        }
                        let mut tally = Tally::default();
                        let done = worker.unit(first..(first + UNIT).min(wishes.rulesets), &mut tally);
                        failures.fetch_add(tally.disagreements, Ordering::Relaxed);
                        if let Ok(mut total) = total.lock() {
                            let before = total.rulesets;
                            total.add(tally);
                            if before / NEWS != total.rulesets / NEWS {
                                eprintln!(
                                    "{} rulesets, {} disagreements",
                                    total.rulesets, total.disagreements
                                );
                            }
                        }
                        done?;
                    }
                })
            })
            .collect();
        for worker in workers {
            ends.push(worker.join().unwrap_or_else(|_| Err(Error::Thread("it panicked".to_owned()))));
        }
    });
    ends.into_iter().collect::<Result<()>>()?;
    total.into_inner().map_err(|_| Error::Thread("it panicked".to_owned()))
}

struct Worker<'a> {
    wishes: &'a Wishes,
    ground: Ground,
    reader: Reader,
}

/// A ruleset, and the packets that it is tried with.
struct Trial {
    seed: u64,
    made: Generated,
    destination: Destination,
    syns: Vec<Syn>,
}

impl<'a> Worker<'a> {
    fn new(wishes: &'a Wishes, processor: usize) -> Result<Self> {
        let ground = Ground::enter(processor)?;
        Ok(Self { wishes, ground, reader: Reader::open()? })
    }

    fn unit(&mut self, numbers: std::ops::Range<u64>, tally: &mut Tally) -> Result<()> {
        let alone = self.wishes.alone;
        let seeds = numbers.map(|number| self.wishes.seed.wrapping_add(number));
        let (single, batched): (Vec<_>, Vec<_>) = seeds.partition(|seed| seed % alone == alone - 1);
        let mut used = HashSet::new();
        let trials: Vec<_> = batched
            .iter()
            .zip(1..=ADDRESSES)
            .map(|(seed, address)| self.trial(*seed, Shape::Batched, Destination::of(address), &mut used))
            .collect();
        let list: Vec<_> = trials.iter().map(|trial| (&trial.made.ruleset, trial.destination)).collect();
        self.try_out(&batch(&list), &trials, tally)?;
        for seed in single {
            let trial = self.trial(seed, Shape::Alone, Destination::of(1), &mut HashSet::new());
            let text = trial.made.ruleset.to_nft(&trial.destination);
            self.try_out(&text, &[trial], tally)?;
        }
        Ok(())
    }

    fn trial(
        &self,
        seed: u64,
        shape: Shape,
        destination: Destination,
        used: &mut HashSet<(IpAddr, u16)>,
    ) -> Trial {
        let made = generate(seed, shape);
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5359_4e53);
        let syns = syn::choose(&mut rng, &made, &destination, self.wishes.syns, used);
        Trial { seed, made, destination, syns }
    }

    /// Loads rules, sends the packets of all trials, and compares.
    fn try_out(&mut self, text: &str, trials: &[Trial], tally: &mut Tally) -> Result<()> {
        let answers = trials.iter().any(|trial| trial.made.ruleset.has_replies());
        let look = Look { tracing: self.wishes.tracing, answers };
        match self.ground.load(text, look) {
            Ok(()) => {}
            Err(Error::Failed { said, .. }) => {
                let seed = trials.first().map_or(0, |trial| trial.seed);
                let path = failure::write_refused(&self.wishes.out, seed, text, &said)?;
                tally.refused += 1;
                tally.notes.push(format!("nft refuses {}: {said}", path.display()));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        // Before packets come: a rule may add to sets.
        let standing = Standing::read(&mut self.reader)?;
        let mut judge = Opinions::new(&standing);
        let syns: Vec<_> = trials.iter().flat_map(|trial| &trial.syns).copied().collect();
        let seen = self.ground.send(&syns, look)?;
        let owners: HashMap<IpAddr, &Trial> = trials
            .iter()
            .flat_map(|trial| {
                [(IpAddr::V4(trial.destination.v4), trial), (IpAddr::V6(trial.destination.v6), trial)]
            })
            .collect();
        tally.rulesets += trials.len() as u64;
        tally.rules += trials.iter().map(|trial| trial.made.ruleset.rules() as u64).sum::<u64>();
        let mut failed: HashSet<u64> = HashSet::new();
        let mut failures = Vec::new();
        for syn in &syns {
            tally.syns += 1;
            let kernel = kernels(syn, &seen, look);
            tally.arrived += u64::from(seen.arrivals.contains_key(&(syn.source, syn.source_port)));
            let mut comparison = judge.compare(syn, &kernel);
            if self.wishes.tracing == Tracing::On && comparison == Comparison::Agree {
                comparison = traced(&mut judge, syn, &seen, tally);
            }
            match comparison {
                Comparison::Agree => tally.agreements += 1,
                Comparison::Unknown(reasons) => tally.unknown(reasons),
                Comparison::Disagree(said) => {
                    tally.disagreements += 1;
                    let Some(trial) = owners.get(&syn.destination) else { continue };
                    // One packet of a ruleset is enough to find out why.
                    if failed.insert(trial.seed) {
                        failures.push((Failure { seed: trial.seed, syn: *syn, kernel, judge: said }, *trial));
                    }
                }
            }
        }
        for (failure, trial) in failures {
            let note = failure::report(
                &mut self.ground,
                &mut self.reader,
                &failure,
                &trial.made.ruleset,
                &trial.destination,
                (look, trials.len() == 1, text),
                &self.wishes.out,
            )?;
            tally.notes.push(note);
        }
        Ok(())
    }
}

/// Holds the judge's deciding rule against the kernel's.
pub(crate) fn traced(judge: &mut Opinions<'_>, syn: &Syn, seen: &Seen, tally: &mut Tally) -> Comparison {
    let Some((outcome, decided_by)) = judge.decided_by(syn) else { return Comparison::Agree };
    let steps = seen.traces.get(&(syn.source, syn.source_port));
    tally.traced += 1;
    match trace::disagreement(&outcome, decided_by.as_ref(), steps.map_or(&[], Vec::as_slice)) {
        None => Comparison::Agree,
        Some(said) => Comparison::Disagree(said),
    }
}
