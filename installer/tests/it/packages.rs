//! What may be installed, and what is refused. Signatures are made by the real minisign.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

use zone_installer::packages::{Catalogue, Format, stage};
use zone_installer::version::Version;

use crate::support::{Host, deb_name, possible};

const TOOLS: [&str; 1] = ["minisign"];

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn refused(host: &Host) -> String {
    let why = Catalogue::read(&host.paths).unwrap_err().to_string();
    assert!(!why.contains('\n'), "one line: {why}");
    why
}

///
#[test]
fn signed_packages_are_listed_with_the_newest_first() {
    if !possible("signed_packages_are_listed_with_the_newest_first", &TOOLS) {
        return;
    }
    let host = Host::new();
    for version in ["0.1.0-2", "0.1.0-10", "0.1.0-1"] {
        host.package(&deb_name(version), version.as_bytes());
    }
    host.package("zone-proxy-0.1.0-1.s390x.rpm", b"of another machine");
    host.package("zone-installer_0.1.0-1_amd64.deb", b"another package");
    host.index("publisher");
    host.package(&deb_name("9.9.9-9"), b"nobody signed this");
    let catalogue = Catalogue::read(&host.paths).unwrap();
    assert_eq!(catalogue.versions(Format::Deb), ["0.1.0-10", "0.1.0-2", "0.1.0-1"].map(version));
    assert_eq!(catalogue.versions(Format::Rpm), []);
    assert_eq!(catalogue.unsigned, [deb_name("9.9.9-9")]);
    assert_eq!(
        (catalogue.signed_by.comment.as_str(), catalogue.signed_by.warning()),
        ("Publisher 2026", None)
    );
    assert_eq!(catalogue.comment, "zone-proxy 0.1.0");
    let other = catalogue.find(&version("0.1.0-1"), Format::Rpm).unwrap_err().to_string();
    assert!(other.contains("s390x"), "{other}");
    assert!(
        catalogue
            .find(&version("9.9.9-9"), Format::Deb)
            .unwrap_err()
            .to_string()
            .contains("no zone-proxy 9.9.9-9")
    );
}

#[test]
fn a_development_key_is_announced_wherever_it_is_used() {
    if !possible("a_development_key_is_announced_wherever_it_is_used", &TOOLS) {
        return;
    }
    let host = Host::new();
    host.key("dev", "DEVELOPMENT KEY, NOT FOR PRODUCTION");
    fs::copy(host.public("dev"), host.paths.trusted_keys.join("dev.pub")).unwrap();
    host.package(&deb_name("0.1.0-1"), b"x");
    host.index("dev");
    let warning = Catalogue::read(&host.paths).unwrap().signed_by.warning().unwrap();
    assert!(warning.starts_with("DEVELOPMENT KEY dev.pub"), "{warning}");
}

///
#[test]
fn an_index_that_no_trusted_key_signed_as_it_is_is_refused() {
    if !possible("an_index_that_no_trusted_key_signed_as_it_is_is_refused", &TOOLS) {
        return;
    }
    let host = Host::new();
    assert!(refused(&host).contains("no package index"));
    host.package(&deb_name("0.1.0-1"), b"x");
    host.index("publisher");
    let (index, signature) =
        (host.paths.packages.join("SHA256SUMS"), host.paths.packages.join("SHA256SUMS.minisig"));
    let (good_index, good_signature) = (fs::read(&index).unwrap(), fs::read_to_string(&signature).unwrap());

    fs::remove_file(&signature).unwrap();
    assert!(refused(&host).contains("is not signed"));
    for broken in ["", "untrusted comment: x\nAAAA\n", &good_signature[..good_signature.len() / 2]] {
        fs::write(&signature, broken).unwrap();
        assert!(refused(&host).contains("is no minisign signature"), "{broken:?}");
    }
    // What the signer wrote beside it is signed too.
    fs::write(&signature, good_signature.replace("0.1.0", "9.9.9")).unwrap();
    assert!(refused(&host).contains("is not what was signed"));
    fs::write(&signature, &good_signature).unwrap();
    for tampered in [&good_index[..good_index.len() - 1], b"", &[&good_index[..], b"x"].concat()] {
        fs::write(&index, tampered).unwrap();
        assert!(refused(&host).contains("is not what was signed"));
    }
    fs::write(&index, vec![b'x'; 300 * 1024]).unwrap();
    assert!(refused(&host).contains("is not what was signed"));

    fs::write(&index, &good_index).unwrap();
    assert!(Catalogue::read(&host.paths).is_ok());
    host.key("stranger", "Publisher 2026");
    host.sign("stranger");
    assert!(refused(&host).contains("by a key that is not in"));

    fs::write(&index, "0f0f  ../../etc/shadow\n").unwrap();
    host.sign("publisher");
    assert!(refused(&host).contains("line 1"));
}

