//! A ruleset from the kernel's messages.

mod containers;
mod expr;
mod fields;
mod hooked;
mod rates;
mod registers;
mod sets;
#[cfg(test)]
mod tests;
mod xt_match;
mod xt_target;

use std::collections::HashMap;

use netlink_packet_core::NetlinkBuffer;

use crate::attributes::{DecodeError, list};
use crate::generation::Generation;
use crate::model::{Family, Name, Ruleset, Set};
use crate::netlink::message_into;
use crate::uapi;
use crate::uapi::message;
use expr::{SetShape, Surroundings};

/// How much is read at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rules. Beyond them nothing is read: a ruleset of which a part is missing would be another one.
    pub rules: usize,
    /// Elements of all sets together. Beyond them a set is [cut](Set::cut).
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rules: 500_000, elements: 1_000_000 }
    }
}

/// The ruleset of messages that were recorded: what the kernel answered, one message behind the other, in the order in which
/// [`crate::Reader`] asks (the generation, tables, chains, sets, elements, stateful objects, flowtables, rules, hooks). Messages of
/// other kinds are passed over.
///
/// # Errors
/// If they are broken, or belong to something that was not there before.
pub fn decode(messages: &[u8]) -> Result<Ruleset, DecodeError> {
    let mut assembly = Assembly::new(Limits::default());
    let mut rest = messages;
    while !rest.is_empty() {
        let buffer = NetlinkBuffer::new_checked(rest)?;
        assembly.add(buffer.message_type(), buffer.payload())?;
        let length = usize::try_from(buffer.length()).unwrap_or(usize::MAX).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(assembly.finish())
}

/// A ruleset that is put together from messages.
#[derive(Debug)]
pub(crate) struct Assembly {
    ruleset: Ruleset,
    indices: HashMap<Family, HashMap<Name, usize>>,
    contents: Vec<Contents>,
    limits: Limits,
    rules: usize,
    elements: usize,
    device: Option<Name>,
    recording: Option<Vec<u8>>,
}

/// Where in a table something is.
#[derive(Debug, Default)]
struct Contents {
    chains: HashMap<Name, usize>,
    sets: HashMap<Name, usize>,
}

/// What expressions of a table's rules and elements depend on.
struct InTable<'a> {
    family: Family,
    index: &'a HashMap<Name, usize>,
    sets: &'a [Set],
}

impl Surroundings for InTable<'_> {
    fn family(&self) -> Family {
        self.family
    }

    fn set(&self, name: &Name) -> Option<SetShape> {
        const VERDICTS: u32 = 0xffff_ff00;
        let set = self.sets.get(*self.index.get(name)?)?;
        Some(SetShape {
            key_len: usize::try_from(set.key_len).ok()?,
            data_len: usize::try_from(set.data_len).ok()?,
            verdicts: set.flags.map && set.data_type == VERDICTS,
        })
    }
}

