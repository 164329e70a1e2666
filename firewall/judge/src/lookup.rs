//! Looking keys up in sets and maps.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use zone_ruleset::{Element, Expr, Set, Verdict};

use crate::bytes::{Byte, Match, between, values};
use crate::question::Span;
use crate::region::{Dimension, Product, Region};
use crate::spans::Spans;

/// The most combinations of ranges that one lookup may give.
const MAX_PRODUCTS: usize = 4096;

/// What an element says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Says {
    /// That it is there.
    There,
    /// A value.
    Value(Box<[u8]>),
    /// A verdict.
    Verdict(Verdict),
    /// A stateful object.
    Object(Vec<u8>),
}

/// What was found for some packets.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    /// The packets that it was found for.
    pub(crate) region: Region,
    /// What the element says; `None` where there is none.
    pub(crate) says: Option<Says>,
    /// Why it may be otherwise: then it is so only if a condition holds.
    pub(crate) unknown: Option<String>,
    /// It was found by what the key is, and not because no other element matches.
    pub(crate) by_key: bool,
}

/// A set in the form in which it is looked up.
#[derive(Debug)]
pub(crate) struct Index {
    entries: Vec<Entry>,
    groups: Vec<Group>,
    otherwise: Option<usize>,
    /// Where each field of a key begins and ends.
    fields: Vec<(usize, usize)>,
    is_cut: bool,
    /// The whole key as numbers, for each group.
    by_group: OnceCell<Vec<Spans>>,
}

#[derive(Debug)]
struct Entry {
    from: Box<[u8]>,
    to: Box<[u8]>,
    group: usize,
}

#[derive(Debug)]
struct Group {
    says: Says,
    /// What else must hold, if anything.
    condition: Option<String>,
}

impl Index {
    pub(crate) fn new(set: &Set) -> Self {
        let mut numbers: BTreeMap<(Says, Option<String>), usize> = BTreeMap::new();
        let mut groups = Vec::new();
        let mut group_of = |element: &Element| {
            let says = if let Some(verdict) = &element.verdict {
                Says::Verdict(verdict.clone())
            } else if let Some(data) = &element.data {
                Says::Value(data.clone())
            } else if let Some(object) = &element.object {
                Says::Object(object.as_bytes().to_vec())
            } else {
                Says::There
            };
            let condition = condition_of(&element.exprs);
            *numbers.entry((says.clone(), condition.clone())).or_insert_with(|| {
                groups.push(Group { says, condition });
                groups.len() - 1
            })
        };
        let mut otherwise = None;
        let mut entries = Vec::new();
        let is_tree = set.flags.interval && set.fields.len() < 2;
        let mut bounds: Vec<&Element> = Vec::new();
        for element in &set.elements {
            if element.catch_all {
                otherwise = Some(group_of(element));
            } else if is_tree && element.key_end.is_none() {
                bounds.push(element);
            } else {
                let to = element.key_end.clone().unwrap_or_else(|| element.key.clone());
                entries.push(Entry { from: element.key.clone(), to, group: group_of(element) });
            }
        }
        // At the same key an interval ends before the next one begins.
        bounds.sort_by(|a, b| a.key.cmp(&b.key).then(b.interval_end.cmp(&a.interval_end)));
        for (at, element) in bounds.iter().enumerate().filter(|(_, element)| !element.interval_end) {
            let to = match bounds.get(at + 1) {
                Some(end) => one_less(&end.key),
                None => vec![0xff; element.key.len()].into(),
            };
            entries.push(Entry { from: element.key.clone(), to, group: group_of(element) });
        }
        entries.sort_by(|a, b| a.from.cmp(&b.from));
        let mut fields = Vec::new();
        let mut at = 0;
        for length in &set.fields {
            let length = usize::try_from(*length).unwrap_or(usize::MAX);
            fields.push((at, at + length.next_multiple_of(4)));
            at += length.next_multiple_of(4);
        }
        if fields.len() < 2 {
            fields = vec![(0, usize::try_from(set.key_len).unwrap_or(usize::MAX))];
        }
        Self { entries, groups, otherwise, fields, is_cut: set.cut, by_group: OnceCell::new() }
    }

    /// What there is for a key, for each of the packets of a region. Where it depends on something that isn't known, the same packets are
    /// there with what may be found, once for each.
    pub(crate) fn find(&self, key: &[Byte], region: &Region, v6: bool) -> Vec<Found> {
        let mut found = Vec::new();
        let mut rest = region.clone();
        let mut take = |group: usize, products: &[Product], unknown: Option<&str>, rest: &mut Region| {
            let group = &self.groups[group];
            for product in products {
                let inside = rest.within(product);
                if inside.is_empty() {
                    continue;
                }
                let unknown = unknown.map(str::to_owned).or_else(|| group.condition.clone());
                // Where it may be otherwise, other elements may match the same packets, or none.
                if unknown.is_none() {
                    *rest = rest.without(product);
                }
                found.push(Found { region: inside, says: Some(group.says.clone()), unknown, by_key: true });
            }
        };
        if let Some(known) = values(key) {
            if let Some(group) = self.exact(&known) {
                take(group, &[Product::all(v6)], None, &mut rest);
            }
        } else if let Some(dimension) = self.whole_dimension(key, v6) {
            for (group, spans) in self.by_group().iter().enumerate() {
                let product = Product::all(v6).narrowed(dimension, spans);
                take(group, &[product], None, &mut rest);
            }
        } else {
            for (group, unknown, products) in self.search(key, v6) {
                if let Some(products) = products {
                    take(group, &products, unknown, &mut rest);
                } else {
                    let what = Some("a set that takes too many cases");
                    take(group, &[Product::all(v6)], what, &mut rest);
                }
            }
        }
        if !rest.is_empty() {
            let says = self.otherwise.map(|group| self.groups[group].says.clone());
            let condition = self.otherwise.and_then(|group| self.groups[group].condition.clone());
            let is_unsure =
                found.iter().any(|one| one.unknown.is_some() && !one.region.intersect(&rest).is_empty());
            let unknown = if self.is_cut {
                Some("a set of more elements than are read".to_owned())
            } else if is_unsure {
                let first = found.iter().find_map(|one| one.unknown.clone());
                first.or(condition)
            } else {
                condition
            };
            found.push(Found { region: rest, says, unknown, by_key: false });
        }
        found
    }

