//! *install*: the appliance, from a bare host to a first session and back to a bare host.

mod broker;
mod hands;
mod processes;
mod story;
mod wrong;

use crate::lab::cleanup::PROGRAMS;
use crate::lab::roots::APPLIANCE;
use crate::lab::{Case, Host, Need, Suite, Topology};
use crate::suites::appliance::Format;
use crate::suites::parties::SHARED;

/// The suite.
pub(crate) fn suite() -> Suite {
    let deb = deb_needs();
    let rpm = [Need::Package("zone-installer-0.1.0-1"), Need::Package("zone-proxy-0.1.0-2")];
    let mut cases = vec![
        Case::new(
            "by keystrokes at the menu: from a bare host to a first session, and back",
            place(),
            |scene| story::whole(scene, Format::Deb, true),
        )
        .shows(&["R-10", "R-15", "R-40", "R-42", "R-44", "R-45"])
        .needs(&deb),
        Case::new("by verbs over ssh: from a bare host to a first session, and back", place(), |scene| {
            story::whole(scene, Format::Deb, false)
        })
        .shows(&["R-40", "R-41", "R-43", "R-45"])
        .needs(&deb),
        Case::new(
            "the rpm likewise, by rpm(8) with --nodeps in a Debian root: no RPM distribution was at hand",
            place(),
            |scene| story::whole(scene, Format::Rpm, false),
        )
        .shows(&["R-4", "R-44", "R-45"])
        .needs(&deb)
        .needs(&rpm),
        Case::new(
            "no process has more privileges than it needs, and sessions outlive control",
            place(),
            processes::play,
        )
        .shows(&["R-1", "R-4"])
        .needs(&deb),
    ];
    cases.extend(broker::cases().into_iter().map(|case| case.needs(&deb)));
    cases.extend(wrong::cases().into_iter().map(|case| case.needs(&deb)));
    Suite { name: "install", about: "the appliance, from a bare host to a first session and back", cases }
}

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
pub(crate) fn place() -> Topology {
    Topology::new()
        .link("outside")
        .link("inside")
        .host(
            Host::booted("proxy", APPLIANCE)
                .nic("outside", "outside", &["203.0.113.10/24", "2001:db8:113::10/64"])
                .nic("inside", "inside", &["10.20.0.10/24", "fd00:20::10/64"])
                .enable(&["ssh.service"]),
        )
        .host(Host::netns("internet").nic("eth0", "outside", &["203.0.113.2/24", "2001:db8:113::2/64"]))
        .host(
            Host::chroot("outpost", APPLIANCE)
                .nic("eth0", "outside", &["203.0.113.7/24", "2001:db8:113::7/64"])
                .share(PROGRAMS, SHARED),
        )
        .host(Host::netns("module").nic("eth0", "inside", &["10.20.0.2/24", "fd00:20::2/64"]))
        .host(Host::netns("admin").nic("eth0", "inside", &["10.20.0.3/24", "fd00:20::3/64"]))
}
