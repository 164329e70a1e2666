//! The examples of docs/protocol.md: an endpoint and a Module Server in Python, written from it alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use zone_tests::host::Host;
use zone_tests::process::{Process, succeed};
use zone_tests::session::{Session, random};
use zone_tests::target;
use zone_tests::zone::Zone;

use super::{is_parked, open};

const MAX_EXAMPLE_LINES: usize = 120;

#[test]
fn the_examples_are_short_and_need_nothing_but_pythons_standard_library() {
    let imports = "import ast, sys\n\
        names = set()\n\
        for node in ast.walk(ast.parse(open(sys.argv[1]).read())):\n\
        \x20   if isinstance(node, ast.Import): names |= {alias.name for alias in node.names}\n\
        \x20   if isinstance(node, ast.ImportFrom): names.add(node.module)\n\
        print(*(name for name in names if name.split('.')[0] not in sys.stdlib_module_names))";
    for name in ["endpoint.py", "module_connect.py"] {
        let lines = std::fs::read_to_string(example(name)).expect("the example").lines().count();
        assert!(lines < MAX_EXAMPLE_LINES, "{name} has {lines} lines");
        let foreign = succeed(Command::new("python3").args(["-c", imports]).arg(example(name)), b"");
        assert_eq!(foreign.trim(), "", "{name} imports what is not in the standard library");
        println!("{name}: {lines} lines");
    }
}

#[test]
fn the_python_endpoint_serves_zone_module() {
    let (host, zone) = zone();
    let connect = |target: &str| zone.cli(&["connect", "--end-to-end", "off", target]);
    each_direction_ends_by_itself(&zone, &PythonEndpoint(&host), connect);
}

#[test]
fn the_python_module_server_reaches_zone_endpoint() {
    let (host, zone) = zone();
    let bundle = zone.issue_module_server("example");
    let connect = |target: &str| module_connect(&host, &bundle, target);
    each_direction_ends_by_itself(&zone, &OurEndpoint(&host), connect);
}

#[test]
fn both_python_programs_work_with_each_other() {
    let (host, zone) = zone();
    let bundle = zone.issue_module_server("example");
    let connect = |target: &str| module_connect(&host, &bundle, target);
    each_direction_ends_by_itself(&zone, &PythonEndpoint(&host), connect);
}

/// A protocol that ends its question before it is answered, and one that ends its answer before it is asked:
/// each needs half-close in one direction, and what arrives tells whether anything was lost on the way.
fn each_direction_ends_by_itself(zone: &Zone, endpoints: &dyn Endpoints, connect: impl Fn(&str) -> Command) {
    let data = random(4 << 20);
    let _one = endpoints.start(zone, "asks-first", target::echo_after_the_end());
    let mut session = Session::start(&mut connect("asks-first:service"));
    session.send(&data);
    session.end();
    assert!(session.rest() == data, "what came back is not what was sent");
    assert!(session.ends().0.success());

    let (target, hears) = target::ends_first(data.clone());
    let _other = endpoints.start(zone, "answers-first", target);
    let mut session = Session::start(&mut connect("answers-first:service"));
    assert!(session.rest() == data, "what came is not what was sent");
    assert!(session.runs(), "only one direction has ended");
    session.send(&data);
    session.end();
    let heard = hears.recv_timeout(zone_tests::TEST_TIMEOUT).expect("the target hears the end");
    assert!(heard == data, "what was heard is not what was sent");
    assert!(session.ends().0.success());
}

trait Endpoints {
    /// An endpoint that is parked, with one service.
    fn start(&self, zone: &Zone, id: &str, target: SocketAddr) -> Process;
}

struct OurEndpoint<'a>(&'a Host);

impl Endpoints for OurEndpoint<'_> {
    fn start(&self, zone: &Zone, id: &str, target: SocketAddr) -> Process {
        zone.endpoint(self.0, id, &[open("service", 7, target)])
    }
}

struct PythonEndpoint<'a>(&'a Host);

impl Endpoints for PythonEndpoint<'_> {
    fn start(&self, zone: &Zone, id: &str, target: SocketAddr) -> Process {
        let (bundle, proxy) = (zone.issue_endpoint(id, &[]), self.0.port(17486).to_string());
        let mut command = Command::new("python3");
        command.arg("-B").arg(example("endpoint.py")).arg(bundle);
        command.args([&proxy, &format!("spiffe://plant/endpoint/{id}"), "service", &target.to_string()]);
        let endpoint = Process::start(&mut command);
        is_parked(zone, id);
        endpoint
    }
}

/// `module_connect.py` with these files of a Module Server.
pub(super) fn module_connect(host: &Host, bundle: &Path, target: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(example("module_connect.py")).arg(bundle);
    command.args([&host.port(17487).to_string(), "spiffe://plant/zone-proxy/p1", target]);
    command
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name)
}

fn zone() -> (Host, Zone) {
    let host = Host::start("");
    let zone = Zone::with(&host);
    (host, zone)
}
