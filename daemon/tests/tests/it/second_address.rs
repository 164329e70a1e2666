//! A name with two addresses of which the first is dead: whoever dials it is connected by the second within 2 s.

mod dead;

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tempfile::NamedTempFile;
use zone_tests::host::Host;
use zone_tests::process::{Process, run, succeed};
use zone_tests::session::Session;
use zone_tests::zone::{Service, Zone};
use zone_tests::{TEST_TIMEOUT, address, program, skip, target, until};

use dead::{Dead, KINDS};

/// What a dead first address may cost.
const MAX_DELAY: Duration = Duration::from_secs(2);

/// On a host that is busy with other things, the best of so many counts.
const ATTEMPTS: usize = 3;

/// The name that has two addresses.
const NAME: &str = "two.addresses.test";

/// A hosts file (hosts(5)) for programs that are started with it.
struct Hosts(NamedTempFile);

impl Hosts {
    /// The name has these addresses, in this order.
    fn new(first: Ipv4Addr, second: Ipv4Addr) -> Self {
        let file = NamedTempFile::new().expect("a file");
        let text = format!("127.0.0.1 localhost\n{first} {NAME}\n{second} {NAME}\n");
        fs::write(file.path(), text).expect("written");
        fs::set_permissions(file.path(), Permissions::from_mode(0o644)).expect("our file");
        Self(file)
    }

    /// Has a program see it in the place of the host's own.
    fn seen_by<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let program = command.get_program().to_owned();
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        *command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/hosts && exec \"$@\""])
            .arg(self.0.path())
            .arg(program)
            .args(arguments)
    }
}

fn can_run(test: &str) -> bool {
    let can = run(Command::new("unshare").args(["--mount", "true"]), b"").status.success();
    if !can {
        skip(test, "a mount namespace takes root");
    }
    can
}

/// Fails unless a connection, which tells when it was there, comes within [`MAX_DELAY`] of its beginning.
fn is_soon(what: &str, mut connect: impl FnMut() -> Instant) {
    let took = |()| {
        let begun = Instant::now();
        connect().duration_since(begun)
    };
    let best = [(); ATTEMPTS].map(took).into_iter().min().expect("some attempts");
    println!("{what}: {} ms", best.as_millis());
    assert!(best < MAX_DELAY, "{what}: {best:?}");
}

fn echo() -> Service {
    Service { name: "echo", port: 7, target: target::echo().to_string(), end_to_end: true }
}

/// A syslog server over TLS, which tells when the first record of a connection arrives.
fn syslog_server(listener: TcpListener, tls: Arc<ServerConfig>) -> Receiver<Instant> {
    let (heard, hears) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let session = ServerConnection::new(Arc::clone(&tls)).expect("a TLS server");
            let (mut stream, heard) = (StreamOwned::new(session, stream), heard.clone());
            thread::spawn(move || {
                if stream.read(&mut [0; 64]).is_ok_and(|read| read > 0) {
                    let _ = heard.send(Instant::now());
                    // For as long as the client likes.
                    while stream.read(&mut [0; 4_096]).is_ok_and(|read| read > 0) {}
                }
            });
        }
    });
    hears
}

#[test]
fn an_endpoint_parks_at_the_second_address_of_a_name_whose_first_is_dead() {
    if !can_run("an_endpoint_parks_at_the_second_address_of_a_name_whose_first_is_dead") {
        return;
    }
    let host = Host::start("");
    let zone = Zone::with(&host);
    let folder = zone.issue_endpoint("e1", &[echo()]);
    let config = folder.join("zone-endpoint.toml");
    let text = fs::read_to_string(&config).expect("the configuration");
    fs::write(&config, text.replace(&host.port(17486).to_string(), &format!("{NAME}:17486")))
        .expect("written");
    for kind in KINDS {
        let dead = Dead::new(kind, address(), &[17486]);
        let hosts = Hosts::new(dead.address, host.address);
        is_soon(&format!("zone-endpoint, {kind:?}"), || {
            let mut command = Command::new(program("zone-endpoint"));
            let endpoint = Process::start(hosts.seen_by(command.arg("run").arg("--config").arg(&config)));
            until("it is parked", || endpoint.said().matches("the endpoint is parked").count() == 2);
            Instant::now()
        });
    }
}

#[test]
fn zone_module_reaches_both_ports_at_the_second_address_of_a_name_whose_first_is_dead() {
    if !can_run("zone_module_reaches_both_ports_at_the_second_address_of_a_name_whose_first_is_dead") {
        return;
    }
    let host = Host::start("");
    let zone = Zone::with(&host);
    let _endpoint = zone.endpoint(&host, "e1", &[echo()]);
    let proxies = zone.path().join("proxies.json");
    let text = fs::read_to_string(&proxies).expect("the proxies");
    let own = format!("\"{}\"", host.address);
    let by_name = text.replacen(&own, &format!("\"{NAME}\""), 1).replace(&own, "\"0.0.0.0\"");
    assert!(by_name.contains(NAME) && !by_name.contains(&own), "{by_name}");
    fs::write(&proxies, by_name).expect("written");
    for kind in KINDS {
        let dead = Dead::new(kind, address(), &[17487, 17488]);
        let hosts = Hosts::new(dead.address, host.address);
        is_soon(&format!("zone-module status on 17488, {kind:?}"), || {
            succeed(hosts.seen_by(&mut zone.cli(&["status", "--json"])), b"");
            Instant::now()
        });
        is_soon(&format!("zone-module endpoints on 17487, {kind:?}"), || {
            succeed(hosts.seen_by(&mut zone.cli(&["endpoints"])), b"");
            Instant::now()
        });
        is_soon(&format!("zone-module connect on 17487, {kind:?}"), || {
            Session::start(hosts.seen_by(&mut zone.cli(&["connect", "e1:echo"]))).exchanges(b"here");
            Instant::now()
        });
    }
}

/// The process that sends is control, confined as it always is.
#[test]
fn records_go_to_the_second_address_of_a_syslog_server_whose_first_is_dead() {
    if !can_run("records_go_to_the_second_address_of_a_syslog_server_whose_first_is_dead") {
        return;
    }
    let folder = zone_tests::folder();
    let ca = folder.path().join("ca.pem");
    let certificate = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("a certificate");
    fs::write(&ca, certificate.cert.pem()).expect("written");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certificate.signing_key.serialize_der());
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![certificate.cert.der().clone()], key.into())
        })
        .expect("a TLS server");
    let tls = Arc::new(tls);
    for kind in KINDS {
        let (good, port) = (address(), 6514);
        let dead = Dead::new(kind, address(), &[port]);
        let hosts = Hosts::new(dead.address, good);
        let server = syslog_server(TcpListener::bind((good, port)).expect("our address"), Arc::clone(&tls));
        is_soon(&format!("syslog over TLS, {kind:?}"), || {
            let settings = format!(
                "[log]\nto = \"syslog\"\n[log.syslog]\nhost = \"{NAME}\"\nport = {port}\ntransport = \"tcp\"\ntls = true\nca = \"{}\"\n",
                ca.display()
            );
            let host = Host::start_by(&settings, |command| hosts.seen_by(command));
            let heard = server.recv_timeout(TEST_TIMEOUT);
            heard.unwrap_or_else(|_| panic!("nothing arrives:\n{}", host.control.said()))
        });
    }
}
