//! `cargo xtask firewall-oracle`: the judge of `zone-firewall` against the kernel, by random rulesets and real packets.

use std::process::Command;

use nix::unistd::Uid;

use crate::report::Result;
use crate::{children, tools, workspace};

/// How many rulesets are tried as a part of the tests.
pub(crate) const SHORT: u64 = 5000;

/// What is asked for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Wishes {
    /// How many random rulesets
    #[arg(long, default_value_t = 100_000)]
    pub(crate) rulesets: u64,
    /// The first ruleset's number; the same number makes the same ruleset
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Hold the deciding rules of so many rulesets against the kernel's traces, too
    #[arg(long, default_value_t = 0)]
    pub(crate) trace: u64,
    /// Try the whole of zone-firewall with so many rulesets, too
    #[arg(long, default_value_t = 0)]
    pub(crate) product: u64,
}

/// Builds what is needed, and runs it. Fails where judge and kernel disagree.
pub(crate) fn run(wishes: &Wishes) -> Result<()> {
    if !Uid::effective().is_root() {
        return Err("the oracle makes network namespaces, which only root may; run: sudo -E env PATH=\"$PATH\" cargo xtask firewall-oracle"
            .to_owned()
            .into());
    }
    tools::ensure(tools::ORACLE)?;
    build(wishes.product > 0)?;
    children::succeed(&mut command(wishes))
}

/// Optimised: it is the judge that takes the time.
fn build(with_product: bool) -> Result<()> {
    let oracle = ["build", "--quiet", "--release", "-p", "zone-hwtests", "--bin", "zone-firewall-oracle"];
    children::succeed(&mut workspace::cargo(&oracle))?;
    if with_product {
        children::succeed(&mut workspace::cargo(&["build", "--quiet", "--release", "-p", "zone-firewall"]))?;
    }
    Ok(())
}

fn command(wishes: &Wishes) -> Command {
    let programs = workspace::target().join("release");
    let mut oracle = Command::new(programs.join("zone-firewall-oracle"));
    let numbers = [
        ("--rulesets", wishes.rulesets),
        ("--seed", wishes.seed),
        ("--trace", wishes.trace),
        ("--product", wishes.product),
    ];
    for (name, number) in numbers {
        oracle.arg(name).arg(number.to_string());
    }
    oracle.arg("--program").arg(programs.join("zone-firewall"));
    oracle.arg("--out").arg(workspace::target().join("firewall-oracle"));
    oracle
}
