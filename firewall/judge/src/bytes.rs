//! Bytes that are known in part: of a packet's headers, its properties, and the registers that rules compare.

use crate::question::Span;
use crate::region::Dimension;
use crate::spans::Spans;

/// A byte, each bit of which is known, or is a bit of what is open of the packet, or is not known at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Byte {
    /// The bits that are known. At the others, what a bit of the dimension is combined with by exclusive or.
    value: u8,
    /// Which bits are known.
    known: u8,
    /// The dimension, and the byte of it from the most significant one, that the other bits are of.
    open: Option<(Dimension, u8)>,
    /// What the byte is, for a person, where its bits are not known.
    pub(crate) what: &'static str,
    /// Whether a rule that asks for it names something: a port, an address, a device.
    pub(crate) names: bool,
}

impl Byte {
    /// A known one.
    pub(crate) const fn known(value: u8) -> Self {
        Self { value, known: 0xff, open: None, what: "", names: false }
    }

    /// One of which nothing is known.
    pub(crate) const fn unknown(what: &'static str) -> Self {
        Self { value: 0, known: 0, open: None, what, names: false }
    }

    /// One of which some bits are known.
    pub(crate) const fn partly(value: u8, known: u8, what: &'static str) -> Self {
        Self { value: value & known, known, open: None, what, names: false }
    }

    /// A byte of something that is open.
    pub(crate) const fn open(dimension: Dimension, index: u8, what: &'static str) -> Self {
        Self { value: 0, known: 0, open: Some((dimension, index)), what, names: true }
    }

    /// The same, and whoever asks for it names something.
    pub(crate) const fn naming(self) -> Self {
        Self { names: true, ..self }
    }

    /// The same, said to be this.
    pub(crate) const fn said_to_be(self, what: &'static str) -> Self {
        Self { what, ..self }
    }

    /// Its value, if all of it is known.
    pub(crate) fn value(self) -> Option<u8> {
        (self.known == 0xff).then_some(self.value)
    }

    /// `(self & mask) ^ xor`
    pub(crate) fn masked(self, mask: u8, xor: u8) -> Self {
        let value = (self.value & mask) ^ xor;
        let known = self.known | !mask;
        Self { value, known, open: if known == 0xff { None } else { self.open }, ..self }
    }
}

/// Known bytes.
pub(crate) fn known<const N: usize>(bytes: [u8; N]) -> [Byte; N] {
    bytes.map(Byte::known)
}

/// The value of bytes that are all known.
pub(crate) fn values(bytes: &[Byte]) -> Option<Vec<u8>> {
    bytes.iter().map(|byte| byte.value()).collect()
}

/// When a comparison holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Match {
    /// It holds for no packet.
    Never,
    /// For those whose open parts are within these, ...
    If {
        /// The numbers of each dimension that it is about.
        spans: Vec<(Dimension, Spans)>,
        /// ... and only if this, which is not known, is so, too.
        unknown: Option<&'static str>,
    },
}

impl Match {
    /// A comparison that holds for all packets, whatever is open of them.
    pub(crate) const ALWAYS: Self = Self::If { spans: Vec::new(), unknown: None };

    pub(crate) fn from_bool(yes: bool) -> Self {
        if yes { Self::ALWAYS } else { Self::Never }
    }

    pub(crate) fn unknown(what: &'static str) -> Self {
        Self::If { spans: Vec::new(), unknown: Some(what) }
    }

    /// Both at once.
    pub(crate) fn and(self, other: Self) -> Self {
        let (Self::If { mut spans, unknown }, Self::If { spans: more, unknown: also }) = (self, other) else {
            return Self::Never;
        };
        for (dimension, numbers) in more {
            match spans.iter_mut().find(|(own, _)| *own == dimension) {
                Some((_, own)) => *own = own.intersect(&numbers),
                None => spans.push((dimension, numbers)),
            }
        }
        if spans.iter().any(|(_, numbers)| numbers.is_empty()) {
            return Self::Never;
        }
        Self::If { spans, unknown: unknown.or(also) }
    }
}

/// The most ranges that a mask may give for one dimension.
const MAX_MASK_RANGES: u32 = 1 << 15;

