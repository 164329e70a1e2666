//! Addresses, ports and networks, and the memory of which packets they make a difference to.
//!
//! What stands in one set must not overlap. So all values are of cells that do not: each element is of a cell of its own.

use std::net::{Ipv4Addr, Ipv6Addr};

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// The ports that packets go to.
pub const PORTS: [u16; 3] = [17486, 17487, 17488];
/// Networks of sources, none within another one.
const CELLS_V4: [(u32, u8); 14] = [
    (0xc633_6400, 26), // 198.51.100.0
    (0xc633_6440, 26),
    (0xc633_6480, 26),
    (0xc633_64c0, 26),
    (0xcb00_7100, 25), // 203.0.113.0
    (0xcb00_7180, 25),
    (0x0a01_0000, 16), // 10.1.0.0
    (0x0a02_0000, 16),
    (0x0a40_0000, 10), // 10.64.0.0
    (0xac10_0000, 12), // 172.16.0.0
    (0x6440_0000, 10), // 100.64.0.0
    (0x0800_0000, 8),
    (0x4000_0000, 3),  // 64.0.0.0, with what is above it
    (0xc000_02c0, 27), // 192.0.2.192, on the link
];

/// The same for IPv6.
const CELLS_V6: [(u128, u8); 10] = [
    (0x2001_0db8_000a_0000_0000_0000_0000_0000, 64),
    (0x2001_0db8_000a_0001_0000_0000_0000_0000, 64),
    (0x2001_0db8_000b_0000_0000_0000_0000_0000, 48),
    (0x2001_0db8_000c_0000_0000_0000_0000_0000, 120),
    (0x2001_0db8_000c_0000_0000_0000_0000_0100, 120),
    (0x2001_0db8_000c_0000_0000_0000_0000_0200, 119),
    (0xfd00_0000_0000_0000_0000_0000_0000_0000, 16),
    (0xfd01_0000_0000_0000_0000_0000_0000_0000, 16),
    (0x2600_0000_0000_0000_0000_0000_0000_0000, 8),
    (0x2001_0db8_0001_0000_0000_0000_0000_ff00, 120), // on the link
];

/// Ports that packets go to, apart from those that are asked about.
const OTHER_PORTS: [(u16, u16); 8] =
    [(22, 22), (53, 53), (80, 90), (443, 443), (1024, 9999), (10000, 17485), (17489, 20500), (30000, 65535)];

const SOURCE_PORTS: [(u16, u16); 6] =
    [(1, 1023), (1024, 9999), (10000, 29999), (30000, 39999), (40000, 49999), (50000, 65535)];

/// Draws values.
pub(super) struct Values {
    pub(super) rng: ChaCha8Rng,
    pub(super) sources_v4: Vec<Ipv4Addr>,
    pub(super) sources_v6: Vec<Ipv6Addr>,
    pub(super) source_ports: Vec<u16>,
}

