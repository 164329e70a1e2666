//! A policy for firewalld (firewalld.policy(5)).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::opening::Opening;

/// Behind the rules of all zones and of all other policies, so that those may deny.
const PRIORITY: i16 = i16::MAX;

/// The policy. firewalld tells devices apart by the zones that they are in, and not in a rule: the description says which ports
/// are meant for some devices alone.
pub(super) fn text(openings: &[Opening]) -> String {
    let devices: BTreeSet<_> = openings
        .iter()
        .filter_map(|opening| {
            Some(format!(" Port {} is meant for device {}.", opening.port, opening.interface.as_ref()?))
        })
        .collect();
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<policy priority=\"{PRIORITY}\" target=\"CONTINUE\">\n  \
         <short>Zone Proxy ports</short>\n  <description>TCP ports of Zone Proxy. Name the zones that they are to be open in, in \
         place of ANY.{}</description>\n  <ingress-zone name=\"ANY\"/>\n  <egress-zone name=\"HOST\"/>\n",
        devices.into_iter().collect::<String>()
    );
    let mut told = BTreeSet::new();
    for opening in openings {
        let source = opening.source.map(|network| format!("<source address=\"{network}\"/>"));
        let destination = opening.destination.map(|address| format!("<destination address=\"{address}\"/>"));
        let rule = format!(
            "  <rule family=\"{}\">{}{}<port port=\"{}\" protocol=\"tcp\"/><accept/></rule>",
            opening.family.as_str(),
            source.unwrap_or_default(),
            destination.unwrap_or_default(),
            opening.port
        );
        if told.insert(rule.clone()) {
            let _ = writeln!(text, "{rule}");
        }
    }
    text + "</policy>\n"
}
