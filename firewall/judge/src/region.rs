//! Which packets a case is about: what is open of them, as sets of numbers.

use std::sync::Arc;

use crate::spans::Spans;

/// What is open of a packet. Everything else is known, or depends on nothing that the question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Dimension {
    /// The address that it comes from.
    Source,
    /// The port that it comes from.
    SourcePort,
    /// The address that it goes to.
    Destination,
    /// Its bytes, network header included.
    Length,
}

/// All of them.
pub(crate) const DIMENSIONS: [Dimension; 4] =
    [Dimension::Source, Dimension::SourcePort, Dimension::Destination, Dimension::Length];

impl Dimension {
    /// How many bits it has, by the family.
    pub(crate) fn bits(self, v6: bool) -> u32 {
        match self {
            Self::Source | Self::Destination => {
                if v6 {
                    128
                } else {
                    32
                }
            }
            Self::SourcePort | Self::Length => 16,
        }
    }
}

/// A product: each combination of a number of each dimension.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Product([Spans; 4]);

impl Product {
    /// All numbers of all dimensions.
    pub(crate) fn all(v6: bool) -> Self {
        Self(DIMENSIONS.map(|dimension| Spans::all(dimension.bits(v6))))
    }

    pub(crate) fn of(&self, dimension: Dimension) -> &Spans {
        &self.0[dimension as usize]
    }

    /// The same with fewer numbers of one dimension.
    pub(crate) fn narrowed(mut self, dimension: Dimension, spans: &Spans) -> Self {
        self.0[dimension as usize] = self.0[dimension as usize].intersect(spans);
        self
    }

    fn is_empty(&self) -> bool {
        self.0.iter().any(Spans::is_empty)
    }

    fn intersect(&self, other: &Self) -> Option<Self> {
        let both = Self(std::array::from_fn(|index| self.0[index].intersect(&other.0[index])));
        (!both.is_empty()).then_some(both)
    }

    /// What is not in the other one, as products that don't overlap.
    fn subtract(&self, other: &Self) -> Vec<Self> {
        let mut rest = Vec::new();
        let mut inside = self.clone();
        for index in 0..self.0.len() {
            let outside = inside.0[index].subtract(&other.0[index]);
            if !outside.is_empty() {
                let mut piece = inside.clone();
                piece.0[index] = outside;
                rest.push(piece);
            }
            inside.0[index] = inside.0[index].intersect(&other.0[index]);
            if inside.0[index].is_empty() {
                break;
            }
        }
        rest
    }

    /// The two as one, if they differ in one dimension at most.
    fn join(&self, other: &Self) -> Option<Self> {
        let mut different = (0..self.0.len()).filter(|index| self.0[*index] != other.0[*index]);
        let Some(index) = different.next() else { return Some(self.clone()) };
        if different.next().is_some() {
            return None;
        }
        let mut joined = self.clone();
        joined.0[index] = self.0[index].union(&other.0[index]);
        Some(joined)
    }
}

/// A set of packets: products that don't overlap. Cheap to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Region(Arc<[Product]>);

/// Above so many products they are no longer joined, for that takes each pair of them.
const MAX_JOINED: usize = 32;

impl Region {
    pub(crate) fn new(product: Product) -> Self {
        if product.is_empty() { Self::empty() } else { Self(Arc::new([product])) }
    }

    pub(crate) fn empty() -> Self {
        Self(Arc::new([]))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn products(&self) -> &[Product] {
        &self.0
    }

    /// Those that are in a product.
    pub(crate) fn within(&self, product: &Product) -> Self {
        Self(self.0.iter().filter_map(|own| own.intersect(product)).collect())
    }

    /// Those that are in none of the products.
    pub(crate) fn without(&self, product: &Product) -> Self {
        Self(self.0.iter().flat_map(|own| own.subtract(product)).collect())
    }

    /// Those that are in another region, too.
    pub(crate) fn intersect(&self, other: &Self) -> Self {
        Self(
            other
                .0
                .iter()
                .flat_map(|product| self.0.iter().filter_map(|own| own.intersect(product)))
                .collect(),
        )
    }

    /// Both. They must not overlap.
    pub(crate) fn join(&self, other: &Self) -> Self {
        let mut products: Vec<Product> = self.0.iter().chain(other.0.iter()).cloned().collect();
        if products.len() <= MAX_JOINED {
            'again: loop {
                for a in 0..products.len() {
                    for b in a + 1..products.len() {
                        if let Some(joined) = products[a].join(&products[b]) {
                            products[a] = joined;
                            products.swap_remove(b);
                            continue 'again;
                        }
                    }
                }
                break;
            }
        }
        Self(products.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::Span;

    fn product(source: (u128, u128), port: (u128, u128)) -> Product {
        Product::all(false)
            .narrowed(Dimension::Source, &Spans::one(source.0, source.1))
            .narrowed(Dimension::SourcePort, &Spans::one(port.0, port.1))
    }

    fn contains(region: &Region, source: u128, port: u128) -> usize {
        let has = |spans: &Spans, number| spans.to_ranges().iter().any(|span: &Span| span.contains(number));
        region
            .products()
            .iter()
            .filter(|product| {
                has(product.of(Dimension::Source), source) && has(product.of(Dimension::SourcePort), port)
            })
            .count()
    }

    #[test]
    fn what_is_taken_out_and_what_is_left_are_the_whole_without_overlap() {
        let whole = Region::new(product((0, 9), (0, 9)));
        let taken = product((3, 5), (2, 20));
        let (inside, outside) = (whole.within(&taken), whole.without(&taken));
        for source in 0..12 {
            for port in 0..12 {
                let is_inside = (3..=5).contains(&source) && (2..=9).contains(&port);
                let is_in = source <= 9 && port <= 9;
                assert_eq!(contains(&inside, source, port), usize::from(is_inside));
                assert_eq!(contains(&outside, source, port), usize::from(is_in && !is_inside));
            }
        }
        assert_eq!(inside.join(&outside), whole);
        assert_eq!(whole.intersect(&outside), outside);
    }
}
