//! Which crate may depend on which: the table in README.md says so, and nothing else does.

use std::path::Path;

use super::markdown;
use crate::report::{Context, Result};

/// A crate of ours, and the crates of ours that its manifest names, those for tests included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its folder, from the checkout's top.
    pub(crate) folder: String,
    /// Whether it brings a program.
    pub(crate) has_program: bool,
    /// The folders of the crates that it depends on.
    pub(crate) needs: Vec<String>,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    folders: Vec<String>,
    may: Vec<Allowed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Allowed {
    Everything,
    Programs,
    Folder(String),
}

/// Reads what `cargo metadata --no-deps` says of packages that are below `root`.
pub(crate) fn packages(metadata: &str, root: &Path) -> Result<Vec<Package>> {
    let metadata: serde_json::Value =
        serde_json::from_str(metadata).or_fail(|| "can't read what cargo metadata says".to_owned())?;
    let below = |path: Option<&str>| {
        Some(Path::new(path?).strip_prefix(root).ok()?.display().to_string().trim_end_matches('/').to_owned())
    };
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let read = |package: &serde_json::Value| {
        let manifest = below(package["manifest_path"].as_str())?;
        Some(Package {
            name: package["name"].as_str()?.to_owned(),
            folder: manifest.strip_suffix("Cargo.toml")?.trim_end_matches('/').to_owned(),
            has_program: list(&package["targets"])
                .iter()
                .any(|target| list(&target["kind"]).iter().any(|kind| kind == "bin")),
            needs: list(&package["dependencies"])
                .iter()
                .filter_map(|needed| below(needed["path"].as_str()))
                .collect(),
        })
    };
    Ok(list(&metadata["packages"]).iter().filter_map(read).collect())
}

