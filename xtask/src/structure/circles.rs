//! Which file of a crate uses which other one, and where they use each other in a circle.
//!
//! A file uses another one if it names what is defined there, by `use` or by a path, also through a re-export: who
//! says `super::X` where the parent only passes `X` on uses the file that defines it. A parent's `mod child;` and its
//! re-exports of what its children define are no use.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Crate, Meaning, Module};

/// For each file that uses another one, what it names there. Files are indices of [`Crate::files`].
pub(crate) type Arrows = BTreeMap<(usize, usize), BTreeSet<String>>;

/// Something that a path can mean.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Module(usize),
    /// What this name means in this module, where it is defined.
    Item(usize, String),
}

/// Every circle, as lines for a person: `a.rs -> b.rs: Name1, Name2`.
pub(crate) fn circles(krate: &Crate) -> Vec<Vec<String>> {
    let arrows = arrows(krate);
    let show = |file: usize| krate.files[file].display();
    tied_together(krate.files.len(), &arrows)
        .into_iter()
        .map(|files| {
            let within = arrows.iter().filter(|((from, to), _)| files.contains(from) && files.contains(to));
            let line = |((from, to), names): (&(usize, usize), &BTreeSet<String>)| {
                let names: Vec<_> = names.iter().map(String::as_str).collect();
                format!("{} -> {}: {}", show(*from), show(*to), names.join(", "))
            };
            within.map(line).collect()
        })
        .collect()
}

/// Every arrow between two different files.
pub(crate) fn arrows(krate: &Crate) -> Arrows {
    let names = Names { krate };
    let mut arrows = Arrows::new();
    for (index, module) in krate.modules.iter().enumerate() {
        let own = |target: &Target| matches!(target, Target::Item(at, _) if names.is_below(*at, index));
        let used = module.imports.iter().chain(&module.paths).flat_map(|steps| names.resolve(index, steps));
        let passed_on = module.reexports.iter().flat_map(|steps| names.resolve(index, steps));
        for target in used.chain(passed_on.filter(|target| !own(target))) {
            if let Target::Item(at, name) = target
                && krate.modules[at].file != module.file
            {
                arrows.entry((module.file, krate.modules[at].file)).or_default().insert(name);
            }
        }
    }
    arrows
}

/// The sets of more than one file in which each can be reached from each.
fn tied_together(files: usize, arrows: &Arrows) -> Vec<BTreeSet<usize>> {
    let reachable = |start: usize| {
        let (mut seen, mut left) = (BTreeSet::new(), vec![start]);
        while let Some(file) = left.pop() {
            let next = arrows.range((file, 0)..=(file, usize::MAX)).map(|((_, to), _)| *to);
            left.extend(next.filter(|to| seen.insert(*to)));
        }
        seen
    };
    let reach: Vec<_> = (0..files).map(reachable).collect();
    let tied = (0..files).filter(|file| reach[*file].contains(file)).map(|file| {
        let back = |other: &&usize| reach[**other].contains(&file);
        reach[file].iter().filter(back).copied().collect::<BTreeSet<_>>()
    });
    tied.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Finds out what paths mean.
struct Names<'a> {
    krate: &'a Crate,
}

