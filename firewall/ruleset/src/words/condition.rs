//! Conditions: the left side by its name, and what it is compared with.

use super::field::{self, Field, Headers};
use super::kind::{Kind, Order, Style, Writer, number, prefix_of_mask, shifted};
use super::set;
use super::subject::{self, Held, Subject};
use crate::model::{Comparison, PayloadBase};

/// The left side of a condition.
#[derive(Debug, Clone)]
pub(super) struct Named {
    /// As nft has it.
    pub(super) text: String,
    /// Of what kind a value is.
    pub(super) kind: Kind,
    /// The order of its bytes.
    pub(super) order: Order,
    /// How many bytes the registers hold of it.
    pub(super) length: u8,
    /// By how many bits a value is too far to the left, for a field that is part of a byte.
    pub(super) shift: u32,
    /// The fields of headers that it asks.
    pub(super) fields: Vec<Field>,
}

impl Named {
    fn new(text: String, kind: Kind, held: &Held) -> Self {
        Self { text, kind, order: held.order, length: held.length, shift: 0, fields: Vec::new() }
    }

    /// What the elements of a set need to be written.
    pub(super) fn part(&self) -> set::Part {
        set::Part { kind: self.kind, order: self.order, length: usize::from(self.length), shift: self.shift }
    }

    /// A value as the field itself has it.
    pub(super) fn shifted(&self, value: &[u8]) -> Vec<u8> {
        shifted(value, self.shift)
    }
}

/// The name of what the registers hold.
pub(super) fn named(held: &Held, headers: Headers, writer: Writer<'_>) -> Named {
    match &held.subject {
        Subject::Header { base, offset, .. } => header(*base, *offset, held, headers),
        Subject::Meta(key) => {
            let (mut text, kind) = subject::meta(*key);
            if writer.style == Style::Plain && !text.starts_with("meta ") {
                text.insert_str(0, "meta ");
            }
            Named::new(text, kind, held)
        }
        Subject::Constant(value) => {
            Named::new(writer.value(Kind::Raw, Order::Network, value), Kind::Raw, held)
        }
        Subject::Words { text, kind } => Named::new(text.clone(), *kind, held),
        Subject::Bits { of, mask, xor } => bits(of, mask, xor, held, headers, writer),
    }
}

fn header(base: PayloadBase, offset: u32, held: &Held, headers: Headers) -> Named {
    let (offset, length) = (offset.saturating_mul(8), u32::from(held.length) * 8);
    match field::field(base, headers, offset, length) {
        Some(field) => Named { fields: vec![field], ..Named::new(field.words(), field.kind, held) },
        None => beginning(base, offset, length, held, headers)
            .unwrap_or_else(|| Named::new(field::raw(base, offset, length), Kind::Raw, held)),
    }
}

/// An address of which no more is loaded than is compared.
fn beginning(base: PayloadBase, offset: u32, length: u32, held: &Held, headers: Headers) -> Option<Named> {
    let field = field::field_at(base, headers, offset)?;
    let part = length < field.length && matches!(field.kind, Kind::Ipv4 | Kind::Ipv6);
    part.then(|| Named { fields: vec![field], ..Named::new(field.words(), field.kind, held) })
}

/// `(of & mask) ^ xor`: a field that is part of a byte, or an operation as nft writes it.
fn bits(of: &Subject, mask: &[u8], xor: &[u8], held: &Held, headers: Headers, writer: Writer<'_>) -> Named {
    let inner = Held { subject: of.clone(), ..held.clone() };
    if let (Subject::Header { base, offset, .. }, true) = (of, xor.iter().all(|byte| *byte == 0))
        && let Some(named) = part_of_bytes(*base, *offset, mask, &inner, headers)
    {
        return named;
    }
    let inner = named(&inner, headers, writer);
    // What comes out is `of & and ^ flipped | or`.
    let zip = |one: &[u8], other: &[u8], both: fn(u8, u8) -> u8| -> Vec<u8> {
        one.iter().zip(other).map(|(one, other)| both(*one, *other)).collect()
    };
    let or = zip(mask, xor, |mask, xor| xor & !mask);
    let flipped = zip(mask, xor, |mask, xor| xor & mask);
    let and = zip(mask, &or, |mask, or| mask | or);
    let mut text = inner.text.clone();
    for (op, operand, neutral) in [("&", &and, 0xff), ("^", &flipped, 0), ("|", &or, 0)] {
        if operand.iter().any(|byte| *byte != neutral) {
            text = format!("{text} {op} {}", operand_words(inner.kind, inner.order, operand, writer));
        }
    }
    Named { text, ..inner }
}

/// Bits in a row that are a field.
fn part_of_bytes(
    base: PayloadBase,
    offset: u32,
    mask: &[u8],
    held: &Held,
    headers: Headers,
) -> Option<Named> {
    let value = number(mask, Order::Network).filter(|value| *value != 0)?;
    let width = u32::try_from(mask.len() * 8).ok()?;
    let (zeros, ones) = (value.trailing_zeros(), value.count_ones());
    let in_a_row = (value >> zeros).trailing_ones() == ones && ones < width;
    let first = offset.saturating_mul(8).saturating_add(width.checked_sub(zeros + ones)?);
    let field = field::field(base, headers, first, ones).filter(|_| in_a_row)?;
    let named = Named::new(field.words(), field.kind, held);
    Some(Named { shift: zeros, fields: vec![field], ..named })
}

