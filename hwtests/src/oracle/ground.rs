//! Where packets meet rules: two network namespaces of this process, joined by a pair of devices.
//!
//! Neither has a name, so nothing is left when the process ends, however it ends. The host has device `eth0` with 180
//! addresses of each family; the other side only sends. Table [`OWN_TABLE`] is loaded beside the rules that are tried: it counts
//! what comes in before all others, and notes behind all others what has come through. Then it drops it, so that nobody answers
//! and the kernel keeps no connection, unless it is the answers that are watched.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::socket::{AddressFamily, LinkAddr, SockFlag, SockType, bind, socket};
use nix::unistd::Pid;
use rustix::net::SendFlags;
use zone_random_rulesets::{Destination, PORTS};

use crate::error::{Context, Error, Result};
use crate::netlink::{Netfilter, Traced, Traces};
use crate::syn::{self, Syn};

/// The table, of family inet, that is not of the rules that are tried.
pub(crate) const OWN_TABLE: &str = "zone_oracle";
/// How many addresses of each family the host has.
pub(crate) const ADDRESSES: u8 = 180;
/// How long packets may take from one end to the other.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many traced packets are sent before their traces are read.
const TRACED_AT_ONCE: usize = 50;

/// Whether the deciding rules are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tracing {
    On,
    Off,
}

/// What is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether the rules that packets pass are asked for.
    pub(crate) tracing: Tracing,
    /// Whether somebody listens and the answers are watched, too.
    pub(crate) answers: bool,
}

impl Look {
    /// At nothing but where packets come to.
    pub(crate) const ARRIVALS: Self = Self { tracing: Tracing::Off, answers: false };
}

/// Where a packet was going when it came through all rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arrival {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

/// What became of packets.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Those that came through, by their source and its port.
    pub(crate) arrivals: HashMap<(IpAddr, u16), Arrival>,
    /// Those that were answered, likewise, if that was asked for.
    pub(crate) answered: HashSet<(IpAddr, u16)>,
    /// Their steps, in order, if they were asked for.
    pub(crate) traces: HashMap<(IpAddr, u16), Vec<Traced>>,
}

/// The two namespaces. The thread that entered is on the host, and so are the programs that it starts.
pub(crate) struct Ground {
    wire: OwnedFd,
    /// Somebody listens on the three ports.
    listeners: Vec<TcpListener>,
    netfilter: Netfilter,
    traces: Traces,
}

impl Ground {
    /// Moves this thread into a namespace of its own, which is the host, and to one processor: there the kernel takes a packet to
    /// its end before it counts the next one, and before it goes on with this thread.
    pub(crate) fn enter(processor: usize) -> Result<Self> {
        let mut one = CpuSet::new();
        one.set(processor).during(|| format!("there is no processor {processor}"))?;
        sched_setaffinity(Pid::from_raw(0), &one)
            .during(|| format!("can't move to processor {processor}"))?;
        let (ready, is_ready) = mpsc::channel();
        let (joined, is_joined) = mpsc::channel::<()>();
        let outside = std::thread::spawn(move || -> Result<OwnedFd> {
            unshare(CloneFlags::CLONE_NEWNET).during(|| "can't make a network namespace".to_owned())?;
            write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")?;
            let _ = ready.send(nix::unistd::gettid());
            is_joined.recv().map_err(|_| Error::Thread("that of the host".to_owned()))?;
            run("ip", &["link", "set", "eth1", "up"], "")?;
            packet_socket("eth1")
        });
        let thread = is_ready.recv().map_err(|_| Error::Thread("that of the outside".to_owned()))?;
        unshare(CloneFlags::CLONE_NEWNET).during(|| "can't make a network namespace".to_owned())?;
        configure(thread.as_raw())?;
        let _ = joined.send(());
        let wire = outside.join().map_err(|_| Error::Thread("that of the outside".to_owned()))??;
        run("ip", &["link", "set", "eth0", "up"], "")?;
        run("ip", &["-batch", "-"], &routes())?;
        let mut ground =
            Self { wire, listeners: listen()?, netfilter: Netfilter::open()?, traces: Traces::open()? };
        ground.wait_for_link()?;
        Ok(ground)
    }

