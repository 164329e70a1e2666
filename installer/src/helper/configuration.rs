//! The proxy's configuration: `zone-proxy.toml` and `firewall.toml`. What an admin wrote there, comments included,
//! stays as it is; only what the installer was asked for is changed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use toml_edit::{Array, DocumentMut, Item, Table, value};
use zone_firewall_protocol::{Destination, Transport};

use crate::paths::Paths;
use crate::protocol::{ControlPort, LogChange};
use crate::trusted_file::{self, NotTrusted};

/// The longest configuration file, bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// What `log.to` is for a syslog server.
const SYSLOG: &str = "syslog";
/// What `log.syslog.port` is where the file does not say it.
const DEFAULT_SYSLOG_PORT: i64 = 514;
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

/// Has the log go to a syslog server, or stay on this host: in `zone-proxy.toml`, and in what `firewall.toml` lets out. What
/// else is let out stays.
pub(super) fn set_log(paths: &Paths, log: LogChange) -> Result<(), ConfigurationError> {
    let server = match log {
        LogChange::Keep => return Ok(()),
        LogChange::Off => None,
        LogChange::Server(server) => Some(server),
    };
    let before = syslog(paths)?;
    change(&paths.proxy_toml(), |text| proxy_with_log(text, server))?;
    change(&paths.firewall_toml(), |text| firewall_with_log(text, &before, server))
}

/// The syslog server by `zone-proxy.toml`, as `HOST:PORT/TRANSPORT`; empty if the log stays on this host.
pub(super) fn syslog(paths: &Paths) -> Result<String, ConfigurationError> {
    let path = paths.proxy_toml();
    let text = trusted_file::read(&path, MAX_FILE_BYTES)?;
    syslog_of(&text).map_err(|why| ConfigurationError::Wrong { path, why })
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
    edit(text, &["control"], |section| {
        set(section, "listen", addresses(&control.listen));
        set(section, "allowed_networks", networks(&control.networks));
    })
}

fn firewall_with(text: &str, control: &ControlPort) -> Result<String, String> {
    edit(text, &["control"], |section| {
        set(section, "open", value(true));
        set(section, "listen", addresses(&control.listen));
        set(section, "networks", networks(&control.networks));
    })
}

fn proxy_with_log(text: &str, server: Option<Destination>) -> Result<String, String> {
    let to = if server.is_some() { SYSLOG } else { "auto" };
    let text = edit(text, &["log"], |section| set(section, "to", value(to)))?;
    let Some(server) = server else { return Ok(text) };
    edit(&text, &["log", "syslog"], |section| {
        set(section, "host", value(server.address.to_string()));
        set(section, "port", value(i64::from(server.port)));
        set(section, "transport", value(server.transport.as_str()));
    })
}

/// The server is let out in place of the one before, wherever that stands in the list.
fn firewall_with_log(text: &str, before: &str, server: Option<Destination>) -> Result<String, String> {
    let server = server.map(|server| server.to_string());
    let mut allowed = strings(&parse(text)?, &["output", "allow"]);
    if server.is_none() && !allowed.iter().any(|one| one == before) {
        return Ok(text.to_owned());
    }
    allowed.retain(|one| one != before && Some(one) != server.as_ref());
    allowed.extend(server);
    edit(text, &["output"], |section| set(section, "allow", value(allowed.iter().collect::<Array>())))
}

/// Changes a section, named with those above it. One that is not there is made.
fn edit(text: &str, path: &[&str], change: impl FnOnce(&mut Table)) -> Result<String, String> {
    let mut document = parse(text)?;
    let mut section = document.as_table_mut();
    for (depth, name) in path.iter().enumerate() {
        let item = section.entry(name).or_insert_with(|| {
            let mut table = Table::new();
            // A section that only holds others needs no line of its own.
            table.set_implicit(depth + 1 < path.len());
            Item::Table(table)
        });
        let here = || format!("'{}' is no section", path[..=depth].join("."));
        section = item.as_table_mut().ok_or_else(here)?;
    }
    change(section);
    Ok(document.to_string())
}

fn parse(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|error: toml_edit::TomlError| {
        let line =
            error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        format!("line {line}: {}", error.message().replace('\n', ": "))
    })
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
    let document = parse(text)?;
    let strings = |key: &str| strings(&document, &["control", key]);
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

fn syslog_of(text: &str) -> Result<String, String> {
    let document = parse(text)?;
    let log = document.get("log");
    if log.and_then(|log| log.get("to")).and_then(Item::as_str) != Some(SYSLOG) {
        return Ok(String::new());
    }
    let of = |key: &str| log.and_then(|log| log.get("syslog")).and_then(|section| section.get(key));
    let host = of("host").and_then(Item::as_str).unwrap_or_default();
    // The proxy's own defaults.
    let port = of("port").and_then(Item::as_integer).unwrap_or(DEFAULT_SYSLOG_PORT);
    let transport = of("transport").and_then(Item::as_str).unwrap_or(Transport::Tcp.as_str());
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    Ok(format!("{host}:{port}/{transport}"))
}

/// A list of texts, by its key with the sections above it; empty where there is none.
fn strings(document: &DocumentMut, path: &[&str]) -> Vec<String> {
    let item = path.iter().try_fold(document.as_item(), |item, name| item.get(name));
    let array = item.and_then(Item::as_array);
    array.into_iter().flatten().filter_map(|one| one.as_str().map(str::to_owned)).collect()
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
    fn a_syslog_server_comes_goes_and_is_exchanged_in_both_files_at_once() {
        let [first, second] = ["10.0.0.5:6514/tcp", "[fd00::5]:514/udp"].map(|text| text.parse().ok());
        let proxy = proxy_with_log("[log]\nlevel = \"info\" # mine\n", first).unwrap();
        assert_eq!(
            proxy,
            "[log]\nlevel = \"info\" # mine\nto = \"syslog\"\n\n[log.syslog]\nhost = \"10.0.0.5\"\nport = 6514\n\
             transport = \"tcp\"\n"
        );
        assert_eq!(syslog_of(&proxy).unwrap(), "10.0.0.5:6514/tcp");
        let firewall =
            firewall_with_log("[output]\nallow = [\"10.0.0.3:53/udp\"] # dns\n", "", first).unwrap();
        assert_eq!(firewall, "[output]\nallow = [\"10.0.0.3:53/udp\", \"10.0.0.5:6514/tcp\"] # dns\n");

        let proxy = proxy_with_log(&proxy, second).unwrap();
        assert_eq!(syslog_of(&proxy).unwrap(), "[fd00::5]:514/udp");
        let firewall = firewall_with_log(&firewall, "10.0.0.5:6514/tcp", second).unwrap();
        assert_eq!(firewall, "[output]\nallow = [\"10.0.0.3:53/udp\", \"[fd00::5]:514/udp\"] # dns\n");

        assert_eq!(syslog_of(&proxy_with_log(&proxy, None).unwrap()).unwrap(), "");
        let firewall = firewall_with_log(&firewall, "[fd00::5]:514/udp", None).unwrap();
        assert_eq!(firewall, "[output]\nallow = [\"10.0.0.3:53/udp\"] # dns\n");
        assert_eq!(firewall_with_log("# mine\n", "logs.example:514/tcp", None).unwrap(), "# mine\n");
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
