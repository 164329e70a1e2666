//! Finds everything that is wrong with a configuration file, each with its line and its key.

use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::sections::Config;

/// How like an unknown key a known one must be to be suggested; 1 is equal.
const LIKENESS: f64 = 0.8;

/// The configuration, or one line for each error.
pub(super) fn parse(text: &str, name: &str) -> Result<Config, Vec<String>> {
    let place = |span: Option<Range<usize>>| match span {
        Some(span) => format!("{name}:{}", line(text, span.start)),
        None => name.to_owned(),
    };
    let (tree, values) = match (DeTable::parse(text), text.parse::<Table>()) {
        (Ok(tree), Ok(values)) => (tree, values),
        (Err(error), _) | (_, Err(error)) => {
            return Err(vec![format!("{}: {}", place(error.span()), one_line(error.message()))]);
        }
    };
    let mut faults = Vec::new();
    walk(&[], tree.get_ref(), &values, &defaults(), &mut faults);
    if faults.is_empty() {
        match toml::from_str(text) {
            Ok(config) => {
                let config: Config = config;
                let contradictions = config.contradictions();
                if contradictions.is_empty() {
                    return Ok(config);
                }
                faults.extend(contradictions.into_iter().map(|(path, why)| Fault {
                    at: nearest_span(tree.get_ref(), path),
                    why: format!("{path}: {why}"),
                }));
            }
            Err(error) => faults.push(Fault { at: error.span(), why: one_line(error.message()) }),
        }
    }
    Err(faults.into_iter().map(|fault| format!("{}: {}", place(fault.at), fault.why)).collect())
}

/// Every key of the file, as `section.key`.
#[cfg(test)]
pub(super) fn keys() -> Vec<String> {
    names().0
}

/// Every key and every section of the file, each with the sections above it.
fn names() -> (Vec<String>, Vec<String>) {
    fn collect(above: &str, table: Table, keys: &mut Vec<String>, sections: &mut Vec<String>) {
        for (name, value) in table {
            let path = format!("{above}{name}");
            match value {
                Value::Table(section) => {
                    collect(&format!("{path}."), section, keys, sections);
                    sections.push(path);
                }
                _ => keys.push(path),
            }
        }
    }
    let (mut keys, mut sections) = (Vec::new(), Vec::new());
    collect("", defaults(), &mut keys, &mut sections);
    (keys, sections)
}

struct Fault {
    at: Option<Range<usize>>,
    why: String,
}

fn walk(above: &[&str], tree: &DeTable<'_>, values: &Table, known: &Table, faults: &mut Vec<Fault>) {
    for (key, node) in tree {
        let name = key.get_ref().as_ref();
        let path = [above, &[name]].concat();
        let Some(default) = known.get(name) else {
            faults.push(Fault { at: Some(key.span()), why: unknown(&path.join(".")) });
            continue;
        };
        let Some(value) = values.get(name) else { continue };
        match (default, node.get_ref(), value) {
            (Value::Table(default), DeValue::Table(node), Value::Table(value)) => {
                walk(&path, node, value, default, faults);
            }
            _ => {
                faults
                    .extend(wrong(&path, value).into_iter().map(|why| Fault { at: Some(node.span()), why }));
            }
        }
    }
}

/// What is wrong with one value: the rest of the file is left at its defaults, so only this key can be blamed.
fn wrong(path: &[&str], value: &Value) -> Vec<String> {
    let alone = path
        .iter()
        .rev()
        .fold(value.clone(), |inner, part| Value::Table(Table::from_iter([((*part).to_owned(), inner)])));
    match alone.try_into::<Config>() {
        Ok(config) => config.wrong_values(),
        Err(error) => vec![format!("{}: {}", path.join("."), one_line(error.message()))],
    }
}

fn unknown(path: &str) -> String {
    match nearest(path) {
        Some(known) => format!("unknown key '{path}': did you mean '{known}'?"),
        None => format!("unknown key '{path}'"),
    }
}

fn nearest(path: &str) -> Option<String> {
    let split = |path: &str| match path.rsplit_once('.') {
        Some((section, key)) => (section.to_owned(), key.to_owned()),
        None => (String::new(), path.to_owned()),
    };
    let (section, key) = split(path);
    let like = |known: &str| {
        let (known_section, known_key) = split(known);
        // A key that only stands in the wrong section is like enough.
        let here = if section == known_section { 1.0 } else { 0.99 };
        strsim::jaro_winkler(&key, &known_key) * here
    };
    let (keys, sections) = names();
    keys.into_iter()
        .chain(sections)
        .map(|known| (like(&known), known))
        .filter(|(likeness, _)| *likeness >= LIKENESS)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known)
}

