//! The login over ssh, by a real sshd with the packaged configuration: the menu and its verbs, and nothing beside them.
//!
//! sshd is unpacked and never installed. It runs in a mount namespace of its own, where alone zone-admin exists.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{possible, skip};

/// What the package tells sshd.
const SNIPPET: &str = include_str!("../../../packaging/installer/sshd.conf");
/// How sshd serves `sftp`: by a program that the login shell would have to start, and inside sshd.
const SUBSYSTEMS: [&str; 2] = ["/usr/lib/openssh/sftp-server", "internal-sftp"];
/// The user id of zone-admin in sshd's namespace.
const ID: u32 = 64_990;
/// Nothing takes longer, unless something is wrong.
const TEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Covers the account files with the copies in the folder, and starts sshd.
const START: &str = r#"
mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group && mount --bind "$0/shadow" /etc/shadow &&
mount -t tmpfs -o mode=755 tmpfs /run && mkdir /run/sshd && exec "$0/openssh-server/start-sshd" -D -e -f "$0/sshd_config"
"#;

/// A running sshd, and a client whose key it knows.
struct Sshd {
    folder: TempDir,
    process: Child,
}

impl Sshd {
    /// With `configuration` as all that it is told beside keys and address; `None` where it can't run here.
    fn start(test: &str, configuration: &str, key_options: &str) -> Option<Self> {
        let tools = ["unshare", "mount", "ssh", "sftp", "scp", "ssh-keygen", "timeout"];
        if !possible(test, &tools) {
            return None;
        }
        let parts = std::env::var_os("ZONE_PARTS").map(|parts| PathBuf::from(parts).join("openssh-server"));
        let Some(parts) = parts.filter(|parts| parts.join("start-sshd").is_file()) else {
            skip(test, "ZONE_PARTS names no folder with an unpacked openssh-server");
            return None;
        };
        if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
            skip(test, "root may not make a mount namespace here");
            return None;
        }
        let folder = TempDir::new().unwrap();
        // Any that is free now.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        configure(folder.path(), &parts, address, configuration, key_options);
        let mut sshd = Command::new("unshare");
        sshd.args(["--mount", "--propagation", "private", "sh", "-c", START]).arg(folder.path());
        let mut process = sshd.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(process.stderr.take().unwrap());
        let sshd = Self { folder, process };
        let mut all = String::new();
        for line in said.lines().map_while(Result::ok) {
            all += &(line.clone() + "\n");
            if line.contains("Server listening") {
                return Some(sshd);
            }
        }
        panic!("sshd does not start:\n{all}");
    }

    /// A client program of OpenSSH, with `words` after its options.
    fn client(&self, program: &str, words: &[&str]) -> Command {
        let mut client = Command::new("timeout");
        let limit = TEST_TIMEOUT.as_secs().to_string();
        client.args(["--kill-after=1", &limit, program, "-F"]).arg(self.path("ssh_config")).args(words);
        client
    }

    fn run(&self, program: &str, words: &[&str]) -> Output {
        self.client(program, words).stdin(Stdio::null()).output().unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Reads a file of the host and writes one, by sftp; whether either went, and what the client said.
    fn copies_by_sftp(&self) -> (bool, String) {
        let (stolen, planted) = (self.path("stolen"), self.path("home/.ssh/authorized_keys2"));
        let batch = format!(
            "-get /etc/hostname {}\n-put {} {}\n",
            stolen.display(),
            self.path("user_key.pub").display(),
            planted.display()
        );
        fs::write(self.path("batch"), batch).unwrap();
        let output = self.run("sftp", &["-b", &self.path("batch").display().to_string(), "appliance"]);
        let went = stolen.exists() || planted.exists() || output.status.success();
        let _ = (fs::remove_file(stolen), fs::remove_file(planted));
        (went, text(&output))
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Keys, accounts and configuration for both sides, all in the folder.
fn configure(folder: &Path, parts: &Path, address: SocketAddr, configuration: &str, key_options: &str) {
    let here = folder.display();
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let (host_key, user_key) = (new_key(&folder.join("host_key")), new_key(&folder.join("user_key")));
    let home = folder.join("home");
    fs::create_dir_all(home.join(".ssh")).unwrap();
    let (ip, port) = (address.ip(), address.port());
    write("known_hosts", &format!("appliance {host_key}"));
    write("home/.ssh/authorized_keys", &format!("{key_options}{user_key}"));
    write(
        "sshd_config",
        &format!(
            "ListenAddress {address}\nHostKey {here}/host_key\nPidFile none\nStrictModes no\nUsePAM no\n{configuration}"
        ),
    );
    write(
        "ssh_config",
        &format!(
            "Host appliance\nHostName {ip}\nPort {port}\nHostKeyAlias appliance\nUser zone-admin\n\
             IdentityFile {here}/user_key\nIdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {here}/known_hosts\n\
             GlobalKnownHostsFile /dev/null\nStrictHostKeyChecking yes\nBatchMode yes\nLogLevel INFO\n"
        ),
    );
    // The login shell is known by its name. A link would lead to where zone-admin may not go.
    fs::copy(env!("CARGO_BIN_EXE_zone-installer"), folder.join("zone-menu")).unwrap();
    let account = |file: &str, line: &str| {
        let machine = fs::read_to_string(Path::new("/etc").join(file)).unwrap();
        write(file, &format!("{line}\n{machine}"));
    };
    account(
        "passwd",
        &format!(
            "zone-admin:x:{ID}:{ID}::{}:{here}/zone-menu\nsshd:x:64991:65534::/run/sshd:/usr/sbin/nologin",
            home.display()
        ),
    );
    account("group", &format!("zone-admin:x:{ID}:"));
    account("shadow", "zone-admin:*:19000:0:99999:7:::");
    succeed(Command::new("cp").arg("-R").arg(parts).arg(folder));
    succeed(Command::new("chown").args(["-R", &format!("{ID}:{ID}")]).arg(&home));
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

fn new_key(path: &Path) -> String {
    succeed(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path));
    fs::read_to_string(path.with_extension("pub")).unwrap()
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
}

fn text(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

/// The packaged configuration on a host that serves `sftp` in that way.
fn packaged(subsystem: &str) -> String {
    format!("Subsystem sftp {subsystem}\n{SNIPPET}")
}

/// What the test below is worth: an sshd that is told nothing of zone-admin serves sftp past the login shell.
#[test]
fn without_its_configuration_sshd_would_serve_files_past_the_menu() {
    let test = "without_its_configuration_sshd_would_serve_files_past_the_menu";
    let Some(sshd) = Sshd::start(test, "Subsystem sftp internal-sftp\n", "") else { return };
    let (went, said) = sshd.copies_by_sftp();
    assert!(went, "{said}");
}

#[test]
fn no_file_is_copied_past_the_menu_however_sshd_serves_sftp() {
    for subsystem in SUBSYSTEMS {
        let test = "no_file_is_copied_past_the_menu_however_sshd_serves_sftp";
        let Some(sshd) = Sshd::start(test, &packaged(subsystem), "") else { return };
        let (went, said) = sshd.copies_by_sftp();
        assert!(!went, "{subsystem}: {said}");
        // sshd passes on nothing of what a subsystem says for a person.
        assert!(said.contains("Connection closed"), "{subsystem}: {said}");
        let (stolen, planted) = (sshd.path("stolen"), sshd.path("home/planted"));
        let to = stolen.display().to_string();
        let remote = format!("appliance:{}", planted.display());
        for words in [
            ["-s", "appliance:/etc/hostname", &to],
            ["-O", "appliance:/etc/hostname", &to],
            ["-s", "/etc/hostname", &remote],
            ["-O", "/etc/hostname", &remote],
        ] {
            let output = sshd.run("scp", &words);
            let said = text(&output);
            assert!(
                !output.status.success() && !stolen.exists() && !planted.exists(),
                "{subsystem} {words:?}: {said}"
            );
            let old_protocol = words[0] == "-O";
            assert_eq!(said.contains("files can't be copied here"), old_protocol, "{words:?}: {said}");
        }
        for command in
            ["internal-sftp", "/usr/lib/openssh/sftp-server", "rsync --server --sender . /etc/hostname"]
        {
            let said = text(&sshd.run("ssh", &["appliance", command]));
            assert!(said.contains("files can't be copied here"), "{command}: {said}");
        }
    }
}

#[test]
fn the_key_alone_keeps_files_from_being_copied_where_sshd_is_told_nothing() {
    for subsystem in SUBSYSTEMS {
        let test = "the_key_alone_keeps_files_from_being_copied_where_sshd_is_told_nothing";
        let options = "restrict,pty,command=\"/usr/bin/zone-menu\" ";
        let Some(sshd) = Sshd::start(test, &format!("Subsystem sftp {subsystem}\n"), options) else { return };
        let (went, said) = sshd.copies_by_sftp();
        assert!(!went, "{subsystem}: {said}");
        let output = sshd.run("ssh", &["appliance", "--", "--version"]);
        assert!(output.status.success() && text(&output).starts_with("zone-installer "), "{}", text(&output));
    }
}

#[test]
fn the_menu_and_its_verbs_go_on_over_ssh_and_no_other_command_does() {
    for subsystem in SUBSYSTEMS {
        let test = "the_menu_and_its_verbs_go_on_over_ssh_and_no_other_command_does";
        let Some(sshd) = Sshd::start(test, &packaged(subsystem), "") else { return };
        let output = sshd.run("ssh", &["appliance", "--", "--version"]);
        assert!(output.status.success() && text(&output).starts_with("zone-installer "), "{}", text(&output));
        let output = sshd.run("ssh", &["appliance", "zone-installer list --help"]);
        assert!(
            output.status.success() && text(&output).contains("Usage: zone-installer list"),
            "{}",
            text(&output)
        );
        // With a terminal and without one.
        for options in [&["-tt"][..], &["-T"]] {
            let mut menu = sshd.client("ssh", &[options, &["appliance"]].concat());
            let mut menu = menu.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            std::io::Write::write_all(menu.stdin.as_mut().unwrap(), b"Z\n").unwrap();
            let output = menu.wait_with_output().unwrap();
            assert!(text(&output).contains("Main menu"), "{options:?}: {}", text(&output));
        }
        for command in
            ["id", "sh -c id", "list;id", "list $(id)", "-c id", "menu", "zone-menu", "/usr/bin/zone-menu"]
        {
            let output = sshd.run("ssh", &["appliance", "--", command]);
            let said = text(&output);
            assert!(!output.status.success() && !said.contains("uid="), "{command}: {said}");
            assert!(said.contains("only these verbs are allowed here"), "{command}: {said}");
        }
    }
}

#[test]
fn nothing_is_forwarded_for_the_admin_of_the_appliance() {
    let test = "nothing_is_forwarded_for_the_admin_of_the_appliance";
    let permissive =
        "AllowTcpForwarding yes\nAllowAgentForwarding yes\nX11Forwarding yes\nPermitTunnel yes\n";
    let Some(sshd) = Sshd::start(test, &format!("{permissive}{}", packaged("internal-sftp")), "") else {
        return;
    };
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let behind = target.local_addr().unwrap().to_string();
    let output = sshd.run("ssh", &["-W", &behind, "appliance"]);
    assert!(!output.status.success() && text(&output).contains("prohibited"), "{}", text(&output));
    let ours = format!("127.0.0.1:0:{behind}");
    let output = sshd.run("ssh", &["-N", "-o", "ExitOnForwardFailure=yes", "-R", &ours, "appliance"]);
    assert_eq!(output.status.code(), Some(255), "{}", text(&output));
}
