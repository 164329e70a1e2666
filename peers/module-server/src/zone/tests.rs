use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zone_protocol::tls::certificate::Leaf;
use zone_protocol::tls::verifier::DenyList;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use time::{Duration, OffsetDateTime};
use zone_protocol::identity::{Label, Role};
use zone_protocol::provisioning::SigningRequests;
use zone_protocol::tls::certificate::{KeyKind, certified_key, facts};
use zone_protocol::tls::policy::Versions;

use super::authority::Authority;
use super::files::{self, Mode};
use super::{BACKDATING, HostName, Issued, Validity, Zone, authority};
use crate::error::Error;

fn zone() -> (tempfile::TempDir, Zone) {
    let scratch = tempfile::tempdir().unwrap();
    let zone = Zone::init(&scratch.path().join("zone"), label("plant-7"), label("module-1")).unwrap();
    (scratch, zone)
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

fn leaf(pem: &str) -> Leaf {
    Leaf::read(&authority::first(pem).unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_zone_opens_again_with_its_names_and_a_certificate_of_its_own() {
    let (_scratch, zone) = zone();
    let opened = Zone::open(zone.directory()).unwrap();
    assert_eq!((opened.name().as_str(), opened.module_server().as_str()), ("plant-7", "module-1"));
    let own = opened.credentials().unwrap();
    assert_eq!(leaf(&own.certificate).identity.to_string(), "spiffe://plant-7/module-server/module-1");
    assert_eq!(opened.trust().unwrap().version, 1);
    assert!(opened.proxies().unwrap().is_empty());
}

#[test]
fn a_zone_that_exists_is_never_overwritten() {
    let (_scratch, zone) = zone();
    let before = files::read(&zone.path("ca/endpoint.key")).unwrap();
    let again = Zone::init(zone.directory(), label("other"), label("module-1"));
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    assert_eq!(files::read(&zone.path("ca/endpoint.key")).unwrap(), before);
}

#[test]
fn an_empty_directory_may_become_a_zone_and_any_other_may_not() {
    let scratch = tempfile::tempdir().unwrap();
    let (empty, used) = (scratch.path().join("empty"), scratch.path().join("used"));
    fs::create_dir(&empty).unwrap();
    fs::create_dir(&used).unwrap();
    fs::write(used.join("file"), "x").unwrap();
    Zone::init(&empty, label("z"), label("m")).unwrap();
    assert!(matches!(Zone::init(&used, label("z"), label("m")), Err(Error::Exists(_))));
    assert!(matches!(Zone::open(&used), Err(Error::NoZone(_))));
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 2, "no draft is left behind");
}

#[test]
fn keys_are_readable_by_their_owner_only() {
    let (_scratch, zone) = zone();
    for directory in ["", "ca"] {
        assert_eq!(mode(&zone.path(directory)), 0o700, "{directory}");
    }
    for key in ["ca/endpoint.key", "ca/module-server.key", "ca/zone-proxy.key", "own.key"] {
        assert_eq!(mode(&zone.path(key)), 0o600, "{key}");
    }
}

#[test]
fn a_reader_of_a_file_that_is_replaced_sees_the_old_content_or_the_new() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("trust.json");
    let (old, new) = (vec![b'o'; 100_000], vec![b'n'; 50_000]);
    files::replace(&path, &old, Mode::Public).unwrap();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            loop {
                let seen = fs::read(&path).unwrap();
                assert!(seen == old || seen == new, "{} bytes", seen.len());
                if seen == new {
                    break;
                }
            }
        });
        files::replace(&path, &new, Mode::Public).unwrap();
        reader.join().unwrap();
    });
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1, "nothing else is left behind");
}

#[test]
fn a_replacement_that_fails_leaves_the_old_content() {
    let (_scratch, zone) = zone();
    let before = files::read(&zone.path("trust.json")).unwrap();
    // A name that is too long can't be put in place, whoever runs the test.
    let path = zone.path(&"x".repeat(300));
    assert!(matches!(files::replace(&path, b"new", Mode::Public), Err(Error::File { .. })));
    assert_eq!(files::read(&zone.path("trust.json")).unwrap(), before);
    let drafts = fs::read_dir(zone.directory()).unwrap().flatten();
    assert!(!drafts.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".new-")));
}

