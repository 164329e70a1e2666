//! What control gives up before it meets anybody, whoever started it: files but its own, and system calls but those that its
//! work takes.

use std::fs::DirBuilder;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustls::crypto::aws_lc_rs::default_provider;
use zone_confinement::{Control, Files, Kept, control, restrict_calls, restrict_files};

use crate::config::{Config, Destination, Transport};
use crate::{host, relay, socket_file};

/// Where the kernel shows processes.
const PROC: &str = "/proc";
/// Libraries, and what says where they are.
const LIBRARIES: [&str; 6] =
    ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/ld.so.preload"];
/// What the kernel executes together with a program that has libraries, by machine.
const LOADERS: [&str; 2] = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
/// How much of the machine a service may have, which a relay looks at.
const CGROUPS: &str = "/sys/fs/cgroup";
/// What the C library looks up a name with. These files are replaced at any time, so it is their directories.
const NAMES: [&str; 4] = ["/etc", "/run/systemd/resolve", "/run/NetworkManager", "/run/resolvconf"];
/// The port of DNS, for answers that are too long for a datagram.
const DNS: u16 = 53;

/// What this process has given up for good, and what it could not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confined {
    /// What is said of landlock; `None` for a process that did not try.
    pub(crate) landlock: Option<String>,
    /// Why system calls are not restricted, where they should be.
    pub(crate) trouble: Option<String>,
}

/// A directory of the configuration can't be made.
#[derive(Debug, thiserror::Error)]
#[error("can't create {path}: {source}")]
pub(crate) struct MakeError {
    path: PathBuf,
    source: io::Error,
}

/// Gives up files but those of the configuration, the state and the sockets, and what the work takes of the system's. Must
/// come before the first thread. Makes the directories, where they are missing.
pub(crate) fn files(config: &Config, config_file: &Path) -> Result<Files, MakeError> {
    let make = |path: &Path| DirBuilder::new().recursive(true).mode(0o700).create(path);
    for path in [&config.state_dir, &config.runtime_dir] {
        // What is there and no directory is named by whoever opens it.
        if !path.exists() {
            make(path).map_err(|source| MakeError { path: path.clone(), source })?;
        }
    }
    Ok(restrict_files(&kept(config, config_file)))
}

/// Gives up system calls: all threads do. A kernel that can't do that is no reason to serve nobody, other than for a relay:
/// then no relay serves, and control is the only one to say so.
pub(crate) fn calls(config: &Config, files: &Files) -> Confined {
    // What looks at files the first time is done now.
    host::operating_system();
    let _ = default_provider().secure_random.fill(&mut [0]);
    let done = socket_file::shorten_paths()
        .map_err(|error| format!("/proc/self can't be the working directory ({error})"))
        .and_then(|()| restrict_calls(&control(needs(config))).map_err(|error| error.to_string()));
    if let Err(why) = &done {
        tracing::warn!(why, "system calls of this process are not restricted");
    }
    if !matches!(files, Files::Restricted { .. }) {
        tracing::warn!("files are not closed to this process but by its user's rights; landlock: {files}");
    }
    Confined { landlock: Some(files.to_string()), trouble: done.err() }
}

fn kept(config: &Config, config_file: &Path) -> Kept {
    let needs = needs(config);
    let mut kept = Kept {
        read: vec![PROC.into()],
        change: vec![config.state_dir.clone(), config.runtime_dir.clone()],
        signals: needs.starts_relays,
        ..Kept::default()
    };
    // An editor puts a new file in the place of the old one.
    let real = config_file.canonicalize().ok();
    kept.read.extend(
        [Some(config_file), real.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(Path::parent)
            .map(Path::to_owned),
    );
    if needs.starts_relays {
        kept.read.push(CGROUPS.into());
        kept.execute.extend(LOADERS.map(PathBuf::from));
        kept.execute.extend(relay::program(&config.relay).ok());
    }
    if needs.starts_relays || needs.looks_up {
        kept.read.extend(LIBRARIES.map(PathBuf::from));
    }
    if needs.looks_up {
        kept.read.extend(NAMES.map(PathBuf::from));
        kept.ports.push(DNS);
    }
    if needs.connects {
        kept.read.push(config.log.syslog.ca.clone());
    }
    if needs.connects && config.log.syslog.transport == Transport::Tcp {
        kept.ports.push(config.log.syslog.port);
    }
    kept
}

fn needs(config: &Config) -> Control {
    let connects = config.log.to == Destination::Syslog;
    Control {
        process: std::process::id(),
        starts_relays: config.relay.socket.as_os_str().is_empty(),
        connects,
        looks_up: connects && config.log.syslog.host.parse::<IpAddr>().is_err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, "test").unwrap()
    }

    const MANAGED: &str = "[relay]\nsocket = \"/run/zone-proxy/relay.sock\"\n";

    #[test]
    fn under_a_service_manager_nothing_is_executed_and_nothing_but_its_own_files_is_read() {
        let kept = kept(&config(MANAGED), Path::new("/etc/zone-proxy/zone-proxy.toml"));
        assert_eq!(kept.execute, Vec::<PathBuf>::new());
        assert!(!kept.signals && kept.ports.is_empty());
        assert!(
            kept.read.iter().all(|path| path == Path::new("/proc") || path == Path::new("/etc/zone-proxy")),
            "{kept:?}"
        );
        assert_eq!(kept.change, ["/var/lib/zone-proxy", "/run/zone-proxy"].map(PathBuf::from));
    }

    #[test]
    fn a_syslog_server_is_the_one_thing_that_is_connected_to_and_its_port_the_only_one() {
        let server = |host: &str, transport: &str| {
            let text = format!(
                "{MANAGED}[log]\nto = \"syslog\"\n[log.syslog]\nhost = \"{host}\"\nport = 6514\ntransport = \"{transport}\"\n"
            );
            let config = config(&text);
            (needs(&config), kept(&config, Path::new("/x/y")).ports)
        };
        assert!(!needs(&config(MANAGED)).connects);
        let (own, ports) = server("192.0.2.7", "tcp");
        assert!(own.connects && !own.looks_up);
        assert_eq!(ports, [6514]);
        let (own, ports) = server("logs.example", "udp");
        assert!(own.connects && own.looks_up);
        assert_eq!(ports, [DNS]);
    }
}
