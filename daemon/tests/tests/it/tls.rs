//! TLS on every port as OpenSSL finds it (acceptance 3, R-20 to R-22): four suites, one version, nothing else.

mod roles;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use zone_protocol::tls::certificate::{KeyKind, chain_from_pem, facts};
use zone_tests::host::Host;
use zone_tests::process::{run, succeed};
use zone_tests::zone::Zone;
use zone_tests::{TEST_TIMEOUT, skip};

/// The four suites of R-21 by OpenSSL's names, each with the leaf that it is served with.
const SUITES: [(&str, KeyKind); 4] = [
    ("ECDHE-RSA-AES256-GCM-SHA384", KeyKind::Rsa(2048)),
    ("ECDHE-RSA-AES128-GCM-SHA256", KeyKind::Rsa(2048)),
    ("ECDHE-ECDSA-AES256-GCM-SHA384", KeyKind::P256),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", KeyKind::P256),
];
/// The suites of the opt-in.
const SUITES_13: [&str; 2] = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"];
/// All suites of TLS 1.3 (RFC 8446, appendix B.4); OpenSSL lists the last two only where they are named.
const ALL_SUITES_13: [&str; 5] = [
    SUITES_13[0],
    SUITES_13[1],
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
];
/// The widest offer that OpenSSL can make, without encryption and without authentication included.
const WIDEST: &str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0";
const OLDER: [&str; 2] = ["-tls1", "-tls1_1"];
/// A greeting that is not answered within this time is taken as ignored.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// OpenSSL processes at a time.
const CLIENTS: usize = 4;

/// Acceptance 3. What is offered is what this OpenSSL lists, PSK, SRP, anonymous and unencrypted suites included.
#[test]
fn each_of_the_four_suites_connects_by_itself_and_every_other_suite_and_version_is_refused() {
    let test = "each_of_the_four_suites_connects_by_itself_and_every_other_suite_and_version_is_refused";
    let Some(ports) = Ports::open(test, "") else { return };
    let mut offers = vec![Offer::widest()];
    offers.extend(["-tls1_2", "-tls1_1", "-tls1"].into_iter().flat_map(Offer::listed));
    offers.extend(ALL_SUITES_13.map(Offer::of_13));
    let table = ports.try_all(&offers);
    println!("{table}");
    for (suite, leaf) in SUITES {
        for answer in table.answers("-tls1_2", suite) {
            assert_eq!(*answer, Answer::served("TLSv1.2", suite, leaf), "{suite}");
        }
    }
    for answer in table.answers("", WIDEST) {
        let Answer::Served { version, suite, .. } = answer else { panic!("the widest offer: {answer}") };
        assert!(version == "TLSv1.2" && is_one_of_four(suite), "the widest offer: {answer}");
    }
    let others = offers.iter().filter(|offer| offer.version != "-tls1_2" || !is_one_of_four(&offer.suite));
    for offer in others.filter(|offer| offer.suite != WIDEST) {
        for answer in table.answers(offer.version, &offer.suite) {
            assert!(matches!(answer, Answer::Refused(_)), "{offer:?}: {answer}");
        }
    }
}

/// 1.3 is refused unless `tls.tls13` is set, and brings no way back to what is older or weaker.
#[test]
fn tls_1_3_takes_an_opt_in_and_changes_nothing_for_1_2() {
    let test = "tls_1_3_takes_an_opt_in_and_changes_nothing_for_1_2";
    let Some(ports) = Ports::open(test, "[tls]\ntls13 = true\n") else { return };
    let mut offers = vec![Offer::widest()];
    offers.extend(ALL_SUITES_13.map(Offer::of_13));
    offers.extend(SUITES.map(|(suite, _)| Offer::new("-tls1_2", suite)));
    offers.extend(
        ["ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-AES128-SHA256", "AES128-GCM-SHA256"]
            .map(|suite| Offer::new("-tls1_2", suite)),
    );
    offers.extend(OLDER.map(|version| Offer::new(version, "ALL:COMPLEMENTOFALL")));
    let table = ports.try_all(&offers);
    println!("{table}");
    for offer in &offers {
        let suite = offer.suite.as_str();
        let of_four = SUITES.iter().find(|(name, _)| *name == suite);
        for answer in table.answers(offer.version, suite) {
            match (offer.version, of_four) {
                ("" | "-tls1_3", _) if suite == WIDEST || SUITES_13.contains(&suite) => {
                    let Answer::Served { version, suite: shown, .. } = answer else {
                        panic!("{suite}: {answer}")
                    };
                    assert_eq!(version, "TLSv1.3", "{suite}: {answer}");
                    assert!(
                        suite == WIDEST && SUITES_13.contains(&shown.as_str()) || shown == suite,
                        "{answer}"
                    );
                }
                ("-tls1_2", Some((_, leaf))) => assert_eq!(*answer, Answer::served("TLSv1.2", suite, *leaf)),
                _ => assert!(matches!(answer, Answer::Refused(_)), "{offer:?}: {answer}"),
            }
        }
    }
}

