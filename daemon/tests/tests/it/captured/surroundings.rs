//! What a captured process could want to reach: servers, a file, a program, another process. Each notices it.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Pid;
use tempfile::TempDir;
use zone_tests::{address, folder};

/// For what was sent to arrive.
const ARRIVAL_DELAY: Duration = Duration::from_millis(20);
/// The families of addresses, as the kernel's headers number them.
const AF_UNIX: u16 = 1;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// What is in the file.
const SECRET: &str = "nothing of the relay's";

/// See the module.
pub(crate) struct Surroundings {
    folder: TempDir,
    v4: TcpListener,
    v6: TcpListener,
    stream: UnixListener,
    datagram: UnixDatagram,
    /// A process of the same user: another relay.
    pub(crate) other: Pid,
}

impl Surroundings {
    /// Servers and a file that anybody may use, and this process.
    pub(crate) fn new(other: Pid) -> Self {
        let folder = folder();
        let open = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o666));
        let path = |name: &str| folder.path().join(name);
        let tcp = |address: SocketAddr| -> io::Result<TcpListener> {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let v4 = tcp((address(), 0).into()).expect("a server");
        let v6 = tcp((Ipv6Addr::LOCALHOST, 0).into()).expect("a server");
        let stream = UnixListener::bind(path("stream")).expect("a server");
        let datagram = UnixDatagram::bind(path("datagram")).expect("a server");
        stream.set_nonblocking(true).expect("ours");
        datagram.set_nonblocking(true).expect("ours");
        std::fs::write(path("file"), SECRET).expect("a file");
        for name in ["stream", "datagram", "file"] {
            open(&path(name)).expect("ours");
        }
        Self { folder, v4, v6, stream, datagram, other }
    }

    /// One of `stream`, `datagram` and `file`.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The IPv4 server, as connect(2) has it.
    pub(crate) fn v4(&self) -> Vec<u8> {
        let SocketAddr::V4(address) = self.v4.local_addr().expect("bound") else { unreachable!() };
        [&AF_INET.to_ne_bytes()[..], &address.port().to_be_bytes(), &address.ip().octets(), &[0; 8]].concat()
    }

    /// The IPv6 server.
    pub(crate) fn v6(&self) -> Vec<u8> {
        let SocketAddr::V6(address) = self.v6.local_addr().expect("bound") else { unreachable!() };
        [&AF_INET6.to_ne_bytes()[..], &address.port().to_be_bytes(), &[0; 4], &address.ip().octets(), &[0; 4]]
            .concat()
    }

    /// The address of the Unix server of this name.
    pub(crate) fn unix(&self, name: &str) -> Vec<u8> {
        [&AF_UNIX.to_ne_bytes(), self.path(name).as_os_str().as_encoded_bytes(), b"\0"].concat()
    }

    /// Which of them were reached since it was last asked.
    pub(crate) fn reached(&self) -> Vec<&'static str> {
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
        if std::fs::read_to_string(self.path("file")).expect("the file") != SECRET {
            std::fs::write(self.path("file"), SECRET).expect("the file");
            reached.push("the file");
        }
        if !Path::new(&format!("/proc/{}/exe", self.other)).exists() {
            reached.push("the other process");
        }
        reached
    }
}
