//! Provisioning documents that can't be taken: each is refused by name, undone, and may be sent again mended.

use std::process::Command;

use zone_module::zone::Validity;
use zone_protocol::problem::Problem;
use zone_protocol::provisioning::{Offer, Provisioning};
use zone_tests::control::Client;
use zone_tests::host::Host;
use zone_tests::process::{Process, fail, succeed};
use zone_tests::until;
use zone_tests::zone::Zone;

use super::{Snapshot, certificates, document, json, label, offer, path};

const DAY: std::time::Duration = std::time::Duration::from_secs(86_400);

/// A fresh proxy and an offer that it has made to a zone.
struct Offered {
    host: Host,
    zone: Zone,
    client: Client,
    offer: Offer,
}

impl Offered {
    fn start(config: &str) -> Self {
        let (host, zone) = (Host::start(config), Zone::init());
        let mut client = Client::by_token(&host, &host.token()).expect("TLS");
        let offer = offer(&mut client, &zone);
        Self { host, zone, client, offer }
    }

    fn put(&mut self, body: &[u8]) -> zone_tests::control::Answer {
        self.client.ask("PUT", &path(&self.offer), &[], body)
    }

    /// Sends a document with something wrong in it; the refusal must name the step "validate".
    fn refused(&mut self, change: impl FnOnce(&mut Provisioning, &Zone, &Offer)) -> Problem {
        let mut wrong = document(&self.zone, &self.offer, &self.host);
        change(&mut wrong, &self.zone, &self.offer);
        let problem = self.put(&json(&wrong)).problem(422, "validation-failed");
        assert_eq!(problem.step.as_deref(), Some("validate"));
        let detail = problem.detail.clone().expect("what is wrong");
        let logged = serde_json::to_string(&detail).expect("text");
        self.host.logs(&["audit", "change=\"provision\"", "step=\"validate\"", logged.trim_matches('"')]);
        problem
    }

    /// After all that was refused, the same offer with nothing wrong is taken.
    fn succeeds(mut self) -> (Host, Zone) {
        let good = json(&document(&self.zone, &self.offer, &self.host));
        let done = self.put(&good);
        assert_eq!(done.status, 200, "{done:?}");
        assert!(self.host.answers(17486) && self.host.answers(17487));
        (self.host, self.zone)
    }
}

#[test]
fn a_document_that_is_not_understood_is_refused_with_the_place() {
    let mut offered = Offered::start("");
    let before = Snapshot::of(&offered.host);
    let good = serde_json::to_value(document(&offered.zone, &offered.offer, &offered.host)).expect("JSON");

    let problem = offered.put(b"{\"zone\": ").problem(400, "malformed");
    assert!(problem.to_string().contains("line 1"), "{problem}");
    let mut unknown = good.clone();
    unknown["prots"] = serde_json::json!({"endpoint": 1});
    let problem = offered.put(&json(&unknown)).problem(400, "malformed");
    assert!(problem.to_string().contains("unknown field `prots`"), "{problem}");
    let mut wrong = good.clone();
    wrong["zone"] = "Plant 7".into();
    let problem = offered.put(&json(&wrong)).problem(400, "malformed");
    assert!(problem.to_string().contains("'Plant 7' is not a label"), "{problem}");
    let mut large = good;
    large["ports"]["endpoint"] = 70_000.into();
    let problem = offered.put(&json(&large)).problem(400, "malformed");
    assert!(problem.to_string().contains("70000"), "{problem}");
    assert_eq!(Snapshot::of(&offered.host), before);
    let (host, zone) = offered.succeeds();
    assert!(host.metric(&zone, "zone_proxy_control_requests_total{status=\"400\"}") >= 4);
}