    /// A device drops what is sent until the kernel has taken note that its link is up.
    fn wait_for_link(&mut self) -> Result<()> {
        self.load("", Look::ARRIVALS)?;
        let to = Destination::of(1);
        let source = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
        let syn = Syn { source, source_port: 1, destination: IpAddr::V4(to.v4), port: PORTS[0] };
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        for sent in 1.. {
            self.send_one(&syn::frame(&syn))?;
            let received = self.netfilter.counted(OWN_TABLE, "received")?;
            if received > 0 {
                break;
            }
            if Instant::now() > deadline {
                return Err(Error::Lost { sent, received, seconds: DELIVERY_TIMEOUT.as_secs() });
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Loads rules in place of all that are there.
    pub(crate) fn load(&mut self, rules: &str, look: Look) -> Result<()> {
        self.netfilter.forget_connections()?;
        nft(&format!("flush ruleset\n{rules}{}", own_table(look)))
    }

    /// Forgets what is half open, so that the same packet is answered again so soon: a listener that goes takes it along.
    pub(crate) fn forget_openings(&mut self) -> Result<()> {
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        self.listeners.clear();
        loop {
            // A program that is just being started has the old ones, too, until it is executed.
            match listen() {
                Ok(listeners) => self.listeners = listeners,
                Err(_) if Instant::now() < deadline => {
                    std::thread::yield_now();
                    continue;
                }
                Err(error) => return Err(error),
            }
            return Ok(());
        }
    }

    /// Puts the table that watches beside the rules that are there.
    pub(crate) fn watch(&mut self, look: Look) -> Result<()> {
        self.netfilter.forget_connections()?;
        if look.answers {
            self.forget_openings()?;
        }
        nft(&own_table(look))
    }

    /// Sends packets, and says what became of them.
    pub(crate) fn send(&mut self, syns: &[Syn], look: Look) -> Result<Seen> {
        let before = self.netfilter.counted(OWN_TABLE, "received")?;
        let mut seen = Seen::default();
        let mut packets = HashMap::new();
        let mut sent = 0;
        for some in syns.chunks(if look.tracing == Tracing::On { TRACED_AT_ONCE } else { 1000 }) {
            for syn in some {
                self.send_one(&syn::frame(syn))?;
            }
            sent += some.len() as u64;
            self.wait_for(before, sent)?;
            if look.tracing == Tracing::On {
                for step in self.traces.drain()? {
                    if let Some(source) = source(&step) {
                        packets.insert(step.packet, source);
                    }
                    if let Some(source) = packets.get(&step.packet) {
                        seen.traces.entry(*source).or_default().push(step);
                    }
                }
            }
        }
        for (set, width) in [("seen4", 4), ("seen6", 16)] {
            for key in self.netfilter.elements(OWN_TABLE, set)? {
                let (source, address) = (end(&key, 0, width)?, end(&key, width + 4, width)?);
                seen.arrivals.insert(source, Arrival { address: address.0, port: address.1 });
            }
        }
        if look.answers {
            for (set, width) in [("answered4", 4), ("answered6", 16)] {
                for key in self.netfilter.elements(OWN_TABLE, set)? {
                    seen.answered.insert(end(&key, 0, width)?);
                }
            }
        }
        Ok(seen)
    }

    fn send_one(&self, frame: &[u8]) -> Result<()> {
        rustix::net::send(&self.wire, frame, SendFlags::empty())
            .during(|| "can't send a packet".to_owned())
            .map(drop)
    }

    /// Packets are through when the first hook has counted them, see [`Self::enter`].
    fn wait_for(&mut self, before: u64, sent: u64) -> Result<()> {
        let deadline = Instant::now() + DELIVERY_TIMEOUT;
        loop {
            let received = self.netfilter.counted(OWN_TABLE, "received")? - before;
            if received >= sent {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::Lost { sent, received, seconds: DELIVERY_TIMEOUT.as_secs() });
            }
            std::thread::yield_now();
        }
    }
}

fn listen() -> Result<Vec<TcpListener>> {
    let one = |port: &u16| {
        TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port)).during(|| format!("can't listen on {port}"))
    };
    PORTS.iter().map(one).collect()
}

/// The addresses of the host's device and everything else that its side of the wire needs.
fn configure(outside: i32) -> Result<()> {
    for place in ["all", "default"] {
        write(&format!("/proc/sys/net/ipv4/conf/{place}/rp_filter"), "0")?;
        write(&format!("/proc/sys/net/ipv6/conf/{place}/accept_dad"), "0")?;
        write(&format!("/proc/sys/net/ipv6/conf/{place}/accept_ra"), "0")?;
    }
    // What is answered is answered once, and not refused because much is.
    write("/proc/sys/net/ipv4/tcp_synack_retries", "0")?;
    write("/proc/sys/net/core/somaxconn", "65535")?;
    write("/proc/sys/net/ipv4/tcp_max_syn_backlog", "65535")?;
    let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
    let (here, there) = (mac(syn::HOST), mac(syn::SENDER));
    let mut lines = format!(
        "link set lo up\nlink add eth0 address {here} type veth peer name eth1 address {there} netns {outside}\n"
    );
    for n in 1..=ADDRESSES {
        let _ = writeln!(lines, "address add 192.0.2.{n}/24 dev eth0");
        let _ = writeln!(lines, "address add 2001:db8:1::{n:x}/64 dev eth0 nodad");
    }
    run("ip", &["-batch", "-"], &lines)
}

