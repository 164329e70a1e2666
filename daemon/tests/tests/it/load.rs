//! Load: sessions through all that an admin does, floods of hostile connections, thousands of endpoints, readers that stall,
//! directions that end by themselves, keystrokes beside copies, a revocation.
//!
//! Memory is that of the relay as the kernel counts it, and means something with a release build only.

mod descriptors;
mod generations;
mod half_close;
mod hostile;
mod keystrokes;
mod limits;
mod memory;
mod peers;
mod revocation;
mod stalled;
mod storm;
mod thousands;
