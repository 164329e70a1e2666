//! Reads this host's rules and prints them as they are kept: all of them with `--all`, else how many there are and what is not
//! understood. With `--record`, writes the kernel's messages instead, for `zone_ruleset::decode`.

use std::io::Write as _;

use zone_ruleset::{Expr, Reader, XtMatch, XtTarget};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut reader = Reader::open()?;
    if std::env::args().any(|argument| argument == "--record") {
        std::io::stdout().write_all(&reader.record()?)?;
        return Ok(());
    }
    let ruleset = reader.ruleset()?;
    if std::env::args().any(|argument| argument == "--all") {
        println!("{ruleset:#?}");
        return Ok(());
    }
    let elements: usize =
        ruleset.tables.iter().flat_map(|table| &table.sets).map(|set| set.elements.len()).sum();
    println!(
        "generation {}: {} tables, {} rules, {elements} elements, {} hooked",
        ruleset.generation,
        ruleset.tables.len(),
        ruleset.rules(),
        ruleset.hooked.len()
    );
    for table in &ruleset.tables {
        for chain in &table.chains {
            for rule in &chain.rules {
                for expr in &rule.exprs {
                    let unknown = match expr {
                        Expr::Unknown { name, destination } => {
                            format!("expression {name}, loads {destination:?}")
                        }
                        Expr::XtMatch { name, revision, what: XtMatch::Other } => {
                            format!("match {name} revision {revision}")
                        }
                        Expr::XtTarget { name, revision, what: XtTarget::Other } => {
                            format!("target {name} revision {revision}")
                        }
                        _ => continue,
                    };
                    println!(
                        "not understood: {unknown} ({} {} {} handle {})",
                        table.family, table.name, chain.name, rule.handle
                    );
                }
            }
        }
    }
    Ok(())
}
