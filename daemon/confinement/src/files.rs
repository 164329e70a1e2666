//! Files: none. Landlock (landlock(7)) asks for no privilege, and holds where the path of a file is found out.

use std::fs::File;
use std::io::{self, ErrorKind};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetError, RulesetStatus, Scope,
};
use rustix::io::Errno;

/// The newest that is known here. What a kernel does not have yet is left out.
const NEWEST: ABI = ABI::V10;

/// What came of [`deny_files`], found out by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Nothing can be opened any more.
    Denied {
        /// The kernel's version of landlock.
        abi: u32,
    },
    /// The kernel has no landlock, or was started without it.
    NotInKernel,
    /// It has it, and it could not be used.
    Failed(String),
}

impl std::fmt::Display for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Denied { abi } => write!(f, "ABI {abi}, denied"),
            Self::NotInKernel => f.write_str("not in this kernel"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// From now on this thread, and all that it starts, opens no file and runs no program; and where the kernel's landlock
/// is new enough, it connects to nothing and sends no signal. What is open stays so.
pub fn deny_files() -> Files {
    let abi = match zone_sys::landlock_abi() {
        Ok(abi) => abi,
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOSYS | Errno::OPNOTSUPP) => return Files::NotInKernel,
            _ => return Files::Failed(name(&error)),
        },
    };
    match restrict() {
        Ok(RulesetStatus::NotEnforced) => Files::NotInKernel,
        Ok(_) => tried(abi),
        Err(error) => Files::Failed(error.to_string()),
    }
}

fn restrict() -> Result<RulesetStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    Ok(ruleset.create()?.restrict_self()?.ruleset)
}

/// Nothing of the kernel's shows whether it holds, but for what it does.
fn tried(abi: u32) -> Files {
    match File::open("/") {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Files::Denied { abi },
        Err(error) => Files::Failed(format!("/ can't be opened, but for another reason: {error}")),
        Ok(_) => Files::Failed("/ can still be opened".to_owned()),
    }
}

fn name(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::PERM) => "EPERM".to_owned(),
        Some(Errno::ACCESS) => "EACCES".to_owned(),
        _ => error.to_string(),
    }
}
