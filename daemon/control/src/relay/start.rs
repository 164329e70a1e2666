//! Starting a relay process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::rc::Rc;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::process::{Child, Command};
use zone_channel::{build, show_senders};

use crate::config::RelayOptions;
use crate::socket_file::SocketFile;

/// The relay beside control's own executable.
const PROGRAM: &str = "zone-relay";
/// What a relay may know of control's environment.
const ENVIRONMENT: [&str; 2] = ["RUST_BACKTRACE", "LANG"];

/// A relay that is about to say hello.
#[derive(Debug)]
pub struct Started {
    /// Control's end of the channel, which shows who sends ([`show_senders`]).
    pub channel: OwnedFd,
    /// The process, where it is control's own to wait for.
    pub child: Option<Child>,
}

/// How a relay comes to life.
pub trait Starter {
    /// Starts one.
    fn start(&self) -> io::Result<Started>;
    /// What is started, for errors.
    fn name(&self) -> String;
    /// Which build would be started now, see [`zone_channel::build`]; `None` where that can't be said.
    fn build(&self) -> Option<String> {
        None
    }
}

/// The relay's program: the one that the configuration names, or the one beside the own executable.
pub(crate) fn program(options: &RelayOptions) -> io::Result<PathBuf> {
    Program::new(&options.program).map(|program| program.0)
}

/// What the configuration wants.
pub fn starter(options: &RelayOptions) -> io::Result<Rc<dyn Starter>> {
    let program = Program::new(&options.program)?;
    if options.socket.as_os_str().is_empty() {
        return Ok(Rc::new(program));
    }
    Ok(Rc::new(Activated { socket: options.socket.clone(), program }))
}

/// A relay as a child process, with the channel as its standard input.
#[derive(Debug, Clone)]
pub struct Program(PathBuf);

impl Program {
    /// `path`, or the one beside the own executable where it is empty.
    pub fn new(path: &Path) -> io::Result<Self> {
        if path.as_os_str().is_empty() {
            return Ok(Self(std::env::current_exe()?.with_file_name(PROGRAM)));
        }
        Ok(Self(path.to_owned()))
    }
}

impl Starter for Program {
    fn start(&self) -> io::Result<Started> {
        let (own, relays) = UnixStream::pair()?;
        show_senders(&own)?;
        let mut command = Command::new(&self.0);
        command.env_clear().stdin(Stdio::from(OwnedFd::from(relays)));
        for name in ENVIRONMENT {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // A terminal's Ctrl-C is for control alone: it decides what becomes of its relays.
        command.process_group(0);
        // It is not to hold on to a directory, of control's least of all.
        command.current_dir("/");
        let child = command.spawn().map_err(|error| match error.kind() {
            // A confined control keeps the right to the very file that it found when it was started.
            io::ErrorKind::PermissionDenied => {
                io::Error::other(format!("{error}; if the program was replaced, start zone-proxy again"))
            }
            _ => error,
        })?;
        Ok(Started { child: Some(child), channel: own.into() })
    }

    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn build(&self) -> Option<String> {
        build::of_program(&self.0).ok()
    }
}

/// A relay that the service manager starts for a connection to its socket (systemd.socket(5), `Accept=yes`).
#[derive(Debug)]
struct Activated {
    socket: PathBuf,
    /// What the manager starts, to tell whether a relay is of an earlier build.
    program: Program,
}

impl Starter for Activated {
    fn start(&self) -> io::Result<Started> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // A manager that accepts nothing must not make control wait: then it fails, and is tried again.
        socket.set_nonblocking(true)?;
        show_senders(&socket)?;
        let file = SocketFile::open(&self.socket)?;
        socket.connect(&SockAddr::unix(file.path())?)?;
        Ok(Started { channel: socket.into(), child: None })
    }

    fn name(&self) -> String {
        format!("at {}", self.socket.display())
    }

    fn build(&self) -> Option<String> {
        self.program.build()
    }
}
