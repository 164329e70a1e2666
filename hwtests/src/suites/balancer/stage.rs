//! The hosts of the suite, and everything on them up and connected.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::configuration::{Balancer, Header};
use super::times::Times;
use crate::lab::roots::BALANCER;
use crate::lab::{Cmd, Error, Host, Process, Result, Scene, Topology};
use crate::suites::parties::{self, ByHand, init_zone, provision_as};

/// The Module Server's host.
pub(super) const SERVER: &str = "module";
/// A host beside the balancers that is none.
pub(super) const STRANGER: &str = "stranger";
/// The proxies' hosts, and their names in the zone.
const PROXIES: [&str; 2] = ["proxy1", "proxy2"];
/// The port for endpoints.
pub(super) const PORT: u16 = 17486;
/// How many connections an endpoint keeps parked unless it is told otherwise.
pub(super) const PARKS: u64 = 2;
/// How long everything may take to be connected.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Endpoints and balancers outside, balancers and proxies in the DMZ, proxies and the Module Server inside.
pub(super) fn topology(balancers: &[Balancer]) -> Topology {
    let mut topology = Topology::new().link("outside").link("dmz").link("inside");
    for (number, name) in (1..).zip(PROXIES) {
        let (dmz, inside) = (format!("192.0.2.1{number}/24"), format!("10.10.0.1{number}/24"));
        topology =
            topology.host(Host::netns(name).nic("dmz", "dmz", &[&dmz]).nic("inside", "inside", &[&inside]));
    }
    topology = topology
        .host(Host::netns(SERVER).nic("inside", "inside", &["10.10.0.5/24"]))
        .host(Host::netns(STRANGER).nic("dmz", "dmz", &["192.0.2.66/24"]));
    for (number, balancer) in (1..).zip(balancers) {
        let outside = [format!("203.0.113.{number}/24"), format!("2001:db8:3::{number}/64")];
        let dmz = format!("192.0.2.10{number}/24");
        topology = topology
            .host(
                Host::chroot(&balancer.host(), BALANCER)
                    .nic("outside", "outside", &[&outside[0], &outside[1]])
                    .nic("dmz", "dmz", &[&dmz]),
            )
            .host(endpoint(*balancer, true, &format!("203.0.113.10{number}/24")))
            .host(endpoint(*balancer, false, &format!("2001:db8:3::10{number}/64")));
    }
    topology
}

fn endpoint(balancer: Balancer, cut: bool, address: &str) -> Host {
    Host::netns(&endpoint_name(balancer, cut)).nic("outside", "outside", &[address])
}

fn endpoint_name(balancer: Balancer, cut: bool) -> String {
    format!("{}-{}", if cut { "short" } else { "long" }, balancer.host())
}

/// A proxy.
pub(super) struct Proxy {
    pub(super) name: &'static str,
    pub(super) dmz: IpAddr,
    pub(super) inside: IpAddr,
    pub(super) process: Process,
}

/// An endpoint, and the balancer that it dials.
pub(super) struct Path {
    pub(super) balancer: Balancer,
    /// For people.
    pub(super) label: String,
    /// The endpoint's host and id.
    pub(super) id: String,
    /// Where the endpoint is.
    pub(super) address: IpAddr,
    /// Where the balancer connects from.
    pub(super) balancer_address: IpAddr,
    /// Whether the balancer's time-out is the shorter one.
    pub(super) cut: bool,
    pub(super) endpoint: Process,
    pub(super) process: Process,
    _service: Process,
}

/// Everything that runs.
pub(super) struct Stage {
    pub(super) proxies: Vec<Proxy>,
    pub(super) paths: Vec<Path>,
    /// When the last endpoint had parked.
    pub(super) parked: Instant,
}