#[test]
fn certificates_that_are_not_for_the_offered_keys_are_refused() {
    let mut offered = Offered::start("");
    let before = Snapshot::of(&offered.host);
    let problem = offered.refused(|document, _, _| document.certificates = None);
    assert!(problem.to_string().contains("certificates are missing"), "{problem}");

    let swapped = offered.refused(|document, _, _| {
        let own = document.certificates.as_mut().expect("certificates");
        std::mem::swap(&mut own.rsa, &mut own.ec);
    });
    assert!(swapped.to_string().contains("RSA certificate: its key is of P-256"), "{swapped}");

    let large = self_signed(&offered.zone, "rsa:3072");
    let problem = offered.refused(|document, _, _| {
        document.certificates.as_mut().expect("certificates").rsa = large;
    });
    assert!(problem.to_string().contains("its key is RSA with 3072 bits"), "{problem}");

    let other = self_signed(&offered.zone, "rsa:2048");
    let problem = offered.refused(|document, _, _| {
        document.certificates.as_mut().expect("certificates").rsa = other;
    });
    assert!(problem.to_string().contains("not for the key of this offer's signing request"), "{problem}");

    let problem = offered.refused(|document, _, _| {
        document.certificates.as_mut().expect("certificates").ec = "nothing".into();
    });
    assert!(problem.to_string().contains("P-256 certificate: no certificate in it"), "{problem}");
    assert_eq!(Snapshot::of(&offered.host), before);
    let (host, zone) = offered.succeeds();
    let undone = "zone_proxy_changes_total{kind=\"provision\",result=\"validate\"}";
    assert_eq!(host.metric(&zone, undone), 5);
}

#[test]
fn certificates_in_the_wrong_name_or_of_the_wrong_role_are_refused() {
    let mut offered = Offered::start("");
    let before = Snapshot::of(&offered.host);
    let problem = offered
        .refused(|document, zone, offer| document.certificates = Some(certificates(zone, "p2", offer)));
    let words = "it names spiffe://plant/zone-proxy/p2, and the document spiffe://plant/zone-proxy/p1";
    assert!(problem.to_string().contains(words), "{problem}");

    let problem = offered.refused(|document, zone, _| {
        let other = zone.beside("other");
        let other = zone_module::zone::Zone::init(&other, label("elsewhere"), label("m")).expect("a zone");
        document.zone = other.name().clone();
    });
    assert!(problem.to_string().contains("the offer is for zone plant"), "{problem}");

    let problem = offered.refused(|document, zone, _| {
        document.trust.anchors.endpoint = vec![zone.directory().credentials().expect("own").certificate];
    });
    assert!(problem.to_string().contains("trust anchor for endpoint: it is no authority's"), "{problem}");
    let problem = offered.refused(|document, _, _| document.trust.anchors.module_server.clear());
    assert!(problem.to_string().contains("trust anchor for module-server: at least one"), "{problem}");
    assert_eq!(Snapshot::of(&offered.host), before);
    offered.succeeds();
}

#[test]
fn certificates_not_valid_by_the_proxys_clock_are_refused_with_both_times_named() {
    let mut offered = Offered::start("");
    let before = Snapshot::of(&offered.host);
    let day = offered.offer.clock.to_string()[..10].to_owned();
    for (from, to) in [(-9, -2), (2, 9)] {
        let at = |days: i32| {
            let span = DAY * days.unsigned_abs();
            if days < 0 { offered.offer.clock - span } else { offered.offer.clock + span }
        };
        let validity = Validity { not_before: at(from), not_after: at(to) };
        let days = [at(from), at(to)].map(|time| time.to_string()[..10].to_owned());
        let problem = offered.refused(|document, zone, offer| {
            let signed = zone.directory().sign_proxy(&label("p1"), &offer.signing_requests, &[], validity);
            document.certificates = Some(signed.expect("certificates"));
        });
        let text = problem.to_string();
        assert!(text.contains("this proxy's clock says") && text.contains("compare the clocks"), "{text}");
        for time in days.iter().chain([&day]) {
            assert!(text.contains(time), "{time} is not named: {text}");
        }
    }
    assert_eq!(Snapshot::of(&offered.host), before);
    offered.succeeds();
}