/// Without extended master secret (RFC 7627) nothing can be bound to a connection.
#[test]
fn a_client_without_extended_master_secret_is_refused() {
    let Some(ports) = Ports::open("a_client_without_extended_master_secret_is_refused", "") else { return };
    let config = ports.zone.beside("openssl.cnf");
    let options = "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nOptions = ";
    for (option, served) in [("ExtendedMasterSecret", true), ("-ExtendedMasterSecret", false)] {
        std::fs::write(&config, format!("{options}{option}\n")).expect("a file");
        for door in &ports.doors {
            let offer = Offer::new("-tls1_2", SUITES[0].0);
            let answer = door.ask(door.client(&offer).env("OPENSSL_CONF", &config));
            assert_eq!(matches!(answer, Answer::Served { .. }), served, "{}: {option}: {answer}", door.name);
        }
    }
    for door in &ports.doors {
        assert_eq!(Hello::default().send(door.address), Reply::Hello { version: 0x0303, compression: 0 });
        let without = Hello { extended_master_secret: false, ..Hello::default() };
        assert_eq!(without.send(door.address), Reply::Alert(40), "{}: handshake_failure", door.name);
    }
}

/// A second greeting inside a connection is never taken: it is answered by an alert, by the end, or by nothing.
#[test]
fn nothing_is_renegotiated() {
    let Some(ports) = Ports::open("nothing_is_renegotiated", "") else { return };
    for door in &ports.doors {
        let mut client = door.client_within(ANSWER_TIMEOUT, &Offer::new("-tls1_2", SUITES[0].0));
        client.arg("-msg").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut client = client.spawn().expect("openssl");
        let mut stdin = client.stdin.take().expect("a pipe");
        // A line of one R asks for it; the pipe stays open until openssl has gone.
        stdin.write_all(b"R\n").expect("openssl reads");
        let output = client.wait_with_output().expect("our child");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let count = |message: &str| out.matches(&format!(", {message}\n")).count();
        assert!(err.contains("RENEGOTIATING"), "{}: {err}", door.name);
        assert_eq!((count("ClientHello"), count("ServerHello")), (2, 1), "{}: {out}", door.name);
    }
}

/// OpenSSL as Debian builds it can neither compress nor speak SSL 3.0, so these greetings are made by hand.
#[test]
fn nothing_is_compressed_and_ssl_3_is_refused() {
    let Some(ports) = Ports::open("nothing_is_compressed_and_ssl_3_is_refused", "") else { return };
    for door in &ports.doors {
        let deflate_first = Hello { compressions: &[1, 0], ..Hello::default() };
        assert_eq!(deflate_first.send(door.address), Reply::Hello { version: 0x0303, compression: 0 });
        let deflate_only = Hello { compressions: &[1], ..Hello::default() };
        assert!(matches!(deflate_only.send(door.address), Reply::Alert(_)), "{}", door.name);
        for version in [0x0300, 0x0301, 0x0302] {
            let old = Hello { version, ..Hello::default() };
            assert_eq!(old.send(door.address), Reply::Alert(70), "{}: protocol_version", door.name);
        }
    }
}

/// Two hosts, and every port of theirs that speaks TLS.
struct Ports {
    _bare: Host,
    _member: Host,
    zone: Zone,
    doors: Vec<Door>,
}

impl Ports {
    fn open(test: &str, config: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            skip(test, "openssl is missing");
            return None;
        }
        let (bare, member) = (Host::start(config), Host::start(config));
        let zone = Zone::with(&member);
        let endpoint = zone.issue_endpoint("e1", &[]);
        let module_server = zone.issue_module_server("m2");
        let anchor = endpoint.join("zone-proxy-ca.crt");
        let by_endpoint = vec![endpoint.join("endpoint.crt"), endpoint.join("endpoint.key"), anchor.clone()];
        let by_server =
            vec![module_server.join("module-server.crt"), module_server.join("module-server.key"), anchor];
        let doors = vec![
            Door { name: "17488 unprovisioned", address: bare.port(17488), files: Vec::new() },
            Door { name: "17488", address: member.port(17488), files: by_server.clone() },
            Door { name: "17486", address: member.port(17486), files: by_endpoint },
            Door { name: "17487", address: member.port(17487), files: by_server },
        ];
        Some(Self { _bare: bare, _member: member, zone, doors })
    }

    /// Makes every offer at every port, a few at a time.
    fn try_all<'a>(&'a self, offers: &'a [Offer]) -> Table<'a> {
        let pairs = offers.iter().flat_map(|offer| self.doors.iter().map(move |door| (offer, door)));
        let (waiting, answers) = (Mutex::new(pairs), Mutex::new(BTreeMap::new()));
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    loop {
                        let next = waiting.lock().expect("no client panics").next();
                        let Some((offer, door)) = next else { return };
                        let answer = door.ask(&mut door.client(offer));
                        let key = key(offer.version, &offer.suite, door);
                        answers.lock().expect("no client panics").insert(key, answer);
                    }
                });
            }
        });
        let answers = answers.into_inner().expect("no client panics");
        Table { doors: &self.doors, offers, answers }
    }
}