impl Names<'_> {
    /// What a path in this module means: nothing of this crate, one thing, or a few that share a name.
    fn resolve(&self, module: usize, steps: &[String]) -> BTreeSet<Target> {
        self.follow(module, steps, &mut BTreeSet::new())
    }

    fn follow(
        &self,
        module: usize,
        steps: &[String],
        open: &mut BTreeSet<(usize, String)>,
    ) -> BTreeSet<Target> {
        let (mut at, mut rest, mut anchored) = (module, steps, false);
        while let Some((first, after)) = rest.split_first() {
            match first.as_str() {
                "crate" => at = 0,
                "self" => {}
                "super" => match self.module(at).parent {
                    Some(parent) => at = parent,
                    None => return BTreeSet::new(),
                },
                _ => break,
            }
            (rest, anchored) = (after, true);
        }
        let mut targets = BTreeSet::from([Target::Module(at)]);
        if rest.is_empty() && !anchored {
            targets.clear();
        }
        for step in rest {
            targets = targets
                .into_iter()
                .flat_map(|target| match target {
                    Target::Module(at) => self.look_up(at, step, open),
                    // A variant, an associated function: it is where its type is.
                    item @ Target::Item(..) => BTreeSet::from([item]),
                })
                .collect();
        }
        targets
    }

    fn look_up(&self, at: usize, name: &str, open: &mut BTreeSet<(usize, String)>) -> BTreeSet<Target> {
        let question = (at, name.to_owned());
        if !open.insert(question.clone()) {
            return BTreeSet::new();
        }
        let mut found = BTreeSet::new();
        for meaning in self.module(at).names.get(name).into_iter().flatten() {
            match meaning {
                Meaning::Item(_) => drop(found.insert(Target::Item(at, name.to_owned()))),
                Meaning::Module(child) => drop(found.insert(Target::Module(*child))),
                Meaning::Import(steps) => found.extend(self.follow(at, steps, open)),
            }
        }
        if found.is_empty() {
            for steps in &self.module(at).globs {
                for target in self.follow(at, steps, open) {
                    match target {
                        Target::Module(of) => found.extend(self.look_up(of, name, open)),
                        Target::Item(of, ref of_name) if self.has_variant(of, of_name, name) => {
                            found.insert(target);
                        }
                        Target::Item(..) => {}
                    }
                }
            }
        }
        open.remove(&question);
        found
    }

    fn has_variant(&self, at: usize, name: &str, variant: &str) -> bool {
        let meanings = self.module(at).names.get(name).into_iter().flatten();
        meanings.into_iter().any(
            |meaning| matches!(meaning, Meaning::Item(variants) if variants.iter().any(|one| one == variant)),
        )
    }

    /// Whether a module lies below another one.
    fn is_below(&self, mut module: usize, above: usize) -> bool {
        while let Some(parent) = self.module(module).parent {
            if parent == above {
                return true;
            }
            module = parent;
        }
        false
    }

    fn module(&self, index: usize) -> &Module {
        &self.krate.modules[index]
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(files: &[(&str, &str)]) -> Crate {
        let read = |path: &Path| {
            files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
        };
        Crate::read(Path::new("lib.rs"), &read).expect("a crate")
    }

    /// The arrows as `a.rs b.rs Name`.
    fn shown(files: &[(&str, &str)]) -> Vec<String> {
        let krate = read(files);
        let show = |file: usize| krate.files[file].display().to_string();
        let lines = arrows(&krate).into_iter().flat_map(|((from, to), names)| {
            names.into_iter().map(move |name| (from, to, name)).collect::<Vec<_>>()
        });
        let mut lines: Vec<_> =
            lines.map(|(from, to, name)| format!("{} {} {name}", show(from), show(to))).collect();
        lines.sort();
        lines
    }

    #[test]
    fn imports_paths_and_nested_groups_are_arrows() {
        let arrows = shown(&[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            (
                "a.rs",
                "use crate::{b::{self, One}, c::{deep::{Two}, Three as T}}; fn f() { b::two(); super::d::four() }",
            ),
            ("b.rs", "pub struct One; pub fn two() {}"),
            ("c.rs", "pub mod deep; pub const Three: u8 = 3;"),
            ("c/deep.rs", "pub enum Two { A }"),
            ("d.rs", "pub fn four() {}"),
        ]);
        assert_eq!(
            arrows,
            ["a.rs b.rs One", "a.rs b.rs two", "a.rs c.rs Three", "a.rs c/deep.rs Two", "a.rs d.rs four"]
        );
    }

    #[test]
    fn a_reexport_leads_to_the_file_that_defines_the_thing_and_is_none_of_the_parents() {
        let arrows = shown(&[
            ("lib.rs", "pub use part::Thing; mod part;"),
            ("part.rs", "mod one; mod two; pub use one::*; pub(crate) use two::Other as Renamed;"),
            ("part/one.rs", "use super::Renamed; pub struct Thing;"),
            ("part/two.rs", "pub struct Other; fn f(_: crate::Thing, _: crate::part::Thing) {}"),
        ]);
        assert_eq!(arrows, ["part/one.rs part/two.rs Other", "part/two.rs part/one.rs Thing"]);
    }

    #[test]
    fn a_parent_that_uses_what_it_passes_on_uses_its_child() {
        let arrows = shown(&[
            ("lib.rs", "mod child; pub use child::Thing; pub fn f() -> Thing { Thing }"),
            ("child.rs", "pub struct Thing;"),
        ]);
        assert_eq!(arrows, ["lib.rs child.rs Thing"]);
    }

    #[test]
    fn who_passes_on_what_is_not_its_childs_uses_it() {
        let arrows = shown(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub use crate::b::Thing;"),
            ("b.rs", "pub struct Thing;"),
        ]);
        assert_eq!(arrows, ["a.rs b.rs Thing"]);
    }

    #[test]
    fn globs_tell_by_the_names_that_are_used() {
        let arrows = shown(&[
            ("lib.rs", "mod a; mod b; mod c;"),
            ("a.rs", "use crate::b::*; use crate::c::Kind::*; fn f() -> Kind { used(First) }"),
            ("b.rs", "pub fn used() {} pub fn unused() {}"),
            ("c.rs", "pub enum Kind { First }"),
        ]);
        assert_eq!(arrows, ["a.rs b.rs used", "a.rs c.rs Kind"]);
    }

    #[test]
    fn macros_and_attributes_are_looked_into() {
        let arrows = shown(&[
            ("lib.rs", "mod a; mod b; mod c; mod d;"),
            ("a.rs", "use crate::b; fn f() { format!(\"{}\", x.d.then(b::text(|| crate::c::NAME))) }"),
            ("b.rs", "pub fn text() {}"),
            ("c.rs", "pub const NAME: &str = \"\";"),
            ("d.rs", "#[derive(X)] struct S { #[serde(with = \"crate::b::text\")] s: u8 }"),
        ]);
        assert_eq!(arrows, ["a.rs b.rs text", "a.rs c.rs NAME", "d.rs b.rs text"]);
    }

    #[test]
    fn tests_and_modules_within_a_file_are_no_files() {
        let arrows = shown(&[
            ("lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
            (
                "a.rs",
                "mod inner { use super::super::b::X; pub struct Y; } use inner::Y;\
                 #[cfg(test)] mod tests { use crate::b::Z; } #[cfg(test)] use crate::b::Z;",
            ),
            ("b.rs", "pub struct X; pub struct Z; impl X { #[cfg(test)] fn f() { crate::a::g() } }"),
        ]);
        assert_eq!(arrows, ["a.rs b.rs X"]);
    }

    #[test]
    fn a_name_of_another_crate_is_not_ours() {
        let arrows = shown(&[
            ("lib.rs", "mod a; mod time;"),
            ("a.rs", "use std::time::Duration; use ::time::X; fn f() { tokio::time::sleep(); time::now() }"),
            ("time.rs", "pub fn now() {} pub struct X;"),
        ]);
        assert!(arrows.is_empty(), "{arrows:?}");
    }

    #[test]
    fn imports_in_a_circle_end() {
        let arrows = shown(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "pub use crate::b::*; fn f() { Nowhere }"),
            ("b.rs", "pub use crate::a::*;"),
        ]);
        assert!(arrows.is_empty(), "{arrows:?}");
    }

    #[test]
    fn a_circle_is_told_with_what_ties_it_and_nothing_else() {
        let krate = read(&[
            ("lib.rs", "mod a; mod b; mod c; mod leaf;"),
            ("a.rs", "use crate::b::{One, Two}; use crate::leaf::Leaf; pub fn back() {}"),
            ("b.rs", "use crate::c::Three; pub struct One; pub struct Two;"),
            ("c.rs", "pub struct Three; fn f() { crate::a::back() }"),
            ("leaf.rs", "pub struct Leaf;"),
        ]);
        let circle = ["a.rs -> b.rs: One, Two", "b.rs -> c.rs: Three", "c.rs -> a.rs: back"];
        assert_eq!(circles(&krate), [circle]);
    }

    #[test]
    fn a_child_that_uses_its_parent_which_uses_it_is_a_circle() {
        let krate = read(&[
            ("lib.rs", "mod parent;"),
            ("parent.rs", "mod child; pub struct Error; pub fn run() { child::run() }"),
            ("parent/child.rs", "use super::Error; pub fn run() {}"),
        ]);
        let circle = ["parent.rs -> parent/child.rs: run", "parent/child.rs -> parent.rs: Error"];
        assert_eq!(circles(&krate), [circle]);
    }
}
