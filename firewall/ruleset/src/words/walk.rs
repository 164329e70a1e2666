//! A rule, expression by expression: what the registers hold, and the words so far.

use super::condition::{self, Named};
use super::field::{self, Field};
use super::kind::{Kind, Order, Style, Writer, duration};
use super::protocols::{Layer, Protocols};
use super::subject::{self, Held, Registers, Subject};
use super::text::{name as shown, printable, quoted, verdict};
use super::{load, nat, set, statement, xt};
use crate::model::{
    Bitwise, ByteOrder, Comparison, Dynset, Expr, Family, Name, PayloadBase, RegisterSlice, Reject, Rule,
    Table, Verdict,
};

/// How many rules of an anonymous chain are written out.
const MAX_ANONYMOUS_RULES: usize = 4;
/// How deep anonymous chains in anonymous chains are written out.
const MAX_ANONYMOUS_DEPTH: usize = 3;

/// A rule in words.
pub(super) fn rule(rule: &Rule, table: &Table, writer: Writer<'_>) -> String {
    nested(rule, table, writer, 0)
}

fn nested(rule: &Rule, table: &Table, writer: Writer<'_>, depth: usize) -> String {
    let mut walk = Walk::new(table, writer, depth);
    for expr in &rule.exprs {
        walk.step(expr);
    }
    let mut words: Vec<String> =
        walk.items.into_iter().filter(|item| !item.implied).map(|item| item.text).collect();
    words.extend(rule.comment.as_ref().map(|comment| format!("comment {}", quoted(comment))));
    words.join(" ")
}

/// Words of the rule.
struct Item {
    text: String,
    /// What comes later says it, too.
    implied: bool,
}

/// `x >= first`, which may be the lower end of a range.
struct LowerEnd {
    item: usize,
    named: String,
    first: String,
}

struct Walk<'a> {
    table: &'a Table,
    writer: Writer<'a>,
    depth: usize,
    registers: Registers,
    protocols: Protocols,
    lower: Option<LowerEnd>,
    items: Vec<Item>,
}

impl<'a> Walk<'a> {
    fn new(table: &'a Table, writer: Writer<'a>, depth: usize) -> Self {
        Self {
            table,
            writer,
            depth,
            registers: Registers::default(),
            protocols: Protocols::new(table.family),
            lower: None,
            items: Vec::new(),
        }
    }

