//! The proxy's configuration: `zone-proxy.toml` and `firewall.toml`. What an admin wrote there, comments included,
//! stays as it is; only what the installer was asked for is changed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml_edit::{Array, DocumentMut, Item, Table, value};

use crate::paths::Paths;
use crate::protocol::ControlPort;
use crate::trusted_file::{self, NotTrusted};

/// The longest configuration file, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Anybody may read the configuration; there is no secret in it.
const MODE: u32 = 0o644;

/// The configuration can't be changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfigurationError {
    /// A file is not root's alone, or can't be read.
    #[error(transparent)]
    NotTrusted(#[from] NotTrusted),
    /// A file is no TOML, or a section is something else.
    #[error("{path}: {why}: mend the file first")]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong in it, one line.
        why: String,
    },
    /// A file can't be written.
    #[error("{path} can't be written: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says about it.
        source: io::Error,
    },
}

/// What both files held, to put it back.
#[derive(Debug)]
pub(super) struct Saved(Vec<(PathBuf, Option<String>)>);

/// Remembers both files.
pub(super) fn save(paths: &Paths) -> Result<Saved, ConfigurationError> {
    [paths.proxy_toml(), paths.firewall_toml()]
        .into_iter()
        .map(|path| Ok((path.clone(), trusted_file::read_optional(&path, MAX_FILE_BYTES)?)))
        .collect::<Result<_, ConfigurationError>>()
        .map(Saved)
}

impl Saved {
    /// Puts both files back as they were. Where there was none, there is none; a folder that was made for them is
    /// left to whoever made it.
    pub(super) fn restore(&self) -> Result<(), ConfigurationError> {
        for (path, text) in &self.0 {
            match text {
                Some(text) => write(path, text)?,
                None => match fs::remove_file(path) {
                    Err(source) if source.kind() != io::ErrorKind::NotFound => {
                        return Err(ConfigurationError::Write { path: path.clone(), source });
                    }
                    _ => {}
                },
            }
        }
        Ok(())
    }

    /// Whether there was anything before.
    pub(super) fn held_something(&self) -> bool {
        self.0.iter().any(|(_, text)| text.is_some())
    }
}

/// Writes where 17488 is served into both files, and opens it in the firewall.
pub(super) fn set_control(paths: &Paths, control: &ControlPort) -> Result<(), ConfigurationError> {
    change(&paths.proxy_toml(), |text| proxy_with(text, control))?;
    change(&paths.firewall_toml(), |text| firewall_with(text, control))
}

/// Where 17488 is served, by `zone-proxy.toml`.
pub(super) fn control(paths: &Paths) -> Result<ControlPort, ConfigurationError> {
    let path = paths.proxy_toml();
    let text = trusted_file::read(&path, MAX_FILE_BYTES)?;
    control_of(&text).map_err(|why| ConfigurationError::Wrong { path, why })
}

fn change(path: &Path, edit: impl FnOnce(&str) -> Result<String, String>) -> Result<(), ConfigurationError> {
    let old = trusted_file::read_optional(path, MAX_FILE_BYTES)?;
    let new = edit(old.as_deref().unwrap_or_default())
        .map_err(|why| ConfigurationError::Wrong { path: path.to_owned(), why })?;
    if old.as_deref() == Some(&new) {
        return Ok(());
    }
    write(path, &new)
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), ConfigurationError> {
    let failed = |source| ConfigurationError::Write { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder).map_err(failed)?;
    let new = path.with_extension("toml.new");
    let write = || -> io::Result<()> {
        let mut file: File =
            OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| {
        // The old file is untouched; the new one is of no use.
        let _ = fs::remove_file(&new);
        failed(source)
    })
}

fn proxy_with(text: &str, control: &ControlPort) -> Result<String, String> {
    edit(text, |section| {
        set(section, "listen", addresses(&control.listen));
        set(section, "allowed_networks", networks(&control.networks));
    })
}

fn firewall_with(text: &str, control: &ControlPort) -> Result<String, String> {
    edit(text, |section| {
        set(section, "open", value(true));
        set(section, "listen", addresses(&control.listen));
        set(section, "networks", networks(&control.networks));
    })
}

