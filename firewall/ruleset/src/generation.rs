//! The numbers of transactions.

use crate::attributes::DecodeError;
use crate::model::Name;
use crate::uapi::generation;

/// A state of the kernel's rules. Each transaction has the next number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// `NFTA_GEN_ID`.
    pub number: u32,
    /// Who made it: the number and the name of a process. Only a [`crate::Subscription`] knows: who asks for the number is told his
    /// own.
    pub process: Option<(u32, Name)>,
}

impl Generation {
    /// What a message of kind `NFT_MSG_NEWGEN` carries.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, DecodeError> {
        let attributes = generation::attributes(payload.get(4..).unwrap_or_default())?;
        let number = attributes.u32(generation::ID);
        Ok(Self {
            number: number.ok_or(DecodeError::Missing { about: "generation", attribute: "number" })?,
            process: attributes.u32(generation::PROC_PID).zip(attributes.name(generation::PROC_NAME)),
        })
    }
}
