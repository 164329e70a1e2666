//! The zones that deny, and what they deny.
//!
//! A zone takes packets by their source, by the interface that they come in on, or, as the default zone, because
//! nobody else takes them. Its target says what becomes of those that none of its rules decides.

use std::collections::BTreeSet;

use super::listing::Section;

/// firewalld's own zones that let nothing in. They can't be deleted, so that a policy may name them: a policy that names
/// a zone that is gone would keep firewalld from reloading.
const SHUT: [&str; 2] = ["drop", "block"];

/// How a zone refuses a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Denial {
    /// Without an answer.
    Drop,
    /// With an ICMP error.
    Reject,
}

impl Denial {
    /// That of a zone's target. A zone of target `default` refuses only what it was not told to accept.
    fn of(target: &str) -> Option<Self> {
        match target {
            "DROP" => Some(Self::Drop),
            "%%REJECT%%" => Some(Self::Reject),
            _ => None,
        }
    }
}

/// The zones of firewalld.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Zones {
    /// The zone of all packets that no other one takes.
    default: String,
    all: Vec<Section>,
}

impl Zones {
    /// From the default zone's name and what `--list-all-zones` prints.
    pub(super) fn new(default: &str, listing: &str) -> Self {
        Self { default: default.trim().to_owned(), all: Section::all(listing) }
    }

    /// The zones that refuse whatever they take, by source or by interface: firewalld's own ones, unless one of them is
    /// the default zone. Then it is to a host what the policy `drop` is to a chain, and our ports open at its end.
    pub(super) fn shut(&self, denial: Denial) -> BTreeSet<String> {
        self.shut_sections(denial).map(|zone| zone.name.clone()).collect()
    }

    /// Whether one of these holds an interface.
    pub(super) fn shuts_an_interface(&self, denial: Denial) -> bool {
        self.shut_sections(denial).any(|zone| !zone.words("interfaces").is_empty())
    }

    fn shut_sections(&self, denial: Denial) -> impl Iterator<Item = &Section> {
        let shut = self.denying().filter(move |(zone, which)| {
            *which == denial && SHUT.contains(&zone.name.as_str()) && zone.name != self.default
        });
        shut.map(|(zone, _)| zone)
    }

    /// The sources that zones refuse, whichever zones they are.
    pub(super) fn denied_sources(&self) -> BTreeSet<(String, Denial)> {
        let sources = self
            .denying()
            .flat_map(|(zone, denial)| zone.words("sources").into_iter().map(move |source| (source, denial)));
        sources.collect()
    }

    fn denying(&self) -> impl Iterator<Item = (&Section, Denial)> {
        self.all.iter().filter_map(|zone| {
            let target = zone.lines("target").first()?;
            Some((zone, Denial::of(target)?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONES: &str = "block\n  target: %%REJECT%%\n  sources: 10.1.0.0/16\n\ndrop (active)\n  target: DROP\n  \
        sources: 192.0.2.66 ipset:bad\n\npublic (active)\n  target: default\n  sources: 10.0.0.0/8\n\nstrict\n  target: DROP\n  \
        interfaces: eth1\n  sources: 203.0.113.0/24\n\ntrusted\n  target: ACCEPT\n  sources: 10.9.0.0/16\n";

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn zones_drop_and_block_are_shut_whatever_they_take() {
        let zones = Zones::new("public\n", ZONES);
        assert_eq!(zones.shut(Denial::Drop), set(&["drop"]));
        assert_eq!(zones.shut(Denial::Reject), set(&["block"]));
    }

    #[test]
    fn an_interface_counts_in_zone_drop_or_block_only() {
        assert!(!Zones::new("public", ZONES).shuts_an_interface(Denial::Drop));
        let zones = Zones::new("public", "drop\n  target: DROP\n  interfaces: eth1\n");
        assert!(zones.shuts_an_interface(Denial::Drop) && !zones.shuts_an_interface(Denial::Reject));
    }

    #[test]
    fn zone_drop_as_the_default_zone_is_not_shut() {
        let zones = Zones::new("drop", ZONES);
        assert_eq!(zones.shut(Denial::Drop), set(&[]));
        assert_eq!(zones.shut(Denial::Reject), set(&["block"]));
    }

    #[test]
    fn sources_are_denied_that_a_zone_holds_whose_target_denies() {
        let denied: Vec<_> = Zones::new("public", ZONES).denied_sources().into_iter().collect();
        let expected = [
            ("10.1.0.0/16", Denial::Reject),
            ("192.0.2.66", Denial::Drop),
            ("203.0.113.0/24", Denial::Drop),
            ("ipset:bad", Denial::Drop),
        ];
        assert_eq!(denied, expected.map(|(source, denial)| (source.to_owned(), denial)));
        assert_eq!(Zones::new("drop", ZONES).denied_sources().len(), expected.len());
    }

    #[test]
    fn a_zone_whose_target_was_changed_goes_by_the_new_one() {
        let zones = Zones::new("public", "drop\n  target: default\n\nblock\n  target: DROP\n");
        assert_eq!(zones.shut(Denial::Drop), set(&["block"]));
        assert_eq!(zones.shut(Denial::Reject), set(&[]));
    }
}
