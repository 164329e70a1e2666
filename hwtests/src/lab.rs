//! The lab: hosts, NICs and links made from one description, and suites that run in them.

pub mod check;
pub mod cleanup;
pub mod command;
pub mod description;
pub mod error;
mod files;
mod netns;
mod network;
mod nspawn;
pub mod picture;
mod places;
mod play;
pub mod process;
mod record;
pub mod report;
pub mod roots;
pub mod run;
mod scene;
pub mod suite;
pub mod target;
pub mod terminal;
pub mod world;

pub use check::tcp_probe;
pub use command::{Cmd, Output};
pub use description::{Host, Kind, Nic, Topology};
pub use error::{Context, Error, Result};
pub use places::Places;
pub use process::Process;
pub use record::{Entry, Outcome};
pub use scene::{Expected, Scene};
pub use suite::{Case, Need, Suite};
pub use target::{Probe, Target};
pub use terminal::Terminal;
pub use world::World;