/// What the manifests do that the table does not allow, and what is wrong with the table, as lines for a person.
pub(crate) fn breaches(readme: &str, packages: &[Package]) -> Vec<String> {
    let (rules, mut lines) = read(readme, packages);
    if rules.is_empty() {
        return vec!["README.md has no table with a column 'folder' and a column 'may depend on'".to_owned()];
    }
    for package in packages {
        let covers = |folder: &str| {
            package.folder == folder
                || package.folder.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        let rule = rules
            .iter()
            .flat_map(|rule| rule.folders.iter().map(move |folder| (folder, rule)))
            .filter(|(folder, _)| covers(folder))
            .max_by_key(|(folder, _)| folder.len());
        let Some((_, rule)) = rule else {
            lines.push(format!("{}/ stands in no row of README.md's table", package.folder));
            continue;
        };
        for needed in &package.needs {
            let fits = |allowed: &Allowed| match allowed {
                Allowed::Everything => true,
                Allowed::Programs => packages.iter().any(|one| one.folder == *needed && one.has_program),
                Allowed::Folder(folder) => folder == needed,
            };
            if *needed != package.folder && !rule.may.iter().any(fits) {
                lines.push(format!(
                    "{}/ depends on {needed}/, which README.md does not allow",
                    package.folder
                ));
            }
        }
    }
    lines
}

/// The rows of the table, and what can't be understood in it.
fn read(readme: &str, packages: &[Package]) -> (Vec<Rule>, Vec<String>) {
    let (mut rules, mut wrong) = (Vec::new(), Vec::new());
    let mut columns = None;
    for row in markdown::rows(markdown::prose(readme)) {
        let column = |title: &str| row.iter().position(|cell| cell.eq_ignore_ascii_case(title));
        if let (Some(folder), Some(may)) = (column("folder"), column("may depend on")) {
            columns = Some((folder, may, row.len()));
            continue;
        }
        // Another table has begun where a row has another width.
        let Some((folder, may, _)) = columns.filter(|(_, _, width)| *width == row.len()) else {
            columns = None;
            continue;
        };
        let folders: Vec<_> = markdown::marked(row[folder], "`")
            .into_iter()
            .map(|name| name.trim_end_matches('/').to_owned())
            .collect();
        let (may, unknown) = allowed(row[may], packages);
        wrong.extend(unknown.into_iter().map(|word| {
            format!("README.md lets {} depend on '{word}', which is no crate of ours", folders.join(", "))
        }));
        rules.push(Rule { folders, may });
    }
    (rules, wrong)
}

/// A cell of the column "may depend on": folders, their last parts or names of crates, with commas in between.
fn allowed(cell: &str, packages: &[Package]) -> (Vec<Allowed>, Vec<String>) {
    let (mut may, mut unknown) = (Vec::new(), Vec::new());
    let words = cell.split([',', ';']).flat_map(|part| part.split(" and "));
    for word in words.map(|word| word.trim().trim_matches(['`', '.']).trim_end_matches('/')) {
        match word {
            "" | "-" => {}
            "everything" | "all" => may.push(Allowed::Everything),
            "programs" | "the programs" => may.push(Allowed::Programs),
            // "nothing of ours", "for their command lines"
            _ if word.starts_with("nothing") || word.starts_with("for ") => {}
            _ => match package(word, packages) {
                Some(package) => may.push(Allowed::Folder(package.folder.clone())),
                None => unknown.push(word.to_owned()),
            },
        }
    }
    (may, unknown)
}

/// The crate that a word means: by its folder, its name, or the last part of its folder if only one has that.
fn package<'a>(word: &str, packages: &'a [Package]) -> Option<&'a Package> {
    let exact = packages.iter().find(|package| package.folder == word || package.name == word);
    exact.or_else(|| {
        let mut ending = packages
            .iter()
            .filter(|package| package.folder.strip_suffix(word).is_some_and(|before| before.ends_with('/')));
        ending.next().filter(|_| ending.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
# Contributing

| folder | what | may depend on |
|---|---|---|
| `protocol/` | zone-protocol: words | nothing of ours |
| `daemon/log/`, `daemon/pairing/` | two | nothing at all |
| `daemon/relay/` | one | log, `daemon/pairing/`, zone-protocol |
| `packaging/` | `generate/` writes man pages | programs, for their command lines |
| `daemon/tests/` | tests | everything |
| `docs/` | this book | |

| command | what it does |
|---|---|
| `cargo xtask demo` | the demo |
";

    fn package(folder: &str, needs: &[&str]) -> Package {
        let name = format!("zone-{}", folder.rsplit('/').next().unwrap_or(folder));
        let has_program = folder == "daemon/relay";
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        Package { name, folder: folder.to_owned(), has_program, needs }
    }

    fn world(extra: Package) -> Vec<Package> {
        vec![package("protocol", &[]), package("daemon/log", &[]), package("daemon/pairing", &[]), extra]
    }

    #[test]
    fn what_the_table_names_is_allowed_in_each_way_of_naming_it() {
        let relay = package("daemon/relay", &["daemon/log", "daemon/pairing", "protocol"]);
        assert!(breaches(TABLE, &world(relay)).is_empty());
        let tests = package("daemon/tests", &["daemon/log", "protocol"]);
        assert!(breaches(TABLE, &world(tests)).is_empty());
    }

    #[test]
    fn what_the_table_does_not_name_is_told() {
        let mut packages = world(package("daemon/relay", &[]));
        packages[1].needs.push("protocol".into());
        assert_eq!(
            breaches(TABLE, &packages),
            ["daemon/log/ depends on protocol/, which README.md does not allow"]
        );
    }

    #[test]
    fn a_folder_within_one_of_the_table_is_covered_and_programs_are_those_that_bring_one() {
        let mut packages = world(package("daemon/relay", &[]));
        packages.push(package("packaging/generate", &["daemon/relay", "daemon/log"]));
        assert_eq!(
            breaches(TABLE, &packages),
            ["packaging/generate/ depends on daemon/log/, which README.md does not allow"]
        );
    }

    #[test]
    fn a_crate_without_a_row_and_a_word_that_is_no_crate_are_told() {
        let table = TABLE.replace("log, `daemon", "logs, `daemon");
        let mut packages = world(package("daemon/relay", &[]));
        packages.push(package("new", &[]));
        assert_eq!(
            breaches(&table, &packages),
            [
                "README.md lets daemon/relay depend on 'logs', which is no crate of ours",
                "new/ stands in no row of README.md's table"
            ]
        );
    }

    #[test]
    fn a_document_without_the_table_is_told() {
        assert_eq!(breaches("# Contributing\n", &world(package("daemon/relay", &[]))).len(), 1);
    }

    #[test]
    fn cargo_is_understood() {
        let metadata = r#"{"packages": [{"name": "zone-log", "manifest_path": "/w/daemon/log/Cargo.toml",
            "targets": [{"kind": ["lib"]}, {"kind": ["bin"]}],
            "dependencies": [{"name": "serde"}, {"name": "zone-sys", "path": "/w/sys"}]}]}"#;
        let read = packages(metadata, Path::new("/w")).expect("packages");
        let expected = Package { has_program: true, ..package("daemon/log", &["sys"]) };
        assert_eq!(read, [expected]);
    }
}