#[test]
fn a_leaf_says_who_it_is_for_and_what_it_is_good_for() {
    let (_scratch, zone) = zone();
    let cases = [(Role::Endpoint, (true, true)), (Role::ModuleServer, (false, true))];
    for (role, (server, client)) in cases {
        let pem = zone.issue(role, &label("host-7"), None).unwrap().certificate;
        let der = authority::first(&pem).unwrap();
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let eku = certificate.extended_key_usage().unwrap().unwrap().value;
        assert_eq!((eku.server_auth, eku.client_auth, eku.any), (server, client, false), "{role}");
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        let uri = format!("spiffe://plant-7/{role}/host-7");
        assert_eq!(*names, [GeneralName::URI(&uri), GeneralName::DNSName("host-7")]);
        assert!(!certificate.is_ca());
        let age = OffsetDateTime::now_utc() - certificate.validity().not_before.to_datetime();
        assert!((BACKDATING..BACKDATING + Duration::minutes(1)).contains(&age), "{age}");
    }
}

#[test]
fn every_certificate_has_a_serial_of_its_own_and_is_on_record() {
    let (_scratch, zone) = zone();
    let serials: std::collections::HashSet<_> = (0..20)
        .map(|_| leaf(&zone.issue(Role::Endpoint, &label("a"), None).unwrap().certificate).serial)
        .collect();
    assert_eq!(serials.len(), 20);
    let audit = zone.audit().unwrap();
    assert_eq!(audit.len(), 21, "the zone's own certificate is the first");
    let recorded = audit.iter().filter(|entry| entry.identity.name == label("a"));
    let hex = zone_protocol::tls::certificate::hex;
    assert!(recorded.into_iter().all(|entry| serials.iter().any(|serial| hex(serial) == entry.serial)));
}

#[test]
fn a_record_that_a_crash_cut_off_does_not_hide_the_others() {
    let (_scratch, zone) = zone();
    let mut text = files::read(&zone.path("issued.jsonl")).unwrap();
    text.push_str("{\"issued_at\":\"20");
    fs::write(zone.path("issued.jsonl"), text).unwrap();
    assert_eq!(zone.audit().unwrap().len(), 1);
}

#[test]
fn revoking_denies_what_was_issued_and_not_the_replacement() {
    let (_scratch, zone) = zone();
    let old = zone.issue(Role::Endpoint, &label("a"), None).unwrap();
    let other = zone.issue(Role::Endpoint, &label("b"), None).unwrap();
    let trust = zone.revoke(Role::Endpoint, &label("a")).unwrap();
    let new = zone.issue(Role::Endpoint, &label("a"), None).unwrap();
    assert_eq!(trust.version, 2);
    assert_eq!(zone.trust().unwrap(), trust, "it is on disk");
    let denied = DenyList::new(&trust.deny);
    let denies = |issued: &Issued| denied.denies(&leaf(&issued.certificate));
    assert_eq!([&old, &other, &new].map(denies), [true, false, false]);
}

#[test]
fn revoking_twice_grows_the_version_and_not_the_list() {
    let (_scratch, zone) = zone();
    zone.revoke(Role::Endpoint, &label("a")).unwrap();
    let middle = zone.issue(Role::Endpoint, &label("a"), None).unwrap();
    let trust = zone.revoke(Role::Endpoint, &label("a")).unwrap();
    assert_eq!((trust.version, trust.deny.len()), (3, 1));
    assert!(DenyList::new(&trust.deny).denies(&leaf(&middle.certificate)));
}

#[test]
fn a_certificate_that_was_issued_with_a_clock_ahead_is_denied_too() {
    let (_scratch, zone) = zone();
    let now = OffsetDateTime::now_utc();
    let ahead = Validity { not_before: now + Duration::days(1), not_after: now + Duration::days(9) };
    let issued = zone.issue(Role::Endpoint, &label("a"), Some(ahead)).unwrap();
    let trust = zone.revoke(Role::Endpoint, &label("a")).unwrap();
    assert!(DenyList::new(&trust.deny).denies(&leaf(&issued.certificate)));
}

