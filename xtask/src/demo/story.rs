//! The steps of the demo, and the words for somebody who has never seen the product.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Write, copy};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::plan::{END_TIMEOUT, ENDPOINT, ENDPOINTS, PROVISIONING, Plan, Port, SESSIONS};
use super::ssh;
use crate::children::{self, Errors};
use crate::report::{Context, Failure, Result, Row, headline, say, say_over};

const PROXY: &str = "proxy1";
const SERVER: &str = "demo";

const MIB: u64 = 1 << 20;
const SIZE: u64 = 256 * MIB;
/// For each single thing that a step waits for.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Plays all steps. With `keep`, what the last one would end stays up.
pub(crate) fn tell(plan: &Plan, login: &str, keep: bool) -> Result<()> {
    let mut story = Story { plan, login, number: 0, programs: Vec::new() };
    say(
        "\nThree parties, all on this machine for once. Outside: a machine in the field, the endpoint. Inside: the\n\
         Module Server, which wants to reach it. Neither can dial the other, so both dial the Zone Proxy between them,\n\
         which stands in a DMZ, trusts nobody, and joins the two connections byte by byte.",
    );
    story.step("The proxy starts, shut", Story::start_proxy)?;
    story.step("The Module Server claims it", Story::provision)?;
    story.step("Now all three ports listen", Story::open)?;
    story.step("An endpoint dials in and waits", Story::park)?;
    story.step("Log in by ssh", Story::log_in)?;
    story.step("Copy a file both ways", Story::copy_file)?;
    story.step("A web page, by curl alone", Story::browse)?;
    if !keep {
        story.step("The Module Server lets it go", Story::unprovision)?;
        story.step("Every program ends", Story::end)?;
    }
    Ok(())
}

struct Story<'a> {
    plan: &'a Plan,
    login: &'a str,
    number: usize,
    programs: Vec<(&'static str, Child)>,
}