///
#[test]
fn keys_that_others_than_root_could_have_put_there_are_refused() {
    if !possible("keys_that_others_than_root_could_have_put_there_are_refused", &TOOLS) {
        return;
    }
    let host = Host::new();
    host.package(&deb_name("0.1.0-1"), b"x");
    host.index("publisher");
    let (folder, key) = (&host.paths.trusted_keys, host.paths.trusted_keys.join("publisher.pub"));
    let mode = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(folder, 0o777);
    assert!(refused(&host).contains("others than root may write it"));
    mode(folder, 0o755);
    mode(&key, 0o664);
    assert!(refused(&host).contains("others than root may write it"));
    mode(&key, 0o644);
    chown(&key, Some(65534), None).unwrap();
    assert!(refused(&host).contains("it is not root's"));
    chown(&key, Some(0), None).unwrap();
    assert!(Catalogue::read(&host.paths).is_ok());
    fs::rename(&key, host.folder.path().join("moved.pub")).unwrap();
    symlink(host.folder.path().join("moved.pub"), &key).unwrap();
    assert!(refused(&host).contains("can't be read"), "a link is followed by nobody");
    fs::remove_file(&key).unwrap();
    assert!(refused(&host).contains("no trusted key"));
    fs::write(&key, "no key\n").unwrap();
    assert!(refused(&host).contains("is no minisign public key"));
}

///
#[test]
fn what_is_staged_is_what_was_signed_whatever_happens_to_the_drop_folder() {
    if !possible("what_is_staged_is_what_was_signed_whatever_happens_to_the_drop_folder", &TOOLS) {
        return;
    }
    let host = Host::new();
    let name = deb_name("0.1.0-1");
    let content = vec![7; 300_000];
    host.package(&name, &content);
    host.index("publisher");
    let catalogue = Catalogue::read(&host.paths).unwrap();
    let entry = catalogue.find(&version("0.1.0-1"), Format::Deb).unwrap();

    let staged = stage(&host.paths, entry).unwrap();
    // Whoever may write the drop folder can exchange what lies there, and not what was verified.
    host.package(&name, b"exchanged afterwards");
    assert_eq!(fs::read(&staged).unwrap(), content);
    let folder = fs::metadata(host.paths.stage()).unwrap();
    assert_eq!(folder.permissions().mode() & 0o777, 0o700);

    let error = |what: &str| {
        let why = stage(&host.paths, entry).unwrap_err().to_string();
        assert!(!host.paths.stage().exists(), "{what}: nothing is left of it");
        assert!(!why.contains('\n'));
        why
    };
    assert!(error("exchanged").contains("is not what was signed"));
    host.package(&name, &content[..content.len() - 1]);
    assert!(error("truncated").contains("is not what was signed"));
    fs::remove_file(host.paths.packages.join(&name)).unwrap();
    assert!(error("missing").contains("is not in the folder"));
    symlink("/dev/zero", host.paths.packages.join(&name)).unwrap();
    assert!(error("a link").contains("can't be read"));
    fs::remove_file(host.paths.packages.join(&name)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, host.paths.packages.join(&name), rustix::fs::Mode::RWXU).unwrap();
    assert!(error("a fifo").contains("no regular file"));
}
