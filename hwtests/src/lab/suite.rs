//! Suites, their cases, and what a case needs.

use std::path::Path;

use super::description::Topology;
use super::error::Result;
use super::places::Places;
use super::scene::Scene;

/// A subject and the cases that show it.
pub struct Suite {
    /// Its name on the command line.
    pub name: &'static str,
    /// One line for a person.
    pub about: &'static str,
    /// Its cases, each in hosts of its own.
    pub cases: Vec<Case>,
}

/// What a case does in its hosts.
pub type Play = Box<dyn Fn(&mut Scene<'_>) -> Result<()> + Send + Sync>;

/// A story in hosts of its own, told as a sentence.
pub struct Case {
    /// The sentence.
    pub name: String,
    /// Requirements (R-n) and what else it shows.
    pub shows: &'static [&'static str],
    /// Its hosts.
    pub topology: Topology,
    /// What must be there.
    pub needs: Vec<Need>,
    /// It runs only where long ones were asked for.
    pub long: bool,
    /// What it does.
    pub play: Play,
}

impl Case {
    /// A case with nothing special about it.
    pub fn new(
        name: impl Into<String>,
        topology: Topology,
        play: impl Fn(&mut Scene<'_>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self { name: name.into(), shows: &[], topology, needs: Vec::new(), long: false, play: Box::new(play) }
    }

    /// Says what it shows.
    #[must_use]
    pub fn shows(mut self, what: &'static [&'static str]) -> Self {
        self.shows = what;
        self
    }

    /// Says what must be there. A case whose needs are not met is reported as not run, which fails a strict run.
    #[must_use]
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// Makes it run only where long ones were asked for.
    #[must_use]
    pub fn only_when_long(mut self) -> Self {
        self.long = true;
        self
    }
}

/// What a case can need that may not be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Need {
    /// A program of ours, built.
    Program(&'static str),
    /// A package of ours, by the beginning of its file name.
    Package(&'static str),
    /// A program of this machine.
    Tool(&'static str),
}

impl Need {
    /// Why it is not met, if it isn't.
    pub fn unmet(&self, places: &Places) -> Option<String> {
        let missing = |there: bool, what: String| (!there).then_some(what);
        match self {
            Self::Program(name) => {
                let path = places.program(name);
                missing(path.is_file(), format!("{} is not built", path.display()))
            }
            Self::Package(start) => missing(
                places.package(start).is_ok(),
                format!("no package {start}* in {}: run cargo xtask package", places.packages.display()),
            ),
            Self::Tool(name) => {
                let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
                let there = path.split(':').any(|dir| Path::new(dir).join(name).is_file());
                missing(there, format!("this machine has no {name}"))
            }
        }
    }
}
