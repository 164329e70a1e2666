//! What the product is built from: licences, doubles, and a reason for each crate.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use zone_tests::process::succeed;

#[test]
fn every_licence_is_on_the_list() {
    let deny = deny();
    let allowed: BTreeSet<_> =
        deny["licenses"]["allow"].as_array().unwrap().iter().filter_map(|l| l.as_str()).collect();
    for package in built() {
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        let name = &package["name"];
        assert!(holds(&licence, &allowed), "{name} is under '{licence}', which deny.toml does not list");
    }
}

/// Whether an SPDX expression of ANDs, ORs and brackets can be met by these licences.
fn holds(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let expression = expression.trim();
    let top_level = |word: &str| {
        let mut depth = 0;
        expression.char_indices().find_map(|(at, c)| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            (depth == 0 && expression[at..].starts_with(word)).then_some(at)
        })
    };
    if let Some(at) = top_level(" OR ") {
        return holds(&expression[..at], allowed) || holds(&expression[at + 4..], allowed);
    }
    if let Some(at) = top_level(" AND ") {
        return holds(&expression[..at], allowed) && holds(&expression[at + 5..], allowed);
    }
    match expression.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
        Some(inner) => holds(inner, allowed),
        None => allowed.contains(expression),
    }
}

#[test]
fn no_crate_stands_twice_without_a_reason() {
    let deny = deny();
    let skipped: BTreeSet<_> =
        deny["bans"]["skip"].as_array().unwrap().iter().filter_map(|s| s["crate"].as_str()).collect();
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in built() {
        let text = |key: &str| package[key].as_str().unwrap_or_default().to_owned();
        versions.entry(text("name")).or_default().insert(text("version"));
    }
    for (name, versions) in versions {
        assert!(
            versions.len() == 1 || skipped.contains(name.as_str()),
            "{name} is built in versions {versions:?}: find out why, or give the reason in deny.toml"
        );
    }
}

/// What sends to the journal and to syslog is in control alone: not in the process that faces the internet.
#[test]
fn the_relay_links_neither_libsystemd_nor_syslog() {
    let tree = succeed(
        &mut cargo(&["tree", "--locked", "-p", "zone-relay", "-e", "normal", "--prefix", "none"]),
        b"",
    );
    assert!(tree.contains("zone-log "), "{tree}");
    for name in ["systemd ", "libsystemd-sys ", "syslog "] {
        assert!(!tree.lines().any(|line| line.starts_with(name)), "zone-relay depends on {name}:\n{tree}");
    }
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let reasons = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    for name in manifest["workspace"]["dependencies"].as_table().unwrap().keys() {
        assert!(
            name.starts_with("zone-") || reasons.contains(name.as_str()),
            "{name} has no line in docs/dependencies.md"
        );
    }
}

#[test]
fn every_test_that_a_requirement_names_is_there() {
    let requirements = std::fs::read_to_string(root().join("docs/requirements.md")).unwrap();
    let mut named = 0;
    for cited in requirements.split('`').filter_map(|text| text.split_once("::")) {
        let (file, test) = cited;
        let source = std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        // A case of the lab is named by how its sentence begins.
        let name = if file.starts_with("hwtests/") { format!("\"{test}") } else { format!("fn {test}(") };
        assert!(source.contains(&name), "{file} has no test {test}");
        named += 1;
    }
    assert!(named > 20, "only {named} tests are named");
}

#[test]
fn every_file_that_the_map_of_the_code_names_is_there() {
    let map = std::fs::read_to_string(root().join("docs/development.md")).unwrap();
    let rows = map.split_once("## Where is").expect("the map").1;
    let named: BTreeSet<_> = rows.split('`').filter(|text| text.strip_suffix(".rs").is_some()).collect();
    for file in &named {
        assert!(root().join(file).is_file(), "docs/development.md names {file}, which is not there");
    }
    assert!(named.len() > 20, "only {} files are named", named.len());
}

/// The packages that are compiled for this platform, for the programs or their tests.
fn built() -> Vec<Value> {
    let metadata = succeed(&mut cargo(&["metadata", "--format-version", "1", "--locked"]), b"");
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let tree =
        succeed(&mut cargo(&["tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}"]), b"");
    let in_tree: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
        })
        .collect();
    let packages = metadata["packages"].as_array().unwrap();
    let text = |package: &Value, key: &str| package[key].as_str().unwrap_or_default().to_owned();
    packages
        .iter()
        .filter(|package| in_tree.contains(&(text(package, "name"), text(package, "version"))))
        .cloned()
        .collect()
}

fn cargo(words: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(words).current_dir(root());
    command
}

fn deny() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).unwrap().parse().unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