    fn step(&mut self, expr: &Expr) {
        match expr {
            Expr::Immediate { destination, value } => {
                self.registers.load(*destination, Subject::Constant(value.clone()), Order::Host);
            }
            Expr::Payload { destination, base, offset } => {
                let length = u32::from(destination.length);
                let header = Subject::Header { base: *base, offset: *offset, length };
                self.registers.load(*destination, header, field::ORDER);
            }
            Expr::Meta { destination, key } => {
                self.registers.load(*destination, Subject::Meta(*key), subject::meta_order(*key));
            }
            Expr::Bitwise { source, destination, op } => self.bitwise(*source, *destination, op),
            Expr::ByteOrder { source, destination, op, .. } => {
                let order = match op {
                    ByteOrder::ToNetwork => Order::Network,
                    ByteOrder::ToHost => Order::Host,
                };
                if let Some(held) = self.registers.parts(*source).into_iter().next() {
                    self.registers.load(*destination, held.subject, order);
                }
            }
            Expr::Compare { source, op, value } => self.compare(*source, *op, value),
            Expr::Range { source, from, to, negated } => {
                let named = self.key(*source);
                let (first, last) = (self.values(&named, from), self.values(&named, to));
                let op = if *negated { "!= " } else { "" };
                self.say(format!("{} {op}{first}-{last}", names(&named)));
            }
            Expr::Lookup { source, set, destination, verdict, negated } => {
                self.lookup(*source, set, *destination, *verdict, *negated);
            }
            Expr::Dynset(dynset) => self.dynset(dynset),
            Expr::MetaSet { source, key } => {
                let (name, kind) = subject::meta(*key);
                let name = if name.starts_with("meta ") { name } else { format!("meta {name}") };
                let value = self.assigned(*source, kind, subject::meta_order(*key));
                self.say(format!("{name} set {value}"));
            }
            Expr::CtSet { source, key } => {
                let (name, kind, order) = subject::ct(*key, None);
                let value = self.assigned(*source, kind, order);
                self.say(format!("{name} set {value}"));
            }
            Expr::PayloadWrite { source, base, offset } => self.payload_write(*source, *base, *offset),
            Expr::Verdict(decided) => self.verdict(decided),
            Expr::Object(name) => {
                let object = self.table.objects.iter().find(|object| object.name == *name);
                self.say(statement::object(object, &shown(name), self.writer));
            }
            Expr::ObjectMap { source, set } => self.object_map(*source, set),
            Expr::Counter => self.say("counter".to_owned()),
            Expr::Last => self.say("last".to_owned()),
            Expr::Limit(limit) => self.say(statement::limit(limit, self.writer)),
            Expr::Quota { bytes, over } => {
                self.say(statement::threshold("quota", *over, &statement::bytes(*bytes)));
            }
            Expr::ConnLimit { count, over } => {
                self.say(statement::threshold("ct count", *over, &count.to_string()));
            }
            Expr::Log { prefix, group, level } => {
                self.say(statement::log(prefix.as_deref(), *group, *level, self.writer));
            }
            Expr::Reject(how) => {
                match (how, self.table.family) {
                    (Reject::TcpReset, Family::Ip | Family::Ip6) => self.implies(Layer::Transport),
                    (Reject::Icmp(_), _) => self.implies(Layer::Network),
                    _ => {}
                }
                self.say(statement::reject(*how, self.table.family, self.protocols.headers.network));
            }
            Expr::Nat(wanted) => self.say(nat::nat(wanted, self.table.family, &self.addresses())),
            Expr::Redirect { port } => self.say(nat::redirect(*port, &self.addresses())),
            Expr::Tproxy { family, address, port } => {
                let to = (*address, *port);
                self.say(nat::tproxy(*family, to, self.table.family, &self.addresses()));
            }
            Expr::Masquerade => self.say("masquerade".to_owned()),
            Expr::Queue { number, bypass } => {
                let bypass = if *bypass { " flags bypass" } else { "" };
                let number = number.map(|number| format!(" to {number}")).unwrap_or_default();
                self.say(format!("queue{bypass}{number}"));
            }
            Expr::Notrack => self.say("notrack".to_owned()),
            Expr::Synproxy => self.say("synproxy".to_owned()),
            Expr::XtMatch { name, what, .. } => {
                let headers = xt::HeaderNames {
                    network: if self.protocols.headers.network == Some(Family::Ip6) { "ip6" } else { "ip" },
                    transport: self.transport_name(),
                };
                let name = printable(name);
                let words = xt::condition(&name, what, &headers, self.writer);
                // As with nft's own conditions, a port of TCP says that it is TCP.
                if words.iter().any(|words| words.starts_with(&format!("{} ", headers.transport))) {
                    self.implies(Layer::Transport);
                }
                for words in words {
                    self.say(words);
                }
            }
            Expr::XtTarget { name, what, .. } => self.say(xt::statement(&printable(name), what)),
            Expr::Ct { .. }
            | Expr::Fib(_)
            | Expr::Socket { .. }
            | Expr::Numgen { .. }
            | Expr::Hash { .. } => {
                if let Some((destination, subject, order)) = load::loaded(expr) {
                    self.registers.load(destination, subject, order);
                }
            }
            Expr::ExtHdr { op, .. } => match load::loaded(expr) {
                Some((destination, subject, order)) => {
                    self.implies(if *op == 0 { Layer::Network } else { Layer::Transport });
                    self.registers.load(destination, subject, order);
                }
                None => self.say(load::not_shown("exthdr")),
            },
            Expr::Unknown { name, destination } => match destination {
                Some(destination) => {
                    let text = load::not_shown(&printable(name));
                    self.registers.load(
                        *destination,
                        Subject::Words { text, kind: Kind::Raw },
                        Order::Network,
                    );
                }
                None => self.say(load::not_shown(&printable(name))),
            },
        }
    }

    fn say(&mut self, text: String) {
        if !text.is_empty() {
            self.items.push(Item { text, implied: false });
        }
    }

    fn bitwise(&mut self, source: RegisterSlice, destination: RegisterSlice, op: &Bitwise) {
        let Some(held) = self.registers.parts(source).into_iter().next() else { return };
        let order = held.order;
        let subject = match op {
            Bitwise::Mask { mask, xor } => {
                Subject::Bits { of: Box::new(held.subject), mask: mask.clone(), xor: xor.clone() }
            }
            Bitwise::ShiftLeft(by) => self.shifted(&held, "<<", *by),
            Bitwise::ShiftRight(by) => self.shifted(&held, ">>", *by),
            Bitwise::Other => Subject::Words { text: load::not_shown("bitwise"), kind: Kind::Raw },
        };
        self.registers.load(destination, subject, order);
    }

    /// A shift to the right behind a mask is how a part of a byte is loaded.
    fn shifted(&mut self, held: &Held, op: &str, by: u32) -> Subject {
        let named = self.named(held);
        let text = if named.shift == by && op == ">>" && by > 0 {
            named.text
        } else {
            format!("{} {op} {by}", named.text)
        };
        Subject::Words { text, kind: named.kind }
    }

