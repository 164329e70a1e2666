//! What is asked of the firewall broker, and what it answers.
//!
//! One connection to [`SOCKET`] carries one request and one answer, each a line of JSON of at most [`MAX_LINE_BYTES`]
//! bytes. The broker reads who asks from the kernel (`SO_PEERCRED`, unix(7)), so nothing in a request says it.

pub mod client;
mod destination;
mod explain;
mod message;
mod parse;

pub use destination::{Destination, DestinationError, Transport};
pub use explain::{
    ExplainedCase, ExplainedCondition, ExplainedRule, ExplainedStep, Explanation, HardwareAddress,
    NoHardwareAddress, PacketQuestion, PacketVerdict, Reachability,
};
pub use message::{
    Answer, ExportFormat, Finding, FindingKind, Level, MAX_LINE_BYTES, PortRule, Purpose, Request, SOCKET,
    WatchMode, WatchReport,
};
pub use parse::{RequestError, parse_request};
