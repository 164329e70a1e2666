//! Rules that nft and iptables have loaded are read from the kernel as they are executed.

mod changing;
mod containers;
mod expressions;
mod extensions;
mod limits;
mod namespace;
mod subscription;
