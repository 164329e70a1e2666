//! Registers by the numbers that the kernel gives them.

use crate::model::RegisterSlice;

/// All of them.
pub(crate) const ALL: RegisterSlice = RegisterSlice { offset: 0, length: 64 };

/// The first bytes of a register (`NFT_REG_1` to `_4` are 1 to 4, `NFT_REG32_00` to `_15` are 8 to 23), if there are so many
/// behind its beginning.
pub(crate) fn slice(register: u32, length: usize) -> Option<RegisterSlice> {
    let offset = match register {
        1..=4 => (register - 1) * 16,
        8..=23 => (register - 8) * 4,
        _ => return None,
    };
    let (offset, length) = (u8::try_from(offset).ok()?, u8::try_from(length).ok()?);
    let fits = offset.checked_add(length).is_some_and(|end| end <= ALL.length);
    (length > 0 && fits).then_some(RegisterSlice { offset, length })
}
