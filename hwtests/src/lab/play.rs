//! Playing one case, from its first host to its last.

use std::time::Instant;

use super::command::Cmd;
use super::places::Places;
use super::record::{Entry, Outcome};
use super::report::CaseReport;
use super::scene::Scene;
use super::suite::Case;
use super::world::World;

/// Plays a case from its first host to its last. `name` is used once in a run; `after` sees the hosts at the end.
pub(crate) fn play(
    suite: &'static str,
    case: &Case,
    name: &str,
    places: &Places,
    after: impl FnOnce(&World),
) -> CaseReport {
    let begin = Instant::now();
    let mut entries = Vec::new();
    let error = match World::up(name, &case.topology, &places.roots()) {
        Err(error) => Some(error),
        Ok(world) => {
            let mut scene = Scene::new(&world, places, format!("{suite}: {}", case.name));
            scene.note(format!("all hosts are up after {:.1} s", begin.elapsed().as_secs_f32()));
            let outcome = (case.play)(&mut scene);
            entries = scene.into_entries();
            let failed = outcome.is_err() || entries.iter().any(Entry::is_failed);
            if failed {
                entries.extend(ends_of_logs(&world));
            }
            after(&world);
            outcome.err()
        }
    };
    let outcome = match error {
        Some(error) => {
            println!("   FAILED  {suite}: {}: {error}", case.name);
            Outcome::Failed(error.to_string())
        }
        None if entries.iter().any(Entry::is_failed) => Outcome::Failed("checks failed".to_owned()),
        None => Outcome::Passed,
    };
    CaseReport::new(suite, case, entries, outcome, begin.elapsed())
}

/// The end of every log, for whoever looks into a failure.
fn ends_of_logs(world: &World) -> Vec<Entry> {
    const LINES: usize = 40;
    let mut words = Vec::new();
    for host in world.hosts() {
        let dir = world.dir().join(host.name()).join("log");
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let text = super::terminal::plain(&bytes);
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(LINES)..].join("\n");
            let log = entry.file_name();
            words.push(Entry::Note(format!("{}: end of {}:\n{tail}", host.name(), log.display())));
        }
        let journal =
            "command -v journalctl >/dev/null && journalctl -b -p 6 -n 60 --no-pager -o short-precise";
        if let Ok(output) = host.run(&Cmd::sh(journal))
            && output.ok()
            && !output.stdout.is_empty()
        {
            words.push(Entry::Note(format!("{}: end of the journal:\n{}", host.name(), output.stdout)));
        }
    }
    words
}
