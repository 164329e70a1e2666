//! Changes of the state: each is done whole or undone, one at a time, and goes on when its client goes away.

mod change;
mod error;
mod identity;
mod offer;
mod provision;
mod token;
mod trust;
mod unprovision;
mod validate;

pub use change::Actor;
pub use error::{ChangeError, Step, StepError};