impl Values {
    pub(super) fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, sources_v4: Vec::new(), sources_v6: Vec::new(), source_ports: Vec::new() }
    }

    fn below(&mut self, end: usize) -> usize {
        self.rng.random_range(0..end)
    }

    /// So many different ones of so many cells.
    fn choose(&mut self, count: usize, of: usize) -> Vec<usize> {
        let mut all: Vec<_> = (0..of).collect();
        for position in 0..count.min(of) {
            let other = position + self.below(of - position);
            all.swap(position, other);
        }
        all.truncate(count);
        all
    }

    pub(super) fn mark(&mut self) -> String {
        ["0x1", "0x2", "0x3", "0x10", "0x100", "0x0"][self.below(6)].to_owned()
    }

    /// Networks, addresses and ranges of sources that don't overlap; `exact` for addresses alone.
    pub(super) fn addresses(&mut self, v6: bool, count: usize, exact: bool) -> Vec<String> {
        let cells = if v6 { CELLS_V6.len() } else { CELLS_V4.len() };
        let chosen = self.choose(count, cells);
        chosen.into_iter().map(|cell| self.address_of(v6, cell, exact)).collect()
    }

    fn address_of(&mut self, v6: bool, cell: usize, exact: bool) -> String {
        let (width, first, length) = if v6 {
            (128_u8, CELLS_V6[cell].0, CELLS_V6[cell].1)
        } else {
            (32_u8, u128::from(CELLS_V4[cell].0), CELLS_V4[cell].1)
        };
        let hosts = width - length;
        let random = self.rng.random_range(0..=u128::MAX) & low_bits(hosts);
        let address = first | random;
        match self.below(10) {
            3..6 if !exact => {
                // A network within the cell.
                let bits = u8::try_from(self.below(usize::from(hosts) + 1)).unwrap_or(0);
                let low = address & !low_bits(bits);
                self.told(v6, low, low | low_bits(bits));
                format!("{}/{}", written(v6, low), width - bits)
            }
            6..8 if !exact => {
                let other = first | (self.rng.random_range(0..=u128::MAX) & low_bits(hosts));
                let (low, high) = (address.min(other), address.max(other));
                self.told(v6, low, high);
                if low == high {
                    written(v6, low)
                } else {
                    format!("{}-{}", written(v6, low), written(v6, high))
                }
            }
            8.. if !exact => {
                self.told(v6, first, first | low_bits(hosts));
                format!("{}/{length}", written(v6, first))
            }
            _ => {
                self.told(v6, address, address);
                written(v6, address)
            }
        }
    }

    /// Remembers that packets from the edges of this range are of interest.
    fn told(&mut self, v6: bool, low: u128, high: u128) {
        for edge in [low, high, low.wrapping_sub(1), high.saturating_add(1), low + (high - low) / 2] {
            if v6 {
                self.sources_v6.push(Ipv6Addr::from_bits(edge));
            } else if let Ok(edge) = u32::try_from(edge) {
                self.sources_v4.push(Ipv4Addr::from_bits(edge));
            }
        }
    }

    /// A mask and what is left of addresses under it.
    pub(super) fn masked(&mut self, v6: bool) -> (String, String) {
        let cell = self.below(if v6 { CELLS_V6.len() } else { CELLS_V4.len() });
        if v6 {
            let address = CELLS_V6[cell].0 | self.rng.random_range(0..8);
            self.told(true, address, address);
            let mask = [u128::MAX << 80, (u128::MAX << 112) | 0x7, 0xff][self.below(3)];
            (written(true, mask), written(true, address & mask))
        } else {
            let address = u128::from(CELLS_V4[cell].0) | self.rng.random_range(0..8);
            self.told(false, address, address);
            let mask = [0xffff_0000, 0xff00_0007, 0x0000_00ff][self.below(3)];
            (written(false, mask), written(false, address & mask))
        }
    }

    /// Ports and ranges of ports that don't overlap; about half of them have ports of ours.
    pub(super) fn ports(&mut self, source: bool, count: usize, exact: bool) -> Vec<String> {
        if source {
            let chosen = self.choose(count, SOURCE_PORTS.len());
            return chosen.into_iter().map(|cell| self.range(SOURCE_PORTS[cell], exact, true)).collect();
        }
        let ours = if self.below(100) < 60 { 1 + self.below(2) } else { 0 };
        let mut out: Vec<String> =
            self.choose(ours, PORTS.len()).into_iter().map(|nth| PORTS[nth].to_string()).collect();
        if !exact && self.below(6) == 0 {
            out = vec![["17486-17488", "17000-17487", "17487-17600"][self.below(3)].to_owned()];
        }
        // Those beside a range of ours could be within it.
        let wide = out.iter().any(|port| port.contains('-'));
        let more = count.saturating_sub(out.len()).max(usize::from(out.is_empty()));
        let chosen = self.choose(more, if wide { 5 } else { OTHER_PORTS.len() });
        out.extend(
            chosen.into_iter().map(|cell| self.range(OTHER_PORTS[cell], exact, false)).collect::<Vec<_>>(),
        );
        out.truncate(count.max(1));
        out
    }

    fn range(&mut self, (first, last): (u16, u16), exact: bool, source: bool) -> String {
        let one = self.rng.random_range(first..=last);
        let other = self.rng.random_range(first..=last);
        let (low, high) = (one.min(other), one.max(other));
        let single = exact || low == high || self.below(2) == 0;
        let high = if single { low } else { high };
        if source {
            self.source_ports.extend([low, high, low.saturating_sub(1), high.saturating_add(1)]);
        }
        if single { low.to_string() } else { format!("{low}-{high}") }
    }
}

fn low_bits(bits: u8) -> u128 {
    if bits == 0 { 0 } else { u128::MAX >> (128 - bits) }
}

fn written(v6: bool, address: u128) -> String {
    if v6 {
        Ipv6Addr::from_bits(address).to_string()
    } else {
        Ipv4Addr::from_bits(u32::try_from(address).unwrap_or(u32::MAX)).to_string()
    }
}