/// When bytes are these.
pub(crate) fn equal(bytes: &[Byte], value: &[u8], v6: bool) -> Match {
    let mut asked: [(u128, u128); 4] = [(0, 0); 4];
    let mut unknown = None;
    for (byte, value) in bytes.iter().zip(value) {
        if (byte.value ^ value) & byte.known != 0 {
            return Match::Never;
        }
        let rest = !byte.known;
        if rest == 0 {
            continue;
        }
        let Some((dimension, index)) = byte.open else {
            unknown = unknown.or(Some(byte.what));
            continue;
        };
        let shift = dimension.bits(v6) - 8 * (u32::from(index) + 1);
        let (mask, wanted) = (u128::from(rest) << shift, u128::from((byte.value ^ value) & rest) << shift);
        let (all, so_far) = &mut asked[dimension as usize];
        if (*so_far ^ wanted) & mask & *all != 0 {
            return Match::Never;
        }
        *all |= mask;
        *so_far |= wanted;
    }
    let mut spans = Vec::new();
    for dimension in crate::region::DIMENSIONS {
        let (mask, wanted) = asked[dimension as usize];
        if mask != 0 {
            match with_mask(mask, wanted, dimension.bits(v6)) {
                Some(numbers) => spans.push((dimension, numbers)),
                None => unknown = unknown.or(Some("scattered bits of an address")),
            }
        }
    }
    Match::If { spans, unknown }
}

/// When bytes are in a range, both ends included, compared from the first one on.
pub(crate) fn between(bytes: &[Byte], from: &[u8], to: &[u8], v6: bool) -> Match {
    if from == to {
        return equal(bytes, from, v6);
    }
    if from > to {
        return Match::Never;
    }
    let open = bytes.iter().position(|byte| byte.known != 0xff).unwrap_or(bytes.len());
    let before: Vec<u8> = bytes[..open].iter().map(|byte| byte.value).collect();
    let (low, high) = (from.get(..open).unwrap_or(from), to.get(..open).unwrap_or(to));
    if *before < *low || *before > *high {
        return Match::Never;
    }
    if *before > *low && *before < *high || open == bytes.len() {
        return Match::ALWAYS;
    }
    match linear(bytes, v6) {
        Some(linear) => linear.between(from, to),
        None => Match::unknown(bytes[open].what),
    }
}

/// A number that is `known + (top << shift)`, where `top` are the most significant bits of a dimension.
struct Linear {
    dimension: Dimension,
    bits: u32,
    top_bits: u32,
    shift: u32,
    known: u128,
}

fn linear(bytes: &[Byte], v6: bool) -> Option<Linear> {
    if bytes.len() > 16 {
        return None;
    }
    let mut known: u128 = 0;
    let mut run: Option<(Dimension, u32, u32)> = None;
    for (position, byte) in bytes.iter().enumerate() {
        known = known << 8 | u128::from(byte.value & byte.known);
        if byte.known == 0xff {
            continue;
        }
        let (dimension, index) = byte.open?;
        if byte.value & !byte.known != 0 {
            return None;
        }
        for bit in (0..8).rev().filter(|bit| byte.known >> bit & 1 == 0) {
            let of_dimension = u32::from(index) * 8 + (7 - bit);
            let place = u32::try_from(bytes.len() - position - 1).ok()? * 8 + bit;
            match &mut run {
                None if of_dimension == 0 => run = Some((dimension, 1, place)),
                Some((same, count, last))
                    if *same == dimension && *count == of_dimension && *last == place + 1 =>
                {
                    *count += 1;
                    *last = place;
                }
                _ => return None,
            }
        }
    }
    let (dimension, top_bits, shift) = run?;
    Some(Linear { dimension, bits: dimension.bits(v6), top_bits, shift, known })
}

impl Linear {
    fn between(&self, from: &[u8], to: &[u8]) -> Match {
        let number = |bytes: &[u8]| bytes.iter().fold(0_u128, |number, byte| number << 8 | u128::from(*byte));
        let (from, to) = (number(from), number(to));
        if to < self.known {
            return Match::Never;
        }
        let rest = self.bits - self.top_bits;
        let last_top = if self.top_bits >= 128 { u128::MAX } else { (1 << self.top_bits) - 1 };
        let below = from.saturating_sub(self.known);
        let first = (below >> self.shift) + u128::from(below & ((1 << self.shift) - 1) != 0);
        let last = ((to - self.known) >> self.shift).min(last_top);
        if first > last {
            return Match::Never;
        }
        let free = if rest == 0 { 0 } else { (1 << rest) - 1 };
        Match::If {
            spans: vec![(self.dimension, Spans::one(first << rest, last << rest | free))],
            unknown: None,
        }
    }
}

