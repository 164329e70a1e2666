//! What becomes of packets, and why: the question, and the answer that a program or a person can read.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The first packet of a TCP connection to this host, as far as it is known. What is left out may be anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PacketQuestion {
    /// The port that it goes to.
    pub port: u16,
    /// Where it comes from: an address as its own network, or all addresses of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNet>,
    /// The address that it goes to; any of this host's if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<IpAddr>,
    /// The port that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// The device that it comes in by, by its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The hardware address that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<HardwareAddress>,
    /// The mark that it comes with: 0 unless a program of traffic control sets one.
    #[serde(default)]
    pub mark: u32,
    /// Whether nft's own line for a deciding rule is asked for, too.
    #[serde(default)]
    pub nft: bool,
}

/// A hardware address, such as `00:11:22:aa:bb:cc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HardwareAddress(pub [u8; 6]);

/// A text is no hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hardware address has six pairs of hexadecimal digits, such as 00:11:22:aa:bb:cc")]
pub struct NoHardwareAddress;

impl FromStr for HardwareAddress {
    type Err = NoHardwareAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pair = |pair: &str| match pair.len() {
            2 if pair.bytes().all(|digit| digit.is_ascii_hexdigit()) => u8::from_str_radix(pair, 16).ok(),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.split([':', '-']).map(pair).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NoHardwareAddress)
    }
}

impl TryFrom<String> for HardwareAddress {
    type Error = NoHardwareAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HardwareAddress> for String {
    fn from(address: HardwareAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for HardwareAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// What becomes of the packets that were asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Whether they come to the port, all in all.
    pub reachability: Reachability,
    /// The cases that they fall into: no packet is in two, unless these differ in their conditions.
    pub cases: Vec<ExplainedCase>,
    /// How many more cases there are than are told.
    #[serde(default)]
    pub cases_left_out: usize,
}

/// Whether packets come to the port that they go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reachability {
    /// All of them do, as long as little comes.
    Open,
    /// None of them does.
    Shut,
    /// Some do and some don't, or it can't be told. The cases say which, and what would decide it.
    Unknown,
}

/// Packets that fare alike. A list that is empty means any.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedCase {
    /// What becomes of them.
    pub verdict: PacketVerdict,
    /// Where they go instead, who takes them over, or why it can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Where they come from: addresses, networks and ranges.
    pub sources: Vec<String>,
    /// The ports that they come from.
    pub source_ports: Vec<String>,
    /// The addresses that they go to.
    pub destinations: Vec<String>,
    /// The devices that they come in by.
    pub interfaces: Vec<String>,
    /// What must hold beside it, and nobody knows whether it does.
    pub conditions: Vec<ExplainedCondition>,
    /// It is so only while more comes than a rate or a quota lets through; [`Explanation::reachability`] leaves it out.
    #[serde(default)]
    pub only_above_rate: bool,
    /// The rule or policy that decides; none where nothing stands in their way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_by: Option<ExplainedRule>,
    /// Where a policy decides: the rule by which they left the chain early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_by: Option<ExplainedRule>,
    /// The base chains that they come to, and the rules that lead from one chain to another, in order.
    pub path: Vec<ExplainedStep>,
}

/// What becomes of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PacketVerdict {
    /// They come to the socket that listens.
    Accepted,
    /// They are gone, and nobody is told.
    Dropped,
    /// They are gone, and the sender is told.
    Rejected,
    /// They come to the socket, and its answer is dropped on its way out.
    Unanswered,
    /// They come to another port or address of this host.
    Redirected,
    /// They go on to another host.
    Forwarded,
    /// A program, or the kernel in its place, decides or answers.
    TakenOver,
    /// It can't be told.
    Unknown,
}

impl fmt::Display for PacketVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accepted => "accepted",
            Self::Dropped => "dropped",
            Self::Rejected => "rejected",
            Self::Unanswered => "accepted, but the answer is dropped",
            Self::Redirected => "redirected",
            Self::Forwarded => "forwarded",
            Self::TakenOver => "taken over",
            Self::Unknown => "unknown",
        })
    }
}

/// A condition of which nobody knows whether it holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedCondition {
    /// What is asked, in nft's language or in words.
    pub what: String,
    /// Whether it holds in this case.
    pub holds: bool,
    /// It is about a rate or a quota: it holds for some packets of a kind and not for others.
    #[serde(default)]
    pub rate: bool,
    /// Where the rule is that asks.
    pub place: String,
    /// The text of that rule.
    pub rule: String,
    /// The option of `zone-firewall explain` that would decide it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided_with: Option<String>,
}

/// A rule, or the policy of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedRule {
    /// The family of the table.
    pub family: String,
    /// The table.
    pub table: String,
    /// The chain.
    pub chain: String,
    /// The rule's handle; none for the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handle: Option<u64>,
    /// Its text in nft's language.
    pub text: String,
    /// What nft itself prints for it, if that was asked for and could be found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nft: Option<String>,
}

/// A step of a packet's way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainedStep {
    /// Where: a base chain, or a rule with its handle.
    pub place: String,
    /// What happens there, such as `hook input priority 0` or `jump services`.
    pub what: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_six_pairs_of_digits() {
        let address: HardwareAddress = "00:11:22:aa:BB:cc".parse().unwrap();
        assert_eq!(address.to_string(), "00:11:22:aa:bb:cc");
        for other in ["", "00:11:22:aa:bb", "00:11:22:aa:bb:cc:dd", "0:11:22:aa:bb:cc", "+1:11:22:aa:bb:cc"] {
            assert_eq!(other.parse::<HardwareAddress>(), Err(NoHardwareAddress), "{other}");
        }
    }
}
