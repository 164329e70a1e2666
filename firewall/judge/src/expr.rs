//! What one expression does with a packet that is known in part.

use std::sync::Arc;

use zone_ruleset::{
    Bitwise, ByteOrder, Comparison, Expr, Fib, Limit, LimitUnit, Nat, RegisterSlice, Verdict,
};

use crate::answer::Fate;
use crate::bytes::{Byte, Match, between, equal, known, values};
use crate::device::INTERFACE;
use crate::lookup::{Found, Says};
use crate::outcome::{Asked, Branch, Done};
use crate::packet::{Packet, Read, redirect, whole_address};
use crate::region::Region;
use crate::rules::{Rules, TableRules};
use crate::spans::Spans;
use crate::xt;

/// `NFT_FIB_RESULT_ADDRTYPE`, and the bits of a fib's flags.
const FIB_TYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;
const FIB_INPUT: u32 = 8;
/// `RTN_LOCAL`.
const LOCAL: u32 = 2;

/// The registers of a rule.
#[derive(Clone)]
pub(crate) struct Registers([Byte; 64]);

impl Default for Registers {
    fn default() -> Self {
        Self([Byte::unknown("a register that nothing was loaded into"); 64])
    }
}

impl Registers {
    /// Some bytes of them.
    pub(crate) fn get(&self, slice: RegisterSlice) -> &[Byte] {
        let from = usize::from(slice.offset);
        self.0.get(from..from + usize::from(slice.length)).unwrap_or_default()
    }

    /// Loads bytes. What is left of the last four is zero, as in the kernel.
    pub(crate) fn set(&mut self, offset: u8, bytes: &[Byte]) {
        let from = usize::from(offset);
        let end = (from + bytes.len().next_multiple_of(4)).min(self.0.len());
        if from < end {
            self.0[from..end].fill(Byte::known(0));
        }
        for (to, byte) in self.0.iter_mut().skip(from).zip(bytes) {
            *to = *byte;
        }
    }
}

