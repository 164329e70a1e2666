//! Roles that no port admits: those of versions to come, and a proxy as a client, with certificates that the zone's own
//! authorities have signed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use zone_protocol::identity::Role;
use zone_tests::process::succeed;

use super::{Answer, Door, Offer, Ports};

/// `access_denied` (RFC 5246, section 7.2): another role than the port is for, whoever vouches for it.
const ACCESS_DENIED: &str = "49";
/// `unknown_ca`: an authority that vouches for nobody who connects to a proxy.
const UNKNOWN_CA: &str = "48";
/// The authorities of a zone, by their files.
const AUTHORITIES: [&str; 3] = ["endpoint", "module-server", "zone-proxy"];

/// Has an authority of a zone sign a certificate for a role of any name: certificate and key.
fn sign(zone: &Path, authority: &str, role: &str, into: &Path) -> [PathBuf; 2] {
    let file = |ending: &str| into.join(format!("{authority}-{role}.{ending}"));
    let (key, request, leaf, extensions) = (file("key"), file("csr"), file("crt"), file("ext"));
    let usage = "extendedKeyUsage=clientAuth,serverAuth";
    let text = format!("basicConstraints=CA:FALSE\n{usage}\nsubjectAltName=URI:spiffe://plant/{role}/x1\n");
    fs::write(&extensions, text).expect("written");
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
    succeed(openssl.args(["-subj", "/CN=x1", "-keyout"]).arg(&key).arg("-out").arg(&request), b"");
    let mut openssl = Command::new("openssl");
    openssl.args(["x509", "-req", "-days", "2", "-set_serial", "4711", "-in"]).arg(&request);
    let ca = |ending: &str| zone.join("ca").join(format!("{authority}.{ending}"));
    openssl.arg("-CA").arg(ca("crt")).arg("-CAkey").arg(ca("key"));
    succeed(openssl.arg("-extfile").arg(&extensions).arg("-out").arg(&leaf), b"");
    [leaf, key]
}

/// What a port answers somebody with this certificate.
fn knock(door: &Door, [leaf, key]: &[PathBuf; 2], anchor: &Path) -> Answer {
    let files = vec![leaf.clone(), key.clone(), anchor.to_owned()];
    let door = Door { name: door.name, address: door.address, files };
    door.ask(&mut door.client(&Offer::new("-tls1_2", "ECDHE-ECDSA-AES256-GCM-SHA384")))
}

#[test]
fn a_role_that_a_port_does_not_name_is_let_in_nowhere_whoever_of_the_zone_has_signed_for_it() {
    let name = "a_role_that_a_port_does_not_name_is_let_in_nowhere_whoever_of_the_zone_has_signed_for_it";
    let Some(ports) = Ports::open(name, "") else { return };
    let (zone, folder) = (ports.zone.path(), tempfile::tempdir().expect("a folder"));
    let anchor = zone.join("ca/zone-proxy.crt");
    let doors: Vec<_> = ports.doors.iter().filter(|door| !door.files.is_empty()).collect();
    assert_eq!(doors.len(), 3);

    let endpoint = sign(&zone, "endpoint", "endpoint", folder.path());
    let served = doors.iter().filter(|door| matches!(knock(door, &endpoint, &anchor), Answer::Served { .. }));
    assert_eq!(
        served.map(|door| door.name).collect::<Vec<_>>(),
        ["17486"],
        "one for a role of today is let in"
    );

    // The last two listen, and connect to nobody.
    let further = [Role::ZoneProxy, Role::ZoneControl];
    let roles: BTreeSet<_> = Role::TO_COME.iter().chain(&further).map(ToString::to_string).collect();
    let mut refused = 0;
    for (role, authority) in roles.iter().flat_map(|role| AUTHORITIES.map(|authority| (role, authority))) {
        let own = sign(&zone, authority, role, folder.path());
        for door in &doors {
            let answer = knock(door, &own, &anchor);
            let alert = if authority == "zone-proxy" { UNKNOWN_CA } else { ACCESS_DENIED };
            assert_eq!(answer, Answer::Refused(alert.to_owned()), "{role} by {authority} at {}", door.name);
            refused += 1;
        }
    }
    println!(
        "{} roles, each signed by {} authorities, at 3 ports: {refused} refused",
        roles.len(),
        AUTHORITIES.len()
    );
    let shown = succeed(&mut ports.zone.cli(&["endpoints", "--json"]), b"");
    assert!(!shown.contains("x1"), "{shown}");
}
