//! Where things of ours are on this machine.

use std::path::PathBuf;

use super::error::{Error, Result};

/// Where things of ours are on this machine.
#[derive(Debug, Clone)]
pub struct Places {
    /// The programs, as they ship.
    pub programs: PathBuf,
    /// The packages.
    pub packages: PathBuf,
    /// The lab's own directory: roots and reports.
    pub lab: PathBuf,
}

impl Places {
    /// The same things where every user of this machine can reach them, which a checkout need not be. Only for the
    /// lab's worker, whose mounts they are.
    pub fn open_to_all(&self) -> Result<Self> {
        Ok(Self {
            programs: super::cleanup::show(&self.programs, "programs")?,
            packages: super::cleanup::show(&self.packages, "packages")?,
            lab: self.lab.clone(),
        })
    }

    /// A program of ours.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The cached roots.
    pub fn roots(&self) -> PathBuf {
        self.lab.join("roots")
    }

    /// The one package whose file name begins so.
    pub fn package(&self, start: &str) -> Result<PathBuf> {
        let entries = std::fs::read_dir(&self.packages).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(start))
            })
            .collect();
        found.sort();
        found.pop().ok_or_else(|| Error::other(format!("no package {start}* in {}", self.packages.display())))
    }
}
