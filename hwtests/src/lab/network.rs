//! Namespaces, links and addresses, made with ip(8) in the lab's own network namespace.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::command::{COMMAND_TIMEOUT, succeed};
use super::description::{Host, Topology};
use super::error::{Error, Result};
use super::target::Probe;

/// Numbers interfaces of the lab's own namespace.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The links of a topology: bridges in the lab's own namespace.
#[derive(Debug)]
pub(crate) struct Links(BTreeMap<String, String>);

impl Links {
    pub(crate) fn make(topology: &Topology) -> Result<Self> {
        let links: BTreeMap<_, _> =
            topology.links.iter().map(|link| (link.clone(), new_name("zlab-b"))).collect();
        let batch = links.values().fold(String::new(), |batch, bridge| {
            batch + &format!("link add {bridge} type bridge\nlink set {bridge} up\n")
        });
        ip(None, &batch)?;
        Ok(Self(links))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let batch =
            self.0.values().fold(String::new(), |batch, bridge| batch + &format!("link del {bridge}\n"));
        // The namespace that they are in ends soon after, and they with it.
        let _ = ip(None, &batch);
    }
}

/// A network namespace with a name, which ends with this handle.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes the namespace of a host, with its NICs plugged in and its addresses set.
    pub(crate) fn make(name: &str, host: &Host, links: &Links) -> Result<Self> {
        ip(None, &format!("netns add {name}\n"))?;
        let namespace = Self { name: name.to_owned() };
        // Duplicate address detection (RFC 4862) would hold each IPv6 address back for a second or two.
        namespace.set("ipv6/conf/default/accept_dad", "0")?;
        namespace.set("ipv6/conf/default/dad_transmits", "0")?;
        if host.forwards {
            namespace.set("ipv4/ip_forward", "1")?;
            namespace.set("ipv6/conf/all/forwarding", "1")?;
        }
        let (mut outside, mut inside) = (String::new(), "link set lo up\n".to_owned());
        for nic in &host.nics {
            let (plug, nic_name) = (new_name("zlab-v"), &nic.name);
            let bridge = links.0.get(&nic.link).ok_or_else(|| {
                Error::description(format!("there is no link {} for {}", nic.link, host.name))
            })?;
            let _ = write!(
                outside,
                "link add {plug} type veth peer name {nic_name} netns {name}\nlink set {plug} master {bridge} up\n"
            );
            for address in nic.networks()? {
                let (address, length) = (address.addr(), address.prefix_len());
                let _ = writeln!(inside, "addr add {address}/{length} dev {nic_name}");
            }
            let _ = writeln!(inside, "link set {nic_name} up");
        }
        for route in &host.routes {
            let _ = writeln!(inside, "route add {} via {}", route.to, route.via);
        }
        ip(None, &outside)?;
        ip(Some(name), &inside)?;
        Ok(namespace)
    }

    /// Sets a value below /proc/sys/net.
    fn set(&self, key: &str, value: &str) -> Result<()> {
        let mut command = self.enter();
        command.args(["sh", "-c", "echo \"$2\" > \"/proc/sys/net/$1\"", "sh", key, value]);
        succeed(&format!("set net/{key}"), command, b"", COMMAND_TIMEOUT).map(|_| ())
    }

    /// The file that stands for it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that runs what is added to it in this namespace.
    pub(crate) fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display()));
        command
    }

    /// Connects from here.
    pub(crate) fn probe(&self, to: SocketAddr, limit: Duration) -> Probe {
        let path = self.path();
        // A thread of its own, because a thread can't leave a namespace without knowing the way back.
        let attempt = thread::spawn(move || {
            let file = File::open(path)?;
            setns(file, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect_timeout(&to, limit)
        });
        let outcome = attempt.join().unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
        match outcome.map_err(|error| error.kind()) {
            Ok(_) => Probe::Open,
            Err(std::io::ErrorKind::ConnectionRefused) => Probe::Refused,
            Err(std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock) => Probe::Filtered,
            Err(_) => Probe::Unreachable,
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(None, &format!("netns del {}\n", self.name));
    }
}

fn new_name(prefix: &str) -> String {
    format!("{prefix}{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Runs lines of ip(8). `netns` has no batch mode of its own, so such a line is a command.
fn ip(namespace: Option<&str>, batch: &str) -> Result<()> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    let shown = format!("ip -batch: {}", batch.trim().replace('\n', "; "));
    if batch.starts_with("netns ") {
        command.args(batch.split_whitespace());
        succeed(batch.trim(), command, b"", COMMAND_TIMEOUT)?;
    } else {
        command.args(["-batch", "-"]);
        succeed(&shown, command, batch.as_bytes(), COMMAND_TIMEOUT)?;
    }
    Ok(())
}