/// Changes the section `[control]`.
fn edit(text: &str, change: impl FnOnce(&mut Table)) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        let line =
            error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line}: {}", error.message().replace('\n', ": "))
    })?;
    let section = document.entry("control").or_insert_with(|| Item::Table(Table::new()));
    change(section.as_table_mut().ok_or("'control' is no section")?);
    Ok(document.to_string())
}

/// Exchanges the value alone: what stands around it, such as a comment behind it, stays.
fn set(section: &mut Table, key: &str, mut new: Item) {
    if let (Some(old), Some(new)) = (section.get(key).and_then(Item::as_value), new.as_value_mut()) {
        *new.decor_mut() = old.decor().clone();
    }
    match section.get_mut(key) {
        Some(item) => *item = new,
        None => {
            section.insert(key, new);
        }
    }
}

fn addresses(all: &[IpAddr]) -> Item {
    value(all.iter().map(ToString::to_string).collect::<Array>())
}

fn networks(all: &[IpNet]) -> Item {
    value(all.iter().map(ToString::to_string).collect::<Array>())
}

fn control_of(text: &str) -> Result<ControlPort, String> {
    let document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.message().replace('\n', ": "))?;
    let strings = |key: &str| -> Vec<String> {
        let array = document.get("control").and_then(|section| section.get(key)).and_then(Item::as_array);
        array.into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
    };
    let mut control = ControlPort::default();
    for text in strings("listen") {
        control.listen.push(text.parse().map_err(|_| format!("control.listen: {text:?} is no address"))?);
    }
    for text in strings("allowed_networks") {
        let network =
            text.parse().map_err(|_| format!("control.allowed_networks: {text:?} is no network"))?;
        control.networks.push(network);
    }
    if control.listen.is_empty() {
        // The proxy's own default.
        control.listen.push(IpAddr::from([0, 0, 0, 0]));
    }
    Ok(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> ControlPort {
        ControlPort {
            listen: vec!["10.1.1.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            networks: vec!["10.1.0.0/16".parse().unwrap()],
        }
    }

    #[test]
    fn only_what_was_asked_for_changes_and_comments_stay() {
        let before = "# mine\nstate_dir = \"/var/lib/zone-proxy\" # here\n\n[control]\n# inside only\nlisten = \
                      [\"0.0.0.0\"] # all\nallowed_networks = []\n\n[log]\nlevel = \"info\"\n";
        let after = proxy_with(before, &wanted()).unwrap();
        let expected = before
            .replace("[\"0.0.0.0\"]", "[\"10.1.1.1\", \"fd00::1\"]")
            .replace("allowed_networks = []", "allowed_networks = [\"10.1.0.0/16\"]");
        assert_eq!(after, expected);
        assert_eq!(proxy_with(&after, &wanted()).unwrap(), after);
        assert_eq!(control_of(&after).unwrap(), wanted());
    }

    #[test]
    fn a_file_without_the_section_gets_one() {
        let after = firewall_with("# ceiling\n[ceiling]\nports = [\"17486\"]\n", &wanted()).unwrap();
        let table: toml::Table = after.parse().unwrap();
        assert_eq!(table["control"]["open"].as_bool(), Some(true));
        assert_eq!(table["control"]["networks"][0].as_str(), Some("10.1.0.0/16"));
        assert!(after.starts_with("# ceiling\n[ceiling]\n"), "{after}");
        assert!(firewall_with("", &wanted()).unwrap().contains("open = true"));
    }

    #[test]
    fn a_broken_file_is_named_by_its_line_and_not_touched() {
        assert!(proxy_with("[control]\nlisten = = 1\n", &wanted()).unwrap_err().starts_with("line 2: "));
        assert_eq!(proxy_with("control = 3\n", &wanted()), Err("'control' is no section".to_owned()));
    }

    #[test]
    fn without_a_value_the_proxys_own_default_counts() {
        assert_eq!(control_of("").unwrap().listen, vec![IpAddr::from([0, 0, 0, 0])]);
        assert!(control_of("[control]\nlisten = [\"x\"]\n").unwrap_err().contains("no address"));
    }
}
