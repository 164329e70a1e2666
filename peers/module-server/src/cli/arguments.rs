//! What can be typed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;
use zone_module::session::EndToEnd;
use zone_module::zone::DEFAULT_MODULE_SERVER;
use zone_protocol::identity::{Label, Role, Target};

/// The inside peer of a zone: its authorities, its proxies, and sessions to its endpoints.
#[derive(Debug, Parser)]
#[command(name = "zone-module", version)]
pub(crate) struct Arguments {
    /// The zone directory.
    #[arg(long, global = true, env = "ZONE_DIR", default_value = "./zone", value_name = "DIR")]
    pub(super) zone: PathBuf,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a zone directory with its authorities and a certificate for this Module Server.
    Init {
        /// The zone's name, a DNS label.
        zone_name: Label,
        /// This Module Server's name.
        #[arg(long, default_value = DEFAULT_MODULE_SERVER, value_name = "NAME")]
        module_server: Label,
    },
    /// Make a fresh proxy a member of the zone; what 'zone-proxy show payload' printed goes to standard input.
    Provision(Provision),
    /// Close a proxy's ports and forget it.
    Unprovision {
        /// The proxy.
        name: Label,
        /// Forget it without asking it: the host is gone for good.
        #[arg(long)]
        forget: bool,
    },
    /// Ask proxies how they are, and send them the trust document where theirs is old.
    Status {
        /// One proxy; all of them if left out.
        name: Option<Label>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the endpoints that are connected to the zone's proxies.
    Endpoints {
        /// As JSON.
        #[arg(long, conflicts_with = "watch")]
        json: bool,
        /// Go on with a line for each that comes, goes or changes.
        #[arg(long)]
        watch: bool,
    },
    /// Join standard input and output to a service of an endpoint (also as ssh's ProxyCommand).
    ///
    /// Exit status: 0 both directions ended cleanly, 1 refused, 2 wrong usage, 3 the session was cut off.
    Connect {
        /// Endpoint id and service, by name or number.
        #[arg(value_name = "ID:SERVICE")]
        target: Target,
        #[command(flatten)]
        policy: Policy,
    },
    /// Listen on a local port; every connection becomes a session.
    Forward {
        /// Address and port to listen on, as 127.0.0.1:8022.
        #[arg(value_name = "LOCAL_ADDR")]
        local: SocketAddr,
        /// Endpoint id and service, by name or number.
        #[arg(value_name = "ID:SERVICE")]
        target: Target,
        #[command(flatten)]
        policy: Policy,
        /// Sessions at a time; further connections wait.
        #[arg(long, default_value_t = zone_module::forward::DEFAULT_MAX_SESSIONS, value_name = "N",
              value_parser = sessions_at_a_time)]
        sessions: usize,
    },
    /// Issue certificates.
    #[command(subcommand)]
    Issue(Issue),
    /// Give a proxy new keys and certificates, also to its port 17488, which no relay has the keys of from then on.
    ///
    /// A proxy of a version that knows of no identity of 17488 gets new ones for all its ports. A Module Server of such a version
    /// refuses a proxy whose 17488 has one: upgrade all of them first.
    Rotate {
        /// The proxy.
        name: Label,
    },
    /// Deny every certificate issued so far for a name, at every proxy.
    #[command(subcommand)]
    Revoke(Revoke),
    /// The trust document.
    #[command(subcommand)]
    Trust(Trust),
    /// Replace one of the zone's authorities while everything runs.
    #[command(subcommand)]
    Authority(Authority),
}