/// Executes an expression for packets of a region. `named` says whether they were chosen by a port, an address, a device or a
/// condition on the way here.
pub(crate) fn execute(
    expr: &Expr,
    shared: &mut Arc<Packet>,
    registers: &mut Registers,
    region: &Region,
    table: &TableRules<'_>,
    rules: &Rules<'_>,
    named: bool,
) -> Done {
    let packet: &Packet = shared;
    let v6 = packet.v6;
    // What is noted of packets that were chosen by name stands for that name from then on.
    let noted = |bytes: &[Byte]| -> Vec<Byte> {
        bytes.iter().map(|byte| if named { byte.naming() } else { *byte }).collect()
    };
    let unknown = |what: &str| Asked::unknown(what.to_owned(), None).done(region, v6);
    match expr {
        Expr::Immediate { destination, value } => {
            registers.set(destination.offset, &value.iter().copied().map(Byte::known).collect::<Vec<_>>());
            Done::Next
        }
        Expr::Verdict(verdict) => Done::Verdict(verdict.clone()),
        Expr::Payload { destination, base, offset } => {
            load(registers, *destination, packet.payload(*base, *offset, destination.length))
        }
        Expr::PayloadWrite { source, base, offset } => {
            let bytes = registers.get(*source).to_vec();
            Arc::make_mut(shared).write_payload(*base, *offset, &bytes);
            Done::Next
        }
        Expr::Meta { destination, key } => load(registers, *destination, packet.meta(*key)),
        Expr::MetaSet { source, key } => {
            let bytes = noted(registers.get(*source));
            Arc::make_mut(shared).set_meta(*key, &bytes);
            Done::Next
        }
        Expr::Ct { destination, key, direction } => {
            load(registers, *destination, packet.connection(*key, *direction))
        }
        Expr::CtSet { source, key } => {
            let bytes = noted(registers.get(*source));
            Arc::make_mut(shared).set_connection(*key, &bytes);
            Done::Next
        }
        Expr::Compare { source, op, value } => {
            compare(registers.get(*source), *op, value, v6).done(region, v6)
        }
        Expr::Range { source, from, to, negated } => {
            let bytes = registers.get(*source);
            let names = bytes.iter().any(|byte| byte.names) && !is_every_port(from, to);
            Asked::new(between(bytes, from, to, v6), *negated, names).done(region, v6)
        }
        Expr::Bitwise { source, destination, op } => {
            let result = bitwise(registers.get(*source), op);
            registers.set(destination.offset, &result);
            Done::Next
        }
        Expr::ByteOrder { source, destination, op, size } => {
            let result = in_order(registers.get(*source), *op, *size);
            registers.set(destination.offset, &result);
            Done::Next
        }
        Expr::Lookup { source, set, destination, verdict, negated } => {
            let Some(index) = table.set(set) else { return unknown("a set that was not read") };
            let key = registers.get(*source).to_vec();
            let mut found = index.find(&key, region, v6);
            let touched = packet.touched.iter().any(|(family, name, own)| {
                *family == table.table.family && *name == table.table.name && own == set
            });
            for one in found.iter_mut().filter(|one| touched && one.says.is_none()) {
                one.unknown = Some("a set that the packet was added to".to_owned());
            }
            looked_up(found, &key, *destination, *verdict, *negated)
        }
        Expr::Dynset(dynset) => {
            let own = (table.table.family, table.table.name.clone(), dynset.set.clone());
            if !packet.touched.contains(&own) {
                Arc::make_mut(shared).touched.push(own);
            }
            let open = dynset.exprs.iter().find_map(|expr| match expr {
                Expr::Counter | Expr::Last => None,
                Expr::Limit(limit) => Some((limit_words(limit), Some(!limit.over))),
                Expr::ConnLimit { count, over } => Some((connections_words(*count, *over), Some(!over))),
                Expr::Quota { bytes, over } => Some((quota_words(*bytes, *over), None)),
                _ => Some(("what the elements of a set count".to_owned(), None)),
            });
            match open {
                None if dynset.negated => Done::Break,
                None => Done::Next,
                Some((what, quiet)) => {
                    Asked { negated: dynset.negated, ..Asked::unknown(what, quiet) }.done(region, v6)
                }
            }
        }
        Expr::Object(name) => object(table.object(name.as_bytes()), region, v6),
        Expr::ObjectMap { source, set } => {
            let Some(index) = table.set(set) else { return unknown("a set that was not read") };
            let found = index.find(registers.get(*source), region, v6);
            if found
                .iter()
                .all(|one| matches!(&one.says, None | Some(Says::Object(_))) && one.unknown.is_none())
            {
                let all_pass = found.iter().all(|one| match &one.says {
                    Some(Says::Object(name)) => {
                        matches!(table.object(name), Some(zone_ruleset::ObjectKind::Counter))
                    }
                    _ => true,
                });
                if all_pass {
                    return looked_up(found, &[], None, false, false);
                }
            }
            unknown("a limit, quota or other object of a map")
        }
        Expr::Counter | Expr::Last | Expr::Log { .. } => Done::Next,
        Expr::Limit(limit) => Asked::unknown(limit_words(limit), Some(!limit.over)).done(region, v6),
        Expr::Quota { bytes, over } => Asked::unknown(quota_words(*bytes, *over), None).done(region, v6),
        Expr::ConnLimit { count, over } => {
            Asked::unknown(connections_words(*count, *over), Some(!over)).done(region, v6)
        }
        Expr::Reject(_) => Done::Ends(Fate::Rejected),
        Expr::Nat(nat) => translate(nat, Arc::make_mut(shared), registers),
        Expr::Masquerade => Done::Verdict(Verdict::Accept),
        Expr::Redirect { port } => {
            let port = port.map(|port| registers.get(port).to_vec());
            redirect(Arc::make_mut(shared), port.as_deref());
            Done::Verdict(Verdict::Accept)
        }
        Expr::Tproxy { .. } => Done::Ends(Fate::TakenOver { by: "tproxy".to_owned() }),
        Expr::Queue { number, .. } => {
            let by = number.map_or_else(|| "a queue".to_owned(), |number| format!("queue {number}"));
            Done::Ends(Fate::TakenOver { by })
        }
        Expr::Synproxy => Done::Ends(Fate::TakenOver { by: "synproxy".to_owned() }),
        Expr::Notrack => {
            Arc::make_mut(shared).untrack(named);
            Done::Next
        }
        Expr::Fib(fib) => ask_routes(fib, packet, region, rules),
        Expr::Socket { destination, .. } => {
            registers
                .set(destination.offset, &vec![Byte::unknown("socket"); usize::from(destination.length)]);
            Done::Next
        }
        Expr::ExtHdr { destination, op, presence, .. } => {
            let Some(destination) = destination else { return Done::Next };
            let length = usize::from(destination.length);
            let is_v6_header = *op == 0;
            let bytes = match (presence, is_v6_header) {
                // No extension header stands in front of TCP, or the packet's protocol would be another one.
                (true, true) => vec![Byte::known(0); length],
                (false, true) => return Done::Break,
                (_, false) => vec![Byte::unknown("an option of the packet"); length],
            };
            registers.set(destination.offset, &bytes);
            if *presence || is_v6_header { Done::Next } else { unknown("an option of the packet") }
        }
        Expr::Numgen { destination, modulus, offset, .. } | Expr::Hash { destination, modulus, offset } => {
            let bytes = if *modulus == 1 {
                known(offset.to_ne_bytes()).to_vec()
            } else {
                vec![Byte::unknown("a random or counted number"); usize::from(destination.length)]
            };
            registers.set(destination.offset, &bytes);
            Done::Next
        }
        Expr::XtMatch { name, what, .. } => xt::matches(name, what, packet, region, rules),
        Expr::XtTarget { name, what, .. } => xt::target(name, what, Arc::make_mut(shared), named),
        Expr::Unknown { name, destination } => {
            if let Some(destination) = destination {
                let bytes =
                    vec![Byte::unknown("something that is not known here"); usize::from(destination.length)];
                registers.set(destination.offset, &bytes);
            }
            unknown(&format!("expression {name}"))
        }
    }
}