impl Stage {
    /// Starts everything and waits until every endpoint has parked.
    pub(super) fn set(scene: &mut Scene<'_>, balancers: &[Balancer], times: &Times) -> Result<Self> {
        let config = proxy_configuration(scene, balancers, times)?;
        init_zone(scene, SERVER)?;
        let mut proxies = Vec::new();
        for name in PROXIES {
            let (dmz, inside) = (scene.host(name)?.ipv4("dmz")?, scene.host(name)?.ipv4("inside")?);
            let own = format!("[control]\nlisten = [\"{inside}\"]\n{config}");
            let proxy = ByHand::start(scene, name, &own)?;
            // Not put on record: it holds a token.
            let payload = scene.host(name)?.must(&proxy.cli(scene, &["show", "payload"]))?.stdout;
            let listen = [dmz.to_string(), inside.to_string()];
            provision_as(scene, SERVER, name, &payload, inside, &["--listen", &listen[0], &listen[1]])?;
            let process = proxy.process;
            proxies.push(Proxy { name, dmz, inside, process });
        }
        let mut paths = Vec::new();
        for balancer in balancers {
            for cut in [true, false] {
                paths.push(start_path(scene, *balancer, cut, times)?);
            }
        }
        let parked = scene.until(CONNECT_TIMEOUT, || {
            parties::listed(scene, SERVER).is_ok_and(|listed| {
                paths.iter().all(|path| {
                    listed.iter().filter(|one| one.id == path.id).map(|one| one.parks).sum::<u64>() == PARKS
                })
            })
        });
        if !parked {
            return Err(Error::other(format!(
                "not every endpoint has parked {PARKS} connections: {:?}",
                parties::listed(scene, SERVER)?
            )));
        }
        Ok(Self { proxies, paths, parked: Instant::now() })
    }
}

/// Balancers that speak the PROXY protocol are named to the proxies, and only they.
fn proxy_configuration(scene: &Scene<'_>, balancers: &[Balancer], times: &Times) -> Result<String> {
    let mut networks = Vec::new();
    for balancer in balancers.iter().filter(|balancer| balancer.header != Header::None) {
        networks.push(format!("\"{}/32\"", scene.host(&balancer.host())?.ipv4("dmz")?));
    }
    let ping_after =
        times.ping_after.map(|time| format!("ping_after = {:.1}\n", time.as_secs_f64())).unwrap_or_default();
    Ok(format!(
        "\n[balancer]\nnetworks = [{}]\n\n[timeouts]\nsession_idle = {:.1}\n{ping_after}",
        networks.join(", "),
        times.session_idle.as_secs_f64()
    ))
}

/// Starts a balancer with one of its time-outs, and an endpoint that dials it.
fn start_path(scene: &mut Scene<'_>, balancer: Balancer, cut: bool, times: &Times) -> Result<Path> {
    let host = balancer.host();
    // One time-out is dialled by IPv4, the other by IPv6.
    let (name, idle) = if cut { ("short", times.short) } else { ("long", times.long) };
    let outside =
        if cut { scene.host(&host)?.ipv4("outside")? } else { scene.host(&host)?.ipv6("outside")? };
    let listen = SocketAddr::new(outside, PORT);
    let file = format!("/etc/balancer-{name}.conf");
    scene.host(&host)?.put(&file, balancer.configuration(listen, idle)?.as_bytes(), 0o644)?;
    let process = scene.spawn(&host, name, &balancer.product.run(&file))?;
    let listens = Cmd::new("ss").args(["-Hltn", "src", &listen.to_string()]);
    if !scene.until(CONNECT_TIMEOUT, || {
        scene.host(&host).and_then(|host| host.run(&listens)).is_ok_and(|seen| !seen.stdout.is_empty())
    }) {
        return Err(Error::other(format!(
            "{host}: {} does not listen on {listen}: {}",
            balancer.product,
            process.log()
        )));
    }
    let id = endpoint_name(balancer, cut);
    let [endpoint, service] = parties::start_endpoint(scene, SERVER, &id, &listen.to_string())?;
    let address = if cut { scene.host(&id)?.ipv4("outside")? } else { scene.host(&id)?.ipv6("outside")? };
    Ok(Path {
        label: format!("{} with {}, {} s", balancer.product, balancer.header, idle.as_secs()),
        balancer_address: scene.host(&host)?.ipv4("dmz")?,
        balancer,
        id,
        address,
        cut,
        endpoint,
        process,
        _service: service,
    })
}
