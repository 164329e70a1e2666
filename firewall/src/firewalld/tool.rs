//! firewall-cmd(1), which asks the firewalld that runs, and firewall-offline-cmd(1), which edits the files of one that does not.

use std::path::PathBuf;

use super::policy::Role;
use crate::run::{RunError, run};

/// What `firewall-cmd` ends with where no firewalld runs, and where there is no D-Bus either, as early at boot
/// (firewall-cmd(1): NOT_RUNNING, DBUS_ERROR).
const NOT_RUNNING: [i32; 2] = [252, 36];
/// What it ends with where the answer to a question is no.
const NO: i32 = 1;

/// A way to firewalld's configuration.
#[derive(Debug, Clone)]
pub(super) struct Tool {
    program: PathBuf,
    /// Whether it edits files, so that there is nothing but what is saved.
    offline: bool,
}

/// What a firewalld that runs does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It goes by its zones and policies.
    Filters,
    /// It drops every packet, until somebody says otherwise.
    Panics,
}

/// Which of firewalld's two accounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Book {
    /// Its files, which it loads when it starts or reloads.
    Saved,
    /// What it goes by.
    Live,
}

impl Tool {
    /// `firewall-cmd`, if it is installed.
    pub(super) fn online() -> Option<Self> {
        Some(Self { program: zone_tool::find("firewall-cmd")?, offline: false })
    }

    /// `firewall-offline-cmd`, if it is installed.
    pub(super) fn offline() -> Option<Self> {
        Some(Self { program: zone_tool::find("firewall-offline-cmd")?, offline: true })
    }

    /// The one at this place, for tests.
    #[cfg(test)]
    pub(super) fn of(program: &str) -> Self {
        Self { program: PathBuf::from(program), offline: false }
    }

    /// What firewalld does; `None` if none runs.
    pub(super) fn mode(&self) -> Result<Option<Mode>, RunError> {
        match self.ask(&["--query-panic"]) {
            Ok(_) => Ok(Some(Mode::Panics)),
            Err(RunError::Failed { code: Some(NO), .. }) => Ok(Some(Mode::Filters)),
            Err(RunError::Failed { code: Some(code), .. }) if NOT_RUNNING.contains(&code) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What it prints when asked this.
    pub(super) fn ask(&self, options: &[&str]) -> Result<String, RunError> {
        let printed = run(&self.program, options, b"")?;
        Ok(String::from_utf8_lossy(&printed).into_owned())
    }

    /// The same of one account.
    pub(super) fn ask_book(&self, book: Book, options: &[&str]) -> Result<String, RunError> {
        if book == Book::Saved && !self.offline {
            self.ask(&[&["--permanent"], options].concat())
        } else {
            self.ask(options)
        }
    }

    /// The same of one of our policies.
    pub(super) fn ask_policy(&self, book: Book, role: Role, options: &[&str]) -> Result<String, RunError> {
        let policy = format!("--policy={}", role.name());
        self.ask_book(book, &[&[policy.as_str()], options].concat())
    }

    /// Gives one of our policies the same option with each of these values, in one call.
    pub(super) fn set_all<'a>(
        &self,
        book: Book,
        role: Role,
        option: &str,
        values: impl IntoIterator<Item = &'a String>,
    ) -> Result<(), RunError> {
        let options: Vec<String> = values.into_iter().map(|value| format!("{option}={value}")).collect();
        if !options.is_empty() {
            self.ask_policy(book, role, &options.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}
