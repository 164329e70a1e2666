//! The hosts of the suite, and what its cases need.

use crate::lab::cleanup::PROGRAMS;
use crate::lab::roots::APPLIANCE;
use crate::lab::{Host, Need, Topology};
use crate::suites::parties::SHARED;

/// What a case with Debian packages needs.
pub(crate) fn deb_needs() -> [Need; 7] {
    [
        Need::Package("zone-installer_0.1.0-1"),
        Need::Package("zone-proxy_0.1.0-1"),
        Need::Package("zone-proxy_0.1.0-2"),
        Need::Package("development-key.pub"),
        Need::Program("zone-module"),
        Need::Program("zone-endpoint"),
        Need::Tool("ssh"),
    ]
}

/// A bare appliance between the internet, with an endpoint on it, and the inside, with the Module Server and the admin.
pub(crate) fn topology() -> Topology {
    topology_with(|proxy| proxy)
}

/// The same with something more about the appliance.
pub(super) fn topology_with(change: impl Fn(Host) -> Host) -> Topology {
    Topology::new()
        .link("outside")
        .link("inside")
        .host(change(
            Host::booted("proxy", APPLIANCE)
                .nic("outside", "outside", &["203.0.113.10/24", "2001:db8:113::10/64"])
                .nic("inside", "inside", &["10.20.0.10/24", "fd00:20::10/64"])
                .enable(&["ssh.service"]),
        ))
        .host(Host::netns("internet").nic("eth0", "outside", &["203.0.113.2/24", "2001:db8:113::2/64"]))
        .host(
            Host::chroot("outpost", APPLIANCE)
                .nic("eth0", "outside", &["203.0.113.7/24", "2001:db8:113::7/64"])
                .share(PROGRAMS, SHARED),
        )
        .host(Host::netns("module").nic("eth0", "inside", &["10.20.0.2/24", "fd00:20::2/64"]))
        .host(Host::netns("admin").nic("eth0", "inside", &["10.20.0.3/24", "fd00:20::3/64"]))
}