#[test]
fn revoking_our_own_name_leaves_us_with_a_certificate_that_is_good() {
    let (_scratch, zone) = zone();
    let before = zone.credentials().unwrap();
    let trust = zone.revoke(Role::ModuleServer, &label("module-1")).unwrap();
    let denied = DenyList::new(&trust.deny);
    assert!(denied.denies(&leaf(&before.certificate)));
    assert!(!denied.denies(&leaf(&zone.credentials().unwrap().certificate)));
}

#[test]
fn our_own_certificate_is_renewed_before_it_runs_out_and_where_it_does_not_fit_its_key() {
    let (_scratch, zone) = zone();
    let now = OffsetDateTime::now_utc();
    let short = Validity { not_before: now - BACKDATING, not_after: now + Duration::days(3) };
    let ending = zone.issue(Role::ModuleServer, &label("module-1"), Some(short)).unwrap();
    let mixed = zone.issue(Role::ModuleServer, &label("module-1"), None).unwrap();
    for (certificate, key) in [(&ending.certificate, &ending.key), (&mixed.certificate, &ending.key)] {
        fs::write(zone.path("own.crt"), certificate).unwrap();
        fs::write(zone.path("own.key"), key.as_bytes()).unwrap();
        let own = zone.credentials().unwrap();
        assert_ne!(own.certificate, *certificate);
        certified_key(&own.certificate, &own.key, "own", &Versions::Tls12.provider()).unwrap();
        assert_eq!(files::read(&zone.path("own.crt")).unwrap(), own.certificate);
    }
}

fn requests() -> SigningRequests {
    let request = |key: &rcgen::KeyPair| {
        rcgen::CertificateParams::default().serialize_request(key).unwrap().pem().unwrap()
    };
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    SigningRequests { rsa: request(&rsa), ec: request(&rcgen::KeyPair::generate().unwrap()) }
}

#[test]
fn a_proxys_certificates_are_for_its_two_keys_its_name_and_its_addresses() {
    let (_scratch, zone) = zone();
    let hosts = ["198.51.100.4", "proxy.example.net", "198.51.100.4"].map(HostName::new);
    let validity = Validity::at(OffsetDateTime::now_utc());
    let certificates = zone.sign_proxy(&label("p1"), &requests(), &hosts, validity).unwrap();
    for (pem, kind) in [(&certificates.rsa, KeyKind::Rsa(2048)), (&certificates.ec, KeyKind::P256)] {
        let der = authority::first(pem).unwrap();
        assert_eq!(facts(&der, "proxy").unwrap().key, kind);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        let expected = [
            GeneralName::URI("spiffe://plant-7/zone-proxy/p1"),
            GeneralName::DNSName("p1"),
            GeneralName::IPAddress(&[198, 51, 100, 4]),
            GeneralName::DNSName("proxy.example.net"),
        ];
        assert_eq!(*names, expected);
        let usages = certificate.extensions().iter().find_map(|e| match e.parsed_extension() {
            ParsedExtension::ExtendedKeyUsage(eku) => Some((eku.server_auth, eku.client_auth)),
            _ => None,
        });
        assert_eq!(usages, Some((true, false)));
    }
}

#[test]
fn a_signing_request_with_another_kind_of_key_is_refused() {
    let (_scratch, zone) = zone();
    let SigningRequests { rsa, ec } = requests();
    let swapped = SigningRequests { rsa: ec, ec: rsa };
    let refused = zone.sign_proxy(&label("p1"), &swapped, &[], Validity::at(OffsetDateTime::now_utc()));
    assert!(matches!(refused, Err(Error::Signing { .. })), "{refused:?}");
    assert!(!zone.audit().unwrap().iter().any(|entry| entry.identity.role == Role::ZoneProxy));
}

