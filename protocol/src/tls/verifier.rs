//! Verifiers that look at the role, the zone and the deny-list *inside* the handshake.

mod admission;
mod deny_list;
mod expectation;
mod pinned;
mod signatures;
mod validity;

pub use admission::Admission;
pub use deny_list::DenyList;
pub use expectation::Expectation;
pub use pinned::Pinned;
