//! How control and relay talk: the messages, the frames around them, and the Unix socket that carries both messages and
//! descriptors.
//!
//! control starts a relay with the socket as its standard input and sends [`ToRelay::Configure`] with the
//! listening sockets. One of the descriptors is a Unix listener of the relay's own, the *rendezvous*: a control
//! that was restarted connects there, is greeted with what the relay is doing, takes the listening sockets back
//! and sends the whole policy again. So a relay outlives control with or without a supervisor that keeps
//! descriptors.
//!
//! control does not trust a relay: what comes is bounded by direction, descriptors come with the messages that carry
//! them and with no other, the kernel says which process sends ([`show_senders`]), and no sending waits for ever.

pub mod build;
pub mod end;
pub mod frame;
pub mod message;
pub mod note;
mod settings;
pub mod socket;

pub use message::{
    Configure, FromRelay, HANDS_OVER, Identity, KeyPair, KnownEndpoint, LISTS_SESSIONS, ListenerInfo,
    Message, OnStop, OpenSession, Policy, Query, READS_RETIRED, RelayState, Reply, TAKES_NOTES, ToRelay,
};
pub use note::Note;
pub use socket::{ChannelError, Receiver, Sender, SenderProcess, pair, show_senders};