impl Assembly {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            ruleset: Ruleset::default(),
            indices: HashMap::new(),
            contents: Vec::new(),
            limits,
            rules: 0,
            elements: 0,
            device: None,
            recording: None,
        }
    }

    /// Keeps the messages, too.
    pub(crate) fn recording(mut self) -> Self {
        self.recording = Some(Vec::new());
        self
    }

    /// Says at which device the functions are that are added from now on. The kernel does not say it.
    pub(crate) fn at_device(&mut self, device: Option<Name>) {
        self.device = device;
    }

    /// How many functions at hooks, and how many bytes of a recording, there are.
    pub(crate) fn hooks(&self) -> (usize, usize) {
        (self.ruleset.hooked.len(), self.recording.as_ref().map_or(0, Vec::len))
    }

    /// Forgets the functions at hooks that were added since.
    pub(crate) fn forget_hooks(&mut self, (hooked, recorded): (usize, usize)) {
        self.ruleset.hooked.truncate(hooked);
        if let Some(recording) = &mut self.recording {
            recording.truncate(recorded);
        }
    }

    /// Adds what a message says. Returns whether more of the same may be added: no elements are, beyond the limit.
    pub(crate) fn add(&mut self, kind: u16, payload: &[u8]) -> Result<bool, DecodeError> {
        if let Some(recording) = &mut self.recording {
            message_into(recording, kind, payload);
        }
        let Some((header, attributes)) = payload.split_at_checked(4) else {
            return Err(DecodeError::Missing { about: "ruleset", attribute: "nfgenmsg" });
        };
        let number = header[0];
        let family = || Family::from_number(number).ok_or(DecodeError::Family(number));
        match kind {
            message::NEWGEN => self.ruleset.generation = Generation::read(payload)?.number,
            message::NEWTABLE => self.table(family()?, attributes)?,
            message::NEWCHAIN => self.chain(family()?, attributes)?,
            message::NEWSET => self.set(family()?, attributes)?,
            message::NEWSETELEM => return self.elements(family()?, attributes),
            message::NEWRULE => self.rule(family()?, attributes)?,
            message::NEWOBJ => self.object(family()?, attributes)?,
            message::NEWFLOWTABLE => self.flowtable(family()?, attributes)?,
            message::HOOK => {
                let mut hooked = hooked::hooked(family()?, attributes)?;
                hooked.device = hooked.device.or_else(|| self.device.clone());
                self.ruleset.hooked.push(hooked);
            }
            _ => {}
        }
        Ok(true)
    }

    /// The sets whose elements have to be asked for: family, table and name.
    pub(crate) fn sets(&self) -> Vec<(Family, Name, Name)> {
        let tables = self.ruleset.tables.iter();
        tables
            .flat_map(|table| {
                table.sets.iter().map(|set| (table.family, table.name.clone(), set.name.clone()))
            })
            .collect()
    }

    /// The devices that chains are hooked in at.
    pub(crate) fn devices(&self) -> Vec<Name> {
        let chains = self.ruleset.tables.iter().flat_map(|table| &table.chains);
        let mut devices: Vec<Name> =
            chains.filter_map(|chain| chain.hook.as_ref()).flat_map(|hook| hook.devices.clone()).collect();
        devices.sort();
        devices.dedup();
        devices
    }

    /// What was recorded, as [`decode`] takes it.
    pub(crate) fn into_recording(self) -> Vec<u8> {
        self.recording.unwrap_or_default()
    }

    /// The ruleset. What was reserved for more is given back.
    pub(crate) fn finish(mut self) -> Ruleset {
        for table in &mut self.ruleset.tables {
            for chain in &mut table.chains {
                chain.rules.shrink_to_fit();
            }
            for set in &mut table.sets {
                set.elements.shrink_to_fit();
            }
        }
        self.ruleset
    }

    fn table(&mut self, family: Family, bytes: &[u8]) -> Result<(), DecodeError> {
        let table = containers::table(family, bytes)?;
        let tables = self.indices.entry(family).or_default();
        only_one("table", tables.insert(table.name.clone(), self.ruleset.tables.len()), &table.name)?;
        self.ruleset.tables.push(table);
        self.contents.push(Contents::default());
        Ok(())
    }

    fn chain(&mut self, family: Family, bytes: &[u8]) -> Result<(), DecodeError> {
        let chain = containers::chain(family, bytes)?;
        let table = uapi::chain::attributes(bytes)?.bytes(uapi::chain::TABLE);
        let at = self.find("chain", family, table)?;
        let chains = &mut self.ruleset.tables[at].chains;
        only_one("chain", self.contents[at].chains.insert(chain.name.clone(), chains.len()), &chain.name)?;
        chains.push(chain);
        Ok(())
    }

    fn set(&mut self, family: Family, bytes: &[u8]) -> Result<(), DecodeError> {
        let set = sets::set(bytes)?;
        let table = uapi::set::attributes(bytes)?.bytes(uapi::set::TABLE);
        let at = self.find("set", family, table)?;
        let sets = &mut self.ruleset.tables[at].sets;
        only_one("set", self.contents[at].sets.insert(set.name.clone(), sets.len()), &set.name)?;
        sets.push(set);
        Ok(())
    }

    /// Adds elements to their set, as many as there may be. Returns whether there is room for more.
    fn elements(&mut self, family: Family, bytes: &[u8]) -> Result<bool, DecodeError> {
        let message = uapi::elements::attributes(bytes)?;
        let at = self.find("set element", family, message.bytes(uapi::elements::TABLE))?;
        let index = &self.contents[at].sets;
        let name = message.bytes(uapi::elements::SET).map(trimmed).unwrap_or_default();
        let set = *index
            .get(name)
            .ok_or_else(|| DecodeError::Orphan { about: "set element", place: Name::new(name) })?;
        let mut elements = std::mem::take(&mut self.ruleset.tables[at].sets[set].elements);
        let mut cut = false;
        let around = InTable { family, index, sets: &self.ruleset.tables[at].sets };
        for element in list(message.bytes(uapi::elements::ELEMENTS).unwrap_or_default()) {
            if self.elements >= self.limits.elements {
                cut = true;
                break;
            }
            elements.push(sets::element(element?, &around)?);
            self.elements += 1;
        }
        let set = &mut self.ruleset.tables[at].sets[set];
        set.elements = elements;
        set.cut |= cut;
        Ok(!cut)
    }

    fn rule(&mut self, family: Family, bytes: &[u8]) -> Result<(), DecodeError> {
        if self.rules >= self.limits.rules {
            return Err(DecodeError::TooManyRules { limit: self.limits.rules });
        }
        self.rules += 1;
        let message = uapi::rule::attributes(bytes)?;
        let at = self.find("rule", family, message.bytes(uapi::rule::TABLE))?;
        let contents = &self.contents[at];
        let name = message.bytes(uapi::rule::CHAIN).map(trimmed).unwrap_or_default();
        let chain = *contents
            .chains
            .get(name)
            .ok_or_else(|| DecodeError::Orphan { about: "rule", place: Name::new(name) })?;
        let table = &mut self.ruleset.tables[at];
        let around = InTable { family, index: &contents.sets, sets: &table.sets };
        let rule = containers::rule(bytes, &around)?;
        table.chains[chain].rules.push(rule);
        Ok(())
    }

    fn object(&mut self, family: Family, bytes: &[u8]) -> Result<(), DecodeError> {
        let object = containers::object(bytes)?;
        let table = uapi::object::attributes(bytes)?.bytes(uapi::object::TABLE);
        let at = self.find("stateful object", family, table)?;
        self.ruleset.tables[at].objects.push(object);
        Ok(())
    }

    fn flowtable(&mut self, family: Family, bytes: &[u8]) -> Result<(), DecodeError> {
        let flowtable = uapi::flowtable::attributes(bytes)?;
        let name = flowtable
            .name(uapi::flowtable::NAME)
            .ok_or(DecodeError::Missing { about: "flowtable", attribute: "name" })?;
        let at = self.find("flowtable", family, flowtable.bytes(uapi::flowtable::TABLE))?;
        self.ruleset.tables[at].flowtables.push(name);
        Ok(())
    }

    /// The place of a table.
    fn find(&self, about: &'static str, family: Family, table: Option<&[u8]>) -> Result<usize, DecodeError> {
        let name = trimmed(table.ok_or(DecodeError::Missing { about, attribute: "table" })?);
        self.indices
            .get(&family)
            .and_then(|tables| tables.get(name))
            .copied()
            .ok_or_else(|| DecodeError::Orphan { about, place: Name::new(name) })
    }
}

/// Nothing of this name was there before.
fn only_one(about: &'static str, before: Option<usize>, name: &Name) -> Result<(), DecodeError> {
    match before {
        None => Ok(()),
        Some(_) => Err(DecodeError::Twice { about, name: name.clone() }),
    }
}

/// A name without its NUL, as [`Name`] keeps it.
fn trimmed(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}
