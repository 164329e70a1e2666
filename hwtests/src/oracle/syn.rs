//! The packets that are sent: openings of TCP connections, as Linux makes them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use zone_random_rulesets::{Destination, Generated, PORTS};

/// The hardware address of the packets' sender.
pub(crate) const SENDER: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The hardware address of the host.
pub(crate) const HOST: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The opening of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Syn {
    pub(crate) source: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
}

impl std::fmt::Display for Syn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, source_port, destination, port } = self;
        write!(f, "from {source} port {source_port} to {destination} port {port}")
    }
}

/// So many openings that a ruleset may tell apart. No two have the same addresses and ports, and none has those that are used: of
/// a second one the kernel would think that it belongs to the first one's connection.
pub(crate) fn choose(
    rng: &mut ChaCha8Rng,
    made: &Generated,
    to: &Destination,
    count: usize,
    used: &mut HashSet<(IpAddr, u16)>,
) -> Vec<Syn> {
    let mut out = Vec::with_capacity(count);
    while out.len() < count {
        let v6 = rng.random_bool(0.45);
        let source = if v6 {
            IpAddr::V6(
                pick(rng, &made.sources_v6).filter(|_| rng.random_bool(0.8)).unwrap_or_else(|| some_v6(rng)),
            )
        } else {
            IpAddr::V4(
                pick(rng, &made.sources_v4).filter(|_| rng.random_bool(0.8)).unwrap_or_else(|| some_v4(rng)),
            )
        };
        let edge = pick(rng, &made.source_ports).filter(|port| *port > 0 && rng.random_bool(0.6));
        let source_port = edge.unwrap_or_else(|| rng.random_range(1..=u16::MAX));
        let destination = if v6 { IpAddr::V6(to.v6) } else { IpAddr::V4(to.v4) };
        if may_send(source) && used.insert((source, source_port)) {
            let port = PORTS[rng.random_range(0..PORTS.len())];
            out.push(Syn { source, source_port, destination, port });
        }
    }
    out
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, of: &[T]) -> Option<T> {
    if of.is_empty() { None } else { Some(of[rng.random_range(0..of.len())]) }
}

fn some_v4(rng: &mut ChaCha8Rng) -> Ipv4Addr {
    let networks =
        [0xc633_6400_u32, 0xcb00_7100, 0x0a01_0000, 0x0a40_0000, 0xac10_0000, 0x6440_0000, 0x0808_0000];
    if rng.random_bool(0.3) {
        return Ipv4Addr::from_bits(rng.random_range(0x0100_0000..0xdfff_ffff));
    }
    let network = networks[rng.random_range(0..networks.len())];
    Ipv4Addr::from_bits(network | rng.random_range(1..255))
}

fn some_v6(rng: &mut ChaCha8Rng) -> Ipv6Addr {
    let networks = [
        0x2001_0db8_000a_0000_u64,
        0x2001_0db8_000a_0001,
        0x2001_0db8_000b_0000,
        0x2001_0db8_000c_0000,
        0xfd01_0000_0000_0000,
        0x2600_0000_0000_0000,
    ];
    let network = networks[rng.random_range(0..networks.len())];
    Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(rng.random_range(1..1000_u64)))
}

/// Whether the kernel takes packets from there: no sources of its own, of the loopback device, of groups, or none.
fn may_send(source: IpAddr) -> bool {
    match source {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            let on_link = [a, b, c] == [192, 0, 2];
            (1..224).contains(&a) && a != 127 && !(on_link && (d <= 190 || d >= 254))
        }
        IpAddr::V6(address) => {
            let segments = address.segments();
            let on_link = segments[..4] == [0x2001, 0xdb8, 1, 0];
            (0x2000..0xfe00).contains(&segments[0]) && !(on_link && segments[7] < 0x1000)
        }
    }
}

/// How long a packet is, network header included.
pub(crate) fn length(v6: bool) -> u128 {
    if v6 { 80 } else { 60 }
}

/// The frame, with the options that Linux sends: 60 bytes of IPv4 or 80 of IPv6.
pub(crate) fn frame(syn: &Syn) -> Vec<u8> {
    const OPTIONS: [u8; 20] = [2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let mut tcp = Vec::with_capacity(40);
    tcp.extend(syn.source_port.to_be_bytes());
    tcp.extend(syn.port.to_be_bytes());
    tcp.extend(0x1234_5678_u32.to_be_bytes());
    tcp.extend(0_u32.to_be_bytes());
    tcp.extend([0xa0, 0x02, 0xfa, 0xf0, 0, 0, 0, 0]);
    tcp.extend(OPTIONS);
    let length = u16::try_from(tcp.len()).unwrap_or(0);
    let mut out = Vec::with_capacity(96);
    out.extend(HOST);
    out.extend(SENDER);
    let pseudo = match (syn.source, syn.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut header = vec![0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0];
            header[2..4].copy_from_slice(&(20 + length).to_be_bytes());
            header.extend(source.octets());
            header.extend(destination.octets());
            let sum = checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            out.extend([8, 0]);
            out.extend(&header);
            [&source.octets()[..], &destination.octets()].concat()
        }
        (source, destination) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            let addresses = [octets(source), octets(destination)].concat();
            out.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            out.extend(length.to_be_bytes());
            out.extend([6, 64]);
            out.extend(&addresses);
            addresses
        }
    };
    let protocol_and_length = [&[0, 6][..], &length.to_be_bytes()].concat();
    let sum = checksum(&[&pseudo[..], &protocol_and_length, &tcp].concat());
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    out.extend(tcp);
    out
}

/// The checksum of RFC 1071 over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_over_a_header_with_its_checksum_is_nothing() {
        let syn = Syn {
            source: "198.51.100.7".parse().unwrap(),
            source_port: 40000,
            destination: "192.0.2.1".parse().unwrap(),
            port: 17488,
        };
        let frame = frame(&syn);
        assert_eq!(frame.len() as u128, 14 + length(false));
        assert_eq!(checksum(&frame[14..34]), 0);
    }

    #[test]
    fn no_packet_comes_from_the_host_itself_or_from_nowhere() {
        for address in [
            "192.0.2.1",
            "127.0.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "2001:db8:1::1",
            "::1",
            "ff02::1",
            "fe80::1",
        ] {
            assert!(!may_send(address.parse().unwrap()), "{address}");
        }
        for address in ["192.0.2.200", "10.1.0.0", "2001:db8:1::ff10", "fd01::1"] {
            assert!(may_send(address.parse().unwrap()), "{address}");
        }
    }
}