#[test]
fn an_endpoint_bundle_holds_a_configuration_that_points_at_its_own_files() {
    let (scratch, zone) = zone();
    let out = scratch.path().join("host-7");
    let proxies = ["198.51.100.4:17486".to_owned()];
    zone.write_endpoint_bundle(&label("host-7"), &out, &proxies, None).unwrap();
    let text = fs::read_to_string(out.join("zone-endpoint.toml")).unwrap();
    let configuration: toml::Table = text.parse().unwrap();
    assert_eq!(configuration["id"].as_str(), Some("host-7"));
    assert_eq!(configuration["zone"].as_str(), Some("plant-7"));
    assert_eq!(configuration["proxies"].as_array().unwrap()[0].as_str(), Some("198.51.100.4:17486"));
    assert_eq!(configuration["parks"].as_integer(), Some(2));
    for key in ["certificate", "key", "proxy_anchors", "module_server_anchors"] {
        assert!(out.join(configuration[key].as_str().unwrap()).exists(), "{key}");
    }
    assert_eq!(mode(&out.join("endpoint.key")), 0o600);
    let uncommented: String =
        text.lines().skip_while(|l| *l != "# [[service]]").map(|l| l[2..].to_owned() + "\n").collect();
    let service = uncommented.parse::<toml::Table>().unwrap();
    assert_eq!(service["service"].as_array().unwrap()[0]["end_to_end"].as_str(), Some("off"));
}

#[test]
fn a_bundle_is_not_written_over_another() {
    let (scratch, zone) = zone();
    let out = scratch.path().join("m");
    zone.write_module_server_bundle(&label("standby"), &out, None).unwrap();
    for file in ["module-server.crt", "module-server.key", "zone-proxy-ca.crt"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let issued = zone.audit().unwrap().len();
    let again = zone.write_module_server_bundle(&label("standby"), &out, None);
    assert!(matches!(again, Err(Error::Exists(_))));
    assert_eq!(zone.audit().unwrap().len(), issued, "nothing was signed for it");
}

#[test]
fn two_processes_that_change_the_zone_at_once_lose_nothing() {
    let (_scratch, zone) = zone();
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let zone = &zone;
            scope.spawn(move || zone.revoke(Role::Endpoint, &label(name)).unwrap());
        }
    });
    let trust = zone.trust().unwrap();
    assert_eq!((trust.version, trust.deny.len()), (5, 4));
}

#[test]
fn an_older_program_reads_the_trust_document_and_is_not_contradicted_by_what_lies_beside_it() {
    let (_scratch, zone) = zone();
    let mut trust = zone.trust().unwrap();
    let until = OffsetDateTime::now_utc();
    trust.retired = vec![zone_protocol::trust::Retired { fingerprint: "ab".repeat(32), until }];
    zone.write_trust(&trust).unwrap();
    assert_eq!(zone.trust().unwrap(), trust);
    let path = zone.directory().join("trust.json");
    let plain = fs::read_to_string(&path).unwrap();
    assert!(!plain.contains("retired"), "{plain}");
    fs::write(&path, plain.replace("\"version\": 1", "\"version\": 2")).unwrap();
    assert_eq!(zone.trust().unwrap().retired, []);
    let others = fs::read_dir(zone.directory()).unwrap().flatten();
    let beside = others.filter(|entry| entry.file_name().to_string_lossy().starts_with("trust-"));
    assert_eq!(beside.count(), 1, "those before it are gone");
}

/// Puts an authority in place that was made this long ago; authorities live for ten years.
fn age(zone: &Zone, role: Role, days: i64) {
    let made =
        Authority::create(zone.name(), role, OffsetDateTime::now_utc() - Duration::days(days)).unwrap();
    let (key, certificate) = zone.authority_paths(role);
    fs::write(key, &*made.key).unwrap();
    fs::write(certificate, made.certificate).unwrap();
}

