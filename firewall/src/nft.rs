//! nft(8) and iptables-save(8): how rulesets are read and changed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use nftables::schema::{NfObject, Nftables};
use serde_json::Value;

use crate::ruleset::{Ruleset, TAG};
use crate::run::{RunError, run};

/// The ruleset can't be read or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NftError {
    /// There is no nft.
    #[error("there is no nft(8) on this host: install the package nftables")]
    NoTool,
    /// The kernel has no nftables, or does not let us.
    #[error(
        "nftables can't be used on this host: {0}; the kernel needs nf_tables, and the caller CAP_NET_ADMIN"
    )]
    NoKernel(RunError),
    /// What nft printed is no JSON.
    #[error("nft printed a ruleset that can't be read: {0}; an nft that was built with JSON is needed")]
    Unreadable(serde_json::Error),
    /// The transaction was refused, and nothing of it took effect.
    #[error("the kernel refused the change of rules, and none was made: {0}")]
    Refused(RunError),
    /// iptables-save did not answer.
    #[error("the rules of iptables can't be read: {0}")]
    Iptables(RunError),
}

/// The whole ruleset, rules of ours recognised also where iptables has rewritten them.
pub(crate) fn list() -> Result<Ruleset, NftError> {
    let printed = run(&program()?, &["-j", "list", "ruleset"], b"").map_err(NftError::NoKernel)?;
    let listing: Value = if printed.iter().all(u8::is_ascii_whitespace) {
        Value::Null
    } else {
        serde_json::from_slice(&printed).map_err(NftError::Unreadable)?
    };
    let mut live = Ruleset::parse(&listing);
    recognise(&mut live)?;
    Ok(live)
}

/// Carries out all commands or none.
pub(crate) fn transact(commands: Vec<NfObject<'static>>) -> Result<(), NftError> {
    let document = Nftables { objects: Cow::Owned(commands) };
    transact_raw(&serde_json::to_value(document).map_err(NftError::Unreadable)?)
}

/// The same for a document that holds what nft itself has listed.
pub(crate) fn transact_raw(document: &Value) -> Result<(), NftError> {
    run(&program()?, &["-j", "-f", "-"], document.to_string().as_bytes()).map_err(NftError::Refused)?;
    Ok(())
}

/// nft is looked for each time, so that a broker that lacks it says so to whoever asks.
fn program() -> Result<PathBuf, NftError> {
    zone_tool::find("nft").ok_or(NftError::NoTool)
}

/// Takes from iptables-save what nft prints only by name: the comments of rules that iptables-restore has loaded, and
/// which kind of address a rule is about.
fn recognise(live: &mut Ruleset) -> Result<(), NftError> {
    let mut printed: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for chain in &mut live.chains {
        if !chain.rules.iter().any(|rule| rule.may_hide_a_comment() || rule.is_about_addresses()) {
            continue;
        }
        let table = (chain.family.clone(), chain.table.clone());
        if !printed.contains_key(&table) {
            printed.insert(table.clone(), iptables_save(&table.0, &table.1)?);
        }
        let prefix = format!("-A {} ", chain.name);
        let lines: Vec<_> = printed[&table].iter().filter(|line| line.starts_with(&prefix)).collect();
        // Each rule is one line, in the same order; anything else can't be trusted.
        if lines.len() == chain.rules.len() {
            for (rule, line) in chain.rules.iter_mut().zip(lines) {
                if rule.may_hide_a_comment() {
                    rule.comment = tag_in(line);
                }
                if let Some(kind) =
                    line.split_once(" --dst-type ").and_then(|(_, after)| after.split(' ').next())
                    && !line.contains("-src-type ")
                    && !line.contains("! --dst-type ")
                    && !line.contains("--limit-iface")
                {
                    rule.set_destination_kind(kind);
                }
            }
        }
    }
    Ok(())
}

fn iptables_save(family: &str, table: &str) -> Result<Vec<String>, NftError> {
    let names = match family {
        "ip" => ["iptables-nft-save", "iptables-save"],
        "ip6" => ["ip6tables-nft-save", "ip6tables-save"],
        _ => return Ok(Vec::new()),
    };
    let Some(program) = names.into_iter().find_map(zone_tool::find) else { return Ok(Vec::new()) };
    let printed = run(&program, &["-t", table], b"").map_err(NftError::Iptables)?;
    Ok(String::from_utf8_lossy(&printed).lines().map(str::to_owned).collect())
}

/// Our tag in a line of iptables-save.
fn tag_in(line: &str) -> Option<String> {
    let (_, after) = line.split_once("--comment \"")?;
    let (comment, _) = after.split_once('"')?;
    comment.starts_with(TAG).then(|| comment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_tag_is_taken_from_a_line_of_iptables_save() {
        let line =
            |comment: &str| format!("-A INPUT -p tcp --dport 1 -m comment --comment {comment} -j ACCEPT");
        assert_eq!(tag_in(&line("\"zone-proxy: control\"")).as_deref(), Some("zone-proxy: control"));
        assert_eq!(tag_in(&line("\"ssh of zone-proxy: x\"")), None);
        assert_eq!(tag_in(&line("ssh")), None);
    }
}
