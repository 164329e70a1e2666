//! Running cases side by side.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Error, Result};
use super::places::Places;
use super::play::play;
use super::record::Outcome;
use super::report::{CaseReport, Report};
use super::roots::Root;
use super::suite::{Case, Suite};

/// How a run goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// Cases at the same time.
    pub jobs: usize,
    /// Long cases too.
    pub long: bool,
    /// Only cases whose sentence contains this.
    pub only: Option<String>,
    /// Leave the hosts of each case up until this process is told to stop.
    pub keep: bool,
}

/// The cases that these options ask for.
pub fn chosen<'a>(suites: &'a [Suite], options: &Options) -> Vec<(&'a Suite, &'a Case)> {
    suites
        .iter()
        .flat_map(|suite| suite.cases.iter().map(move |case| (suite, case)))
        .filter(|(_, case)| options.long || !case.long)
        .filter(|(_, case)| options.only.as_ref().is_none_or(|text| case.name.contains(text.as_str())))
        .collect()
}

/// Makes the roots that cases need, side by side. It needs the network, so the lab's worker can't.
pub fn make_roots(cases: &[(&Suite, &Case)], places: &Places) -> Result<()> {
    let roots: BTreeSet<&Root> =
        cases.iter().flat_map(|(_, case)| &case.topology.hosts).filter_map(|host| host.root()).collect();
    let dir = places.roots();
    thread::scope(|scope| {
        let makers: Vec<_> = roots.iter().map(|root| scope.spawn(|| root.ensure(&dir))).collect();
        makers.into_iter().try_for_each(|maker| match maker.join() {
            Ok(made) => made.map(|_| ()),
            Err(_) => Err(Error::other("making a root panicked")),
        })
    })
}

/// Runs cases, and writes the reports into the lab's directory as they stand after each case.
pub fn run(suites: &[Suite], places: &Places, options: &Options) -> Result<Report> {
    let begin = Instant::now();
    let cases = chosen(suites, options);
    let queue = Mutex::new(cases.iter().enumerate().collect::<Vec<_>>().into_iter());
    let (sender, done) = mpsc::channel();
    let mut report = Report::default();
    thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, cases.len().max(1)) {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some((number, (suite, case))) = next else { return };
                    let finished = one(suite, case, &format!("w{number}"), places, options.keep);
                    if sender.send((number, finished)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for (number, case) in done {
            println!("{}", case.line());
            report.add(number, case);
            report.time = begin.elapsed();
            report.write(&places.lab)?;
        }
        Ok(report)
    })
}

fn one(suite: &Suite, case: &Case, name: &str, places: &Places, keep: bool) -> CaseReport {
    let unmet: Vec<_> = case.needs.iter().filter_map(|need| need.unmet(places)).collect();
    if !unmet.is_empty() {
        return CaseReport::new(
            suite.name,
            case,
            Vec::new(),
            Outcome::NotRun(unmet.join("; ")),
            Duration::ZERO,
        );
    }
    play(suite.name, case, name, places, |world| {
        if keep {
            explain(case, world.dir());
            loop {
                thread::park();
            }
        }
    })
}

/// Says how to get into hosts that stay up.
fn explain(case: &Case, dir: &Path) {
    println!("\nThe hosts of \"{}\" stay up until Ctrl-C. From another shell, as root:", case.name);
    println!("  a way in   nsenter --all --target $(pgrep --full 'zone-lab .*--inside' | tail -1)");
    println!(
        "  from there ip netns list; ip netns exec NAMESPACE sh; nsenter --all --target $(pgrep -x systemd | tail -1)"
    );
    println!("  logs       {}/*/log", dir.display());
}
