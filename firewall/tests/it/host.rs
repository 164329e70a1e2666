//! A host to try rules on: a network namespace of its own with a broker's directory and root's file.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::Value;
use tempfile::TempDir;

/// Nothing that a test waits for takes longer, unless something is wrong.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);
/// User ids of the product's users in these tests.
pub(crate) const CONTROL: u32 = 64_001;
pub(crate) const RELAY: u32 = 64_002;
pub(crate) const ADMIN: u32 = 64_003;
pub(crate) const STRANGER: u32 = 64_009;

/// A network namespace, removed with everything in it.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) dir: TempDir,
    children: Vec<Child>,
}

/// A host, or `None` where there can be none here: then that was said.
pub(crate) fn host(test: &str) -> Option<Host> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    if !nix::unistd::geteuid().is_root() {
        return skip(test, "network namespaces take root");
    }
    for tool in ["/usr/sbin/nft", "/usr/sbin/ip", "/usr/bin/setpriv", "/usr/bin/unshare"] {
        if !PathBuf::from(tool).exists() {
            return skip(test, &format!("{tool} is missing: apt-get install nftables iproute2 util-linux"));
        }
    }
    let name = format!("firewall-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let made = Command::new("ip").args(["netns", "add", &name]).output().expect("ip runs");
    if !made.status.success() {
        return skip(
            test,
            &format!("no network namespace: {}", String::from_utf8_lossy(&made.stderr).trim()),
        );
    }
    let dir = tempfile::tempdir().expect("a directory");
    let host = Host { name, dir, children: Vec::new() };
    host.sh("ip link set lo up");
    std::fs::create_dir(host.path("state")).expect("a directory");
    // The product's users exist for what runs in `Host::program` only.
    let passwd = std::fs::read_to_string("/etc/passwd").expect("users");
    let own = format!(
        "{passwd}\nzone-proxy:x:{CONTROL}:{CONTROL}::/:/bin/false\nzone-relay:x:{RELAY}:{RELAY}::/:/bin/false\n\
         zone-admin:x:{ADMIN}:{ADMIN}::/:/bin/false\nstranger:x:{STRANGER}:{STRANGER}::/:/bin/false\n"
    );
    let kept =
        own.lines().filter(|line| !line.is_empty()).rev().fold(Vec::new(), |mut kept: Vec<&str>, line| {
            let name = line.split(':').next();
            if !kept.iter().any(|other| other.split(':').next() == name) {
                kept.push(line);
            }
            kept
        });
    std::fs::write(host.path("passwd"), kept.join("\n") + "\n").expect("users");
    host.configure("[control]\nopen = true\nlisten = [\"0.0.0.0\", \"::\"]\n");
    Some(host)
}

fn skip(test: &str, why: &str) -> Option<Host> {
    missing(test, why);
    None
}

/// Says that a test could not run here, in the way that the whole suite collects.
pub(crate) fn missing(test: &str, why: &str) {
    eprintln!("SKIPPED: {test}: {why}");
    if let Some(path) = std::env::var_os("ZONE_SKIP_LOG") {
        let mut file =
            File::options().create(true).append(true).open(path).expect("the skip log can be written");
        writeln!(file, "{test}: {why}").expect("the skip log can be written");
    }
}

/// What a program printed, and how it ended.
pub(crate) struct Finished {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A process that holds connections open for as long as this lives.
pub(crate) struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl From<Output> for Finished {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }
}

