//! Where the demo's files are, and on which ports its programs listen.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

/// Where the Module Server provisions the proxy. Every installation has this number.
pub(crate) const PROVISIONING: u16 = 17488;
/// Where endpoints dial in.
pub(crate) const ENDPOINTS: u16 = 17486;
/// Where the Module Server asks for sessions.
pub(crate) const SESSIONS: u16 = 17487;
/// The endpoint of the story.
pub(crate) const ENDPOINT: &str = "outpost-7";
/// How long programs get to end by themselves.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(3);
const SSHD: u16 = 2222;
const WEB: u16 = 8080;

/// One run of the demo: its directory, and the N of its addresses 127.88.N.x.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Holds everything that the run writes.
    pub(crate) dir: PathBuf,
    /// Tells runs apart that happen at once.
    pub(crate) net: u8,
}

impl Plan {
    /// One of the product's programs.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join("bin").join(name)
    }

    /// The zone's certificate authority, as `zone-module` keeps it.
    pub(crate) fn zone(&self) -> PathBuf {
        self.dir.join("zone")
    }

    /// What the programs say.
    pub(crate) fn logs(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The rows of the table so far.
    pub(crate) fn rows(&self) -> PathBuf {
        self.dir.join("rows")
    }

    /// Why the run failed, once it has.
    pub(crate) fn failure(&self) -> PathBuf {
        self.dir.join("failure")
    }

    /// Says that the run stays, and holds its process id.
    pub(crate) fn kept(&self) -> PathBuf {
        self.dir.join("kept")
    }

    /// The proxy's address.
    pub(crate) fn proxy(&self) -> Ipv4Addr {
        Ipv4Addr::new(127, 88, self.net, 1)
    }

    /// One of the proxy's ports.
    pub(crate) fn port(&self, number: u16) -> Port {
        Port(SocketAddrV4::new(self.proxy(), number))
    }

    /// The endpoint's ssh server.
    pub(crate) fn sshd(&self) -> Port {
        Port(SocketAddrV4::new(Ipv4Addr::new(127, 88, self.net, 3), SSHD))
    }

    /// The endpoint's web server.
    pub(crate) fn web(&self) -> Port {
        Port(SocketAddrV4::new(Ipv4Addr::new(127, 88, self.net, 3), WEB))
    }

    /// Every port that anything of the run listens on.
    pub(crate) fn all_ports(&self) -> [Port; 5] {
        [self.port(PROVISIONING), self.port(ENDPOINTS), self.port(SESSIONS), self.sshd(), self.web()]
    }
}

/// A TCP port on a loopback address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Port(pub(crate) SocketAddrV4);

impl Port {
    /// Whether a connect succeeds.
    pub(crate) fn listens(self) -> bool {
        TcpStream::connect_timeout(&self.0.into(), Duration::from_secs(1)).is_ok()
    }

    /// Whether a program could listen here.
    pub(crate) fn is_free(self) -> bool {
        TcpListener::bind(self.0).is_ok()
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
