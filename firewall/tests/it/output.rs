//! What users zone-relay and zone-proxy may send, by real sockets: answers on connections that others have opened, and what root
//! allows.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, ChildStdout, Stdio};

use crate::host::{CONTROL, Host, RELAY, STRANGER, TEST_TIMEOUT, host};

/// How many parks stand at once.
const PARKS: usize = 200;
/// Accepts as many connections as it is told, and then sends a line on each whenever it reads one.
const SPEAKS_FIRST: &str = "import socket,sys\nl=socket.socket(); l.setsockopt(1,2,1); l.bind(('0.0.0.0',int(sys.argv[1]))); l.listen(512)\n\
    print('listening',flush=True)\nc=[l.accept()[0] for _ in range(int(sys.argv[2]))]\nprint('accepted',flush=True)\n\
    for line in sys.stdin:\n for s in c: s.sendall(line.encode())\n print('sent',flush=True)";
/// Accepts a connection, and turns its socket round: it is disconnected (connect(2), `AF_UNSPEC`) and connects elsewhere.
const TURNS_ROUND: &str = "import ctypes,socket,sys\nl=socket.socket(); l.setsockopt(1,2,1); l.bind(('0.0.0.0',int(sys.argv[1]))); l.listen(4)\n\
    print('listening',flush=True)\ns=l.accept()[0]\nassert ctypes.CDLL(None).connect(s.fileno(),bytes(16),16)==0\n\
    s.settimeout(2)\ntry: s.connect((sys.argv[2],int(sys.argv[3]))); print('reached',flush=True)\n\
    except OSError as e: print('not reached',flush=True)";
/// Connects to each of the places that it is told, and says which it reached.
const CONNECTS: &str = "import socket,sys\nfor place in sys.argv[1:]:\n h,p=place.rsplit(':',1)\n \
    s=socket.socket(socket.AF_INET6 if ':' in h else socket.AF_INET); s.settimeout(1)\n \
    try: s.connect((h,int(p))); print('reached')\n except OSError: print('not reached')";
/// Sends a datagram to each of the places that it is told.
const SENDS: &str = "import socket,sys\nfor place in sys.argv[1:]:\n h,p=place.rsplit(':',1)\n \
    s=socket.socket(socket.AF_INET,socket.SOCK_DGRAM)\n try: s.sendto(place.encode(),(h,int(p)))\n except OSError: pass";
/// Forgets all connections, as `conntrack -F` does (`IPCTNL_MSG_CT_DELETE`, nfnetlink_conntrack.h).
const FORGETS_CONNECTIONS: &str = "import socket,struct\ns=socket.socket(socket.AF_NETLINK,socket.SOCK_RAW,12); s.bind((0,0))\n\
    s.send(struct.pack('=IHHIIBBH',20,0x102,5,1,0,0,0,0))\nassert struct.unpack_from('=i',s.recv(4096),16)[0]==0";

/// A program that runs as some user in the namespace, and talks by lines.
struct Program(Child, BufReader<ChildStdout>);

impl Program {
    fn start(host: &Host, uid: u32, script: &str, arguments: &[&str]) -> Self {
        let mut child = host
            .python_as(uid, script, arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv runs");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        Self(child, out)
    }

    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("it goes on");
        assert_eq!(line.trim(), expected);
    }