/// What replies take, so that nobody is asked for an address.
fn routes() -> String {
    let there = syn::SENDER.map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "neigh replace 192.0.2.254 lladdr {there} dev eth0 nud permanent\n\
         neigh replace 2001:db8:1::ffff lladdr {there} dev eth0 nud permanent\n\
         route add default via 192.0.2.254 dev eth0\n\
         route add default via 2001:db8:1::ffff dev eth0\n"
    )
}

/// What notes the answers to openings behind all other rules.
const ANSWERS: &str = "set answered4 { type ipv4_addr . inet_service; size 1000000; flags dynamic; }
  set answered6 { type ipv6_addr . inet_service; size 1000000; flags dynamic; }
  chain answers {
    type filter hook postrouting priority 2000; policy accept;
    tcp flags & (syn | ack) != syn | ack accept
    add @answered4 { ip daddr . tcp dport }
    add @answered6 { ip6 daddr . tcp dport }
    drop
  }";

/// The first hook and the last one. The question for a mark that no packet has makes the kernel keep connections whatever else is
/// loaded: it stops doing so some time after the last rule that asks for them is gone, and nat depends on it.
fn own_table(look: Look) -> String {
    let (answers, end) = if look.answers { (ANSWERS, "accept") } else { ("", "drop") };
    let trace = if look.tracing == Tracing::On { "meta nftrace set 1" } else { "" };
    format!(
        "table inet {OWN_TABLE} {{
  counter received {{ }}
  set seen4 {{ type ipv4_addr . inet_service . ipv4_addr . inet_service; size 1000000; flags dynamic; }}
  set seen6 {{ type ipv6_addr . inet_service . ipv6_addr . inet_service; size 1000000; flags dynamic; }}
  chain first {{
    type filter hook ingress device \"eth0\" priority -2000; policy accept;
    tcp flags syn counter name received {trace}
  }}
  chain last {{
    type filter hook input priority 2000; policy accept;
    iifname != \"eth0\" accept
    meta nftrace set 0
    ct mark 0xffffffff accept
    add @seen4 {{ ip saddr . tcp sport . ip daddr . tcp dport }}
    add @seen6 {{ ip6 saddr . tcp sport . ip6 daddr . tcp dport }}
    meta l4proto tcp {end}
  }}
  {answers}
}}
"
    )
}

/// Takes the table that watches away.
pub(crate) fn unwatch() -> Result<()> {
    nft(&format!("delete table inet {OWN_TABLE}\n"))
}

/// Loads rules with nft.
fn nft(rules: &str) -> Result<()> {
    run("nft", &["-f", "-"], rules)
}

/// Runs a program to its end, which must be a good one.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .during(|| format!("can't start {program}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        // A program that ends early says why; the broken pipe doesn't.
        let _ = pipe.write_all(input.as_bytes());
    }
    let done = child.wait_with_output().during(|| format!("can't wait for {program}"))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    Err(Error::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        said: said.lines().take(3).collect::<Vec<_>>().join(" / "),
    })
}

/// Runs a program without input, for what it prints.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let done = Command::new(program).args(arguments).output().during(|| format!("can't start {program}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    Err(Error::Failed { command: format!("{program} {}", arguments.join(" ")), said })
}

fn write(path: &str, text: &str) -> Result<()> {
    std::fs::write(path, text).during(|| format!("can't write {path}"))
}

/// A socket that sends frames on a device of this thread's namespace and receives none.
fn packet_socket(device: &str) -> Result<OwnedFd> {
    let what = || format!("can't open a packet socket on {device}");
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None).during(what)?;
    let address: Option<LinkAddr> = getifaddrs()
        .during(what)?
        .filter(|found| found.interface_name == device)
        .find_map(|found| found.address?.as_link_addr().copied());
    let address = address.ok_or_else(|| Error::Netlink(format!("there is no device {device}")))?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &address).during(what)?;
    Ok(socket)
}

/// The address and port that stand in a key from some place on, each padded to four bytes.
fn end(key: &[u8], at: usize, width: usize) -> Result<(IpAddr, u16)> {
    let bytes = key.get(at..at + width).zip(key.get(at + width..at + width + 2));
    let (address, port) = bytes.ok_or_else(|| Error::Netlink("a key of another length".to_owned()))?;
    let port = u16::from_be_bytes([port[0], port[1]]);
    let v4 = <[u8; 4]>::try_from(address).map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes)));
    let v6 = <[u8; 16]>::try_from(address).map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)));
    let address = v4.or(v6).map_err(|_| Error::Netlink("an address of another length".to_owned()))?;
    Ok((address, port))
}

/// Where a traced packet comes from, where the step says it.
fn source(step: &Traced) -> Option<(IpAddr, u16)> {
    let (network, transport) = (step.network.as_ref()?, step.transport.as_ref()?);
    let port = u16::from_be_bytes(transport.get(..2)?.try_into().ok()?);
    let address = if network.first()? >> 4 == 6 {
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(network.get(8..24)?).ok()?))
    } else {
        IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(network.get(12..16)?).ok()?))
    };
    Some((address, port))
}
