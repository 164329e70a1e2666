//! The installer as its users meet it: signatures by the real minisign, the menu at a real terminal, the programs.

mod machine;
mod menu;
mod packages;
mod programs;
mod ssh;
mod support;
