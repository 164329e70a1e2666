//! Directions that end by themselves, with protocols that can't do without.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::Receiver;

use zone_tests::TEST_TIMEOUT;
use zone_tests::host::Host;
use zone_tests::process::{Process, run, succeed};
use zone_tests::target::ends_first;
use zone_tests::zone::{Service, Zone};

/// Enough to be on its way in every buffer there is when the direction ends.
const LENGTH: usize = 8 * 1024 * 1024;

/// Both kinds of services: their names, by what `--end-to-end` has to say.
const DIGESTS: [(&str, &str); 2] = [("off", "open-digest"), ("required", "sealed-digest")];
const LETTERS: [(&str, &str); 2] = [("off", "open-letter"), ("required", "sealed-letter")];

/// Acceptance 5: `sha256sum` reads to the end of its input and only then answers. So the caller's direction must
/// end while the other one is still open, through `connect` as through `forward`.
#[test]
fn a_service_that_answers_only_at_the_end_of_its_input_is_of_use() {
    let (host, zone) = zone();
    let _endpoint = zone.endpoint(&host, "host-1", &services(digest(), DIGESTS));
    let input = payload();
    let wanted = succeed(&mut Command::new("sha256sum"), &input);
    for (policy, service) in DIGESTS {
        let output = run(&mut connect(&zone, service, policy), &input);
        assert!(output.status.success(), "{service}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), wanted, "connect to {service}");

        let (_forward, address) = forward(&zone, service, policy);
        let mut client = dial(address);
        client.write_all(&input).expect("it is read");
        client.shutdown(Shutdown::Write).expect("a connection");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("a clean end");
        assert_eq!(answer, wanted, "forward to {service}");
        println!("{service:<14} connect and forward: {LENGTH} bytes, end, then the answer");
    }
}

/// Acceptance 5: a service that has said everything and still wants to hear that it arrived. So the endpoint's
/// direction must end while the other one is still open.
#[test]
fn a_service_that_ended_its_output_still_gets_the_receipt() {
    let (host, zone) = zone();
    let (target, receipts) = ends_first(payload());
    let _endpoint = zone.endpoint(&host, "host-1", &services(target, LETTERS));
    for (policy, service) in LETTERS {
        let mut process = connect(&zone, service, policy);
        let mut process =
            process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("zone-module starts");
        let (mut stdin, mut stdout) =
            (process.stdin.take().expect("a pipe"), process.stdout.take().expect("a pipe"));
        let mut received = Vec::new();
        stdout.read_to_end(&mut received).expect("a pipe");
        assert!(
            process.try_wait().expect("our child").is_none(),
            "{service}: connect ended with the first direction"
        );
        assert!(received == payload(), "{service}: not what was sent");
        stdin.write_all(receipt(&received).as_bytes()).expect("connect still reads");
        drop(stdin);
        assert_eq!(next(&receipts), receipt(&payload()), "connect to {service}");
        assert!(process.wait().expect("our child").success(), "{service}");

        let (_forward, address) = forward(&zone, service, policy);
        let mut client = dial(address);
        let mut received = Vec::new();
        client.read_to_end(&mut received).expect("a clean end");
        assert!(received == payload(), "{service}: not what was sent");
        client.write_all(receipt(&received).as_bytes()).expect("the other direction is open");
        client.shutdown(Shutdown::Write).expect("a connection");
        assert_eq!(next(&receipts), receipt(&payload()), "forward to {service}");
        println!("{service:<14} connect and forward: {LENGTH} bytes, end, then the receipt");
    }
}

fn zone() -> (Host, Zone) {
    let host = Host::start("");
    let zone = Zone::with(&host);
    (host, zone)
}

fn services(target: SocketAddr, names: [(&str, &'static str); 2]) -> Vec<Service> {
    let service = |(n, (policy, name)): (u16, (&str, &'static str))| Service {
        name,
        port: 7000 + n,
        target: target.to_string(),
        end_to_end: policy == "required",
    };
    (0..).zip(names).map(service).collect()
}

/// A server that hands each connection to `sha256sum`, as inetd would.
fn digest() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("a port");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let output = OwnedFd::from(stream.try_clone().expect("a descriptor"));
            let program = Command::new("sha256sum").stdin(OwnedFd::from(stream)).stdout(output).status();
            assert!(program.expect("sha256sum starts").success());
        }
    });
    address
}

fn connect(zone: &Zone, service: &str, policy: &str) -> Command {
    zone.cli(&["connect", &format!("host-1:{service}"), "--end-to-end", policy])
}

fn forward(zone: &Zone, service: &str, policy: &str) -> (Process, SocketAddr) {
    let target = format!("host-1:{service}");
    let process = Process::start(&mut zone.cli(&["forward", "127.0.0.1:0", &target, "--end-to-end", policy]));
    process.says(" leads to ");
    let said = process.said();
    let address = said.split_whitespace().find_map(|word| word.parse().ok());
    (process, address.unwrap_or_else(|| panic!("no address in {said}")))
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("forward listens");
    stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("a timeout");
    stream
}

fn next(receipts: &Receiver<Vec<u8>>) -> String {
    String::from_utf8(receipts.recv_timeout(TEST_TIMEOUT).expect("a receipt")).expect("text")
}

fn receipt(received: &[u8]) -> String {
    format!("{} bytes arrived", received.len())
}

/// No two pieces of it are alike, so that nothing can be lost, doubled or moved unseen.
fn payload() -> Vec<u8> {
    (0..LENGTH as u64 / 8).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}