/// The numbers that have these bits under a mask; `None` if these are too many ranges.
fn with_mask(mask: u128, wanted: u128, bits: u32) -> Option<Spans> {
    let low = mask.trailing_zeros();
    let all = if bits >= 128 { u128::MAX } else { (1 << bits) - 1 };
    let below = if low == 0 { 0 } else { (1 << low) - 1 };
    let free = all & !mask & !below;
    if free == 0 {
        return Some(Spans::one(wanted, wanted | below));
    }
    if free.count_ones() > MAX_MASK_RANGES.trailing_zeros() {
        return None;
    }
    let mut spans = Vec::new();
    let mut part: u128 = 0;
    loop {
        spans.push(Span { first: wanted | part, last: wanted | part | below });
        part = part.wrapping_sub(free) & free;
        if part == 0 {
            return Some(Spans::of(spans));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> Vec<Byte> {
        (0..4).map(|index| Byte::open(Dimension::Source, index, "ip saddr")).collect()
    }

    fn of(found: &Match) -> Spans {
        match found {
            Match::If { spans, unknown: None } if spans.len() == 1 => spans[0].1.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_network_is_found_whether_its_mask_or_fewer_bytes_are_compared() {
        let masked: Vec<_> =
            source().into_iter().zip([255, 255, 240, 0]).map(|(byte, mask)| byte.masked(mask, 0)).collect();
        let network = Spans::one(0x0a01_1000, 0x0a01_1fff);
        assert_eq!(of(&equal(&masked, &[10, 1, 16, 0], false)), network);
        assert_eq!(equal(&masked, &[10, 1, 16, 1], false), Match::Never);
        assert_eq!(of(&equal(&source()[..3], &[10, 1, 16], false)), Spans::one(0x0a01_1000, 0x0a01_10ff));
        assert_eq!(of(&between(&masked, &[10, 1, 16, 0], &[10, 1, 31, 255], false)), network);
        assert_eq!(
            of(&between(&source()[..2], &[10, 1], &[10, 2], false)),
            Spans::one(0x0a01_0000, 0x0a02_ffff)
        );
    }

    /// All addresses of a few bits, compared as bytes are.
    #[test]
    fn ranges_of_masked_bytes_hold_for_exactly_the_numbers_that_they_say() {
        let port = [Byte::open(Dimension::SourcePort, 0, "p"), Byte::open(Dimension::SourcePort, 1, "p")];
        for (mask, xor) in
            [([0xff, 0xff], [0, 0]), ([0xff, 0xf0], [0, 3]), ([0xfe, 0], [0, 7]), ([0xff, 0xff], [0, 0])]
        {
            let bytes = [port[0].masked(mask[0], xor[0]), port[1].masked(mask[1], xor[1])];
            for (from, to) in
                [([0, 3], [1, 0]), ([0x10, 0x10], [0x22, 0x2f]), ([0, 0], [0xff, 0xfe]), ([9, 9], [9, 10])]
            {
                let found = between(&bytes, &from, &to, false);
                for number in 0..=u16::MAX {
                    let [a, b] = number.to_be_bytes();
                    let value = [(a & mask[0]) ^ xor[0], (b & mask[1]) ^ xor[1]];
                    let holds = from <= value && value <= to;
                    let says = match &found {
                        Match::Never => false,
                        Match::If { spans, unknown: None } => spans
                            .iter()
                            .all(|(_, set)| set.to_ranges().iter().any(|s| s.contains(number.into()))),
                        Match::If { .. } => panic!("{found:?}"),
                    };
                    assert_eq!(says, holds, "{mask:?} {xor:?} {from:?} {to:?} {number}");
                }
            }
        }
    }

    #[test]
    fn scattered_bits_give_the_numbers_that_have_them() {
        let port = [
            Byte::open(Dimension::SourcePort, 0, "p").masked(0x0f, 0),
            Byte::open(Dimension::SourcePort, 1, "p").masked(0x81, 0),
        ];
        let spans = of(&equal(&port, &[3, 0x80], false));
        for number in 0..=u16::MAX {
            let is_in = spans.to_ranges().iter().any(|span| span.contains(number.into()));
            assert_eq!(is_in, number & 0x0f81 == 0x0380, "{number}");
        }
    }

    #[test]
    fn known_bits_decide_although_others_are_not_known() {
        let fragment = [Byte::partly(0, 0xbf, "df").masked(0x1f, 0), Byte::known(0)];
        assert_eq!(equal(&fragment, &[0, 0], false), Match::ALWAYS);
        let time = [Byte::unknown("time")];
        assert_eq!(equal(&time, &[1], false), Match::unknown("time"));
        let both = [Byte::unknown("time"), Byte::known(3)];
        assert_eq!(equal(&both, &[1, 4], false), Match::Never);
        assert_eq!(between(&[Byte::known(3), Byte::unknown("time")], &[4, 0], &[5, 0], false), Match::Never);
    }
}
