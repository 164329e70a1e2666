//! A relay's metrics, taken apart and put together again: nothing in them can be taken for control's, and they have no more
//! lines than there can be.

use std::collections::HashSet;
use std::fmt::Write as _;

/// What a relay's metrics begin with.
const PREFIX: &str = "zone_relay_";
/// Lines; further ones are left out.
const MAX_LINES: usize = 1_000;
/// Bytes of a line; a longer one is left out.
const MAX_LINE_BYTES: usize = 512;
/// Labels of a sample; one with more is left out.
const MAX_LABELS: usize = 4;
/// Bytes of a label's value; a sample with a longer one is left out.
const MAX_VALUE_BYTES: usize = 64;
/// The end of an exposition (OpenMetrics 1.0), which only control writes.
const END: &str = "# EOF";

/// The lines that can be taken, and how many others there were.
pub(super) fn remake(text: &str) -> (String, u64) {
    let (mut made, mut dropped) = (Made::default(), 0);
    // Its last line says nothing.
    let text = text.trim_end();
    let text = text.strip_suffix(END).map_or(text, str::trim_end);
    for (number, line) in text.lines().enumerate() {
        if number >= MAX_LINES || line.len() > MAX_LINE_BYTES || made.take(line).is_none() {
            dropped += 1;
        }
    }
    (made.text, dropped)
}

#[derive(Default)]
struct Made {
    text: String,
    /// The family that samples belong to now.
    family: String,
    /// All families so far: none comes twice, and samples of one stand together.
    families: HashSet<String>,
    /// Which facts of the family were told.
    told: HashSet<&'static str>,
    samples: HashSet<String>,
}

impl Made {
    fn take(&mut self, line: &str) -> Option<()> {
        if let Some(fact) = line.strip_prefix("# ") {
            let (kind, rest) = fact.split_once(' ')?;
            let (name, words) = rest.split_once(' ')?;
            let kind = ["HELP", "TYPE"].into_iter().find(|known| *known == kind)?;
            if !is_name(name) || !self.enter(name) || !self.told.insert(kind) {
                return None;
            }
            let fits = match kind {
                "TYPE" => ["counter", "gauge"].contains(&words),
                _ => words.chars().all(|c| c.is_ascii_graphic() && c != '\\' || c == ' '),
            };
            return if fits { writeln!(self.text, "# {kind} {name} {words}").ok() } else { None };
        }
        let (series, value) = line.rsplit_once(' ')?;
        let name = series.split_once('{').map_or(series, |(name, _)| name);
        let labels = match series.strip_prefix(name)? {
            "" => Vec::new(),
            braced => labels(braced.strip_prefix('{')?.strip_suffix('}')?)?,
        };
        let value: f64 = value.parse().ok().filter(|value: &f64| value.is_finite())?;
        let family = name.strip_suffix("_total").filter(|family| *family == self.family).unwrap_or(name);
        if !is_name(name) || !self.enter(family) {
            return None;
        }
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        let series =
            if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) };
        if !self.samples.insert(series.clone()) {
            return None;
        }
        writeln!(self.text, "{series} {value}").ok()
    }

    /// Goes on with a family, or begins it.
    fn enter(&mut self, family: &str) -> bool {
        if self.family == family {
            return true;
        }
        if !self.families.insert(family.to_owned()) {
            return false;
        }
        family.clone_into(&mut self.family);
        self.told.clear();
        true
    }
}

fn is_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(is_word)
}

fn is_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn labels(text: &str) -> Option<Vec<(&str, &str)>> {
    let mut labels: Vec<(&str, &str)> = Vec::new();
    for label in text.split(',') {
        let (name, value) = label.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "_-.: ".contains(c));
        let known = labels.iter().any(|(known, _)| *known == name);
        if !is_word(name) || !plain || known || value.len() > MAX_VALUE_BYTES || labels.len() == MAX_LABELS {
            return None;
        }
        labels.push((name, value));
    }
    Some(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HONEST: &str = "# HELP zone_relay_parks Parked connections.\n\
        # TYPE zone_relay_parks gauge\n\
        zone_relay_parks 7\n\
        # HELP zone_relay_refused Connections and requests that were refused, by reason.\n\
        # TYPE zone_relay_refused counter\n\
        zone_relay_refused_total{port=\"endpoint\",reason=\"limit\"} 3\n\
        zone_relay_refused_total{port=\"module-server\",reason=\"limit\"} 12\n";

    #[test]
    fn what_a_relay_counts_comes_through_as_it_is() {
        assert_eq!(remake(&format!("{HONEST}# EOF\n")), (HONEST.to_owned(), 0));
    }

    #[test]
    fn lines_that_are_not_a_relays_are_left_out_and_counted() {
        for line in [
            "zone_proxy_provisioned 0",
            "zone_proxy_wrong_proofs_total 99999",
            "# EOF",
            "# TYPE zone_proxy_x gauge",
            "garbage{",
            "zone_relay_ 1",
            "zone_relay_x",
            "zone_relay_x NaN",
            "zone_relay_x +Inf",
            "zone_relay_x 1 1700000000",
            "zone_relay_x{a=\"b\"c=\"d\"} 1",
            "zone_relay_x{a=\"b\\\"} 1",
            "zone_relay_x{a=\"1\",a=\"2\"} 1",
            "zone_relay_x{a=\"1\",b=\"2\",c=\"3\",d=\"4\",e=\"5\"} 1",
            "zone_relay_x{} 1",
            "# HELP zone_relay_x a\u{85}b",
            "# TYPE zone_relay_x histogram",
            "zone_relay_parks 8",
            "# TYPE zone_relay_parks gauge",
            "zone_relay_x\rzone_proxy_provisioned 0",
            "",
        ] {
            let (made, dropped) = remake(&format!("{HONEST}{line}\nzone_relay_last 1\n# EOF\n"));
            assert_eq!((made, dropped), (format!("{HONEST}zone_relay_last 1\n"), 1), "{line:?}");
        }
    }

    #[test]
    fn there_are_no_more_lines_than_there_can_be() {
        let endless: Vec<_> = (0..100_000).map(|n| format!("zone_relay_x{{n=\"{n}\"}} 1\n")).collect();
        let endless = endless.concat();
        let (made, dropped) = remake(&endless);
        assert_eq!((made.lines().count(), dropped), (MAX_LINES, 99_000));
        let long = format!("zone_relay_x{{n=\"{}\"}} 1\n", "n".repeat(MAX_VALUE_BYTES + 1));
        assert_eq!(remake(&long), (String::new(), 1));
    }
}