    /// The name of what is asked. Asking a field of a protocol says that the packet is of it.
    fn named(&mut self, held: &Held) -> Named {
        let named = condition::named(held, self.protocols.headers, self.writer);
        for field in &named.fields {
            self.asks(field);
        }
        named
    }

    fn key(&mut self, source: RegisterSlice) -> Vec<Named> {
        self.registers.parts(source).iter().map(|held| self.named(held)).collect()
    }

    /// The values of a key, one for each of its parts.
    fn values(&self, key: &[Named], value: &[u8]) -> String {
        let mut at = 0;
        let mut values = Vec::new();
        for named in key {
            let end = (at + usize::from(named.length)).min(value.len());
            let bytes = value.get(at..end).unwrap_or_default();
            values.push(self.writer.value(named.kind, named.order, &named.shifted(bytes)));
            at += usize::from(named.length).next_multiple_of(4);
        }
        values.join(" . ")
    }

    fn compare(&mut self, source: RegisterSlice, op: Comparison, value: &[u8]) {
        let parts = self.registers.parts(source);
        if let [held] = &parts[..] {
            return self.compare_one(held, op, value);
        }
        let key: Vec<Named> = parts.iter().map(|held| self.named(held)).collect();
        let values = self.values(&key, value);
        self.say(format!("{} {}{values}", names(&key), condition::operator(op)));
    }

    fn compare_one(&mut self, held: &Held, op: Comparison, value: &[u8]) {
        // nft loads fields that stand beside each other at once.
        let equality = matches!(op, Comparison::Equal | Comparison::NotEqual);
        if let (Subject::Header { base, offset, .. }, true) = (&held.subject, equality)
            && let Some(fields) = condition::split(*base, *offset, value, self.protocols.headers)
        {
            for (field, value) in fields {
                self.asks(&field);
                let words = self.writer.value(field.kind, field::ORDER, &value);
                let op_words = condition::explicit(field.kind, op, self.writer.style);
                if op == Comparison::Equal {
                    self.protocols.learn_field(*base, &field, &value, self.items.len());
                }
                self.say(format!("{} {op_words}{words}", field.words()));
            }
            return;
        }
        let named = self.named(held);
        let text = condition::compared(&named, held, op, value, self.writer);
        match (&self.lower, op) {
            // nft writes a range as two comparisons.
            (Some(lower), Comparison::LessOrEqual)
                if lower.named == named.text && lower.item + 1 == self.items.len() =>
            {
                let last = self.writer.value(named.kind, named.order, value);
                let text = format!("{} {}-{last}", lower.named, lower.first);
                self.items[lower.item].text = text;
                self.lower = None;
                return;
            }
            _ => self.lower = None,
        }
        if op == Comparison::GreaterOrEqual {
            let first = self.writer.value(named.kind, named.order, value);
            self.lower = Some(LowerEnd { item: self.items.len(), named: named.text, first });
        }
        if op == Comparison::Equal {
            let implied = self.protocols.learn(held, value, self.items.len());
            self.leave_out(implied);
        }
        self.say(text);
    }

    /// Words that say nothing beside what else the rule says.
    fn leave_out(&mut self, item: Option<usize>) {
        if let Some(item) = item.and_then(|item| self.items.get_mut(item)) {
            item.implied = true;
        }
    }

    fn implies(&mut self, layer: Layer) {
        let implied = self.protocols.implied(layer);
        self.leave_out(implied);
    }

    /// Asking a field makes the condition on its protocol superfluous.
    fn asks(&mut self, field: &Field) {
        for item in self.protocols.ask(field) {
            self.leave_out(item);
        }
    }

    fn lookup(
        &mut self,
        source: RegisterSlice,
        name: &Name,
        destination: Option<RegisterSlice>,
        verdict: bool,
        negated: bool,
    ) {
        let key = self.key(source);
        let found = self.table.set(name);
        let elements = self.reference(&key, name);
        let key = names(&key);
        match destination {
            _ if verdict => self.say(format!("{key} vmap {elements}")),
            Some(destination) => {
                let kinds = found.map(set::value_kinds).unwrap_or_default();
                let (kind, order) = match kinds[..] {
                    [(kind, order, _)] => (kind, order),
                    _ => (Kind::Raw, Order::Network),
                };
                let text = format!("{key} map {elements}");
                self.registers.load(destination, Subject::Words { text, kind }, order);
            }
            None => self.say(format!("{key} {}{elements}", if negated { "!= " } else { "" })),
        }
    }

    fn reference(&self, key: &[Named], name: &Name) -> String {
        let kinds: Vec<_> = key.iter().map(Named::part).collect();
        set::reference(self.table.set(name), &shown(name), &kinds, self.writer)
    }

