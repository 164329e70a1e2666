//! Files: none, or a few. Landlock (landlock(7)) asks for no privilege, and holds where the path of a file is found out.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};
use rustix::io::Errno;

/// The newest that is known here. What a kernel does not have yet is left out.
const NEWEST: ABI = ABI::V10;
/// The newest whose rights to files are given out here. Later ones ask for a rule for each Unix socket.
const NEWEST_OF_KEPT: ABI = ABI::V8;

/// What a process keeps that gives up all other files. What is missing when it does stays closed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kept {
    /// Files, and directories with all that is in them, to be read.
    pub read: Vec<PathBuf>,
    /// Directories in which it reads, writes, makes and removes files, directories, links and sockets.
    pub change: Vec<PathBuf>,
    /// Programs that it may execute.
    pub execute: Vec<PathBuf>,
    /// TCP ports to which it may connect, of any address, from ABI 4 on.
    pub ports: Vec<u16>,
    /// Whether it may signal processes that it did not start.
    pub signals: bool,
}

/// What came of [`deny_files`] or [`restrict_files`], found out by trying.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// Nothing can be opened any more.
    Denied {
        /// The kernel's version of landlock.
        abi: u32,
    },
    /// Nothing can be opened any more but what is kept.
    Restricted {
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
            Self::Restricted { abi } => write!(f, "ABI {abi}, restricted"),
            Self::NotInKernel => f.write_str("not in this kernel"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// From now on this thread, and all that it starts, opens no file and runs no program; and where the kernel's landlock
/// is new enough, it connects to nothing and sends no signal. What is open stays so.
pub fn deny_files() -> Files {
    tried(deny, |abi| Files::Denied { abi })
}

/// The same but for what is kept. It may listen on any port; and to a Unix socket that has a path it may connect, which
/// landlock does not tell from others before ABI 9.
pub fn restrict_files(kept: &Kept) -> Files {
    tried(|| restrict(kept), |abi| Files::Restricted { abi })
}

fn deny() -> Result<RulesetStatus, RulesetError> {
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    Ok(ruleset.create()?.restrict_self()?.ruleset)
}

fn restrict(kept: &Kept) -> Result<RulesetStatus, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let made = AccessFs::MakeDir | AccessFs::MakeReg | AccessFs::MakeSock | AccessFs::MakeSym;
    let removed = AccessFs::RemoveFile | AccessFs::RemoveDir;
    let change = read | made | removed | AccessFs::WriteFile | AccessFs::Truncate;
    let execute = AccessFs::ReadFile | AccessFs::Execute;
    let mut scopes: BitFlags<Scope> = Scope::AbstractUnixSocket.into();
    if !kept.signals {
        scopes |= Scope::Signal;
    }
    let ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST_OF_KEPT))?
        .handle_access(AccessNet::ConnectTcp)?
        .scope(scopes)?
        .create()?
        .add_rules(path_beneath_rules(&kept.read, read))?
        .add_rules(path_beneath_rules(&kept.change, change))?
        .add_rules(path_beneath_rules(&kept.execute, execute))?
        .add_rules(
            kept.ports.iter().map(|port| Ok::<_, RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))),
        )?;
    Ok(ruleset.restrict_self()?.ruleset)
}

/// Gives up files, where the kernel can, and looks whether it holds.
fn tried(
    give_up: impl FnOnce() -> Result<RulesetStatus, RulesetError>,
    given_up: impl FnOnce(u32) -> Files,
) -> Files {
    let abi = match zone_sys::landlock_abi() {
        Ok(abi) => abi,
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOSYS | Errno::OPNOTSUPP) => return Files::NotInKernel,
            _ => return Files::Failed(name(&error)),
        },
    };
    match give_up() {
        Ok(RulesetStatus::NotEnforced) => return Files::NotInKernel,
        Ok(_) => {}
        Err(error) => return Files::Failed(error.to_string()),
    }
    // Nothing of the kernel's shows whether it holds, but for what it does.
    match File::open("/") {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => given_up(abi),
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
