//! The endpoint's ssh server and the client's configuration. The machine's own are never touched.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::plan::{ENDPOINT, Plan};
use crate::report::{Context, Result};

/// Makes keys and configuration for both sides and returns the command that starts the server.
pub(crate) fn server(plan: &Plan, login: &str) -> Result<Command> {
    let server = plan.dir.join("sshd");
    let client = plan.dir.join("ssh");
    for dir in [&server, &client] {
        fs::create_dir(dir).or_fail(|| format!("can't make {}", dir.display()))?;
    }
    let host_key = new_key(&server.join("host_key"))?;
    let user_key = new_key(&client.join("key"))?;
    write(&client.join("known_hosts"), &format!("{ENDPOINT} {host_key}"))?;
    write(&server.join("authorized_keys"), &user_key)?;
    let port = plan.sshd().0;
    let directory = server.display();
    write(
        &server.join("config"),
        &format!(
            "ListenAddress {}:{}\n\
             HostKey \"{directory}/host_key\"\n\
             AuthorizedKeysFile \"{directory}/authorized_keys\"\n\
             AllowUsers {login}\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             PermitUserRC no\n\
             PidFile none\n\
             PrintMotd no\n\
             StrictModes no\n\
             UsePAM no\n",
            port.ip(),
            port.port()
        ),
    )?;
    let directory = client.display();
    write(
        &client.join("config"),
        &format!(
            "Host {ENDPOINT}\n\
             User {login}\n\
             IdentityFile \"{directory}/key\"\n\
             IdentitiesOnly yes\n\
             IdentityAgent none\n\
             UserKnownHostsFile \"{directory}/known_hosts\"\n\
             GlobalKnownHostsFile /dev/null\n\
             StrictHostKeyChecking yes\n\
             UpdateHostKeys no\n\
             BatchMode yes\n\
             ProxyCommand \"{}\" --zone \"{}\" connect --end-to-end off %h:ssh\n",
            plan.program("zone-module").display(),
            plan.zone().display()
        ),
    )?;
    let mut command = Command::new(plan.dir.join("openssh-server/start-sshd"));
    command.args(["-D", "-e", "-f"]).arg(server.join("config"));
    Ok(command)
}

/// `ssh` with the demo's own configuration.
pub(crate) fn client(plan: &Plan, remote_command: &str) -> Command {
    let mut command = Command::new("ssh");
    command.arg("-F").arg(plan.dir.join("ssh/config")).args([ENDPOINT, remote_command]);
    command
}

/// `rsync` over that ssh.
pub(crate) fn rsync(plan: &Plan, from: &str, to: &str) -> Command {
    let mut command = Command::new("rsync");
    let shell = format!("ssh -F \"{}\"", plan.dir.join("ssh/config").display());
    command.args(["--whole-file", "--inplace", "--info=progress2", "-e", &shell, from, to]);
    command
}

fn new_key(path: &Path) -> Result<String> {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "demo", "-f"])
        .arg(path)
        .status();
    if !made.is_ok_and(|status| status.success()) {
        return Err(format!("ssh-keygen could not make {}", path.display()).into());
    }
    let public = path.with_extension("pub");
    fs::read_to_string(&public).or_fail(|| format!("can't read {}", public.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).or_fail(|| format!("can't write {}", path.display()))
}
