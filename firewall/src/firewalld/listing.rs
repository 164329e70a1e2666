//! What `firewall-cmd --list-all-zones` and `--list-all-policies` print: a section for each zone or policy.

use std::collections::BTreeSet;

/// A zone or policy, with its settings in the order in which they are printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// Its name.
    pub(super) name: String,
    /// Each setting with its values: what stands behind the colon, and what stands in lines of its own below.
    pub(super) settings: Vec<(String, Vec<String>)>,
}

impl Section {
    /// All sections of a listing.
    pub(super) fn all(listing: &str) -> Vec<Self> {
        let mut sections: Vec<Self> = Vec::new();
        for line in listing.lines().filter(|line| !line.trim().is_empty()) {
            let text = line.trim();
            if !line.starts_with(char::is_whitespace) {
                // Behind the name may stand "(active)", "(default)" and the like.
                let name = text.split_whitespace().next().unwrap_or_default().to_owned();
                sections.push(Self { name, settings: Vec::new() });
            } else if let Some(section) = sections.last_mut() {
                section.take(text, line.starts_with('\t'));
            }
        }
        sections
    }

    fn take(&mut self, text: &str, continues: bool) {
        match (self.settings.last_mut(), text.split_once(':')) {
            (Some((_, values)), _) if continues => values.push(text.to_owned()),
            (_, Some((key, value))) => {
                // The order of what is named in one line means nothing, and differs between saved and live.
                let mut words: Vec<_> = value.split_whitespace().collect();
                words.sort_unstable();
                let values = if words.is_empty() { Vec::new() } else { vec![words.join(" ")] };
                self.settings.push((key.to_owned(), values));
            }
            _ => {}
        }
    }

    /// The lines of a setting; none where it is empty or not there.
    pub(super) fn lines(&self, key: &str) -> &[String] {
        self.settings.iter().find(|(name, _)| name == key).map_or(&[], |(_, values)| values.as_slice())
    }

    /// The words of a setting.
    pub(super) fn words(&self, key: &str) -> BTreeSet<String> {
        self.lines(key).iter().flat_map(|line| line.split_whitespace()).map(str::to_owned).collect()
    }
}

/// The settings of all zones or policies but ours, each with the name of what it belongs to. What a reload keeps anyway (which
/// interface is in which zone) is left out.
pub(super) fn comparable(listing: &str, is_ours: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let sections = Section::all(listing);
    let foreign = sections.iter().filter(|section| !is_ours(&section.name));
    let mut lines = BTreeSet::new();
    for section in foreign {
        lines.insert(section.name.clone());
        for (key, values) in section.settings.iter().filter(|(key, _)| key != "interfaces") {
            lines.extend(values.iter().map(|value| format!("{}: {key}: {value}", section.name)));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn others(listing: &str) -> BTreeSet<String> {
        comparable(listing, |name| name == "zone-proxy")
    }

    const LISTING: &str = "public (default, active)\n  target: default\n  interfaces: eth0\n  sources: \n  forward-ports: \n\
        \tport=80:proto=tcp:toport=8080:toaddr=\n  rich rules: \n\trule family=\"ipv4\" drop\n\trule family=\"ipv6\" drop\n\nwork\n  target: DROP\n";

    #[test]
    fn a_listing_falls_into_sections_with_settings_in_one_line_or_in_several() {
        let sections = Section::all(LISTING);
        let names: Vec<_> = sections.iter().map(|section| section.name.as_str()).collect();
        assert_eq!(names, ["public", "work"]);
        assert_eq!(sections[0].lines("target"), ["default"]);
        assert_eq!(sections[0].words("sources"), BTreeSet::new());
        assert_eq!(sections[0].lines("forward-ports"), ["port=80:proto=tcp:toport=8080:toaddr="]);
        assert_eq!(
            sections[0].lines("rich rules"),
            ["rule family=\"ipv4\" drop", "rule family=\"ipv6\" drop"]
        );
        assert_eq!(sections[1].lines("no such setting"), [""; 0]);
    }

    #[test]
    fn interfaces_and_our_own_policies_are_no_unsaved_changes() {
        let live = "public (active)\n  target: default\n  interfaces: eth0\n\nzone-proxy\n  ports: 1/tcp\n";
        let saved = "public\n  target: default\n  interfaces: \n";
        assert_eq!(others(live), others(saved));
        assert_ne!(others(live), others("public\n  target: DROP\n"));
    }

    #[test]
    fn the_order_of_sources_and_of_rich_rules_is_no_unsaved_change() {
        let live = "public\n  sources: 10.0.0.0/8 ipset:bad\n  rich rules: \n\trule a\n\trule b\n";
        let saved = "public\n  sources: ipset:bad 10.0.0.0/8\n  rich rules: \n\trule b\n\trule a\n";
        assert_eq!(others(live), others(saved));
        assert_ne!(others(live), others(&saved.replace("\trule b\n", "")));
        assert_ne!(others(live), others(&format!("{saved}work\n")));
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        for text in ["", "\t", "  a: b", "x\n\ty", "x\n  :\n", ":\n  ::\n\t:"] {
            let _ = Section::all(text);
        }
    }
}