/// One port, and how a client that may connect there is equipped.
struct Door {
    name: &'static str,
    address: SocketAddr,
    /// Own certificate, own key, and the anchor for the proxy; none where nobody is known yet.
    files: Vec<PathBuf>,
}

impl Door {
    fn client(&self, offer: &Offer) -> Command {
        self.client_within(TEST_TIMEOUT, offer)
    }

    fn client_within(&self, time: Duration, offer: &Offer) -> Command {
        let mut client = Command::new("timeout");
        client.arg(time.as_secs().to_string()).args(["openssl", "s_client", "-connect"]);
        client.arg(self.address.to_string()).args(["-no-CApath", "-no-CAstore"]).args(offer.words());
        match self.files.as_slice() {
            [certificate, key, anchor] => {
                client.arg("-cert").arg(certificate).arg("-key").arg(key);
                client.arg("-verify_return_error").arg("-CAfile").arg(anchor);
            }
            _ => {
                client.arg("-no-CAfile");
            }
        }
        // What the machine's own configuration forbids would not be offered.
        client.env("OPENSSL_CONF", "/dev/null");
        client
    }

    /// Connects and makes a request, whose answer shows that the proxy has accepted the handshake too.
    fn ask(&self, client: &mut Command) -> Answer {
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        let output = run(client.arg("-ign_eof"), request.as_bytes());
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let after = |text: &str, words: &str| {
            let rest = text.split_once(words)?.1;
            Some(rest.split(['\n', ',']).next().unwrap_or_default().trim().to_owned())
        };
        if let Some(alert) = after(&err, "SSL alert number ") {
            return Answer::Refused(alert);
        }
        let leaf = chain_from_pem(&out, "leaf").and_then(|chain| facts(&chain[0], "leaf"));
        match (after(&out, "New, "), after(&out, "Cipher is "), leaf) {
            (Some(version), Some(suite), Ok(leaf)) if out.contains("HTTP/1.1 ") => {
                let plain = out.contains("Compression: NONE") && out.contains("Expansion: NONE");
                assert!(plain, "{}: {out}", self.name);
                Answer::Served { version, suite, leaf: leaf.key }
            }
            _ => Answer::Neither(format!("{out}{err}")),
        }
    }
}

/// What a client offers: a version by OpenSSL's option, and a suite or a list of them.
#[derive(Debug)]
struct Offer {
    version: &'static str,
    suite: String,
}

impl Offer {
    fn new(version: &'static str, suite: &str) -> Self {
        Self { version, suite: suite.to_owned() }
    }

    fn of_13(suite: &str) -> Self {
        Self::new("-tls1_3", suite)
    }

    fn widest() -> Self {
        Self::new("", WIDEST)
    }

    /// Every suite by itself that this OpenSSL can offer with a version.
    fn listed(version: &'static str) -> Vec<Self> {
        let mut list = Command::new("openssl");
        list.args(["ciphers", "-s", "-psk", "-srp", version, WIDEST]).env("OPENSSL_CONF", "/dev/null");
        let names = succeed(&mut list, b"");
        let offers: Vec<_> = names.trim().split(':').map(|suite| Self::new(version, suite)).collect();
        assert!(offers.len() > 20, "openssl lists next to nothing for {version}: {names}");
        offers
    }

    fn words(&self) -> Vec<String> {
        let mut words: Vec<_> =
            (!self.version.is_empty()).then(|| self.version.to_owned()).into_iter().collect();
        if self.version == "-tls1_3" {
            words.extend(["-ciphersuites".to_owned(), self.suite.clone()]);
            return words;
        }
        words.extend(["-cipher".to_owned(), format!("{}:@SECLEVEL=0", self.suite)]);
        // Such suites are offered only by a client that has the secret.
        if self.suite.contains("PSK") {
            words.extend(["-psk", "00"].map(str::to_owned));
        }
        if self.suite.contains("SRP") {
            words.extend(["-srpuser", "u", "-srppass", "pass:p"].map(str::to_owned));
        }
        words
    }
}

