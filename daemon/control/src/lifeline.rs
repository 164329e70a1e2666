//! The lifeline: a pipe that the service manager keeps open for as long as it means to have a control
//! (`FileDescriptorStoreMax=`, systemd.service(5)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, pipe_with};
use zone_service_manager::ServiceManager;

/// The descriptors in the manager's store: both ends of the pipe.
const WRITER: &str = "lifeline";
const READER: &str = "lifeline-reader";

/// The pipe by which relays know of a real stop, see [`zone_channel::Configure::lifeline`]. The manager holds it
/// open from the first control to the stop of the service, over every restart in between.
#[derive(Debug)]
pub struct Lifeline {
    /// The end that each relay gets a copy of: its end of file is the real stop.
    pub(crate) reader: OwnedFd,
    /// To be held by control, and by nobody else but the manager.
    pub(crate) writer: OwnedFd,
}

impl Lifeline {
    /// The one that the manager kept, or a new one that it is given to keep. `passed` is what it passed on.
    pub fn take(manager: &ServiceManager, passed: Vec<(String, OwnedFd)>) -> io::Result<Self> {
        let (mut reader, mut writer) = (None, None);
        for (name, descriptor) in passed {
            match name.as_str() {
                READER => reader = Some(descriptor),
                WRITER => writer = Some(descriptor),
                _ => tracing::warn!(name, "the service manager passed a descriptor that nobody here knows"),
            }
        }
        if let (Some(reader), Some(writer)) = (reader, writer) {
            return Ok(Self { reader, writer });
        }
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        manager.keep(READER, &reader);
        manager.keep(WRITER, &writer);
        Ok(Self { reader, writer })
    }
}
