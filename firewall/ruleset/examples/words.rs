//! Prints this host's rules in words, each behind its chain and handle.

use zone_ruleset::{Reader, words};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ruleset = Reader::open()?.ruleset()?;
    for table in &ruleset.tables {
        for chain in table.chains.iter().filter(|chain| !chain.anonymous) {
            for rule in &chain.rules {
                println!(
                    "{} handle {}: {}",
                    words::chain(chain, table),
                    rule.handle,
                    words::rule(rule, table)
                );
            }
        }
    }
    Ok(())
}