    fn speak(&mut self, line: &str) {
        writeln!(self.0.stdin.as_mut().expect("a pipe"), "{line}").expect("it reads");
        self.says("sent");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn said(host: &Host, uid: u32, script: &str, arguments: &[&str]) -> Vec<String> {
    let output = host.python_as(uid, script, arguments).output().expect("setpriv runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn counted(host: &Host, counter: &str) -> bool {
    !host.sh(&format!("nft list counter inet zone_proxy {counter}")).contains("packets 0 ")
}

fn connected(outside: &Host, address: &'static str, count: usize) -> Vec<TcpStream> {
    outside.inside(move || {
        let connect = |_| {
            let stream = TcpStream::connect(address).expect("it connects");
            stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("a timeout");
            stream
        };
        (0..count).map(connect).collect()
    })
}

/// It would be otherwise with `ct state new`, which such a connection is after each of these.
#[test]
fn connections_on_which_our_side_speaks_first_stand_whatever_becomes_of_the_table_and_of_conntrack() {
    let test = "our side speaks first";
    let (Some(inside), Some(outside)) = (host(test), host(test)) else { return };
    inside.with_outside(&outside);
    // Without such a rule nothing tracks connections.
    inside.nft(
        "table inet filter { chain in { type filter hook input priority 0; policy drop; ct state established accept
            meta l4proto { icmp, ipv6-icmp } accept
            tcp dport { 17486, 17488 } accept; } }",
    );
    let parks = PARKS.to_string();
    let mut relay = Program::start(&inside, RELAY, SPEAKS_FIRST, &["17486", &parks]);
    relay.says("listening");
    let mut control = Program::start(&inside, CONTROL, SPEAKS_FIRST, &["17488", "1"]);
    control.says("listening");
    let mut streams = connected(&outside, "10.9.0.1:17486", PARKS);
    streams.extend(connected(&outside, "10.9.0.1:17488", 1));
    relay.says("accepted");
    control.says("accepted");
    let forget = || said(&inside, 0, FORGETS_CONNECTIONS, &[]);
    let steps: [(&str, &dyn Fn()); 6] = [
        ("the table is loaded", &|| drop(inside.ok(&["apply"]))),
        ("connections are forgotten", &|| drop(forget())),
        ("the table is flushed", &|| drop(inside.sh("nft flush table inet zone_proxy"))),
        ("the table is loaded again", &|| drop(inside.ok(&["apply"]))),
        ("it goes and comes while connections are forgotten", &|| {
            inside.sh("nft delete table inet zone_proxy");
            forget();
            inside.ok(&["apply"]);
        }),
        ("connections are forgotten again", &|| drop(forget())),
    ];
    for (step, act) in steps {
        act();
        relay.speak(step);
        control.speak(step);
        for stream in &mut streams {
            let mut heard = vec![0; step.len() + 1];
            stream.read_exact(&mut heard).unwrap_or_else(|error| panic!("{step}: {error}"));
            assert_eq!(String::from_utf8_lossy(&heard).trim(), step);
        }
    }
    for user in ["relay", "proxy"] {
        assert!(!counted(&inside, &format!("output_zone-{user}_refused")), "nothing of {user}'s was refused");
    }
    assert_eq!(inside.findings(), Vec::<String>::new());
}

#[test]
fn an_accepted_socket_that_is_turned_round_reaches_nobody_and_is_counted() {
    let test = "turned round";
    let (Some(inside), Some(outside)) = (host(test), host(test)) else { return };
    inside.with_outside(&outside);
    let _elsewhere = outside.listen("10.9.0.2:443".parse().unwrap());
    let _here = inside.listen("127.0.0.1:5432".parse().unwrap());
    let turned = |place: &str, uid: u32| {
        let (address, port) = place.rsplit_once(':').unwrap();
        let mut program = Program::start(&inside, uid, TURNS_ROUND, &["17486", address, port]);
        program.says("listening");
        let _accepted = inside.inside(|| TcpStream::connect("127.0.0.1:17486").expect("it connects"));
        let mut line = String::new();
        program.1.read_line(&mut line).expect("it goes on");
        line.trim().to_owned()
    };
    assert_eq!(turned("10.9.0.2:443", RELAY), "reached", "without the table it is a way out");
    inside.ok(&["apply"]);
    assert_eq!(turned("10.9.0.2:443", RELAY), "not reached");
    assert!(counted(&inside, "output_zone-relay_refused"));
    assert_eq!(turned("127.0.0.1:5432", RELAY), "not reached", "a service of this host");
    assert_eq!(turned("10.9.0.2:443", CONTROL), "not reached");
    assert!(counted(&inside, "output_zone-proxy_refused"));
    assert_eq!(turned("10.9.0.2:443", STRANGER), "reached", "others are left alone");
    inside.ok(&["remove"]);
    assert_eq!(turned("10.9.0.2:443", RELAY), "reached");
}

#[test]
fn control_reaches_the_syslog_server_that_root_allows_and_nobody_else() {
    let test = "syslog";
    let (Some(inside), Some(outside)) = (host(test), host(test)) else { return };
    inside.with_outside(&outside);
    let _listeners: Vec<TcpListener> = ["10.9.0.2:6514", "10.9.0.2:443", "[fd09::2]:6514"]
        .map(|at| outside.listen(at.parse().unwrap()))
        .into();
    let datagrams = outside.inside(|| {
        let socket = UdpSocket::bind("10.9.0.2:514").expect("it can listen");
        socket.set_read_timeout(Some(TEST_TIMEOUT)).expect("a timeout");
        socket
    });
    let places = ["10.9.0.2:6514", "10.9.0.2:443", "fd09::2:6514"];
    let open = "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n";
    inside.ok(&["apply"]);
    assert_eq!(said(&inside, CONTROL, CONNECTS, &places), ["not reached"; 3]);
    said(&inside, CONTROL, SENDS, &["10.9.0.2:514"]);

    inside.configure(&format!(
        "{open}[output]\nallow = [\"10.9.0.2:6514/tcp\", \"[fd09::2]:6514/tcp\", \"10.9.0.2:514/udp\"]\n"
    ));
    inside.ok(&["apply"]);
    assert_eq!(said(&inside, CONTROL, CONNECTS, &places), ["reached", "not reached", "reached"]);
    assert_eq!(said(&inside, RELAY, CONNECTS, &places), ["not reached"; 3], "the exceptions are control's");
    said(&inside, CONTROL, SENDS, &["10.9.0.2:514"]);
    let mut heard = [0; 64];
    let length = datagrams.recv(&mut heard).expect("the datagram arrives");
    assert_eq!(&heard[..length], b"10.9.0.2:514");
    datagrams.set_nonblocking(true).unwrap();
    assert!(datagrams.recv(&mut heard).is_err(), "the one before was dropped");
    assert!(counted(&inside, "output_zone-proxy_allowed"));
    assert_eq!(inside.findings(), Vec::<String>::new());
    inside.sh("nft flush chain inet zone_proxy output");
    assert!(inside.findings().iter().any(|line| line.contains("zone-relay")), "{:?}", inside.findings());
    inside.ok(&["apply"]);
    assert_eq!(inside.findings(), Vec::<String>::new());
    assert_eq!(inside.ok(&["apply"]), "nothing to change\n");
}

#[test]
fn a_host_without_the_products_users_gets_no_output_chain() {
    let Some(host) = host("no users") else { return };
    let others = std::fs::read_to_string(host.path("passwd")).unwrap();
    let others: Vec<_> = others.lines().filter(|line| !line.starts_with("zone-")).collect();
    std::fs::write(host.path("passwd"), others.join("\n") + "\n").unwrap();
    host.ok(&["apply"]);
    assert!(!host.ruleset().contains("hook output"), "{}", host.ruleset());
    assert_eq!(host.findings(), Vec::<String>::new());
}