    fn dynset(&mut self, dynset: &Dynset) {
        let mut words = vec![names(&self.key(dynset.key))];
        words.extend(dynset.timeout.filter(|timeout| *timeout > 0).map(|timeout| match self.writer.style {
            Style::Nft => format!("timeout {}", duration(timeout)),
            Style::Plain => format!("timeout {}s", timeout / 1000),
        }));
        let mut inner = Walk::new(self.table, self.writer, self.depth);
        dynset.exprs.iter().for_each(|expr| inner.step(expr));
        words.extend(inner.items.into_iter().map(|item| item.text));
        let set = self.table.set(&dynset.set);
        let meter = set.is_some_and(|set| set.flags.anonymous) || self.writer.style == Style::Plain;
        let verb = match (dynset.deletes, meter, dynset.updates) {
            (true, ..) => "delete @",
            (false, true, _) => "meter ",
            (false, false, true) => "update @",
            (false, false, false) => "add @",
        };
        let not = if dynset.negated { "! " } else { "" };
        self.say(format!("{not}{verb}{} {{ {} }}", shown(&dynset.set), words.join(" ")));
    }

    fn object_map(&mut self, source: RegisterSlice, name: &Name) {
        let key = self.key(source);
        let found = self.table.set(name);
        let first = found.and_then(|set| set.elements.iter().find_map(|element| element.object.as_ref()));
        let object = first.and_then(|first| self.table.objects.iter().find(|object| object.name == *first));
        let elements = self.reference(&key, name);
        self.say(format!("{} name {} map {elements}", statement::kind(object), names(&key)));
    }

    /// What is written somewhere.
    fn assigned(&mut self, source: RegisterSlice, kind: Kind, order: Order) -> String {
        let Some(held) = self.registers.parts(source).into_iter().next() else { return String::new() };
        match &held.subject {
            Subject::Constant(value) => match (kind, self.writer.value(kind, order, value)) {
                (Kind::Flags(_), value) => value.replace(" | ", ","),
                (_, value) => value,
            },
            _ => self.named(&held).text,
        }
    }

    fn payload_write(&mut self, source: RegisterSlice, base: PayloadBase, offset: u32) {
        let length = u32::from(source.length);
        let header = Held {
            at: source.offset,
            length: source.length,
            subject: Subject::Header { base, offset, length },
            order: field::ORDER,
        };
        let part = self.registers.parts(source).into_iter().next();
        // A part of a byte is written together with what stands beside it.
        if let Some(Held { subject: Subject::Bits { of, mask, xor }, .. }) = &part
            && **of == header.subject
        {
            let open: Box<[u8]> = mask.iter().map(|byte| !byte).collect();
            let bits = Subject::Bits { of: of.clone(), mask: open, xor: vec![0; mask.len()].into() };
            let named = self.named(&Held { subject: bits, ..header });
            let value = self.writer.value(named.kind, named.order, &named.shifted(xor));
            return self.say(format!("{} set {value}", named.text));
        }
        let named = self.named(&header);
        let value = self.assigned(source, named.kind, named.order);
        self.say(format!("{} set {value}", named.text));
    }

    fn verdict(&mut self, decided: &Verdict) {
        let anonymous = match decided {
            Verdict::Jump(name) | Verdict::Goto(name) => {
                self.table.chain(name).filter(|chain| chain.anonymous)
            }
            _ => None,
        };
        let Some(chain) = anonymous else { return self.say(verdict(decided)) };
        let verb = if matches!(decided, Verdict::Goto(_)) { "goto" } else { "jump" };
        let shown = if self.depth < MAX_ANONYMOUS_DEPTH { MAX_ANONYMOUS_RULES } else { 0 };
        let mut rules: Vec<String> = chain
            .rules
            .iter()
            .take(shown)
            .map(|inner| nested(inner, self.table, self.writer, self.depth + 1))
            .collect();
        if chain.rules.len() > shown {
            rules.push(format!("... {} more", chain.rules.len() - shown));
        }
        self.say(format!("{verb} {{ {} }}", rules.join("; ")));
    }

    fn transport_name(&self) -> &'static str {
        let field = field::field_at(PayloadBase::Transport, self.protocols.headers, 0);
        field.map_or("th", |field| if field.name == "sport" { field.header } else { "th" })
    }

    fn addresses(&self) -> nat::Addresses<'_> {
        nat::Addresses { registers: &self.registers, headers: self.protocols.headers, writer: self.writer }
    }
}

fn names(key: &[Named]) -> String {
    key.iter().map(|named| named.text.as_str()).collect::<Vec<_>>().join(" . ")
}
