//! What is checked behind each balancer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::configuration::{Balancer, Header, Product};
use super::stage::{PARKS, PORT, Path, SERVER, STRANGER, Stage};
use super::times::Times;
use crate::lab::check::PROBE_TIMEOUT;
use crate::lab::{Cmd, Context, Error, Probe, Process, Result, Scene};
use crate::suites::parties::{self, Listed, listed, metric, module};

/// How late an end may be seen, and a log line come.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long endpoints may take to be parked on the other proxy.
const MOVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often logs are looked at for the moment when something happened.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The shipped configuration is taken as it is.
pub(super) fn the_example_is_accepted(
    scene: &mut Scene<'_>,
    product: Product,
    balancers: &[Balancer],
) -> Result<()> {
    const FILE: &str = "/etc/example.conf";
    let Some(balancer) = balancers.iter().find(|balancer| balancer.product == product) else { return Ok(()) };
    let host = balancer.host();
    scene.host(&host)?.put(FILE, product.example().as_bytes(), 0o644)?;
    let output = scene.run(&host, &product.check(FILE))?;
    let quiet = !output.text().to_lowercase().contains("warn");
    scene.check(
        format!("{product} takes the shipped example without a warning"),
        output.ok() && quiet,
        output.text(),
    );
    Ok(())
}

/// With the PROXY protocol, lists name the endpoint; without it, they can only name the balancer.
pub(super) fn real_sources(scene: &mut Scene<'_>, stage: &Stage) -> Result<()> {
    let listed = listed(scene, SERVER)?;
    for path in &stage.paths {
        let (whose, expected) = match path.balancer.header {
            Header::None => ("the balancer's address, as nothing else is known", path.balancer_address),
            Header::V1 | Header::V2 => ("the endpoint's real address", path.address),
        };
        let expected = expected.to_string();
        let own: Vec<_> = listed.iter().filter(|one| one.id == path.id).collect();
        let held = !own.is_empty() && own.iter().all(|one| one.address == expected);
        scene.check(
            format!("{}: `zone-module endpoints` shows {whose}, {expected}", path.label),
            held,
            listing(own),
        );
    }
    Ok(())
}

/// Health checks are counted by the proxies, and their logs stay free of them.
pub(super) fn probes(scene: &mut Scene<'_>, stage: &Stage) -> Result<()> {
    const METRIC: &str = "zone_relay_probes_total";
    const EACH: usize = 3;
    let proxy = &stage.proxies[0];
    let count = |scene: &Scene<'_>| metric(scene, SERVER, proxy.inside, METRIC);
    let checking =
        |path: &Path| path.balancer.product == Product::HaProxy && path.balancer.header != Header::None;
    if stage.paths.iter().any(checking) {
        // HAProxy's check without a header is a handshake that it breaks off (SYN, SYN-ACK, RST): no program sees it.
        let before = count(scene)?;
        let grew = scene.until(MOVE_TIMEOUT, || count(scene).is_ok_and(|now| now >= before + 2));
        let now = count(scene)?;
        scene.check("HAProxy's health checks are counted", grew, format!("{METRIC}: {before}, then {now}"));
    }
    let before = count(scene)?;
    let mut sent: u64 = 0;
    for path in stage.paths.iter().filter(|path| path.cut) {
        let host = scene.host(&path.balancer.host())?;
        for _ in 0..EACH {
            sent += u64::from(host.probe(SocketAddr::new(proxy.dmz, PORT), PROBE_TIMEOUT) == Probe::Open);
        }
    }
    let grew = scene.until(MOVE_TIMEOUT, || count(scene).is_ok_and(|now| now >= before + sent));
    let now = count(scene)?;
    let seen = format!("{sent} connections; {METRIC}: {before}, then {now}");
    scene.check(
        "a connection that a balancer opens and closes without a byte is counted as a probe",
        sent > 0 && grew,
        seen,
    );
    for proxy in &stage.proxies {
        let log = proxy.process.log();
        let about = stage.paths.iter().map(|path| format!("peer={}:", path.balancer_address));
        let lines: Vec<_> = about.filter_map(|peer| log.lines().find(|line| line.contains(&peer))).collect();
        scene.check(format!("no probe is in the log of {}", proxy.name), lines.is_empty(), lines.join("\n"));
    }
    Ok(())
}