/// Where a key stands, or the innermost section around it that stands in the file.
fn nearest_span(tree: &DeTable<'_>, path: &str) -> Option<Range<usize>> {
    let (mut table, mut at) = (tree, None);
    for part in path.split('.') {
        let Some((key, node)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == part) else { break };
        at = Some(key.span());
        match node.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    at
}

fn defaults() -> Table {
    Table::try_from(Config::default()).unwrap_or_default()
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn one_line(message: &str) -> String {
    message.lines().map(str::trim).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        parse(text, "zone-proxy.toml").unwrap_err()
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line_and_the_nearest_known_one() {
        assert_eq!(
            errors("[limits]\n\nsesions = 1\n"),
            ["zone-proxy.toml:3: unknown key 'limits.sesions': did you mean 'limits.sessions'?"]
        );
        assert_eq!(
            errors("stat_dir = \"/x\"\n"),
            ["zone-proxy.toml:1: unknown key 'stat_dir': did you mean 'state_dir'?"]
        );
        assert_eq!(
            errors("[limits]\npong = 1\n"),
            ["zone-proxy.toml:2: unknown key 'limits.pong': did you mean 'timeouts.pong'?"]
        );
        assert_eq!(errors("[qqq]\nzz = 1\n"), ["zone-proxy.toml:1: unknown key 'qqq'"]);
    }

    #[test]
    fn every_error_of_a_file_is_reported_at_once() {
        let found = errors(
            "[control]\nlisten = [\"x\"]\n[limits]\nsessions = 0\nwaiting = \"many\"\n[timeouts]\npong = -1\n\
             drain = 1e12\n[log]\nlevel = \"loud\"\n",
        );
        let named = |line: &str| found.iter().any(|error| error.contains(line));
        assert_eq!(found.len(), 6, "{found:#?}");
        assert!(named("zone-proxy.toml:2: control.listen: "));
        assert!(named("zone-proxy.toml:4: limits.sessions: must be at least 1"));
        assert!(named("zone-proxy.toml:5: limits.waiting: invalid type: string"));
        assert!(named("zone-proxy.toml:7: timeouts.pong: must be more than 0"));
        assert!(named("zone-proxy.toml:8: timeouts.drain: must be more than 0"));
        assert!(named("zone-proxy.toml:10: log.level: unknown variant `loud`"));
    }

    #[test]
    fn keys_of_a_section_within_a_section_are_known() {
        assert_eq!(
            errors("[log.syslog]\nhots = \"x\"\n"),
            ["zone-proxy.toml:2: unknown key 'log.syslog.hots': did you mean 'log.syslog.host'?"]
        );
        assert_eq!(
            errors("[log.sylog]\nhost = \"x\"\n"),
            ["zone-proxy.toml:1: unknown key 'log.sylog': did you mean 'log.syslog'?"]
        );
    }

    ///
    #[test]
    fn settings_of_syslog_that_contradict_each_other_are_refused_at_their_line() {
        let cases = [
            ("[log]\nto = \"syslog\"\n", 1, "log.syslog.host: is needed"),
            (
                "[log.syslog]\ntransport = \"udp\"\ntls = true\nca = \"/x\"\n",
                3,
                "log.syslog.tls: does not go",
            ),
            ("[log.syslog]\n\ntls = true\n", 1, "log.syslog.ca: is needed"),
            ("[log.syslog]\nport = 0\n", 2, "log.syslog.port: must be from 1"),
        ];
        for (text, line, why) in cases {
            let found = errors(text);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(&format!("zone-proxy.toml:{line}: {why}")), "{found:?}");
        }
    }

    #[test]
    fn a_text_that_is_no_toml_is_refused_with_its_line() {
        let found = errors("[limits]\nsessions == 1\n");
        assert!(found[0].starts_with("zone-proxy.toml:2: "), "{found:?}");
    }

    #[test]
    fn a_value_where_a_section_belongs_is_named() {
        let found = errors("limits = 3\n");
        assert!(found[0].starts_with("zone-proxy.toml:1: limits: invalid type"), "{found:?}");
    }

    #[test]
    fn whole_numbers_are_good_spans_of_time() {
        assert!((parse("[timeouts]\npong = 7\n", "f").unwrap().timeouts.pong - 7.0).abs() < f64::EPSILON);
    }
}
