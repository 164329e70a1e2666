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
pub mod process;
pub mod report;
pub mod roots;
pub mod run;
pub mod suite;
pub mod target;
pub mod terminal;
pub mod world;

pub use check::tcp_probe;
pub use command::{Cmd, Output};
pub use description::{Host, Kind, Nic, Topology};
pub use error::{Context, Error, Result};
pub use process::Process;
pub use suite::{Case, Expected, Need, Places, Scene, Suite};
pub use target::{Probe, Target};
pub use terminal::Terminal;
pub use world::World;