fn operand_words(kind: Kind, order: Order, operand: &[u8], writer: Writer<'_>) -> String {
    let words = writer.value(kind, order, operand);
    match (kind, writer.style) {
        (Kind::Flags(_), Style::Plain) => words.replace(" | ", ","),
        (Kind::Flags(_), Style::Nft) if words.contains(" | ") => format!("({words})"),
        _ => words,
    }
}

/// Fields that stand beside each other and fill all the bytes of a value, each with its part of it.
pub(super) fn split(
    base: PayloadBase,
    offset: u32,
    value: &[u8],
    headers: Headers,
) -> Option<Vec<(Field, Vec<u8>)>> {
    let first = offset.checked_mul(8)?;
    let end = first.checked_add(u32::try_from(value.len() * 8).ok()?)?;
    let mut fields = Vec::new();
    let mut at = first;
    while at < end {
        let whole = field::field(base, headers, at, end - at);
        let field =
            whole.or_else(|| field::field_at(base, headers, at)).filter(|field| field.end() <= end)?;
        fields.push((field, part(value, at - first, field.length)?));
        at = field.end();
    }
    (!fields.is_empty()).then_some(fields)
}

fn part(value: &[u8], first: u32, length: u32) -> Option<Vec<u8>> {
    if first.is_multiple_of(8) && length.is_multiple_of(8) {
        let (first, length) = ((first / 8) as usize, (length / 8) as usize);
        return value.get(first..first + length).map(<[u8]>::to_vec);
    }
    let width = u32::try_from(value.len() * 8).ok()?;
    let behind = width.checked_sub(first + length)?;
    let bits = number(value, Order::Network)? >> behind & ((1 << length) - 1);
    Some(bits.to_be_bytes()[16 - length.div_ceil(8) as usize..].to_vec())
}

/// An operator with a blank behind it; none for equality, which goes without saying.
pub(super) fn operator(op: Comparison) -> &'static str {
    match op {
        Comparison::Equal => "",
        Comparison::NotEqual => "!= ",
        Comparison::Less => "< ",
        Comparison::LessOrEqual => "<= ",
        Comparison::Greater => "> ",
        Comparison::GreaterOrEqual => ">= ",
    }
}

/// The same where equality must be said: of flags, "without saying" means that one of them is set.
pub(super) fn explicit(kind: Kind, op: Comparison, style: Style) -> &'static str {
    match (kind, op, style) {
        (Kind::Flags(_), Comparison::Equal, Style::Nft) => "== ",
        _ => operator(op),
    }
}

/// A comparison.
pub(super) fn compared(
    named: &Named,
    held: &Held,
    op: Comparison,
    value: &[u8],
    writer: Writer<'_>,
) -> String {
    let negated = match op {
        Comparison::Equal => Some(false),
        Comparison::NotEqual => Some(true),
        _ => None,
    };
    if let Some(negated) = negated {
        if let Some(words) = network(named, held, negated, value, writer) {
            return words;
        }
        if let Some(words) = flags(named, held, negated, value, writer) {
            return words;
        }
    }
    let kind = named.kind;
    let words = writer.value(kind, named.order, &named.shifted(value));
    let masked = matches!(held.subject, Subject::Bits { .. })
        && named.shift == 0
        && named.text.contains(['&', '|', '^']);
    let op = match (op, writer.style) {
        (Comparison::Equal, Style::Nft) if masked => "== ",
        _ => explicit(kind, op, writer.style),
    };
    format!("{} {op}{words}", named.text)
}

/// An address of which the first bits are compared: by a mask, or because no more of it were loaded.
fn network(named: &Named, held: &Held, negated: bool, value: &[u8], writer: Writer<'_>) -> Option<String> {
    let op = if negated { "!= " } else { "" };
    match &held.subject {
        Subject::Bits { of, mask, xor } if matches!(named.kind, Kind::Ipv4 | Kind::Ipv6) => {
            let length = prefix_of_mask(mask)?;
            let inside = value.iter().zip(mask).all(|(value, mask)| value & !mask == 0);
            let plain = xor.iter().all(|byte| *byte == 0) && !matches!(**of, Subject::Bits { .. });
            let left = named.text.split(" & ").next()?;
            (inside && plain)
                .then(|| format!("{left} {op}{}/{length}", writer.value(named.kind, named.order, value)))
        }
        Subject::Header { .. } => {
            let field = named.fields.first().filter(|field| (value.len() * 8) < field.length as usize)?;
            let mut whole = value.to_vec();
            whole.resize(field.length as usize / 8, 0);
            let address = writer.value(named.kind, named.order, &whole);
            Some(format!("{} {op}{address}/{}", named.text, value.len() * 8))
        }
        _ => None,
    }
}

/// Flags of which some are looked at.
fn flags(named: &Named, held: &Held, negated: bool, value: &[u8], writer: Writer<'_>) -> Option<String> {
    let (Kind::Flags(_), Subject::Bits { mask, xor, .. }) = (named.kind, &held.subject) else { return None };
    if xor.iter().any(|byte| *byte != 0) || writer.style == Style::Plain {
        return None;
    }
    let left = named.text.split(" & ").next()?;
    if value.iter().any(|byte| *byte != 0) {
        return None;
    }
    // Not zero: one of them is set.
    let names = writer.value(named.kind, named.order, mask).replace(" | ", ",");
    Some(format!("{left} {}{names}", if negated { "" } else { "! " }))
}
