//! Reads the rules that the kernel has.

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::attributes::DecodeError;
use crate::decode::{Assembly, Limits};
use crate::error::{ATTEMPTS, ReadError};
use crate::generation::Generation;
use crate::hooks;
use crate::model::{Family, Name, Ruleset};
use crate::netlink::{Connection, NetlinkError, message_into};
use crate::request::{append_name, append_number, header, transaction_header};
use crate::uapi::{self, message};

/// Another transaction was made meanwhile (errno.h).
const ERESTART: i32 = 85;

/// Reads the rules of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    limits: Limits,
}

impl Reader {
    /// Opens a connection with the kernel. Reading needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// If there is no netlink socket to be had.
    pub fn open() -> Result<Self, ReadError> {
        Ok(Self { connection: Connection::open(NETLINK_NETFILTER)?, limits: Limits::default() })
    }

    /// Reads no more elements of sets than so many, all sets together: those that have more are [cut](crate::Set::cut). Without
    /// this, a million.
    #[must_use]
    pub fn with_max_elements(mut self, elements: usize) -> Self {
        self.limits.elements = elements;
        self
    }

    /// Reads no more rules than so many: where there are more, there is an error. Without this, 500,000.
    #[must_use]
    pub fn with_max_rules(mut self, rules: usize) -> Self {
        self.limits.rules = rules;
        self
    }

    /// The number of the last transaction.
    ///
    /// # Errors
    /// If the kernel refuses, or does not answer.
    pub fn generation(&mut self) -> Result<Generation, ReadError> {
        self.ask_for_generation().map_err(ReadError::of_first_question)
    }

    fn ask_for_generation(&mut self) -> Result<Generation, ReadError> {
        let mut number = None;
        self.connection.get(message::GETGEN, &header(0), |kind, payload| {
            if kind == message::NEWGEN {
                number = Some(Generation::read(payload)?.number);
            }
            Ok::<(), ReadError>(())
        })?;
        let missing = DecodeError::Missing { about: "generation", attribute: "number" };
        Ok(Generation { number: number.ok_or(missing)?, process: None })
    }

    /// All rules, as they are at one moment: where they are changed meanwhile, they are read again.
    ///
    /// # Errors
    /// If the kernel refuses or does not answer, if what it says is not understood, if there are too many rules, and if they are
    /// changed all the time.
    pub fn ruleset(&mut self) -> Result<Ruleset, ReadError> {
        let limits = self.limits;
        let (generation, assembly) = self.consistent(|| Assembly::new(limits))?;
        let mut ruleset = assembly.finish();
        ruleset.generation = generation;
        Ok(ruleset)
    }

    /// All rules as the kernel's messages, for [`crate::decode`]: whoever gets them sees what is executed here.
    ///
    /// # Errors
    /// As for [`Self::ruleset`].
    pub fn record(&mut self) -> Result<Vec<u8>, ReadError> {
        let limits = self.limits;
        let (generation, assembly) = self.consistent(|| Assembly::new(limits).recording())?;
        let mut payload = header(0);
        append_number(&mut payload, uapi::generation::ID, generation);
        let mut messages = Vec::new();
        message_into(&mut messages, message::NEWGEN, &payload);
        messages.extend(assembly.into_recording());
        Ok(messages)
    }

    /// What was read while nobody changed anything, and the number of the last transaction.
    fn consistent(&mut self, new: impl Fn() -> Assembly) -> Result<(u32, Assembly), ReadError> {
        for _ in 0..ATTEMPTS {
            let before = self.generation()?.number;
            if !self.is_settled(before)? {
                continue;
            }
            let mut assembly = new();
            let read = self.read_into(&mut assembly);
            let moved = self.generation()?.number != before;
            match read {
                Ok(()) if !moved => return Ok((before, assembly)),
                Err(ReadError::Netlink(NetlinkError::Interrupted)) => {}
                Err(error) if !moved => return Err(error),
                Ok(()) | Err(_) => {}
            }
            // What is left of an answer that was not read to its end goes with the old connection.
            self.connection = Connection::open(NETLINK_NETFILTER)?;
        }
        Err(ReadError::Changing)
    }

    /// Whether the transaction of this number is in force as a whole, and the last one.
    ///
    /// The kernel counts a transaction a moment before it is in force: who asks for the number then is told the new one and reads
    /// the old rules, or some of each. So an empty transaction is made, which changes nothing and has no number: the kernel takes it
    /// when no other one is under way, and only if the last one has the number that it names. A kernel that refuses it for another
    /// reason can't be asked better.
    fn is_settled(&mut self, generation: u32) -> Result<bool, ReadError> {
        let mut begin = transaction_header();
        append_number(&mut begin, uapi::batch::GENID, generation);
        self.connection
            .transact(&[(message::BATCH_BEGIN, begin), (message::BATCH_END, transaction_header())])?;
        // A refusal of the transaction comes in place of the answer.
        match self.ask_for_generation() {
            Ok(after) => Ok(after.number == generation),
            Err(ReadError::Netlink(NetlinkError::Refused(error))) => {
                Ok(error.raw_os_error() != Some(ERESTART))
            }
            Err(error) => Err(error),
        }
    }

    /// All rules, perhaps some of before a change and some of after it. What others refer to comes first.
    fn read_into(&mut self, assembly: &mut Assembly) -> Result<(), ReadError> {
        for kind in [message::GETTABLE, message::GETCHAIN, message::GETSET] {
            self.list(kind, assembly)?;
        }
        for (family, table, set) in assembly.sets() {
            self.elements(family, &table, &set, assembly)?;
        }
        for kind in [message::GETOBJ, message::GETFLOWTABLE, message::GETRULE] {
            self.list(kind, assembly)?;
        }
        hooks::read(&mut self.connection, assembly)
    }

    fn list(&mut self, kind: u16, assembly: &mut Assembly) -> Result<(), ReadError> {
        self.connection.dump(kind, &header(0), |kind, payload| {
            assembly.add(kind, payload)?;
            Ok(())
        })
    }

    fn elements(
        &mut self,
        family: Family,
        table: &Name,
        set: &Name,
        assembly: &mut Assembly,
    ) -> Result<(), ReadError> {
        let mut request = header(family.number());
        for (number, name) in [(uapi::elements::TABLE, table), (uapi::elements::SET, set)] {
            append_name(&mut request, number, name);
        }
        let read = self.connection.dump(message::GETSETELEM, &request, |kind, payload| {
            match assembly.add(kind, payload) {
                Ok(true) => Ok(()),
                Ok(false) => Err(Stop::Enough),
                Err(error) => Err(Stop::Error(error.into())),
            }
        });
        match read {
            Ok(()) => Ok(()),
            Err(Stop::Enough) => {
                // The kernel would send the rest of them.
                self.connection = Connection::open(NETLINK_NETFILTER)?;
                Ok(())
            }
            Err(Stop::Error(error)) => Err(error),
        }
    }
}

/// Why elements are not read any further.
enum Stop {
    Enough,
    Error(ReadError),
}

impl From<NetlinkError> for Stop {
    fn from(error: NetlinkError) -> Self {
        Self::Error(error.into())
    }
}
