//! Reads the rules that the kernel has.

use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::attributes::DecodeError;
use crate::decode::{Assembly, Limits};
use crate::error::{ATTEMPTS, ReadError};
use crate::generation::Generation;
use crate::hooks;
use crate::model::{Family, Name, Ruleset};
use crate::netlink::{Connection, NetlinkError};
use crate::request::{append_name, header};
use crate::uapi::{self, message};

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
        for _ in 0..ATTEMPTS {
            let before = self.generation()?.number;
            let read = self.read_once();
            let moved = self.generation()?.number != before;
            match read {
                Ok(mut ruleset) if !moved => {
                    ruleset.generation = before;
                    return Ok(ruleset);
                }
                Err(ReadError::Netlink(NetlinkError::Interrupted)) => {}
                Err(error) if !moved => return Err(error),
                Ok(_) | Err(_) => {}
            }
            // What is left of an answer that was not read to its end goes with the old connection.
            self.connection = Connection::open(NETLINK_NETFILTER)?;
        }
        Err(ReadError::Changing)
    }

    /// All rules, perhaps some of before a change and some of after it. What others refer to comes first.
    fn read_once(&mut self) -> Result<Ruleset, ReadError> {
        let mut assembly = Assembly::new(self.limits);
        for kind in [message::GETTABLE, message::GETCHAIN, message::GETSET] {
            self.list(kind, &mut assembly)?;
        }
        for (family, table, set) in assembly.sets() {
            self.elements(family, &table, &set, &mut assembly)?;
        }
        for kind in [message::GETOBJ, message::GETFLOWTABLE, message::GETRULE] {
            self.list(kind, &mut assembly)?;
        }
        hooks::read(&mut self.connection, &mut assembly)?;
        Ok(assembly.finish())
    }

    fn list(&mut self, kind: u16, assembly: &mut Assembly) -> Result<(), ReadError> {
        self.connection
            .dump(kind, &header(0), |kind, payload| assembly.add(kind, payload).map_err(ReadError::from))
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
        let read = self.connection.dump(message::GETSETELEM, &request, |_, payload| {
            match assembly.elements(family, payload.get(4..).unwrap_or_default()) {
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