/// A PROXY header is taken from balancers alone, and from them it must come.
pub(super) fn headers(scene: &mut Scene<'_>, stage: &Stage) -> Result<()> {
    // Both name a client at 198.51.100.7 (the PROXY protocol's specification, sections 2.1 and 2.2).
    const V1: &str = r"PROXY TCP4 198.51.100.7 192.0.2.11 4242 17486\r\n";
    const V2: &str =
        r"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xc6\x33\x64\x07\xc0\x00\x02\x0b\x10\x92\x44\x4e";
    // The beginning of a TLS handshake.
    const TLS: &str = r"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03aaaaaaaa";
    let stranger = scene.host(STRANGER)?.ipv4("dmz")?.to_string();
    for (sentence, header) in [
        ("a PROXY header of version 1 from an address that is no balancer's is refused", V1),
        ("a PROXY header of version 2 from an address that is no balancer's is refused", V2),
    ] {
        refused_by_header(scene, stage, sentence, STRANGER, &stranger, header)?;
    }
    let balancer = stage.paths.iter().find(|path| path.balancer.header != Header::None);
    if let Some(path) = balancer {
        let (host, address) = (path.balancer.host(), path.balancer_address.to_string());
        let sentence = "a connection without a PROXY header from a balancer's address is refused";
        refused_by_header(scene, stage, sentence, &host, &address, TLS)?;
    }
    let all = listed(scene, SERVER)?;
    let forged = all.iter().any(|one| one.address == "198.51.100.7");
    scene.check("no endpoint is listed at the address that the headers named", !forged, listing(all.iter()));
    Ok(())
}

/// Sends bytes to the first proxy's port for endpoints, which must end the connection and log why.
fn refused_by_header(
    scene: &mut Scene<'_>,
    stage: &Stage,
    sentence: &str,
    host: &str,
    from: &str,
    bytes: &str,
) -> Result<()> {
    let proxy = &stage.proxies[0];
    let lines = || {
        let log = proxy.process.log();
        let ours = |line: &&str| line.contains(&format!("peer={from}:")) && line.contains("proxy_header");
        log.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>()
    };
    let before = lines().len();
    // It may be reset between two writes of the shell. The exit status is that of timeout(1): 124 if the proxy keeps the connection open.
    let script = format!(
        "trap '' PIPE; exec 3<>/dev/tcp/{}/{PORT}; printf '{bytes}' >&3; timeout 5 cat <&3 >/dev/null; test $? != 124",
        proxy.dmz
    );
    let ended = scene.run(host, &Cmd::new("bash").args(["-c", &script]))?.ok();
    let logged = scene.until(NOTICE_TIMEOUT, || lines().len() > before);
    let seen = lines().pop().unwrap_or_else(|| "no line in the log".to_owned());
    scene.check(sentence, ended && logged, format!("connection ended: {ended}; {seen}"));
    Ok(())
}

/// Each direction of a session ends by itself: what an endpoint says after its caller's end still arrives.
pub(super) fn half_close(scene: &mut Scene<'_>, stage: &Stage) -> Result<()> {
    conversations(scene, &stage.paths, "what an endpoint says after its caller's end arrives")
}

/// A short session with each endpoint, all at once.
fn conversations(scene: &mut Scene<'_>, paths: &[Path], sentence: &str) -> Result<()> {
    const SCRIPT: &str = "echo hello | { \"$@\"; echo \"exit $?\"; }";
    let mut sessions = Vec::new();
    for path in paths {
        let before = ended(path);
        sessions.push((path, start_session(scene, path, "conversation", SCRIPT)?, before));
    }
    scene.until(MOVE_TIMEOUT, || {
        sessions.iter().all(|(path, caller, before)| caller.log().contains("exit ") && ended(path) > *before)
    });
    for (path, caller, _) in sessions {
        let said = caller.log();
        let held = said == parties::conversation("hello\n") + "exit 0\n";
        scene.check(format!("{}: {sentence}", path.label), held, said);
    }
    Ok(())
}