impl Host {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("broker.sock")
    }

    pub(crate) fn configure(&self, text: &str) {
        std::fs::write(self.path("firewall.toml"), text).expect("the file can be written");
    }

    /// A command in the namespace.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// A shell line in the namespace, which must succeed.
    pub(crate) fn sh(&self, line: &str) -> String {
        let output = self.command("sh").args(["-ec", line]).output().expect("sh runs");
        assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Loads a ruleset as an admin would. nft wants a line's end around a closing brace, which `; }` stands for here.
    pub(crate) fn nft(&self, ruleset: &str) {
        std::fs::write(self.path("rules.nft"), ruleset.replace("; }", ";\n}\n") + "\n")
            .expect("the file can be written");
        self.sh(&format!("nft -f {}", self.path("rules.nft").display()));
    }

    /// The ruleset without counts and handles, which change by themselves.
    pub(crate) fn ruleset(&self) -> String {
        self.sh("nft -s list ruleset")
    }

    /// The ruleset with the kernel's numbers, which a transaction on our table changes.
    pub(crate) fn numbered(&self) -> String {
        self.sh("nft -s -a list ruleset")
    }

    /// `zone-firewall`, as root unless told otherwise, on a host where the product's users exist.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        self.program_under(&[], arguments)
    }

    /// The same under another program, such as strace.
    pub(crate) fn program_under(&self, wrapper: &[&str], arguments: &[&str]) -> Command {
        let mut command = self.command("unshare");
        let bind = format!("mount --bind {} /etc/passwd && exec \"$@\"", self.path("passwd").display());
        command.args(["-m", "sh", "-c", &bind, "sh"]).args(wrapper).arg(env!("CARGO_BIN_EXE_zone-firewall"));
        command.arg("--config").arg(self.path("firewall.toml"));
        command.arg("--state").arg(self.path("state")).arg("--socket").arg(self.socket());
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Finished {
        self.program(arguments).output().expect("zone-firewall runs").into()
    }

    /// Runs it and takes nothing but success.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {}{}", said.out, said.err);
        said.out
    }

    /// All findings of `verify`.
    pub(crate) fn all_findings(&self) -> Vec<Value> {
        let said = self.run(&["verify", "--json"]);
        let mut found: Value =
            serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{}{}", said.out, said.err));
        found["findings"].as_array_mut().map(std::mem::take).expect("a list")
    }

    /// The kinds and words of all findings of `verify` but those of ports that nobody listens on, and of what somebody has denied
    /// to some by name.
    pub(crate) fn findings(&self) -> Vec<String> {
        let found = self.all_findings().into_iter();
        let told = found.filter(|finding| finding["kind"] != "not-listening" && finding["level"] != "denied");
        told.map(|finding| {
            format!("{}: {}", finding["kind"].as_str().unwrap(), finding["what"].as_str().unwrap())
        })
        .collect()
    }

    /// Starts the broker and waits until it serves.
    pub(crate) fn broker(&mut self) {
        self.broker_under(&[]);
    }

    pub(crate) fn broker_under(&mut self, wrapper: &[&str]) {
        let log = File::create(self.path("broker.log")).expect("a log");
        let child = self.program_under(wrapper, &["broker"]).stderr(log).spawn().expect("zone-firewall runs");
        self.children.push(child);
        let socket = self.socket();
        until("the broker serves", || std::os::unix::net::UnixStream::connect(&socket).is_ok());
    }

    pub(crate) fn broker_log(&self) -> String {
        std::fs::read_to_string(self.path("broker.log")).unwrap_or_default()
    }

    /// What the broker, and the tools that it has run, used of the processor until now.
    pub(crate) fn broker_processor_time(&self) -> Duration {
        let pid = self.children.last().expect("the broker was started last").id();
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("its threads");
        let own = threads.flatten().filter_map(|thread| {
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().map(Duration::from_nanos).ok()
        });
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is there");
        // Fields 16 and 17, counted from behind the name (proc_pid_stat(5)): hundredths of a second.
        let (_, fields) = stat.rsplit_once(") ").expect("a name");
        let tools: u64 =
            fields.split(' ').skip(13).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
        own.sum::<Duration>() + Duration::from_millis(10 * tools)
    }

    /// Waits until the last thing that was started has ended.
    pub(crate) fn wait_for_the_end(&mut self) -> Option<i32> {
        let mut child = self.children.pop().expect("something was started");
        let mut code = None;
        until("it ends", || match child.try_wait().expect("a child") {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        code
    }

    /// Sends bytes to the broker as some user, and returns its answer.
    pub(crate) fn send_as(&self, uid: u32, bytes: &[u8]) -> Value {
        let text = self.exchange_as(uid, bytes);
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no answer: {text}; {}", self.broker_log()))
    }

    /// Sends this and closes the connection at once.
    pub(crate) fn send_and_leave(&self, uid: u32, bytes: &[u8]) {
        let path = self.path("request");
        std::fs::write(&path, bytes).expect("the file can be written");
        std::fs::set_permissions(self.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
        let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n\
            s.sendall(open(sys.argv[2],'rb').read())\ns.close()";
        let uid = uid.to_string();
        let status = Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "/usr/bin/python3", "-c", script])
            .args([self.socket(), path])
            .status()
            .expect("setpriv runs");
        assert!(status.success());
    }

    /// Keeps this many silent connections open, each of which is opened again when it ends, until the answer is dropped.
    pub(crate) fn hold_as(&self, uid: u32, count: usize) -> Holder {
        std::fs::set_permissions(self.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
        let script = "import select,socket,sys\ndef held():\n s=socket.socket(socket.AF_UNIX)\n s.connect(sys.argv[1])\n\
             \x20return s\nh=[held() for _ in range(int(sys.argv[2]))]\nprint('held',flush=True)\nwhile True:\n\
             \x20for s in select.select(h,[],[])[0]:\n  s.close()\n  h[h.index(s)]=held()";
        let uid = uid.to_string();
        let mut child = Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "/usr/bin/python3", "-c", script])
            .arg(self.socket())
            .arg(count.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv runs");
        let mut said = [0; 4];
        child.stdout.as_mut().expect("a pipe").read_exact(&mut said).expect("it holds them");
        Holder(child)
    }

    /// Stops the broker, or lets it go on.
    pub(crate) fn signal_broker(&self, signal: nix::sys::signal::Signal) {
        let broker = self.children.last().expect("the broker was started last");
        let pid = nix::unistd::Pid::from_raw(broker.id().cast_signed());
        nix::sys::signal::kill(pid, signal).expect("it is there");
    }

    fn exchange_as(&self, uid: u32, bytes: &[u8]) -> String {
        let path = self.path("request");
        std::fs::write(&path, bytes).expect("the file can be written");
        std::fs::set_permissions(self.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .expect("a mode");
        let script = "import socket,sys\ns=socket.socket(socket.AF_UNIX)\ns.settimeout(30)\ns.connect(sys.argv[1])\n\
            try:\n s.sendall(open(sys.argv[2],'rb').read()); s.shutdown(1)\nexcept OSError: pass\n\
            f=s.makefile('rb')\nsys.stdout.buffer.write(f.readline())";
        let uid = uid.to_string();
        let output = Command::new("setpriv")
            .args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "/usr/bin/python3", "-c", script])
            .args([self.socket(), path])
            .output()
            .expect("python3 runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// The same as [`Self::ask`] where the broker may be gone before it answers: whether it said that it was done.
    pub(crate) fn try_ask(&self, ports: &Value) -> bool {
        let request = format!("{}\n", serde_json::json!({ "set-relay-ports": ports }));
        self.exchange_as(CONTROL, request.as_bytes()).contains("\"done\"")
    }

    /// Ends what was started last.
    pub(crate) fn stop_last(&mut self) {
        if let Some(mut child) = self.children.pop() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks the broker for relay ports as the control process would.
    pub(crate) fn ask(&self, ports: &Value) -> Value {
        self.send_as(CONTROL, format!("{}\n", serde_json::json!({ "set-relay-ports": ports })).as_bytes())
    }

    /// Has some user listen on a port until the host goes.
    pub(crate) fn listen_as(&mut self, uid: u32, address: &str, port: u16) {
        let script = "import socket,sys,time\na=sys.argv[1]\ns=socket.socket(socket.AF_INET6 if ':' in a else socket.AF_INET)\n\
            if ':' in a: s.setsockopt(41,26,1)\ns.setsockopt(1,2,1)\ns.bind((a,int(sys.argv[2])))\ns.listen(64)\nprint('ok',end='',flush=True)\n\
            while True: s.accept()[0].close()";
        let uid = uid.to_string();
        let mut child = self
            .command("setpriv")
            .args([
                "--reuid",
                &uid,
                "--regid",
                &uid,
                "--clear-groups",
                "/usr/bin/python3",
                "-c",
                script,
                address,
            ])
            .arg(port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut word = [0; 2];
        child.stdout.take().expect("a pipe").read_exact(&mut word).expect("it listens");
        self.children.push(child);
    }

    /// A Python program in the namespace, as some user.
    pub(crate) fn python_as(&self, uid: u32, script: &str, arguments: &[&str]) -> Command {
        let uid = uid.to_string();
        let mut command = self.command("setpriv");
        command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "/usr/bin/python3", "-c", script]);
        command.args(arguments);
        command
    }

    /// A listener in the namespace.
    pub(crate) fn listen(&self, address: SocketAddr) -> TcpListener {
        self.inside(move || TcpListener::bind(address).expect("it can listen"))
    }

    /// Whether a connection from the namespace comes about.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let address: SocketAddr = address.parse().expect("an address");
        self.inside(move || TcpStream::connect_timeout(&address, Duration::from_millis(700)).is_ok())
    }

    /// Runs something in the namespace; sockets that it makes stay there.
    pub(crate) fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        let thread = std::thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
            work()
        });
        thread.join().expect("it works")
    }

    /// A host outside, on one link with this one: 10.9.0.1 and fd09::1 here, 10.9.0.2 and fd09::2 there.
    pub(crate) fn with_outside(&self, outside: &Self) {
        let (a, b) = (&self.name, &outside.name);
        let line = format!(
            "ip link add inside netns {a} type veth peer name outside netns {b}; \
             ip -n {a} address add 10.9.0.1/24 dev inside; ip -n {a} address add fd09::1/64 dev inside nodad; \
             ip -n {b} address add 10.9.0.2/24 dev outside; ip -n {b} address add fd09::2/64 dev outside nodad; \
             ip -n {a} link set inside up; ip -n {b} link set outside up"
        );
        self.sh(&line);
        until("the link is up", || {
            let out = self.sh("ip -o link show inside");
            out.contains("LOWER_UP")
        });
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Waits until `done`, looking again and again; for what nobody can be told of.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    while !done() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
