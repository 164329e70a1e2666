//! *install*: the appliance, from a bare host to a first session and back to a bare host.

mod broker;
mod captured;
mod hands;
mod processes;
mod story;
mod topology;
mod watch;
mod wrong;

use crate::lab::{Case, Need, Suite};
use crate::suites::appliance::Format;
pub(crate) use topology::{deb_needs, topology};

/// The suite.
pub(crate) fn suite() -> Suite {
    let deb = deb_needs();
    let rpm = [Need::Package("zone-installer-0.1.0-1"), Need::Package("zone-proxy-0.1.0-2")];
    let mut cases = vec![
        Case::new(
            "by keystrokes at the menu: from a bare host to a first session, and back",
            topology(),
            |scene| story::whole(scene, Format::Deb, true),
        )
        .shows(&["R-10", "R-15", "R-40", "R-42", "R-44", "R-45"])
        .needs(&deb),
        Case::new("by verbs over ssh: from a bare host to a first session, and back", topology(), |scene| {
            story::whole(scene, Format::Deb, false)
        })
        .shows(&["R-40", "R-41", "R-43", "R-45"])
        .needs(&deb),
        Case::new(
            "the rpm likewise, by rpm(8) with --nodeps in a Debian root: no RPM distribution was at hand",
            topology(),
            |scene| story::whole(scene, Format::Rpm, false),
        )
        .shows(&["R-4", "R-44", "R-45"])
        .needs(&deb)
        .needs(&rpm),
        Case::new(
            "no process has more privileges than it needs, and sessions outlive control",
            topology(),
            processes::play,
        )
        .shows(&["R-1", "R-4"])
        .needs(&deb),
    ];
    cases.push(
        Case::new(
            "what others change in the firewall is put back within a second, from the boot on",
            topology(),
            watch::play,
        )
        .shows(&["R-16"])
        .needs(&deb),
    );
    cases.extend(broker::cases().into_iter().map(|case| case.needs(&deb)));
    cases.extend(captured::cases().into_iter().map(|case| case.needs(&deb)));
    cases.extend(wrong::cases().into_iter().map(|case| case.needs(&deb)));
    Suite { name: "install", about: "the appliance, from a bare host to a first session and back", cases }
}
