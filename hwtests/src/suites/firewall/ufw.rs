//! What ufw denies in the words of its users: the program alone in a booted root.

use super::alone::{self, sh, verify};
use crate::lab::roots::UFW;
use crate::lab::{Case, Host, Need, Probe, Result, Scene, Topology};

/// What is denied, each as an admin writes it, with the port that has to be named.
const DENIALS: [(&str, &str); 2] = [
    (
        "ufw default deny incoming; ufw allow 22/tcp; ufw deny in on outside to any port 17486:17488 proto tcp",
        "17488",
    ),
    ("ufw default allow incoming; ufw deny proto tcp from any to any port 3306,17486:17488", "17486"),
];

/// The case.
pub(super) fn case() -> Case {
    let sentence = "what ufw denies on a device, or by several ports, holds and is reported";
    Case::new(sentence, topology(), deny).shows(&["R-15"]).needs(&[Need::Program("zone-firewall")])
}

fn topology() -> Topology {
    let proxy = Host::booted("proxy", UFW).nic("outside", "outside", &["203.0.113.10/24"]);
    Topology::new().link("outside").host(proxy).host(Host::netns("internet").nic(
        "eth0",
        "outside",
        &["203.0.113.2/24"],
    ))
}

fn deny(scene: &mut Scene<'_>) -> Result<()> {
    let _listeners = alone::install(scene)?;
    for (denial, port) in DENIALS {
        scene.step(denial, |scene| {
            sh(scene, &format!("set -e; ufw --force reset; {denial}; ufw --force enable"))?;
            sh(scene, "zone-firewall apply").map(|_| ())
        })?;
        alone::ports(scene, "what is denied stays shut", "internet", "outside", Probe::Filtered)?;
        let verified = verify(scene)?;
        let named = verified.stdout.lines().any(|line| line.contains(port));
        scene.check("`zone-firewall verify` names it", verified.code() == 1 && named, verified.text());
        sh(scene, "zone-firewall remove")?;
        sh(scene, alone::RECORD)?;
    }
    Ok(())
}