#[derive(Debug, Args)]
pub(super) struct Provision {
    /// The proxy's name in the zone.
    #[arg(long)]
    pub(super) name: Label,
    /// Addresses that both relay ports listen on (default: all IPv4 addresses).
    #[arg(long, num_args = 1.., value_name = "IP")]
    pub(super) listen: Vec<IpAddr>,
    /// The port for endpoints (default: 17486).
    #[arg(long, value_name = "N")]
    pub(super) endpoint_port: Option<u16>,
    /// The port for Module Servers (default: 17487).
    #[arg(long, value_name = "N")]
    pub(super) module_server_port: Option<u16>,
    /// Networks that endpoints may come from (default: any).
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    pub(super) allow_endpoints: Vec<IpNet>,
    /// Networks that Module Servers may come from (default: any).
    #[arg(long, num_args = 1.., value_name = "CIDR")]
    pub(super) allow_module_servers: Vec<IpNet>,
    /// A limit by name; none can be above the host's own.
    #[arg(long = "limit", num_args = 1.., value_name = "NAME=N", value_parser = limit)]
    pub(super) limits: Vec<(String, u64)>,
    /// Where the proxy's port 17488 is, if not where the payload says.
    #[arg(long, value_name = "HOST")]
    pub(super) address: Option<String>,
    /// Provision a member of the zone anew, without a token; what is not given stays as it is.
    #[arg(long, conflicts_with = "address")]
    pub(super) again: bool,
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Policy {
    /// Insist on TLS up to the endpoint, or do without for a service that brings its own security.
    #[arg(long, default_value_t, value_name = "required|off")]
    pub(super) end_to_end: EndToEnd,
}

#[derive(Debug, Subcommand)]
pub(super) enum Issue {
    /// A directory with everything that zone-endpoint needs.
    Endpoint {
        /// The endpoint's id, a DNS label.
        id: Label,
        /// Where to write it.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Where the endpoint is to find proxies (a balancer, say), instead of at those of the zone.
        #[arg(long = "proxy", num_args = 1.., value_name = "HOST:PORT")]
        proxies: Vec<String>,
    },
    /// A certificate for another Module Server, or for any HTTPS proxy client, and whom it should trust.
    ModuleServer {
        /// Its name, a DNS label.
        name: Label,
        /// Where to write it.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Revoke {
    /// An endpoint.
    Endpoint {
        /// Its id.
        id: Label,
    },
    /// A Module Server; revoking this one's own name gives it a new certificate.
    ModuleServer {
        /// Its name.
        name: Label,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Trust {
    /// Send it to every proxy that has an older one.
    Push,
}

#[derive(Debug, Subcommand)]
pub(super) enum Authority {
    /// Show which authorities vouch for whom, until when, and what is to be done next.
    Status,
    /// Put a new authority beside the old one, at every proxy, and name who needs a new certificate or the new anchor.
    ///
    /// It can be run again at any time, and goes on where it broke off. Exit status 1: a proxy does not have it yet.
    Renew {
        /// Whom it vouches for: endpoint, module-server or zone-proxy.
        #[arg(value_parser = role)]
        role: Role,
        /// Where to write what each party needs.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Take the old authority out of trust. What the new one has brought must be at its place by now.
    ///
    /// It can be run again at any time, and goes on where it broke off. Exit status 1: a proxy does not have it yet.
    Retire {
        /// Whom it vouches for: endpoint, module-server or zone-proxy.
        #[arg(value_parser = role)]
        role: Role,
        /// End the sessions of whoever was signed by it as well: somebody else has its key.
        #[arg(long)]
        cut: bool,
        /// Go on although parties have no certificate of the new one, or a proxy does not answer: they are shut out.
        #[arg(long)]
        anyway: bool,
        /// Where to write the anchors without it, for each party that goes by them.
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

fn limit(text: &str) -> Result<(String, u64), String> {
    let (name, number) = text.split_once('=').ok_or("NAME=N is expected")?;
    let number = number.parse().map_err(|_| format!("'{number}' is not a whole number"))?;
    Ok((name.to_owned(), number))
}

fn role(text: &str) -> Result<Role, String> {
    let role = Role::FIRST_VERSION.into_iter().find(|role| role.as_str() == text);
    role.ok_or_else(|| "endpoint, module-server or zone-proxy is expected".into())
}

fn sessions_at_a_time(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (1..=10_000).contains(&number) => Ok(number),
        _ => Err("a number from 1 to 10000 is expected".into()),
    }
}
