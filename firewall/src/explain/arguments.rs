//! The options of `explain`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use ipnet::IpNet;
use zone_firewall_protocol::{HardwareAddress, PacketQuestion};

/// What is asked, and how the answer is printed.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The TCP port that the packet goes to
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Where it comes from, an address or a network; any if left out
    #[arg(long, value_name = "ADDRESS", value_parser = network)]
    from: Option<IpNet>,
    /// The address that it goes to; any of this host's if left out
    #[arg(long, value_name = "ADDRESS")]
    to: Option<IpAddr>,
    /// The port that it comes from; any if left out
    #[arg(long, value_name = "PORT")]
    source_port: Option<u16>,
    /// The device that it comes in by; each that has the address if left out
    #[arg(long, value_name = "DEVICE")]
    iif: Option<String>,
    /// The hardware address that it comes from
    #[arg(long, value_name = "ADDRESS")]
    mac: Option<HardwareAddress>,
    /// The mark that it comes with, decimal or as 0x...; none if left out
    #[arg(long, value_name = "MARK", value_parser = mark, default_value = "0")]
    mark: u32,
    /// Add what nft itself prints for a deciding rule
    #[arg(long)]
    nft: bool,
    /// Ask the rules of this file, in nft's language, in place of the live ones; as root
    #[arg(long, value_name = "FILE")]
    pub(crate) ruleset: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Arguments {
    /// The question that they ask.
    pub(crate) fn question(&self) -> PacketQuestion {
        PacketQuestion {
            port: self.port,
            from: self.from,
            to: self.to,
            source_port: self.source_port,
            interface: self.iif.clone(),
            mac: self.mac,
            mark: self.mark,
            nft: self.nft,
        }
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    text.parse::<IpNet>()
        .map(|network| network.trunc())
        .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "neither an address nor a network, such as 198.51.100.7 or 10.0.0.0/8".to_owned())
}

fn mark(text: &str) -> Result<u32, String> {
    match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    }
    .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_network_of_one() {
        assert_eq!(network("198.51.100.7").unwrap().to_string(), "198.51.100.7/32");
        assert_eq!(network("10.1.2.3/8").unwrap().to_string(), "10.0.0.0/8");
        assert!(network("eth0").is_err());
    }

    #[test]
    fn a_mark_may_be_hexadecimal() {
        assert_eq!((mark("16"), mark("0x10")), (Ok(16), Ok(16)));
        assert!(mark("ten").is_err());
    }
}
