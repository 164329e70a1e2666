//! Random rulesets of nftables, for whoever has an opinion about rulesets and wants to know where it is wrong.
//!
//! [`generate`] makes one from a number: the same number makes the same ruleset. [`batch`] puts many into one that can be
//! loaded at once, each behind a destination of its own. [`shrink`] takes away what a failure does not need. Nothing
//! here asks a kernel; rulesets are text for `nft -f`.
//!
//! ```
//! use zone_random_rulesets::{Destination, Shape, generate};
//!
//! let made = generate(17, Shape::Alone);
//! let text = made.ruleset.to_nft(&Destination::of(1));
//! assert!(text.contains("type filter hook"));
//! ```

mod batch;
mod grammar;
mod model;
mod shrink;

pub use batch::{DEEPEST_IN_A_BATCH, batch};
pub use grammar::{Generated, PORTS, Shape, generate};
pub use model::{Base, Chain, Destination, Family, Part, Rule, Ruleset, Set, Table};
pub use shrink::shrink;