fn load(registers: &mut Registers, destination: RegisterSlice, read: Read) -> Done {
    match read {
        Read::Nothing => Done::Break,
        Read::Bytes(bytes) => {
            registers.set(destination.offset, &bytes);
            Done::Next
        }
    }
}

fn compare(bytes: &[Byte], op: Comparison, value: &[u8], v6: bool) -> Asked {
    let lowest = || vec![0; value.len()];
    let highest = || vec![0xff; value.len()];
    let names = bytes.iter().any(|byte| byte.names);
    let ask = |when, negated| Asked::new(when, negated, names);
    // Whichever device it is, what is asked about does not come in by the loopback device.
    if is_loopback(bytes, value) && values(bytes).is_none() {
        return match op {
            Comparison::Equal => ask(Match::Never, false),
            Comparison::NotEqual => Asked::new(Match::Never, true, false),
            _ => ask(Match::unknown(INTERFACE), false),
        };
    }
    match op {
        Comparison::Equal => ask(equal(bytes, value, v6), false),
        Comparison::NotEqual => {
            let names = names && !is_loopback(bytes, value);
            Asked::new(equal(bytes, value, v6), true, names)
        }
        Comparison::LessOrEqual => Asked::new(
            between(bytes, &lowest(), value, v6),
            false,
            names && value.iter().any(|byte| *byte != 0xff),
        ),
        Comparison::GreaterOrEqual => {
            let is_any = value.iter().rev().skip(1).all(|byte| *byte == 0)
                && value.last().is_none_or(|byte| *byte < 2);
            Asked::new(between(bytes, value, &highest(), v6), false, names && !is_any)
        }
        Comparison::Less => ask(between(bytes, value, &highest(), v6), true),
        Comparison::Greater => ask(between(bytes, &lowest(), value, v6), true),
    }
}

/// "Any but the loopback device" names no device: nothing of what is asked about comes in there.
fn is_loopback(bytes: &[Byte], value: &[u8]) -> bool {
    let is_device = bytes.iter().all(|byte| byte.what == INTERFACE);
    is_device && (value.starts_with(b"lo\0") || value == 1_u32.to_ne_bytes())
}

