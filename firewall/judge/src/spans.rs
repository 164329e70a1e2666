//! Sets of numbers as ranges: addresses and ports that packets may still have.

use std::sync::Arc;

use crate::question::Span;

/// A set of numbers: ranges in ascending order that neither overlap nor touch. Cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spans(Arc<[Span]>);

impl Span {
    /// The numbers from one to another, both included.
    #[must_use]
    pub fn new(first: u128, last: u128) -> Self {
        Self { first, last }
    }

    /// One address.
    #[must_use]
    pub fn of_address(address: &std::net::IpAddr) -> Self {
        let number = match address {
            std::net::IpAddr::V4(address) => u128::from(u32::from(*address)),
            std::net::IpAddr::V6(address) => u128::from(*address),
        };
        Self { first: number, last: number }
    }

    /// Whether a number is in it.
    #[must_use]
    pub fn contains(&self, number: u128) -> bool {
        (self.first..=self.last).contains(&number)
    }
}

impl Spans {
    /// All numbers of so many bits.
    pub(crate) fn all(bits: u32) -> Self {
        Self::one(0, last(bits))
    }

    /// The numbers from one to another, both included.
    pub(crate) fn one(first: u128, last: u128) -> Self {
        Self(Arc::new([Span { first, last }]))
    }

    /// Any ranges, in any order.
    pub(crate) fn of(mut spans: Vec<Span>) -> Self {
        spans.retain(|span| span.first <= span.last);
        spans.sort_unstable();
        let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
        for span in spans {
            match merged.last_mut() {
                Some(before) if span.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(span.last);
                }
                _ => merged.push(span),
            }
        }
        Self(merged.into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[Span] {
        &self.0
    }

    /// Those that are in both.
    pub(crate) fn intersect(&self, other: &Self) -> Self {
        if self.0.len() == 1 && other.0.len() == 1 {
            let (a, b) = (self.0[0], other.0[0]);
            if a.first >= b.first && a.last <= b.last {
                return self.clone();
            }
        }
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            let (first, last) = (a.first.max(b.first), a.last.min(b.last));
            if first <= last {
                both.push(Span { first, last });
            }
            if a.last < b.last {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both.into())
    }

    /// Those that are not in the other set.
    pub(crate) fn subtract(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.0.iter().peekable();
        for span in self.0.iter() {
            let mut first = span.first;
            let mut is_used_up = false;
            while let Some(taken) = others.peek() {
                if taken.last < first {
                    others.next();
                    continue;
                }
                if taken.first > span.last {
                    break;
                }
                if taken.first > first {
                    left.push(Span { first, last: taken.first - 1 });
                }
                if taken.last >= span.last {
                    is_used_up = true;
                    break;
                }
                first = taken.last + 1;
                others.next();
            }
            if !is_used_up {
                left.push(Span { first, last: span.last });
            }
        }
        Self(left.into())
    }

    /// Those that are in one or the other.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::of(self.0.iter().chain(other.0.iter()).copied().collect())
    }
}

fn last(bits: u32) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A set of numbers below 64 as bits: what ranges are compared with.
    fn bits(spans: &Spans) -> u64 {
        (0..64)
            .filter(|n| spans.as_slice().iter().any(|span| span.contains(*n)))
            .fold(0, |all, n| all | 1 << n)
    }

    fn some(mut seed: u64) -> Spans {
        let mut next = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            u128::from(seed >> 58)
        };
        let count = next() % 6;
        Spans::of((0..count).map(|_| (next(), next())).map(|(first, last)| Span { first, last }).collect())
    }

    #[test]
    fn ranges_are_the_sets_that_they_stand_for() {
        for seed in 0..500 {
            let (a, b) = (some(seed), some(seed ^ 0xdead_beef));
            assert_eq!(bits(&a.intersect(&b)), bits(&a) & bits(&b), "{seed}");
            assert_eq!(bits(&a.subtract(&b)), bits(&a) & !bits(&b), "{seed}");
            assert_eq!(bits(&a.union(&b)), bits(&a) | bits(&b), "{seed}");
            for spans in [a.subtract(&b), a.union(&b), a.intersect(&b)] {
                assert!(spans.as_slice().windows(2).all(|pair| pair[0].last < pair[1].first), "{seed}");
            }
        }
    }

    #[test]
    fn the_ends_of_the_numbers_are_no_trouble() {
        let all = Spans::all(128);
        assert!(all.subtract(&all).is_empty());
        let rest = all.subtract(&Spans::one(u128::MAX, u128::MAX)).subtract(&Spans::one(0, 0));
        assert_eq!(rest, Spans::one(1, u128::MAX - 1));
        assert_eq!(rest.union(&Spans::one(0, 0)).union(&Spans::one(u128::MAX, u128::MAX)), all);
    }
}