/// and limits that only the host's own admin may raise.
#[test]
fn ports_addresses_and_limits_that_can_not_be_are_refused_by_name() {
    let mut offered = Offered::start("[limits]\nsessions = 100");
    let before = Snapshot::of(&offered.host);
    let mut words = |change: fn(&mut Provisioning), expected: &str| {
        let problem = offered.refused(|document, _, _| change(document));
        assert!(problem.to_string().contains(expected), "{problem}");
    };
    words(|document| document.ports.module_server = 17486, "ports.module_server are both 17486");
    words(|document| document.ports.endpoint = 17488, "ports.endpoint 17488: 17488 is the provisioning port");
    words(|document| document.ports.module_server = 443, "ports.module_server 443: ports below 1024");
    words(|document| document.listen.endpoint.clear(), "listen.endpoint: at least one address");
    words(
        |document| document.listen.endpoint = (1..=9).map(|n| [127, 9, 9, n].into()).collect(),
        "9 addresses, more than 8",
    );
    words(
        |document| document.limits = [("sessions".to_owned(), 101)].into(),
        "limits.sessions 101 is above this host's 100",
    );
    words(|document| document.limits = [("sesions".to_owned(), 1)].into(), "limits.sesions is no limit");
    assert_eq!(Snapshot::of(&offered.host), before);
    offered.succeeds();
}

/// The same errors as an admin sees them, who has only `zone-module`.
#[test]
fn zone_module_says_what_is_wrong_with_ports_and_limits() {
    let (host, zone) = (Host::start(""), Zone::init());
    let before = Snapshot::of(&host);
    let payload = host.payload();
    let cases: [(&[&str], &str); 4] = [
        (&["--endpoint-port", "17488"], "17488 is the provisioning port"),
        (&["--endpoint-port", "80"], "below 1024"),
        (&["--endpoint-port", "17487"], "17487"),
        (&["--limit", "sessions=9000"], "above this host's 4000: ask its admin to raise it"),
    ];
    for (words, expected) in cases {
        let told = fail(zone.provision_command(&host).args(words), payload.as_bytes());
        assert!(told.contains(expected), "{words:?}: {told}");
        assert_eq!(Snapshot::of(&host), before);
    }
    succeed(&mut zone.provision_command(&host), payload.as_bytes());
}

#[test]
fn a_port_that_another_process_has_is_named_with_its_step_and_works_once_it_is_free() {
    let (host, zone) = (Host::start(""), Zone::init());
    let (before, payload) = (Snapshot::of(&host), host.payload());
    let other = Process::start(Command::new("python3").args([
        "-c",
        "import socket, sys, time\n\
         s = socket.create_server((sys.argv[1], 17487))\n\
         print('has it', flush=True)\n\
         time.sleep(600)",
        &host.address.to_string(),
    ]));
    other.says("has it");
    let told = fail(&mut zone.provision_command(&host), payload.as_bytes());
    assert!(told.contains("(step: bind; everything was undone)"), "{told}");
    assert!(told.contains(&host.port(17487).to_string()), "{told}");
    assert!(told.contains("choose another port or address, or free it"), "{told}");
    host.logs(&["audit", "change=\"provision\"", "step=\"bind\"", "failed, undone"]);
    assert!(!host.answers(17486), "nothing is left half open");
    drop(other);
    until("the port is free", || !host.answers(17487));
    assert_eq!(Snapshot::of(&host), before);
    succeed(&mut zone.provision_command(&host), payload.as_bytes());
    assert_eq!(host.metric(&zone, "zone_proxy_changes_total{kind=\"provision\",result=\"bind\"}"), 1);
}

/// The port of a member that is provisioned anew: the old ports and sessions stay.
#[test]
fn a_re_provisioning_that_fails_leaves_the_old_relay_serving() {
    let host = Host::start("");
    let zone = Zone::with(&host);
    let (before, relay) = (Snapshot::of(&host), host.relay());
    let taken = std::net::TcpListener::bind(host.port(20486)).expect("a port");
    let told =
        fail(&mut zone.cli(&["provision", "--name", "p1", "--again", "--endpoint-port", "20486"]), b"");
    assert!(told.contains("step: bind"), "{told}");
    drop(taken);
    assert_eq!(Snapshot::of(&host), before);
    assert_eq!(host.relay(), relay);
}

/// A certificate that openssl signs with its own key, for another key than any that was offered.
fn self_signed(zone: &Zone, key: &str) -> String {
    let out = zone.beside("own.pem");
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-subj", "/CN=p1", "-days", "9", "-newkey", key]);
    command.args(["-addext", "subjectAltName=URI:spiffe://plant/zone-proxy/p1", "-keyout", "/dev/null"]);
    succeed(command.arg("-out").arg(&out), b"");
    std::fs::read_to_string(out).expect("a certificate")
}
