//! *firewall*: an appliance behind each kind of host firewall, from before the installation until after the removal.
//!
//! At each stage connections come in from the internet and from the inside, by IPv4 and IPv6. 17488 and 17487 listen on
//! every address, so that it is the firewall alone that keeps the internet from them. The host's own firewall lets ssh in
//! on 22; a second ssh port shows that nothing else is opened. At the end the rules are those of the beginning. What
//! admins deny by firewalld and ufw is looked at with the program alone.

mod alone;
mod firewalld;
mod foreign;
mod story;
mod ufw;

use crate::lab::{Case, Need, Suite};
use foreign::Foreign;

/// The suite.
pub(crate) fn suite() -> Suite {
    let needs = [
        Need::Package("zone-installer_0.1.0-1"),
        Need::Package("zone-proxy_0.1.0-1"),
        Need::Package("development-key.pub"),
        Need::Program("zone-module"),
        Need::Tool("ssh"),
    ];
    let cases = Foreign::ALL.into_iter().map(|foreign| {
        Case::new(foreign.sentence(), story::topology(foreign), move |scene| story::tell(scene, foreign))
            .shows(&["R-10", "R-11", "R-12", "R-15", "R-16", "R-45"])
            .needs(&needs)
    });
    Suite {
        name: "firewall",
        about: "what answers from outside behind each kind of host firewall, and what is left of our rules",
        cases: cases.chain(firewalld::cases()).chain([ufw::case()]).collect(),
    }
}