    fn exact(&self, key: &[u8]) -> Option<usize> {
        let is_in = |entry: &Entry| {
            self.fields.iter().all(|(from, to)| {
                let part = |bytes: &[u8]| bytes.get(*from..(*to).min(bytes.len())).map(<[u8]>::to_vec);
                let (key, low, high) = (part(key), part(&entry.from), part(&entry.to));
                key >= low && key <= high
            })
        };
        if self.fields.len() > 1 {
            return self.entries.iter().find(|entry| is_in(entry)).map(|entry| entry.group);
        }
        let after = self.entries.partition_point(|entry| &*entry.from <= key);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        (*key <= *entry.to).then_some(entry.group)
    }

    /// The dimension that a key is, if it is nothing else.
    fn whole_dimension(&self, key: &[Byte], v6: bool) -> Option<Dimension> {
        if self.fields.len() > 1 {
            return None;
        }
        crate::region::DIMENSIONS.into_iter().find(|dimension| {
            let bytes = (0..u8::try_from(dimension.bits(v6) / 8).unwrap_or(0))
                .map(|index| key.first().map(|first| Byte::open(*dimension, index, first.what)));
            let whole: Option<Vec<Byte>> = bytes.collect();
            whole.is_some_and(|whole| whole == key)
        })
    }

    fn by_group(&self) -> &[Spans] {
        self.by_group.get_or_init(|| {
            let mut spans: Vec<Vec<Span>> = self.groups.iter().map(|_| Vec::new()).collect();
            for entry in &self.entries {
                spans[entry.group].push(Span { first: number(&entry.from), last: number(&entry.to) });
            }
            spans.into_iter().map(Spans::of).collect()
        })
    }

    /// Each group that may match, why it may not, and for which packets; `None` for more than can be followed.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn search(&self, key: &[Byte], v6: bool) -> Vec<(usize, Option<&'static str>, Option<Vec<Product>>)> {
        let mut singles: BTreeMap<(usize, Option<&'static str>, Dimension), Vec<Span>> = BTreeMap::new();
        let mut products: BTreeMap<(usize, Option<&'static str>), Vec<Product>> = BTreeMap::new();
        for entry in &self.entries {
            let mut matches = Match::ALWAYS;
            for (from, to) in &self.fields {
                let part =
                    |bytes: &[u8]| bytes.get(*from..(*to).min(bytes.len())).unwrap_or_default().to_vec();
                let bytes = key.get(*from..(*to).min(key.len())).unwrap_or_default();
                matches = matches.and(between(bytes, &part(&entry.from), &part(&entry.to), v6));
                if matches == Match::Never {
                    break;
                }
            }
            let Match::If { spans, unknown } = matches else { continue };
            if let [(dimension, numbers)] = &spans[..] {
                singles
                    .entry((entry.group, unknown, *dimension))
                    .or_default()
                    .extend(numbers.to_ranges().iter());
            } else {
                let product = spans.iter().fold(Product::all(v6), |product, (dimension, numbers)| {
                    product.narrowed(*dimension, numbers)
                });
                products.entry((entry.group, unknown)).or_default().push(product);
            }
        }
        for ((group, unknown, dimension), spans) in singles {
            let product = Product::all(v6).narrowed(dimension, &Spans::of(spans));
            products.entry((group, unknown)).or_default().push(product);
        }
        let follow = |products: Vec<Product>| (products.len() <= MAX_PRODUCTS).then_some(products);
        // What is certain comes first: it takes packets out of what is not.
        let mut all: Vec<_> = products
            .into_iter()
            .map(|((group, unknown), products)| (group, unknown, follow(products)))
            .collect();
        all.sort_by_key(|(_, unknown, _)| unknown.is_some());
        all
    }
}

/// What must hold beside the key.
fn condition_of(exprs: &[Expr]) -> Option<String> {
    let is_open = |expr: &&Expr| !matches!(expr, Expr::Counter | Expr::Last);
    exprs.iter().find(is_open).map(|_| "a limit of the element".to_owned())
}

fn number(bytes: &[u8]) -> u128 {
    bytes.iter().take(16).fold(0, |number, byte| number << 8 | u128::from(*byte))
}

fn one_less(key: &[u8]) -> Box<[u8]> {
    let mut key: Box<[u8]> = key.into();
    for byte in key.iter_mut().rev() {
        let (less, borrows) = byte.overflowing_sub(1);
        *byte = less;
        if !borrows {
            break;
        }
    }
    key
}
