//! The relay on its own: a test plays control and both peers over real sockets and real TLS.

mod bench;

mod admission;
mod callers;
mod end;
mod expiry;
mod hand_over;
mod parks;
mod sessions;
mod supervision;
mod unruly;