/// Starts a shell script on the Module Server's host whose arguments are the command for a session.
fn start_session(scene: &mut Scene<'_>, path: &Path, name: &str, script: &str) -> Result<Process> {
    let target = format!("{}:echo", path.id);
    let connect = module(scene, SERVER, &["connect", "--end-to-end", "off", &target])?;
    let cmd = Cmd::new("sh").args(["-c", script, "sh"]).args(connect.words());
    scene.spawn(SERVER, &format!("{name}-{}", path.id), &cmd)
}

/// A session, and when which end of it saw what.
struct Watched<'a> {
    path: &'a Path,
    caller: Process,
    /// How many sessions the endpoint had seen the end of.
    ended_before: usize,
    /// When its one message had come back: the last payload.
    began: Option<Instant>,
    caller_saw: Option<Duration>,
    endpoint_saw: Option<Duration>,
}

/// All sessions at once: those behind the shorter time-out end by it, the others by the proxy's own idle time.
pub(super) fn idle_sessions(scene: &mut Scene<'_>, stage: &Stage, times: &Times) -> Result<()> {
    const SCRIPT: &str = "{ echo hello; sleep 3600; } | { \"$@\"; echo \"exit $?\"; }";
    let mut sessions = Vec::new();
    for path in &stage.paths {
        let ended_before = ended(path);
        let caller = start_session(scene, path, "session", SCRIPT)?;
        sessions.push(Watched {
            path,
            caller,
            ended_before,
            began: None,
            caller_saw: None,
            endpoint_saw: None,
        });
    }
    let deadline = Instant::now() + times.session_idle + Duration::from_secs(15);
    while Instant::now() < deadline
        && sessions.iter().any(|one| one.caller_saw.is_none() || one.endpoint_saw.is_none())
    {
        sessions.iter_mut().for_each(look);
        std::thread::sleep(POLL_INTERVAL);
    }
    for session in &sessions {
        ends_in_time(scene, session, times);
        says_why(scene, stage, session);
    }
    Ok(())
}

/// How many sessions an endpoint has seen the end of. Those in which nothing came do not count: `zone-module connect`
/// asks another proxy as well when the first one lets it wait for a park, and withdraws from the one that is later.
fn ended(path: &Path) -> usize {
    let log = path.endpoint.log();
    log.lines().filter(|line| line.contains("session ended") && !line.contains("received=0 ")).count()
}

fn look(session: &mut Watched<'_>) {
    let said = session.caller.log();
    if session.began.is_none() && said.contains("hello") {
        session.began = Some(Instant::now());
    }
    let Some(began) = session.began else { return };
    if session.caller_saw.is_none() && said.contains("exit ") {
        session.caller_saw = Some(began.elapsed());
    }
    if session.endpoint_saw.is_none() && ended(session.path) > session.ended_before {
        session.endpoint_saw = Some(began.elapsed());
    }
}

fn ends_in_time(scene: &mut Scene<'_>, session: &Watched<'_>, times: &Times) {
    let (due, by) = if session.path.cut { (times.short, "balancer") } else { (times.session_idle, "proxy") };
    let in_time = |seen: Option<Duration>| {
        seen.is_some_and(|seen| seen + NOTICE_TIMEOUT / 2 >= due && seen <= due + NOTICE_TIMEOUT)
    };
    let moment = |seen: Option<Duration>| {
        seen.map_or("never".to_owned(), |seen| format!("after {:.2} s", seen.as_secs_f64()))
    };
    let said = session.caller.log();
    // 3: the session was cut off, as `zone-module connect --help` has it.
    let cut_off = said.contains("exit 3");
    scene.check(
        format!(
            "{}: an idle session is ended by the {by} after {} s, and both ends see it within a second",
            session.path.label,
            due.as_secs()
        ),
        in_time(session.caller_saw) && in_time(session.endpoint_saw) && cut_off,
        format!(
            "the Module Server saw it {}, the endpoint {}; {}",
            moment(session.caller_saw),
            moment(session.endpoint_saw),
            said.trim().replace('\n', "; ")
        ),
    );
}

