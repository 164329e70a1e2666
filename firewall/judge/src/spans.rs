//! Sets of numbers as ranges: addresses and ports that packets may still have.

use std::sync::Arc;

use crate::question::Span;

/// Single ranges that are taken out of large sets are only noted, up to so many, so that a list of thousands of denied addresses
/// does not copy thousands of ranges each time.
const MAX_NOTED: usize = 256;
/// Above so many ranges a set is large: then what may be noted does not use it up.
const LARGE: usize = MAX_NOTED;

/// A set of numbers: ranges in ascending order that neither overlap nor touch, without those that were taken out since. Cheap to copy.
#[derive(Debug, Clone)]
pub(crate) struct Spans {
    ranges: Arc<[Span]>,
    /// The last range that was taken out, each of which is part of one of `ranges`, and apart from the others.
    taken: Option<Arc<Taken>>,
}

#[derive(Debug)]
struct Taken {
    span: Span,
    before: Option<Arc<Taken>>,
    count: usize,
}

impl PartialEq for Spans {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.ranges, &other.ranges) && self.taken.is_none() && other.taken.is_none()
            || self.to_ranges() == other.to_ranges()
    }
}

impl Eq for Spans {}

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
        Self::sorted(vec![Span { first, last }])
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
        Self::sorted(merged)
    }

    fn sorted(ranges: Vec<Span>) -> Self {
        Self { ranges: ranges.into(), taken: None }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
            || self.taken.is_some() && self.ranges.len() <= LARGE && self.to_ranges().is_empty()
    }

    /// The ranges, in ascending order.
    pub(crate) fn to_ranges(&self) -> Arc<[Span]> {
        let Some(taken) = &self.taken else { return Arc::clone(&self.ranges) };
        let mut spans = Vec::with_capacity(taken.count);
        let mut at = Some(taken);
        while let Some(one) = at {
            spans.push(one.span);
            at = one.before.as_ref();
        }
        spans.sort_unstable();
        without(&self.ranges, &spans).into()
    }

    /// Those that are in both.
    pub(crate) fn intersect(&self, other: &Self) -> Self {
        if other.covers(self) {
            return self.clone();
        }
        if self.covers(other) && self.ranges.len() == 1 && self.taken.is_none() {
            return other.clone();
        }
        if let ([span], None) = (&*other.ranges, &other.taken) {
            return self.within(*span);
        }
        let (mine, others) = (self.to_ranges(), other.to_ranges());
        let (mut left, mut right) = (mine.iter().peekable(), others.iter().peekable());
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
        Self::sorted(both)
    }

    /// Those that are not in the other set.
    pub(crate) fn subtract(&self, other: &Self) -> Self {
        if other.covers(self) {
            return Self::sorted(Vec::new());
        }
        if let ([span], None) = (&*other.ranges, &other.taken) {
            return self.take_out(*span);
        }
        Self::sorted(without(&self.to_ranges(), &other.to_ranges()))
    }

    /// Those that are in one or the other.
    pub(crate) fn union(&self, other: &Self) -> Self {
        Self::of(self.to_ranges().iter().chain(other.to_ranges().iter()).copied().collect())
    }

    /// Whether this is one range that holds all of the other set.
    fn covers(&self, other: &Self) -> bool {
        match (&*self.ranges, &self.taken, other.ranges.first(), other.ranges.last()) {
            ([own], None, Some(first), Some(last)) => own.first <= first.first && own.last >= last.last,
            _ => false,
        }
    }

    /// Those of one range.
    fn within(&self, span: Span) -> Self {
        let from = self.ranges.partition_point(|own| own.last < span.first);
        let own = self.ranges[from..].iter().take_while(|own| own.first <= span.last);
        let inside: Vec<Span> =
            own.map(|own| Span { first: own.first.max(span.first), last: own.last.min(span.last) }).collect();
        let mut taken = Vec::new();
        let mut at = self.taken.as_ref();
        while let Some(one) = at {
            if one.span.first <= span.last && one.span.last >= span.first {
                taken.push(one.span);
            }
            at = one.before.as_ref();
        }
        taken.sort_unstable();
        Self::sorted(without(&inside, &taken))
    }

    fn take_out(&self, span: Span) -> Self {
        let inside = self.within(span);
        if inside.ranges.is_empty() {
            return self.clone();
        }
        let noted = self.taken.as_ref().map_or(0, |taken| taken.count);
        if self.ranges.len() <= LARGE || noted + inside.ranges.len() > MAX_NOTED {
            return Self::sorted(without(&self.to_ranges(), &inside.ranges));
        }
        let taken = inside.ranges.iter().fold(self.taken.clone(), |before, span| {
            let count = before.as_ref().map_or(0, |before: &Arc<Taken>| before.count) + 1;
            Some(Arc::new(Taken { span: *span, before, count }))
        });
        Self { ranges: Arc::clone(&self.ranges), taken }
    }
}

/// Ranges without others. Both are in ascending order, and don't overlap among themselves.
fn without(spans: &[Span], others: &[Span]) -> Vec<Span> {
    let mut left = Vec::new();
    let mut others = others.iter().peekable();
    for span in spans {
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
    left
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
            .filter(|n| spans.to_ranges().iter().any(|span| span.contains(*n)))
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
                assert!(spans.to_ranges().windows(2).all(|pair| pair[0].last < pair[1].first), "{seed}");
            }
        }
    }

    #[test]
    fn a_large_set_of_which_single_numbers_are_taken_is_what_is_left() {
        let evens = Spans::of((0..1000).map(|n| Span::new(n * 2, n * 2)).collect());
        let mut left = evens.clone();
        for n in (0..2000).step_by(3) {
            left = left.subtract(&Spans::one(n, n));
        }
        for n in 0..2000 {
            let is_left = !left.intersect(&Spans::one(n, n)).is_empty();
            assert_eq!(is_left, n % 2 == 0 && n % 3 != 0, "{n}");
        }
        let expected = (0..1000).map(|n| n * 2).filter(|n| n % 3 != 0);
        assert_eq!(left, Spans::of(expected.map(|n| Span::new(n, n)).collect()));
        let none = (0..1000).fold(evens, |left, n| left.subtract(&Spans::one(n * 2, n * 2)));
        assert!(none.is_empty());
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