/// A range of ports in which all are names no port.
fn is_every_port(from: &[u8], to: &[u8]) -> bool {
    to == [0xff, 0xff] && matches!(from, [0, 0 | 1])
}

fn bitwise(bytes: &[Byte], op: &Bitwise) -> Vec<Byte> {
    match op {
        Bitwise::Mask { mask, xor } => bytes
            .iter()
            .zip(mask.iter().zip(xor))
            .map(|(byte, (mask, xor))| byte.masked(*mask, *xor))
            .collect(),
        Bitwise::ShiftLeft(count) => shifted(bytes, |number| number.checked_shl(*count).unwrap_or(0)),
        Bitwise::ShiftRight(count) => shifted(bytes, |number| number.checked_shr(*count).unwrap_or(0)),
        Bitwise::Other => vec![Byte::unknown("computed bits"); bytes.len()],
    }
}

fn shifted(bytes: &[Byte], shift: impl Fn(u32) -> u32) -> Vec<Byte> {
    let number = values(bytes).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(u32::from_ne_bytes);
    match number {
        Some(number) => known(shift(number).to_ne_bytes()).to_vec(),
        None => vec![Byte::unknown("computed bits"); bytes.len()],
    }
}

fn in_order(bytes: &[Byte], _: ByteOrder, size: u32) -> Vec<Byte> {
    if cfg!(target_endian = "big") {
        return bytes.to_vec();
    }
    let size = usize::try_from(size).unwrap_or(1).max(1);
    bytes.chunks(size).flat_map(|number| number.iter().rev().copied()).collect()
}

fn looked_up(
    found: Vec<Found>,
    key: &[Byte],
    destination: Option<RegisterSlice>,
    verdict: bool,
    negated: bool,
) -> Done {
    let key_names = key.iter().any(|byte| byte.names);
    let mut branches: Vec<Branch> = found
        .into_iter()
        .map(|one| {
            let is_there = one.says.is_some();
            let done = match &one.says {
                _ if is_there == negated => Done::Break,
                Some(Says::Verdict(verdict_found)) if verdict => Done::Verdict(verdict_found.clone()),
                _ => Done::Next,
            };
            let load = match (&one.says, destination) {
                (Some(Says::Value(value)), Some(to)) => {
                    Some((to.offset, value.iter().copied().map(Byte::known).collect()))
                }
                (Some(_), Some(to)) => {
                    Some((to.offset, vec![Byte::unknown("what a map has"); usize::from(to.length)]))
                }
                _ => None,
            };
            let names = one.unknown.is_some() || key_names && (one.by_key || negated);
            Branch {
                region: one.region,
                condition: one.unknown.map(|what| (what, is_there, None)),
                done,
                load,
                names,
            }
        })
        .collect();
    match &branches[..] {
        [] => Done::Break,
        [only] if only.condition.is_none() && only.load.is_none() && !only.names => branches.remove(0).done,
        _ => Done::Splits(branches),
    }
}

fn object(kind: Option<&zone_ruleset::ObjectKind>, region: &Region, v6: bool) -> Done {
    use zone_ruleset::ObjectKind;
    let ask = |what, quiet| Asked::unknown(what, quiet).done(region, v6);
    match kind {
        Some(ObjectKind::Counter) => Done::Next,
        Some(ObjectKind::Limit(limit)) => ask(limit_words(limit), Some(!limit.over)),
        Some(ObjectKind::Quota { bytes, over, .. }) => ask(quota_words(*bytes, *over), None),
        Some(ObjectKind::ConnLimit { count, over }) => ask(connections_words(*count, *over), Some(!over)),
        Some(ObjectKind::Other(name)) if name.starts_with("ct ") || name == "secmark" => Done::Next,
        Some(ObjectKind::Other(name)) if name == "synproxy" => {
            Done::Ends(Fate::TakenOver { by: name.clone() })
        }
        Some(ObjectKind::Other(name)) => ask(format!("object {name}"), None),
        None => ask("an object that was not read, or one of several".to_owned(), None),
    }
}