#[test]
fn a_certificate_ends_with_its_authority_at_the_latest() {
    let (_scratch, zone) = zone();
    age(&zone, Role::Endpoint, 3_652 - 10);
    let end =
        facts(&authority::first(&zone.anchor(Role::Endpoint).unwrap()).unwrap(), "ca").unwrap().not_after;
    let issued = zone.issue(Role::Endpoint, &label("host-7"), None).unwrap();
    assert_eq!(issued.not_after().unwrap(), end);
    let long = Validity { not_after: end + Duration::days(400), ..Validity::at(OffsetDateTime::now_utc()) };
    let issued = zone.issue(Role::Endpoint, &label("host-7"), Some(long)).unwrap();
    assert_eq!(issued.not_after().unwrap(), end);
    // Ours can't be made to last longer, so it is not made again at every use.
    age(&zone, Role::ModuleServer, 3_652 - 10);
    zone.issue_own().unwrap();
    let own = zone.credentials().unwrap().certificate;
    assert_eq!(zone.credentials().unwrap().certificate, own);
}

#[test]
fn an_authority_that_has_ended_signs_nothing_and_is_named_with_what_to_do() {
    let (scratch, zone) = zone();
    age(&zone, Role::Endpoint, 3_653);
    let out = scratch.path().join("out");
    let error = zone.write_endpoint_bundle(&label("host-7"), &out, &[], None).unwrap_err().to_string();
    assert!(error.contains("ca/endpoint.key: this authority ended at 20"), "{error}");
    assert!(error.contains("zone-module authority renew") && !out.exists(), "{error}");
}

#[test]
fn every_anchor_of_a_role_is_trusted_and_handed_out_until_it_is_retired() {
    let (scratch, zone) = zone();
    let old = zone.anchor(Role::ModuleServer).unwrap();
    let mut trust = zone.trust().unwrap();
    age(&zone, Role::Endpoint, 1);
    age(&zone, Role::ModuleServer, 1);
    let count = |role| zone.anchors(role).unwrap().len();
    assert_eq!((count(Role::Endpoint), count(Role::ModuleServer), count(Role::ZoneProxy)), (2, 2, 1));
    assert_eq!(zone.credentials().unwrap().endpoint_anchors.len(), 2);
    let out = scratch.path().join("out");
    zone.write_endpoint_bundle(&label("host-7"), &out, &[], None).unwrap();
    let handed = || fs::read_to_string(out.join("module-server-ca.crt")).unwrap().matches("BEGIN").count();
    assert_eq!(handed(), 2);

    let fingerprint = zone_protocol::trust::fingerprint(&authority::first(&old).unwrap());
    let until = OffsetDateTime::now_utc() + Duration::days(1);
    trust.retired = vec![zone_protocol::trust::Retired { fingerprint, until }];
    zone.write_trust(&trust).unwrap();
    assert_eq!(count(Role::ModuleServer), 1);
}

#[test]
fn whoever_is_about_to_lose_a_certificate_is_named_until_there_is_a_new_one() {
    let (_scratch, zone) = zone();
    let now = OffsetDateTime::now_utc();
    let issue = |name: &str, days| {
        let validity = Validity { not_after: now + Duration::days(days), ..Validity::at(now) };
        zone.issue(Role::Endpoint, &label(name), Some(validity)).unwrap();
    };
    issue("soon", 5);
    issue("later", 31);
    issue("gone", 2);
    issue("renewed", 3);
    issue("renewed", 300);
    let warnings = zone.expiry_warnings(now).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains("endpoint/gone expires in") && warnings[1].contains("endpoint/soon expires in")
    );
    assert!(warnings[1].contains("'zone-module issue endpoint soon --out DIR'"), "{warnings:?}");
    zone.revoke(Role::Endpoint, &label("gone")).unwrap();
    assert_eq!(zone.expiry_warnings(now).unwrap().len(), 1);
    assert_eq!(zone.expiry_warnings(now + Duration::days(3_640)).unwrap().len(), 3, "the authorities");
    for number in 0..30 {
        issue(&format!("e{number}"), 4);
    }
    let warnings = zone.expiry_warnings(now).unwrap();
    assert_eq!(warnings.len(), 21);
    assert!(warnings[20].contains("11 more parties"), "{warnings:?}");
}
