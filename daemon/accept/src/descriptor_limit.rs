//! The limit of descriptors (`RLIMIT_NOFILE`, getrlimit(2)): every connection takes one.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns it; `None` is no limit. The soft limit of most systems, 1,024, is
/// for programs that use select(2); the hard one is the admin's word.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Ok(maximum)
}
