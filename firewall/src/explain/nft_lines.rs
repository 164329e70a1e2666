//! What nft itself prints for a deciding rule, for who wants to find it in a listing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use zone_firewall_protocol::{ExplainedRule, Explanation};

use crate::run::run;

/// How many chains nft is asked for.
const MAX_CHAINS: usize = 8;
/// The time after which it is asked for no more: nft takes seconds for a large chain, and whoever asked is waiting.
const NFT_TIMEOUT: Duration = Duration::from_secs(4);

/// Adds nft's own line to each deciding rule, or why there is none.
pub(super) fn add(explanation: &mut Explanation) {
    let deadline = Instant::now() + NFT_TIMEOUT;
    let mut listings: BTreeMap<[String; 3], Result<String, String>> = BTreeMap::new();
    for rule in explanation.cases.iter_mut().filter_map(|case| case.decided_by.as_mut()) {
        let Some(handle) = rule.handle else { continue };
        let chain = [rule.family.clone(), rule.table.clone(), rule.chain.clone()];
        let in_time = listings.len() < MAX_CHAINS && Instant::now() < deadline;
        if in_time || listings.contains_key(&chain) {
            let listing = listings.entry(chain).or_insert_with(|| listing(rule));
            rule.nft = Some(match listing {
                Ok(listing) => line(listing, handle),
                Err(why) => format!("nothing: {why}"),
            });
        }
    }
}

fn listing(rule: &ExplainedRule) -> Result<String, String> {
    let nft = zone_tool::find("nft").ok_or("there is no nft(8) on this host")?;
    let arguments = ["-a", "list", "chain", &rule.family, &rule.table, &rule.chain];
    let printed = run(&nft, &arguments, b"").map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&printed).into_owned())
}

fn line(listing: &str, handle: u64) -> String {
    let end = format!(" # handle {handle}");
    let found = listing.lines().find_map(|line| line.strip_suffix(&end));
    let text = found.map_or("nothing of its own for this rule", str::trim);
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_handle_is_its_own() {
        let listing = "table inet f { # handle 1\n\tchain in {\n\t\ttcp dport 22 drop # handle 13\n\t\tdrop # handle 3\n\t}\n}\n";
        assert_eq!(line(listing, 3), "drop");
        assert_eq!(line(listing, 13), "tcp dport 22 drop");
        assert_eq!(line(listing, 4), "nothing of its own for this rule");
    }
}
