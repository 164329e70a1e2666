//! OpenSSH and rsync, with `zone-module connect` as ssh's ProxyCommand.
//!
//! sshd is unpacked and never installed, runs as an ordinary user, and reads no file of the machine's own.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};
use tempfile::TempDir;
use zone_tests::host::Host;
use zone_tests::process::{Process, run, succeed};
use zone_tests::session::random;
use zone_tests::zone::Zone;
use zone_tests::{program, skip, target, until};

use super::open;

/// Who logs in where root runs the test: a user that only sshd's own mount namespace knows.
const LOGIN: &str = "zone-test";
const ID: u32 = 64_998;

/// Covers the account files with the copies in the folder, and starts sshd as that user.
const AS_ORDINARY_USER: &str = r#"
mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group &&
exec setpriv --reuid="$1" --regid="$1" --clear-groups "$0/openssh-server/start-sshd" -D -e -f "$0/sshd_config"
"#;

/// "An OpenSSH login over `zone-module connect` as ProxyCommand, and rsync each way with equal SHA-256."
#[test]
fn openssh_logs_in_and_rsync_copies_both_ways_through_the_proxy() {
    const TEST: &str = "openssh_logs_in_and_rsync_copies_both_ways_through_the_proxy";
    let parts = std::env::var_os("ZONE_PARTS").map(|parts| PathBuf::from(parts).join("openssh-server"));
    let Some(parts) = parts.filter(|parts| parts.join("start-sshd").is_file()) else {
        return skip(TEST, "ZONE_PARTS names no folder with an unpacked openssh-server");
    };
    let root = Uid::effective().is_root();
    if root && !run(Command::new("unshare").args(["--mount", "true"]), b"").status.success() {
        return skip(TEST, "root may not make a mount namespace here");
    }
    let user = User::from_uid(Uid::effective()).expect("the account file can be read");
    let Some(login) = user.map(|user| if root { LOGIN.to_owned() } else { user.name }) else {
        return skip(TEST, "this user has no name, and sshd needs one");
    };

    let host = Host::start("");
    let zone = Zone::with(&host);
    let folder = tempfile::tempdir().expect("a folder");
    let address = target::nobody();
    configure(&folder, &zone, &login, address);
    let _sshd = start_sshd(&folder, &parts, root);
    until("sshd answers", || TcpStream::connect(address).is_ok());
    let _endpoint = zone.endpoint(&host, "outpost-7", &[open("ssh", 22, address)]);

    let mut ssh = Command::new("ssh");
    ssh.arg("-F").arg(folder.path().join("ssh_config")).args(["outpost-7", "id -un; cat"]);
    assert_eq!(succeed(&mut ssh, b"input, and its end"), format!("{login}\ninput, and its end"));

    let data = random(8 << 20);
    let (here, there, back) = (zone.beside("here"), folder.path().join("home/there"), zone.beside("back"));
    fs::write(&here, &data).expect("writable");
    let remote = format!("outpost-7:{}", there.display());
    rsync(&folder, &here.to_string_lossy(), &remote);
    assert!(fs::read(&there).expect("the copy") == data, "what arrived differs");
    rsync(&folder, &remote, &back.to_string_lossy());
    assert!(fs::read(&back).expect("the copy") == data, "what came back differs");

    until("all sessions ended", || host.control.said().matches("session ended").count() == 3);
    let said = host.control.said();
    assert_eq!(
        said.matches("reason=\"finished\"").count(),
        3,
        "a proper end was told as something else:\n{said}"
    );
}

fn rsync(folder: &TempDir, from: &str, to: &str) {
    let shell = format!("ssh -F \"{}\"", folder.path().join("ssh_config").display());
    succeed(Command::new("rsync").args(["--whole-file", "-e", &shell, from, to]), b"");
}

/// Keys and configuration for both sides, all in the folder.
fn configure(folder: &TempDir, zone: &Zone, login: &str, address: SocketAddr) {
    let path = folder.path();
    let write = |name: &str, text: &str| fs::write(path.join(name), text).expect("writable");
    let here = path.display();
    let (host_key, user_key) = (new_key(&path.join("host_key")), new_key(&path.join("user_key")));
    write("known_hosts", &format!("outpost-7 {host_key}"));
    write("authorized_keys", &user_key);
    write(
        "sshd_config",
        &format!(
            "ListenAddress {address}\nHostKey {here}/host_key\nAuthorizedKeysFile {here}/authorized_keys\n\
             AllowUsers {login}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitUserRC no\n\
             PidFile none\nPrintMotd no\nStrictModes no\nUsePAM no\n"
        ),
    );
    write(
        "ssh_config",
        &format!(
            "Host outpost-7\nUser {login}\nIdentityFile {here}/user_key\nIdentitiesOnly yes\nIdentityAgent none\n\
             UserKnownHostsFile {here}/known_hosts\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\n\
             UpdateHostKeys no\nBatchMode yes\n\
             ProxyCommand \"{}\" --zone \"{}\" connect --end-to-end off %h:ssh\n",
            program("zone-module").display(),
            zone.path().display()
        ),
    );
    fs::create_dir(path.join("home")).expect("writable");
}

fn start_sshd(folder: &TempDir, parts: &Path, root: bool) -> Process {
    let path = folder.path();
    if !root {
        let mut sshd = Command::new(parts.join("start-sshd"));
        return Process::start(sshd.args(["-D", "-e", "-f"]).arg(path.join("sshd_config")));
    }
    let home = path.join("home");
    account("/etc/passwd", &path.join("passwd"), &format!("{LOGIN}:x:{ID}:{ID}::{}:/bin/sh", home.display()));
    account("/etc/group", &path.join("group"), &format!("{LOGIN}:x:{ID}:"));
    succeed(Command::new("cp").arg("-R").arg(parts).arg(path), b"");
    // The ssh client, which is root's, keeps its own key.
    let theirs = ["home", "host_key", "sshd_config", "authorized_keys", "openssh-server"];
    succeed(
        Command::new("chown").args(["-R", &format!("{ID}:{ID}")]).args(theirs.map(|name| path.join(name))),
        b"",
    );
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("our folder");
    let mut sshd = Command::new("unshare");
    sshd.args(["--mount", "--propagation", "private", "sh", "-c", AS_ORDINARY_USER]);
    Process::start(sshd.arg(path).arg(ID.to_string()))
}

/// A copy of an account file with one more line.
fn account(file: &str, copy: &Path, line: &str) {
    let machine = fs::read_to_string(file).expect("everybody may read it");
    fs::write(copy, format!("{line}\n{machine}")).expect("writable");
}

fn new_key(path: &Path) -> String {
    succeed(
        Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path),
        b"",
    );
    fs::read_to_string(path.with_extension("pub")).expect("the public key")
}
