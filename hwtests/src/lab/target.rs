//! What can be done with a host, whatever it is made of.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::command::{Cmd, Output, must};
use super::description::Nic;
use super::error::{Error, Result};
use super::process::Process;
use super::terminal::Terminal;

/// A host that is up.
pub trait Target: Send + Sync {
    /// Its name in the description.
    fn name(&self) -> &str;

    /// Its NICs as described.
    fn nics(&self) -> &[Nic];

    /// A directory of its own, which goes away with it.
    fn dir(&self) -> PathBuf;

    /// Runs a command there to its end, whatever its exit status.
    fn run(&self, cmd: &Cmd) -> Result<Output>;

    /// Starts a program there that goes on running; `name` is for its log. It ends with the handle.
    fn spawn(&self, name: &str, cmd: &Cmd) -> Result<Process>;

    /// Starts a program there at a terminal of 80 columns and 24 rows.
    fn terminal(&self, cmd: &Cmd) -> Result<Terminal>;

    /// Writes a file there, made with its directories. A host without files of its own takes only those in
    /// [`Target::dir`].
    fn put(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()>;

    /// Reads a file there.
    fn get(&self, path: &str) -> Result<Vec<u8>>;

    /// Boots it again and waits until it is up.
    fn reboot(&self) -> Result<()>;

    /// Waits until it is up, and returns in which state (`running`, `degraded`).
    fn wait_booted(&self, limit: Duration) -> Result<String>;

    /// Connects from there by TCP and lets go at once.
    fn probe(&self, to: SocketAddr, limit: Duration) -> Probe;
}

impl dyn Target + '_ {
    /// Runs a command there that must end with 0.
    pub fn must(&self, cmd: &Cmd) -> Result<Output> {
        must(self.name(), &cmd.to_string(), self.run(cmd)?)
    }

    /// A NIC by its name.
    pub fn nic(&self, name: &str) -> Result<&Nic> {
        self.nics()
            .iter()
            .find(|nic| nic.name == name)
            .ok_or_else(|| Error::description(format!("host {} has no NIC {name}", self.name())))
    }

    /// The IPv4 address of a NIC.
    pub fn ipv4(&self, nic: &str) -> Result<IpAddr> {
        self.nic(nic)?
            .ipv4()
            .ok_or_else(|| Error::description(format!("NIC {nic} of {} has no IPv4 address", self.name())))
    }

    /// The IPv6 address of a NIC.
    pub fn ipv6(&self, nic: &str) -> Result<IpAddr> {
        self.nic(nic)?
            .ipv6()
            .ok_or_else(|| Error::description(format!("NIC {nic} of {} has no IPv6 address", self.name())))
    }
}

/// What a TCP connection attempt met.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Probe {
    /// It was accepted.
    Open,
    /// It was answered with a reset, or with ICMP port unreachable: nothing listens, or a firewall says so.
    Refused,
    /// ICMP said that the host or network can't be reached, or that it is forbidden.
    Unreachable,
    /// Nothing answered in time.
    Filtered,
}

impl std::fmt::Display for Probe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Filtered => "no answer",
        })
    }
}
