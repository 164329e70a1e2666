//! What is made of a disagreement: the smallest ruleset that still shows it, in a file.

use std::path::{Path, PathBuf};

use zone_random_rulesets::{Destination, Ruleset, batch, shrink};
use zone_ruleset::Reader;

use crate::error::{Context, Result};
use crate::ground::{Ground, Look, Tracing};
use crate::opinion::{Comparison, Opinions, Outcome, Standing, kernels};
use crate::syn::Syn;
use crate::tally::Tally;
use crate::verdicts::traced;

/// A packet of which judge and kernel think differently.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    pub(crate) syn: Syn,
    pub(crate) kernel: Outcome,
    pub(crate) judge: String,
}

/// Makes the ruleset as small as it can be and writes it; says where. `how` is what was looked at, whether the
/// ruleset was by itself, and the whole text that was loaded.
pub(crate) fn report(
    ground: &mut Ground,
    reader: &mut Reader,
    failure: &Failure,
    ruleset: &Ruleset,
    destination: &Destination,
    how: (Look, bool, &str),
    out: &Path,
) -> Result<String> {
    let (look, alone, whole) = how;
    let text = |ruleset: &Ruleset| {
        if alone { ruleset.to_nft(destination) } else { batch(&[(ruleset, *destination)]) }
    };
    let mut last = failure.clone();
    let mut fails = |smaller: &Ruleset| {
        let Ok(Some((kernel, judge))) = disagree(ground, reader, &text(smaller), &failure.syn, look) else {
            return false;
        };
        last.kernel = kernel;
        last.judge = judge;
        true
    };
    let body = if fails(ruleset) {
        let smallest = shrink(ruleset, &mut fails);
        // What it says of the smallest one is what is told.
        fails(&smallest);
        text(&smallest)
    } else {
        format!("# It takes the others of its batch.\n{whole}")
    };
    let Failure { seed, syn, kernel, judge } = last;
    let head = format!("# seed {seed}\n# SYN {syn}\n# kernel: {kernel}\n# judge: {judge}\n");
    let path = out.join(format!("fail-{seed}.nft"));
    write(out, &path, &(head + &body))?;
    Ok(format!("disagreement in {}: {syn}: the kernel: {kernel}; the judge: {judge}", path.display()))
}

/// What both say of the packet under these rules, if they disagree.
fn disagree(
    ground: &mut Ground,
    reader: &mut Reader,
    text: &str,
    syn: &Syn,
    look: Look,
) -> Result<Option<(Outcome, String)>> {
    if look.answers {
        ground.forget_openings()?;
    }
    ground.load(text, look)?;
    let standing = Standing::read(reader)?;
    let mut judge = Opinions::new(&standing);
    let seen = ground.send(&[*syn], look)?;
    let kernel = kernels(syn, &seen, look);
    let mut comparison = judge.compare(syn, &kernel);
    if look.tracing == Tracing::On && comparison == Comparison::Agree {
        comparison = traced(&mut judge, syn, &seen, &mut Tally::default());
    }
    Ok(match comparison {
        Comparison::Disagree(said) => Some((kernel, said)),
        Comparison::Agree | Comparison::Unknown(_) => None,
    })
}

/// Writes down a ruleset that nft would not load, which is a fault of the grammar.
pub(crate) fn write_refused(out: &Path, seed: u64, text: &str, said: &str) -> Result<PathBuf> {
    let path = out.join(format!("refused-{seed}.nft"));
    write(out, &path, &format!("# {said}\n{text}"))?;
    Ok(path)
}

fn write(folder: &Path, path: &Path, text: &str) -> Result<()> {
    std::fs::create_dir_all(folder).during(|| format!("can't make {}", folder.display()))?;
    std::fs::write(path, text).during(|| format!("can't write {}", path.display()))
}
