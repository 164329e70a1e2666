//! What a captured process could want to reach: servers, a file, a program, another process. Each notices it.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// For what was sent to arrive, and for a signal to act.
const ARRIVAL_DELAY: Duration = Duration::from_millis(20);
/// The families of addresses, as the kernel's headers number them.
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// What is in the file.
const SECRET: &str = "nothing of the process' own";
/// What a program does that is another process.
const OTHER: [&str; 2] = ["sleep", "3600"];

/// A user of the host, by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Surroundings {
    folder: TempDir,
    v4: TcpListener,
    v6: TcpListener,
    stream: UnixListener,
    datagram: UnixDatagram,
    user: User,
    other: Child,
}

impl Surroundings {
    /// Servers and a file that anybody may use, in a folder below this one, and a process of this user.
    pub fn new(below: &Path, address: IpAddr, user: User) -> Self {
        let folder = tempfile::tempdir_in(below).expect("a folder");
        let open =
            |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
        open(folder.path(), 0o755);
        let path = |name: &str| folder.path().join(name);
        let tcp = |address: SocketAddr| -> io::Result<TcpListener> {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let v4 = tcp((address, 0).into()).expect("a server");
        let v6 = tcp((Ipv6Addr::LOCALHOST, 0).into()).expect("a server");
        let stream = UnixListener::bind(path("stream")).expect("a server");
        let datagram = UnixDatagram::bind(path("datagram")).expect("a server");
        stream.set_nonblocking(true).expect("ours");
        datagram.set_nonblocking(true).expect("ours");
        std::fs::write(path("file"), SECRET).expect("a file");
        for name in ["stream", "datagram", "file"] {
            open(&path(name), 0o666);
        }
        Self { folder, v4, v6, stream, datagram, user, other: other(user) }
    }

    /// One of `stream`, `datagram` and `file`.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The other process.
    pub fn other(&self) -> u32 {
        self.other.id()
    }

    /// The IPv4 server, as connect(2) has it.
    pub fn v4(&self) -> Vec<u8> {
        let SocketAddr::V4(address) = self.v4.local_addr().expect("bound") else { unreachable!() };
        [&AF_INET.to_ne_bytes()[..], &address.port().to_be_bytes(), &address.ip().octets(), &[0; 8]].concat()
    }

    /// The IPv6 server.
    pub fn v6(&self) -> Vec<u8> {
        let SocketAddr::V6(address) = self.v6.local_addr().expect("bound") else { unreachable!() };
        [&AF_INET6.to_ne_bytes()[..], &address.port().to_be_bytes(), &[0; 4], &address.ip().octets(), &[0; 4]]
            .concat()
    }

    /// The address of the Unix server of this name.
    pub fn unix(&self, name: &str) -> Vec<u8> {
        [&AF_UNIX.to_ne_bytes(), self.path(name).as_os_str().as_encoded_bytes(), b"\0"].concat()
    }

    /// Which of them were reached since it was last asked.
    pub fn reached(&mut self) -> Vec<&'static str> {
        std::thread::sleep(ARRIVAL_DELAY);
        let came = |result: io::Result<()>| match result {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
                false
            }
        };
        let mut reached = Vec::new();
        let mut note = |what, result| reached.extend(came(result).then_some(what));
        note("the IPv4 server", self.v4.accept().map(drop));
        note("the IPv6 server", self.v6.accept().map(drop));
        note("the Unix stream server", self.stream.accept().map(drop));
        note("the Unix datagram server", self.datagram.recv(&mut [0; 64]).map(drop));
        if std::fs::read_to_string(self.path("file")).ok().as_deref() != Some(SECRET) {
            std::fs::write(self.path("file"), SECRET).expect("the file");
            reached.push("the file");
        }
        if self.other.try_wait().is_ok_and(|ended| ended.is_some()) {
            self.other = other(self.user);
            reached.push("the other process");
        }
        reached
    }
}

impl Drop for Surroundings {
    fn drop(&mut self) {
        let _ = self.other.kill();
        let _ = self.other.wait();
    }
}

fn other(user: User) -> Child {
    let [program, argument] = OTHER;
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.uid(user.uid).gid(user.gid).spawn().expect("another process")
}