/// How an offer was taken.
#[derive(Debug, PartialEq)]
enum Answer {
    /// The handshake went through, and a request was answered.
    Served { version: String, suite: String, leaf: KeyKind },
    /// The proxy refused by an alert of this number.
    Refused(String),
    /// Neither: OpenSSL did not offer it, or the proxy said nothing.
    Neither(String),
}

impl Answer {
    fn served(version: &str, suite: &str, leaf: KeyKind) -> Self {
        Self::Served { version: version.to_owned(), suite: suite.to_owned(), leaf }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served { version, leaf, .. } => write!(f, "{version} {leaf:?}"),
            Self::Refused(alert) => write!(f, "refused ({alert})"),
            Self::Neither(why) => write!(f, "neither: {why}"),
        }
    }
}

/// Every offer with its answer at every port.
struct Table<'a> {
    doors: &'a [Door],
    offers: &'a [Offer],
    answers: BTreeMap<String, Answer>,
}

impl Table<'_> {
    /// The answers to an offer, one for each port.
    fn answers(&self, version: &str, suite: &str) -> Vec<&Answer> {
        self.doors.iter().map(|door| &self.answers[&key(version, suite, door)]).collect()
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<32}", "offered", "")?;
        self.doors.iter().try_for_each(|door| write!(f, "{:<23}", door.name))?;
        for offer in self.offers {
            write!(f, "\n{:<8} {:<32}", offer.version, offer.suite)?;
            let answers = self.answers(offer.version, &offer.suite);
            answers.iter().try_for_each(|answer| write!(f, "{:<23}", answer.to_string()))?;
        }
        let refused = self.answers.values().filter(|answer| matches!(answer, Answer::Refused(_))).count();
        write!(f, "\n{} offers at {} ports: ", self.offers.len(), self.doors.len())?;
        writeln!(f, "{} served, {refused} refused", self.answers.len() - refused)
    }
}

fn key(version: &str, suite: &str, door: &Door) -> String {
    format!("{version} {suite} {}", door.name)
}

fn is_one_of_four(suite: &str) -> bool {
    SUITES.iter().any(|(own, _)| *own == suite)
}

/// A greeting made by hand (RFC 5246, section 7.4.1.2), for what OpenSSL can't be made to say.
struct Hello {
    version: u16,
    extended_master_secret: bool,
    compressions: &'static [u8],
}

impl Default for Hello {
    fn default() -> Self {
        Self { version: 0x0303, extended_master_secret: true, compressions: &[0] }
    }
}

/// What comes back first.
#[derive(Debug, PartialEq)]
enum Reply {
    Hello { version: u16, compression: u8 },
    Alert(u8),
}

impl Hello {
    fn send(&self, to: SocketAddr) -> Reply {
        let mut stream = TcpStream::connect(to).expect("the port is open");
        stream.set_read_timeout(Some(TEST_TIMEOUT)).expect("a socket");
        stream.write_all(&self.record()).expect("the greeting goes out");
        let mut head = [0; 5];
        stream.read_exact(&mut head).expect("a record");
        let mut body = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
        stream.read_exact(&mut body).expect("a record");
        match head[0] {
            21 => Reply::Alert(body[1]),
            22 => {
                // Type and length, version, random, session id, suite, compression.
                let session = usize::from(body[38]);
                let version = u16::from_be_bytes([body[4], body[5]]);
                Reply::Hello { version, compression: body[39 + session + 2] }
            }
            other => panic!("a record of type {other}"),
        }
    }

    fn record(&self) -> Vec<u8> {
        // supported_groups with x25519 and P-256, signature_algorithms, ec_point_formats, renegotiation_info.
        let mut extensions = vec![0, 10, 0, 6, 0, 4, 0, 0x1d, 0, 0x17];
        extensions.extend([0, 13, 0, 8, 0, 6, 4, 3, 8, 4, 4, 1]);
        extensions.extend([0, 11, 0, 2, 1, 0, 0xff, 1, 0, 1, 0]);
        if self.extended_master_secret {
            extensions.extend([0, 0x17, 0, 0]);
        }
        let mut hello = self.version.to_be_bytes().to_vec();
        hello.extend([7; 32]);
        // No session id, then the four suites.
        hello.push(0);
        hello.extend([0, 8, 0xc0, 0x2b, 0xc0, 0x2c, 0xc0, 0x2f, 0xc0, 0x30]);
        hello.push(u8::try_from(self.compressions.len()).expect("few"));
        hello.extend(self.compressions);
        hello.extend(length(&extensions));
        hello.extend(extensions);
        let mut message = vec![1, 0];
        message.extend(length(&hello));
        message.extend(hello);
        let mut record = vec![22, 3, 1];
        record.extend(length(&message));
        record.extend(message);
        record
    }
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).expect("short").to_be_bytes()
}