fn says_why(scene: &mut Scene<'_>, stage: &Stage, session: &Watched<'_>) {
    let path = session.path;
    let target = format!("target={}:echo", path.id);
    let (cause, reason) = if path.cut {
        ("that the endpoint's side was cut", "reason=\"endpoint_cut\"")
    } else {
        ("that the session was idle", "reason=\"idle\"")
    };
    let lines = || {
        let logs = stage.proxies.iter().map(|proxy| proxy.process.log());
        let ours = |line: &&str| line.contains("session ended") && line.contains(&target);
        logs.flat_map(|log| log.lines().filter(ours).map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let named = scene.until(NOTICE_TIMEOUT, || lines().iter().any(|line| line.contains(reason)));
    scene.check(format!("{}: the proxy's log says {cause}", path.label), named, lines().join("\n"));
    if path.cut {
        let client = path.address.to_string();
        let said = scene
            .until(NOTICE_TIMEOUT, || path.balancer.product.says_timed_out(&path.process.log(), &client));
        let log = path.process.log();
        let about: Vec<_> = log.lines().filter(|line| line.contains(&client)).collect();
        scene.check(
            format!("{}: the balancer's own log says that it timed out", path.label),
            said,
            about.join("\n"),
        );
    }
}

/// Pings keep parks up that would be silent for longer than the balancer allows.
pub(super) fn parks_outlive_the_balancer(scene: &mut Scene<'_>, stage: &Stage, times: &Times) -> Result<()> {
    let lost = |path: &Path| path.endpoint.log().lines().filter(|line| line.contains("park lost")).count();
    let rest = (stage.parked + times.watched()).saturating_duration_since(Instant::now());
    scene.until(rest, || stage.paths.iter().any(|path| lost(path) > 0));
    let all = listed(scene, SERVER)?;
    for path in &stage.paths {
        let (own, lost) = (all.iter().filter(|one| one.id == path.id), lost(path));
        let parks: u64 = own.clone().map(|one| one.parks).sum();
        let waited = stage.parked.elapsed().as_secs_f64();
        scene.check(
            format!("{}: parks outlive the balancer's time-out, kept up by pings", path.label),
            lost == 0 && parks == PARKS,
            format!("after {waited:.0} s {lost} were lost; {}", listing(own)),
        );
    }
    Ok(())
}

/// The endpoints of a proxy that is stopped are soon parked on the other one, and can be reached there.
pub(super) fn a_stopped_proxy(scene: &mut Scene<'_>, stage: &mut Stage) -> Result<()> {
    let (stopped, other) = match stage.proxies.as_mut_slice() {
        [stopped, other] => (stopped, other.name),
        _ => return Err(Error::other("the suite has two proxies")),
    };
    // To the daemon alone, as an init system does: its relay is its own business.
    let pid = Pid::from_raw(stopped.process.pid().cast_signed());
    kill(pid, Signal::SIGTERM).during(|| format!("can't stop {}", stopped.name))?;
    let begin = Instant::now();
    let status = stopped.process.wait(MOVE_TIMEOUT)?;
    scene.note(format!("{} ended with {status} after {:.1} s", stopped.name, begin.elapsed().as_secs_f64()));
    let there = |scene: &Scene<'_>| -> Result<Vec<Listed>> {
        Ok(listed(scene, SERVER)?.into_iter().filter(|one| one.proxy == other).collect())
    };
    let paths = &stage.paths;
    let parked = |all: &[Listed], path: &Path| all.iter().any(|one| one.id == path.id && one.parks == PARKS);
    let moved = scene.until(MOVE_TIMEOUT.saturating_sub(begin.elapsed()), || {
        there(scene).is_ok_and(|all| paths.iter().all(|path| parked(&all, path)))
    });
    let time = begin.elapsed().as_secs_f64();
    let all = there(scene)?;
    for path in paths {
        let own: Vec<_> = all.iter().filter(|one| one.id == path.id).collect();
        scene.check(
            format!("{}: within 10 s all parks of a stopped proxy's endpoint are on the other", path.label),
            moved || parked(&all, path),
            format!("after {time:.1} s: {}", listing(own)),
        );
    }
    conversations(scene, paths, "a new session goes through the other proxy")?;
    Ok(())
}

fn listing<'a>(listed: impl IntoIterator<Item = &'a Listed>) -> String {
    let line =
        |one: &Listed| format!("{} at {} from {}: {} parks", one.id, one.proxy, one.address, one.parks);
    listed.into_iter().map(line).collect::<Vec<_>>().join("; ")
}