impl Story<'_> {
    /// Plays a step, which returns what was seen, and adds it to the table.
    fn step(&mut self, title: &str, play: impl FnOnce(&mut Self) -> Result<String>) -> Result<()> {
        self.number += 1;
        let step = format!("{} {title}", self.number);
        headline(&step);
        let begin = Instant::now();
        let seen = play(self).map_err(|failure| at(&step, &failure))?;
        let row = Row { step, seen, time: begin.elapsed() };
        File::options()
            .append(true)
            .create(true)
            .open(self.plan.rows())
            .and_then(|mut rows| rows.write_all(row.to_line().as_bytes()))
            .or_fail(|| "can't note a result".to_owned())
    }

    fn start_proxy(&mut self) -> Result<String> {
        explain(
            "A new proxy knows nobody. It opens 17488 only, where a Module Server may claim it. The ports for\n\
             endpoints (17486) and for sessions (17487) do not even listen.",
        );
        let dir = self.plan.dir.join("proxy");
        fs::create_dir(&dir).or_fail(|| format!("can't make {}", dir.display()))?;
        let config = format!(
            "state_dir = '{0}/state'\nruntime_dir = '{0}/run'\n\n[control]\nlisten = [\"{1}\"]\nallowed_networks = [\"127.0.0.0/8\"]\n",
            dir.display(),
            self.plan.proxy()
        );
        fs::write(self.proxy_config(), config).or_fail(|| "can't write zone-proxy.toml".to_owned())?;
        for dir in ["state", "run"].map(|name| dir.join(name)) {
            fs::create_dir(&dir).or_fail(|| format!("can't make {}", dir.display()))?;
        }
        say("   $ zone-proxy run --config proxy/zone-proxy.toml");
        let mut proxy = self.program("zone-proxy");
        proxy.arg("run").arg("--config").arg(self.proxy_config());
        self.start("zone-proxy", proxy)?;
        self.expect_ports(&[(PROVISIONING, true), (ENDPOINTS, false), (SESSIONS, false)])
    }

    fn provision(&mut self) -> Result<String> {
        explain(
            "The proxy's administrator takes a payload from it (addresses and a one-time token) and gives it to the\n\
             Module Server's. The token proves each side to the other; it never crosses the wire and works once.",
        );
        let mut init = self.module();
        init.args(["init", "demo-zone"]);
        self.show("zone-module init demo-zone", init)?;
        say("   $ zone-proxy show payload | zone-module provision --name proxy1");
        let mut payload = self.program("zone-proxy");
        payload.args(["show", "payload", "--config"]).arg(self.proxy_config());
        // The payload goes from one program to the other; neither a screen nor a log sees the token.
        let mut payload = payload
            .stdout(Stdio::piped())
            .stderr(self.log("show-payload")?)
            .spawn()
            .or_fail(|| "can't start zone-proxy".to_owned())?;
        let mut provision = self.module();
        provision.args(["provision", "--name", PROXY, "--listen", &self.plan.proxy().to_string()]);
        provision.stdin(payload.stdout.take().map_or_else(Stdio::null, Stdio::from));
        let provisioned = self.run_shown("zone-module provision", provision);
        let shown = payload.wait().or_fail(|| "can't wait for zone-proxy".to_owned())?;
        if !shown.success() {
            return Err("zone-proxy show payload failed; see show-payload.log".to_owned().into());
        }
        provisioned?;
        Ok(format!("{PROXY} belongs to demo-zone"))
    }

    fn open(&mut self) -> Result<String> {
        explain(
            "Provisioning brought certificates and settings, so the proxy knows whom to let in, and opens.",
        );
        self.expect_ports(&[(PROVISIONING, true), (ENDPOINTS, true), (SESSIONS, true)])
    }

    fn park(&mut self) -> Result<String> {
        explain(
            "The zone issues a certificate for a machine in the field. Its agent dials the proxy and keeps a few idle\n\
             connections parked there. It offers two services: ssh, and a small web server. Both listen on that\n\
             machine's own loopback only; no port of it is open to anybody.",
        );
        let sshd = ssh::server(self.plan, self.login)?;
        self.start("sshd", sshd)?;
        let (sshd, web) = (self.plan.sshd(), self.plan.web());
        let site = self.plan.dir.join("web");
        fs::create_dir(&site)
            .and_then(|()| fs::write(site.join("index.html"), page()))
            .or_fail(|| format!("can't write to {}", site.display()))?;
        let mut server = Command::new("python3");
        server.args(["-m", "http.server", &web.0.port().to_string(), "--bind", &web.0.ip().to_string()]);
        server.arg("--directory").arg(&site);
        self.start("web", server)?;
        let mut issue = self.module();
        issue.args(["issue", "endpoint", ENDPOINT, "--out"]).arg(self.plan.dir.join("endpoint"));
        self.show(&format!("zone-module issue endpoint {ENDPOINT} --out endpoint"), issue)?;
        let config = self.plan.dir.join("endpoint/zone-endpoint.toml");
        let services = format!(
            "\n[[service]]\nname = \"ssh\"\nport = 22\ntarget = \"{sshd}\"\nend_to_end = \"off\"\n\
             \n[[service]]\nname = \"web\"\nport = 80\ntarget = \"{web}\"\nend_to_end = \"off\"\n"
        );
        File::options()
            .append(true)
            .open(&config)
            .and_then(|mut file| file.write_all(services.as_bytes()))
            .or_fail(|| format!("can't add services to {}", config.display()))?;
        self.expect(&[(sshd, true), (web, true)])?;
        say("   $ zone-endpoint run --config endpoint/zone-endpoint.toml");
        let mut endpoint = self.program("zone-endpoint");
        endpoint.arg("run").arg("--config").arg(config);
        self.start("zone-endpoint", endpoint)?;
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let mut list = self.module();
            list.args(["endpoints", "--json"]);
            if self.read("zone-module endpoints", list)?.contains(&format!("\"{ENDPOINT}\"")) {
                break;
            }
            self.check_programs()?;
            if Instant::now() > deadline {
                return Err(format!("{ENDPOINT} did not park within {} s", STEP_TIMEOUT.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        let mut list = self.module();
        list.arg("endpoints");
        self.show("zone-module endpoints", list)?;
        Ok(format!("{ENDPOINT} is parked"))
    }

    fn log_in(&mut self) -> Result<String> {
        explain(
            "The inside uses it like any network: OpenSSH runs `zone-module connect` as its ProxyCommand. ssh's own\n\
             encryption goes through from end to end, and the host key is the endpoint's.",
        );
        say(
            "   $ ssh -o ProxyCommand='zone-module --zone zone connect --end-to-end off %h:ssh' outpost-7 ...",
        );
        let command = "echo \"user $(id -un) on $(uname -nsr)\"; id; cut -d' ' -f1 /proc/uptime | sed 's/^/seconds up: /'";
        let mut seen = String::new();
        let status =
            children::lines(quiet(ssh::client(self.plan, command)), Errors::Merged, STEP_TIMEOUT, |line| {
                say(&format!("   {line}"));
                seen += line;
            })?;
        if !status.success() || !seen.contains(&format!("user {} on", self.login)) {
            return Err(format!("ssh did not run the command ({status})").into());
        }
        Ok(format!("a shell as {} at {ENDPOINT}", self.login))
    }

    fn copy_file(&mut self) -> Result<String> {
        explain("256 MiB of random data go out to the endpoint by rsync, and come back from it.");
        let data = self.plan.dir.join("data");
        let (here, there, back) = (data.join("here"), data.join("there"), data.join("back"));
        fs::create_dir(&data).or_fail(|| format!("can't make {}", data.display()))?;
        let random = File::open("/dev/urandom").or_fail(|| "can't open /dev/urandom".to_owned())?;
        File::create(&here)
            .and_then(|mut file| copy(&mut random.take(SIZE), &mut file))
            .or_fail(|| format!("can't write {}", here.display()))?;
        let remote = format!("{ENDPOINT}:{}", there.display());
        let out = self.rsync("out ", &here.display().to_string(), &remote)?;
        let again = self.rsync("back", &remote, &back.display().to_string())?;
        let quoted = format!("sha256sum '{}'", there.display());
        let sums = [
            self.sum("here, before", local_sum(&here))?,
            self.sum("at the endpoint", quiet(ssh::client(self.plan, &quoted)))?,
            self.sum("here, after", local_sum(&back))?,
        ];
        if sums.iter().any(|sum| *sum != sums[0]) {
            return Err("the data differ".to_owned().into());
        }
        for file in [here, there, back] {
            fs::remove_file(&file).or_fail(|| format!("can't remove {}", file.display()))?;
        }
        Ok(format!("256 MiB equal; {out:.0} MiB/s out, {again:.0} back"))
    }

    fn browse(&mut self) -> Result<String> {
        explain(
            "No program of ours is needed inside: to curl the proxy is an ordinary HTTPS proxy that asks for a\n\
             client certificate.",
        );
        let dir = self.plan.dir.join("module");
        let mut issue = self.module();
        issue.args(["issue", "module-server", SERVER, "--out"]).arg(&dir);
        self.show(&format!("zone-module issue module-server {SERVER} --out module"), issue)?;
        let proxy = format!("https://{}", self.plan.port(SESSIONS));
        let url = format!("http://{ENDPOINT}:80/");
        say(&format!("   $ curl --proxytunnel --proxy {proxy} --proxy-cacert module/zone-proxy-ca.crt \\"));
        say(&format!(
            "       --proxy-cert module/module-server.crt --proxy-key module/module-server.key {url}"
        ));
        let mut curl = Command::new("curl");
        curl.args([
            "-q",
            "--silent",
            "--show-error",
            "--fail",
            "--noproxy",
            "",
            "--proxytunnel",
            "--proxy",
            &proxy,
        ]);
        for (option, file) in [
            ("--proxy-cacert", "zone-proxy-ca.crt"),
            ("--proxy-cert", "module-server.crt"),
            ("--proxy-key", "module-server.key"),
        ] {
            curl.arg(option).arg(dir.join(file));
        }
        curl.arg(url);
        let got = self.read("curl", curl)?;
        got.lines().for_each(|line| say(&format!("   {line}")));
        if got == page() {
            Ok("the endpoint's page".into())
        } else {
            Err("curl got another page".to_owned().into())
        }
    }

    fn unprovision(&mut self) -> Result<String> {
        explain("The proxy forgets the zone, its keys and its certificates, and closes both ports again.");
        let mut unprovision = self.module();
        unprovision.args(["unprovision", PROXY]);
        self.show(&format!("zone-module unprovision {PROXY}"), unprovision)?;
        self.expect_ports(&[(PROVISIONING, true), (ENDPOINTS, false), (SESSIONS, false)])
    }

    fn end(&mut self) -> Result<String> {
        explain("All programs are told to end, the relay among them, which outlives its parent on purpose.");
        let ended = children::end_all(END_TIMEOUT);
        self.programs.clear();
        say(&format!("   ended: {}", ended.join(", ")));
        let closed = self.plan.all_ports().map(|port| (port, false));
        self.expect(&closed)?;
        Ok(format!("{} processes ended", ended.len()))
    }

    fn proxy_config(&self) -> PathBuf {
        self.plan.dir.join("proxy/zone-proxy.toml")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = quiet(Command::new(self.plan.program(name)));
        command.env("HOME", self.plan.dir.join("home"));
        command
    }

    fn module(&self) -> Command {
        let mut command = self.program("zone-module");
        command.arg("--zone").arg(self.plan.zone());
        command
    }

    fn log(&self, name: &str) -> Result<File> {
        let path = self.plan.logs().join(format!("{name}.log"));
        File::options()
            .append(true)
            .create(true)
            .open(&path)
            .or_fail(|| format!("can't write {}", path.display()))
    }

    /// Starts a program that stays, with its words in a log.
    fn start(&mut self, name: &'static str, command: Command) -> Result<()> {
        let log = self.log(name)?;
        let mut command = quiet(command);
        command.stderr(log.try_clone().or_fail(|| "can't share a log".to_owned())?).stdout(log);
        let child = command.spawn().or_fail(|| format!("can't start {name}"))?;
        self.programs.push((name, child));
        Ok(())
    }

    /// Fails when a program that should stay has ended.
    fn check_programs(&mut self) -> Result<()> {
        for (name, child) in &mut self.programs {
            if let Some(status) = child.try_wait().or_fail(|| format!("can't wait for {name}"))? {
                return Err(format!("{name} ended early ({status}); see {name}.log").into());
            }
        }
        Ok(())
    }

    /// Says a command, runs it, and shows its words.
    fn show(&self, words: &str, command: Command) -> Result<()> {
        say(&format!("   $ {words}"));
        self.run_shown(words, command)
    }

    fn run_shown(&self, words: &str, command: Command) -> Result<()> {
        let mut log = self.log("zone-module")?;
        let mut last = String::new();
        let status = children::lines(command, Errors::Merged, STEP_TIMEOUT, |line| {
            say(&format!("     {line}"));
            let _ = writeln!(log, "{line}");
            line.clone_into(&mut last);
        })?;
        if status.success() { Ok(()) } else { Err(format!("{words} failed ({status}): {last}").into()) }
    }

    /// Runs a command and returns what it wrote to standard output.
    fn read(&self, words: &str, command: Command) -> Result<String> {
        let mut text = String::new();
        let status = children::lines(
            command,
            Errors::To(self.log(words.split(' ').next().unwrap_or(words))?),
            STEP_TIMEOUT,
            |line| {
                text += line;
                text.push('\n');
            },
        )?;
        if status.success() { Ok(text) } else { Err(format!("{words} failed ({status})").into()) }
    }

    /// Copies by rsync with a live progress line and returns MiB per second.
    fn rsync(&self, way: &str, from: &str, to: &str) -> Result<f64> {
        let begin = Instant::now();
        let command = quiet(ssh::rsync(self.plan, from, to));
        let limit = Duration::from_secs(60);
        let live = std::io::stdout().is_terminal();
        let mut reached = 0;
        let status = children::lines(command, Errors::To(self.log("rsync")?), limit, |line| {
            let Some(percent) = percent(line) else { return };
            if live {
                say_over(&format!("   {way} {}", line.trim()));
            } else if percent >= reached + 25 {
                reached = percent;
                say(&format!("   {way} {percent}%"));
            }
        })?;
        if live {
            say("");
        }
        if !status.success() {
            return Err(format!("rsync failed ({status}); see rsync.log").into());
        }
        #[expect(clippy::cast_precision_loss, reason = "the size in MiB is small")]
        Ok((SIZE / MIB) as f64 / begin.elapsed().as_secs_f64())
    }

    fn sum(&self, place: &str, command: Command) -> Result<String> {
        let text = self.read("sha256sum", command)?;
        let sum = text.split_whitespace().next().unwrap_or_default().to_owned();
        say(&format!("   sha256 {place:16} {sum}"));
        Ok(sum)
    }

    fn expect_ports(&mut self, wanted: &[(u16, bool)]) -> Result<String> {
        let ports: Vec<_> = wanted.iter().map(|(number, open)| (self.plan.port(*number), *open)).collect();
        self.expect(&ports)?;
        for (port, open) in ports {
            say(&format!("   {port}  {}", if open { "listens" } else { "refuses" }));
        }
        let (open, shut): (Vec<_>, Vec<_>) = wanted.iter().partition(|(_, open)| *open);
        let names = |ports: Vec<&(u16, bool)>| {
            ports.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>().join(", ")
        };
        let verb = if open.len() == 1 { "listens" } else { "listen" };
        let listens = format!("{} {verb}", names(open));
        Ok(if shut.is_empty() { listens } else { format!("{listens}; {} refuse", names(shut)) })
    }

    /// Waits until each port listens or not as wanted, by connecting to it.
    fn expect(&mut self, wanted: &[(Port, bool)]) -> Result<()> {
        let deadline = Instant::now() + STEP_TIMEOUT;
        loop {
            let Some((port, open)) = wanted.iter().find(|(port, open)| port.listens() != *open) else {
                return Ok(());
            };
            self.check_programs()?;
            if Instant::now() > deadline {
                let not = if *open { "does not listen" } else { "still listens" };
                return Err(format!("{port} {not} after {} s", STEP_TIMEOUT.as_secs()).into());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn local_sum(file: &Path) -> Command {
    let mut command = quiet(Command::new("sha256sum"));
    command.arg(file);
    command
}

/// The percentage in one of rsync's progress lines, such as `268,435,456 100%  210.13MB/s    0:00:01`.
fn percent(line: &str) -> Option<u32> {
    line.split_whitespace().nth(1)?.strip_suffix('%')?.parse().ok()
}

fn explain(text: &str) {
    text.lines().for_each(|line| say(&format!("   {line}")));
    say("");
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    command
}

fn page() -> String {
    format!(
        "<title>{ENDPOINT}</title>\n<p>A page that no port of this machine shows to anybody outside.</p>\n"
    )
}

/// Failures of the story say at which step.
fn at(step: &str, failure: &Failure) -> Failure {
    format!("\"{step}\": {failure}").into()
}
