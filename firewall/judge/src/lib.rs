//! What the rules of a host do with the first packet of a TCP connection, and which rule decides it.
//!
//! The packet is known in part: its protocol, its port and its flags are, its source often is not. Where a rule asks for what is
//! open (the source, the source's port, the address of ours that it goes to, its length), the packets are split into those
//! that match and those that don't, and both go on. Where nothing can decide (a rate, the time of day, a mark that
//! another program sets), both go on as well, each with the condition that it rests on. So each packet that was asked about is in
//! exactly one case of the answer, and no case is guessed.

mod answer;
mod host;
mod question;

pub use answer::{Answer, Case, Condition, Fate, Place, Reason, Step};
pub use host::{Host, HostError, Interface};
pub use question::{Question, Span};
