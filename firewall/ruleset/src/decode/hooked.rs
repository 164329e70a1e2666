//! What is hooked in somewhere (nfnetlink_hook.h).

use super::containers::hook_point;
use crate::attributes::DecodeError;
use crate::model::{Family, Hooked, HookedFunction};
use crate::uapi;

/// A function at a hook, of the family of packets that was asked for. The kernel says neither family nor device of them.
pub(crate) fn hooked(of: Family, bytes: &[u8]) -> Result<Hooked, DecodeError> {
    const NFTABLES: u32 = 1;
    const BPF: u32 = 2;
    const FLOWTABLE: u32 = 3;
    let hooked = uapi::hooked::attributes(bytes)?;
    let missing = |attribute| DecodeError::Missing { about: "hook", attribute };
    let number = hooked.u32(uapi::hooked::HOOKNUM).ok_or_else(|| missing("number"))?;
    let kernel = || HookedFunction::Kernel {
        function: hooked.text(uapi::hooked::FUNCTION_NAME).unwrap_or_default(),
        module: hooked.text(uapi::hooked::MODULE_NAME).filter(|module| !module.is_empty()),
    };
    let function = match hooked.bytes(uapi::hooked::CHAIN_INFO) {
        None => kernel(),
        Some(bytes) => {
            let info = uapi::hooked_info::attributes(bytes)?;
            let description = info.bytes(uapi::hooked_info::DESC).unwrap_or_default();
            match info.u32(uapi::hooked_info::TYPE) {
                Some(NFTABLES) => {
                    let chain = uapi::hooked_chain::attributes(description)?;
                    HookedFunction::Chain {
                        family: chain
                            .u8(uapi::hooked_chain::FAMILY)
                            .and_then(Family::from_number)
                            .ok_or_else(|| missing("family of its chain"))?,
                        table: chain.name(uapi::hooked_chain::TABLE).ok_or_else(|| missing("table"))?,
                        chain: chain.name(uapi::hooked_chain::NAME).ok_or_else(|| missing("chain"))?,
                    }
                }
                Some(BPF) => {
                    let program = uapi::hooked_bpf::attributes(description)?;
                    HookedFunction::Bpf { id: program.u32(uapi::hooked_bpf::ID).unwrap_or(0) }
                }
                Some(FLOWTABLE) => HookedFunction::Flowtable,
                _ => kernel(),
            }
        }
    };
    Ok(Hooked {
        family: of,
        point: hook_point(of, number).ok_or_else(|| missing("number that is known"))?,
        device: hooked.name(uapi::hooked::DEV),
        priority: hooked.u32(uapi::hooked::PRIORITY).ok_or_else(|| missing("priority"))?.cast_signed(),
        function,
    })
}
