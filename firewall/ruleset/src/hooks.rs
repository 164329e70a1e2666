//! Reads what is hooked in where (nfnetlink_hook.h).

use std::io::ErrorKind;

use netlink_sys::protocols::NETLINK_ROUTE;

use crate::attributes::Attributes;
use crate::decode::Assembly;
use crate::error::ReadError;
use crate::legacy;
use crate::model::{Family, Name};
use crate::netlink::{Connection, NetlinkError};
use crate::request::{append_name, append_number, header};
use crate::uapi::{hooked, message};

/// How often a hook is read again if what is there changes meanwhile.
const ATTEMPTS: u32 = 3;

/// Reads all hooks that an incoming or outgoing packet can come to, in their order. Where the kernel has no list of them, there are
/// only those of iptables-legacy, as far as it names its tables.
pub(crate) fn read(connection: &mut Connection, assembly: &mut Assembly) -> Result<(), ReadError> {
    const INGRESS_AND_EGRESS: [u32; 2] = [0, 1];
    for device in devices(assembly)? {
        for number in INGRESS_AND_EGRESS {
            hook(connection, Family::Netdev, number, Some(&device), assembly)?;
        }
    }
    let mut listed = false;
    for family in [Family::Bridge, Family::Arp, Family::Ip, Family::Ip6] {
        let count = if family == Family::Arp { 3 } else { 5 };
        for number in 0..count {
            listed |= hook(connection, family, number, None, assembly)?;
        }
    }
    if !listed {
        for message in legacy::messages() {
            assembly.add(message::HOOK, &message)?;
        }
    }
    Ok(())
}

/// Reads one hook. Returns whether the kernel has a list of what is there.
fn hook(
    connection: &mut Connection,
    family: Family,
    number: u32,
    device: Option<&Name>,
    assembly: &mut Assembly,
) -> Result<bool, ReadError> {
    let mut request = header(family.number());
    append_number(&mut request, hooked::HOOKNUM, number);
    if let Some(device) = device {
        append_name(&mut request, hooked::DEV, device);
    }
    assembly.at_device(device.cloned());
    for attempt in 1.. {
        let before = assembly.hooks();
        let read = connection.dump_to_its_end(message::HOOK, &request, |kind, payload| {
            assembly.add(kind, payload)?;
            Ok::<(), ReadError>(())
        });
        match read {
            Ok(()) => break,
            // Chains can't have come or gone: that would be another generation. What else has is not followed anyway.
            Err(ReadError::Netlink(NetlinkError::Interrupted)) if attempt == ATTEMPTS => break,
            Err(ReadError::Netlink(NetlinkError::Interrupted)) => assembly.forget_hooks(before),
            // A kernel without this subsystem, family or hook, or a device that is gone meanwhile.
            Err(ReadError::Netlink(NetlinkError::Refused(error)))
                if error.kind() != ErrorKind::PermissionDenied =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The names of all devices, and of those that chains are hooked in at.
fn devices(assembly: &Assembly) -> Result<Vec<Name>, ReadError> {
    const RTM_NEWLINK: u16 = 16;
    const RTM_GETLINK: u16 = 18;
    const IFINFOMSG: usize = 16;
    const IFLA_IFNAME: usize = 3;
    let mut devices = assembly.devices();
    let mut links = Connection::open(NETLINK_ROUTE)?;
    links.dump(RTM_GETLINK, &[0; IFINFOMSG], |kind, payload| {
        if kind == RTM_NEWLINK {
            let link = Attributes::<{ IFLA_IFNAME + 1 }>::read(payload.get(IFINFOMSG..).unwrap_or_default())?;
            devices.extend(link.name(IFLA_IFNAME));
        }
        Ok::<(), ReadError>(())
    })?;
    devices.sort();
    devices.dedup();
    Ok(devices)
}
