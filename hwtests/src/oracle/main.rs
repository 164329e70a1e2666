//! `zone-firewall-oracle`: the firewall's judge against the kernel, by random rulesets and real packets.
//!
//! `verdicts` runs it: `zone-random-rulesets` makes rulesets, `ground` loads them and sends packets, `opinion` asks the
//! judge and compares, `trace` does so for the deciding rule, `failure` makes the smallest case of a
//! disagreement. `product` tries the whole of `zone-firewall` instead.

mod error;
mod failure;
mod ground;
mod netlink;
mod opinion;
mod product;
mod syn;
mod tally;
mod trace;
mod verdicts;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use crate::error::Context as _;
use crate::ground::Tracing;
use crate::verdicts::Wishes;

/// Holds the judge of zone-firewall against the kernel: exit 1 where they disagree
#[derive(Debug, Parser)]
#[command(name = "zone-firewall-oracle")]
struct Cli {
    /// How many random rulesets
    #[arg(long, default_value_t = 5000)]
    rulesets: u64,
    /// The first ruleset's number; the same number makes the same ruleset
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Packets for each ruleset
    #[arg(long, default_value_t = 50)]
    syns: usize,
    /// Load each one of so many by itself; the others are loaded in batches, which have no nat, ingress, dormant tables or answers
    #[arg(long, default_value_t = 30)]
    alone: u64,
    /// Hold the deciding rules of so many rulesets against the kernel's traces, too
    #[arg(long, default_value_t = 0)]
    trace: u64,
    /// Try the whole of zone-firewall with so many rulesets, too
    #[arg(long, default_value_t = 0)]
    product: u64,
    /// The program zone-firewall for that
    #[arg(long, default_value = "target/debug/zone-firewall")]
    program: PathBuf,
    /// Where disagreements are written
    #[arg(long, default_value = "target/firewall-oracle")]
    out: PathBuf,
    /// Threads; as many as there are processors if 0
    #[arg(long, default_value_t = 0)]
    workers: usize,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("zone-firewall-oracle: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> error::Result<bool> {
    let workers = match cli.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    };
    let mut good = true;
    for (what, rulesets, tracing) in
        [("verdicts", cli.rulesets, Tracing::Off), ("deciding rules", cli.trace, Tracing::On)]
    {
        if rulesets == 0 {
            continue;
        }
        let wishes = Wishes {
            rulesets,
            seed: cli.seed,
            syns: cli.syns,
            alone: cli.alone.max(1),
            tracing,
            out: cli.out.clone(),
            workers,
        };
        let begin = Instant::now();
        let tally = verdicts::run(&wishes)?;
        println!("{what}\n{}\n", tally.text(begin.elapsed()));
        good &= tally.is_good();
    }
    if cli.product > 0 {
        let program = std::path::absolute(&cli.program);
        let wishes = product::Wishes {
            rulesets: cli.product,
            seed: cli.seed,
            program: program.during(|| format!("{}", cli.program.display()))?,
            out: cli.out.clone(),
            workers,
        };
        let begin = Instant::now();
        let faults = product::run(&wishes)?;
        println!("the whole product\n{}in {:.1} s", faults.text(), begin.elapsed().as_secs_f64());
        good &= faults.is_good();
    }
    Ok(good)
}
