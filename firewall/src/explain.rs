//! `explain`: what the live rules do with a packet, and which rule decides it.
//!
//! `answer` asks the judge and puts its answer into words, `file` has the kernel take a ruleset that isn't this host's,
//! `nft_lines` asks nft for its own words, and `text` is the answer for people.

mod answer;
mod arguments;
mod file;
mod nft_lines;
mod text;

use std::path::Path;

pub(crate) use arguments::Arguments;
pub(crate) use text::lines;
use zone_firewall_protocol::{Explanation, PacketQuestion, Reachability};
use zone_judge::Host;
use zone_ruleset::Reader;

/// It can't be said what becomes of a packet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExplainError {
    /// The rules can't be read.
    #[error(transparent)]
    Rules(#[from] zone_ruleset::ReadError),
    /// The devices and addresses can't be read.
    #[error(transparent)]
    Host(#[from] zone_judge::HostError),
    /// What was asked can't be.
    #[error(transparent)]
    Question(#[from] answer::QuestionError),
    /// A file with rules can't be used.
    #[error(transparent)]
    File(#[from] file::FileError),
}

/// What the live rules of this host do with a packet.
pub(crate) fn explain(question: &PacketQuestion) -> Result<Explanation, ExplainError> {
    explain_on(question, &Host::read()?)
}

/// What the rules of a file would do with a packet on this host: they are loaded into a network namespace that only this
/// thread has. The thread stays there.
pub(crate) fn explain_file(question: &PacketQuestion, rules: &Path) -> Result<Explanation, ExplainError> {
    let host = Host::read()?;
    file::load_apart(rules, &host)?;
    explain_on(question, &host)
}

fn explain_on(question: &PacketQuestion, host: &Host) -> Result<Explanation, ExplainError> {
    let ruleset = Reader::open()?.ruleset()?;
    let mut explanation = answer::explanation(question, &ruleset, host)?;
    if question.nft {
        nft_lines::add(&mut explanation);
    }
    Ok(explanation)
}

/// The exit code for an answer: 0 open, 1 shut, 3 unknown.
pub(crate) fn exit_code(explanation: &Explanation) -> u8 {
    match explanation.reachability {
        Reachability::Open => 0,
        Reachability::Shut => 1,
        Reachability::Unknown => 3,
    }
}