fn translate(nat: &Nat, packet: &mut Packet, registers: &Registers) -> Done {
    if nat.destination {
        let one_of = |low: Option<RegisterSlice>, high: Option<RegisterSlice>, what: &'static str| {
            let low = low.map(|slice| registers.get(slice).to_vec())?;
            let high = high.map(|slice| registers.get(slice).to_vec());
            let is_one = high.is_none_or(|high| high == low);
            Some(if is_one { low } else { vec![Byte::unknown(what).naming(); low.len()] })
        };
        let address = one_of(nat.address, nat.address_max, "one of several addresses");
        let port = one_of(nat.port, nat.port_max, "one of several ports");
        packet.rewrite_destination(address.as_deref(), port.as_deref());
    }
    Done::Verdict(Verdict::Accept)
}

fn ask_routes(fib: &Fib, packet: &Packet, region: &Region, rules: &Rules<'_>) -> Done {
    let length = usize::from(fib.destination.length);
    let is_one = |flag: u32| fib.flags & (FIB_SOURCE | FIB_DESTINATION) == flag;
    let load = |bytes: Vec<Byte>| Some((fib.destination.offset, bytes));
    let what = "what the routing table says (fib)";
    let unknown = || vec![Byte::unknown(what); length];
    if fib.result == FIB_TYPE && (is_one(FIB_DESTINATION) || is_one(FIB_SOURCE)) {
        let own: Vec<std::net::IpAddr> = if fib.flags & FIB_INPUT != 0 {
            packet.own_addresses().collect()
        } else {
            rules.local_addresses(packet.v6)
        };
        let spans = Spans::of(
            own.iter().filter(|a| a.is_ipv6() == packet.v6).map(crate::question::Span::of_address).collect(),
        );
        let bytes = if is_one(FIB_DESTINATION) { packet.destination() } else { packet.source() };
        let local = known(LOCAL.to_ne_bytes()).to_vec();
        // A device that is not known yet: what is for this host is for one of its addresses.
        if is_one(FIB_DESTINATION) && (own.is_empty() || !packet.device_is_known()) {
            let (bytes, names) = if fib.flags & FIB_INPUT != 0 { (unknown(), true) } else { (local, false) };
            return Done::Splits(vec![Branch {
                region: region.clone(),
                condition: None,
                done: Done::Next,
                load: load(bytes),
                names,
            }]);
        }
        let is_local = match whole_address(bytes, packet.v6) {
            Ok(dimension) => {
                let product = crate::region::Product::all(packet.v6).narrowed(dimension, &spans);
                (region.within(&product), region.without(&product))
            }
            Err(Some(number)) if spans.to_ranges().iter().any(|span| span.contains(number)) => {
                (region.clone(), Region::empty())
            }
            Err(_) => (Region::empty(), region.clone()),
        };
        let branch = |region: Region, bytes| Branch {
            region,
            condition: None,
            done: Done::Next,
            load: load(bytes),
            names: false,
        };
        let branches = [branch(is_local.0, local), branch(is_local.1, unknown())];
        return Done::Splits(branches.into_iter().filter(|branch| !branch.region.is_empty()).collect());
    }
    let branch = Branch {
        region: region.clone(),
        condition: None,
        done: Done::Next,
        load: load(unknown()),
        names: false,
    };
    Done::Splits(vec![branch])
}

/// A rate as nft(8) writes it.
pub(crate) fn limit_words(limit: &Limit) -> String {
    let unit = match limit.unit {
        LimitUnit::Packets => "",
        LimitUnit::Bytes => " bytes",
    };
    let per = match limit.seconds {
        1 => "second",
        60 => "minute",
        3600 => "hour",
        86_400 => "day",
        604_800 => "week",
        _ => "time",
    };
    format!("limit rate {}{}{unit}/{per}", if limit.over { "over " } else { "" }, limit.rate)
}

fn quota_words(bytes: u64, over: bool) -> String {
    format!("quota {}{bytes} bytes", if over { "over " } else { "until " })
}

fn connections_words(count: u32, over: bool) -> String {
    format!("ct count {}{count}", if over { "over " } else { "" })
}

/// A property by which a device is asked for.
pub(crate) fn decided_with(what: &str) -> Option<&'static str> {
    match what {
        INTERFACE => Some("--iif"),
        "ether saddr" => Some("--mac"),
        _ => None,
    }
}
