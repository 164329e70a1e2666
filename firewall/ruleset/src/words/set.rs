//! The elements of anonymous sets and maps.

use super::kind::{Kind, Order, Writer, kinds_of_type, shifted};
use super::text::verdict;
use crate::model::{Element, Set};

/// How many elements of a set are written out.
pub(super) const MAX_ELEMENTS: usize = 16;

/// A field of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// Of what kind its values are.
    pub(super) kind: Kind,
    /// The order of their bytes.
    pub(super) order: Order,
    /// How many bytes they have.
    pub(super) length: usize,
    /// By how many bits they are too far to the left.
    pub(super) shift: u32,
}

/// A set by its name, or by its elements if it has none.
pub(super) fn reference(set: Option<&Set>, name: &str, key: &[Part], writer: Writer<'_>) -> String {
    match set {
        Some(set) if set.flags.anonymous => elements(set, key, writer),
        _ => format!("@{name}"),
    }
}

/// The kind of a map's values, and what is known of the fields of values that are concatenations.
pub(super) fn value_kinds(set: &Set) -> Vec<(Kind, Order, usize)> {
    kinds_of_type(set.data_type)
}

fn elements(set: &Set, key: &[Part], writer: Writer<'_>) -> String {
    let mut ranges = if set.flags.interval && !set.flags.concat && set.fields.len() < 2 {
        intervals(set)
    } else {
        set.elements.iter().map(Range::of).collect()
    };
    ranges.sort_by_key(|range| range.sorted(key));
    let mut words: Vec<String> = ranges
        .iter()
        .take(MAX_ELEMENTS)
        .map(|range| {
            let mut text = range.key(key, writer);
            if let Some(value) = value(set, range.element, writer) {
                text = format!("{text} : {value}");
            }
            text
        })
        .collect();
    if set.cut {
        words.push("... more".to_owned());
    } else if ranges.len() > MAX_ELEMENTS {
        words.push(format!("... {} more", ranges.len() - MAX_ELEMENTS));
    }
    if words.is_empty() { "{ }".to_owned() } else { format!("{{ {} }}", words.join(", ")) }
}

/// An element, with both ends of its key.
struct Range<'a> {
    element: &'a Element,
    first: Box<[u8]>,
    last: Box<[u8]>,
}

impl<'a> Range<'a> {
    fn of(element: &'a Element) -> Self {
        let last = element.key_end.clone().unwrap_or_else(|| element.key.clone());
        Self { element, first: element.key.clone(), last }
    }

    /// As nft sorts: by value, what catches all others at the end.
    fn sorted(&self, key: &[Part]) -> (bool, Vec<u8>) {
        let mut bytes = self.first.to_vec();
        if let [part] = key
            && part.order == Order::Host
            && part.kind != Kind::Device
            && cfg!(target_endian = "little")
        {
            bytes.reverse();
        }
        (self.element.catch_all, bytes)
    }

    fn key(&self, key: &[Part], writer: Writer<'_>) -> String {
        if self.element.catch_all {
            return "*".to_owned();
        }
        let mut at = 0;
        let mut fields = Vec::new();
        for part in key {
            // The only field has all bytes: there is no padding behind it.
            let end = if key.len() == 1 { self.first.len() } else { at + part.length };
            let slice = |bytes: &[u8]| bytes.get(at..end.min(bytes.len())).unwrap_or_default().to_vec();
            let (first, last) = (slice(&self.first), slice(&self.last));
            fields.push(if part.shift > 0 {
                let ends = [first, last].map(|end| shifted(&end, part.shift));
                writer.range(part.kind, part.order, &ends[0], &ends[1])
            } else {
                writer.range(part.kind, part.order, &first, &last)
            });
            at += part.length.next_multiple_of(4);
        }
        fields.join(" . ")
    }
}

/// The kernel has the first key of an interval, and the first one behind it.
fn intervals(set: &Set) -> Vec<Range<'_>> {
    let mut sorted: Vec<&Element> = set.elements.iter().filter(|element| !element.catch_all).collect();
    sorted.sort_by(|one, other| (&one.key, !one.interval_end).cmp(&(&other.key, !other.interval_end)));
    let mut ranges = Vec::new();
    let mut open: Option<&Element> = None;
    for element in sorted {
        if let Some(begun) = open.take() {
            ranges.push(Range { element: begun, first: begun.key.clone(), last: before(&element.key) });
        }
        if !element.interval_end {
            open = Some(element);
        }
    }
    if let Some(begun) = open {
        let last = vec![0xff; begun.key.len()].into();
        ranges.push(Range { element: begun, first: begun.key.clone(), last });
    }
    ranges.extend(set.elements.iter().filter(|element| element.catch_all).map(Range::of));
    ranges
}

fn before(key: &[u8]) -> Box<[u8]> {
    let mut key: Box<[u8]> = key.into();
    for byte in key.iter_mut().rev() {
        let (less, borrow) = byte.overflowing_sub(1);
        *byte = less;
        if !borrow {
            break;
        }
    }
    key
}

fn value(set: &Set, element: &Element, writer: Writer<'_>) -> Option<String> {
    if let Some(decided) = &element.verdict {
        return Some(verdict(decided));
    }
    if let Some(object) = &element.object {
        return Some(writer.quoted(&object.to_string()));
    }
    let data = element.data.as_ref()?;
    let kinds = value_kinds(set);
    if let [(kind, order, length)] = kinds[..] {
        // A range of addresses, of `snat prefix`.
        return Some(match data.split_at_checked(length) {
            Some((first, last)) if last.len() == length => writer.range(kind, order, first, last),
            _ => writer.value(kind, order, data),
        });
    }
    let mut at = 0;
    let mut fields = Vec::new();
    for (kind, order, length) in kinds {
        let end = (at + length).min(data.len());
        fields.push(writer.value(kind, order, data.get(at..end).unwrap_or_default()));
        at += length.next_multiple_of(4);
    }
    Some(fields.join(" . "))
}
