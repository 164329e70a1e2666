//! What there should be: a pure function of root's file and the record of relay ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use zone_firewall_protocol::{Destination, PortRule, Purpose};

use crate::access::{Accounts, CONTROL_USER, RELAY_USER};
use crate::config::{Config, InterfaceName, LOWEST_PORT, Limits, MAX_LIST_ENTRIES};

/// Port 17488 can't be another number.
pub(crate) const CONTROL_PORT: u16 = 17488;
/// The numbers that the relay's ports have unless the zone chose others. They are kept closed until they are opened.
pub(crate) const DEFAULT_RELAY_PORTS: [(Purpose, u16); 2] =
    [(Purpose::Endpoint, 17486), (Purpose::ModuleServer, 17487)];
/// Root's number. Where a user of the product has it by mistake, the host goes on sending.
const ROOT_UID: u32 = 0;
/// The most relay ports at once: two generations of both.
pub(crate) const MAX_RELAY_PORTS: usize = 8;

/// An address family of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both families, in the order in which rules for them are made.
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As nft calls it in `meta nfproto` and rich rules.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }

    /// The protocol of its header, as nft calls it.
    pub(crate) fn header(self) -> &'static str {
        match self {
            Self::V4 => "ip",
            Self::V6 => "ip6",
        }
    }
}

/// Everything that the live rules are measured by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Desired {
    /// Ports that are open, each number once, in ascending order.
    pub(crate) open: Vec<PortRule>,
    /// Ports that are kept closed, though something may listen there.
    pub(crate) closed: Vec<(Purpose, u16)>,
    /// The devices that ports are open on, by root's file; a purpose without any is open on all.
    pub(crate) interfaces: BTreeMap<Purpose, Vec<InterfaceName>>,
    /// Users that may send nothing of their own accord but to `destinations`, in the order of their rules.
    pub(crate) confined: Vec<ConfinedUser>,
    /// What one source may do.
    pub(crate) limits: Limits,
}

/// A user whose processes answer on connections that others have opened, and open none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfinedUser {
    /// Its name, for chains and counters.
    pub(crate) name: &'static str,
    /// Its number on this host.
    pub(crate) uid: u32,
    /// Where it may send to all the same, in ascending order.
    pub(crate) destinations: Vec<Destination>,
}

impl Desired {
    /// From root's file and the relay's ports.
    pub(crate) fn new(config: &Config, relay_ports: &[PortRule]) -> Self {
        let mut open = relay_ports.to_vec();
        if config.control.open {
            open.push(PortRule {
                purpose: Purpose::Control,
                port: CONTROL_PORT,
                listen: config.control.listen.clone(),
                networks: config.control.networks.clone(),
                balancers: Vec::new(),
            });
        }
        for rule in &mut open {
            rule.listen.sort_unstable();
            rule.listen.dedup();
            // A network of all addresses of one family stays, since it says nothing about the other one.
            rule.networks = IpNet::aggregate(&rule.networks);
            rule.balancers = IpNet::aggregate(&rule.balancers);
        }
        open.sort_by_key(|rule| rule.port);
        let known = DEFAULT_RELAY_PORTS.into_iter().chain([(Purpose::Control, CONTROL_PORT)]);
        let closed = known.filter(|(_, port)| open.iter().all(|rule| rule.port != *port)).collect();
        let interfaces = [
            (Purpose::Control, &config.control.interfaces),
            (Purpose::Endpoint, &config.interfaces.endpoint),
            (Purpose::ModuleServer, &config.interfaces.module_server),
        ];
        let interfaces =
            interfaces.into_iter().filter(|(_, names)| !names.is_empty()).map(|(purpose, names)| {
                let distinct: BTreeSet<_> = names.iter().cloned().collect();
                (purpose, distinct.into_iter().collect())
            });
        Self {
            open,
            closed,
            interfaces: interfaces.collect(),
            confined: Vec::new(),
            limits: config.limits.clone(),
        }
    }

    /// The same, with what the product's users may send. A user that this host lacks gets no rule.
    pub(crate) fn confine(self, config: &Config, accounts: &Accounts) -> Self {
        let destinations: BTreeSet<_> = config.output.allow.iter().copied().collect();
        // A relay logs by way of control, so that the exceptions are control's alone.
        let users = [(RELAY_USER, BTreeSet::new()), (CONTROL_USER, destinations)];
        let confined = users.into_iter().filter_map(|(name, destinations)| {
            let uid = accounts.uid(name).filter(|uid| *uid != ROOT_UID)?;
            Some(ConfinedUser { name, uid, destinations: destinations.into_iter().collect() })
        });
        Self { confined: confined.collect(), ..self }
    }

    /// The devices that connections to a port may come in by; empty means any.
    pub(crate) fn interfaces(&self, rule: &PortRule) -> &[InterfaceName] {
        self.interfaces.get(&rule.purpose).map_or(&[], Vec::as_slice)
    }
}

/// The addresses of a family that a port listens on: `None` if it does not, an empty list for all of them.
pub(crate) fn listens(rule: &PortRule, family: Family) -> Option<Vec<IpAddr>> {
    let own: Vec<_> = rule.listen.iter().copied().filter(|address| Family::of(*address) == family).collect();
    if own.is_empty() {
        None
    } else if own.iter().any(IpAddr::is_unspecified) {
        Some(Vec::new())
    } else {
        Some(own)
    }
}

/// The networks of a family that may connect: `None` if none may, an empty list for all of them. Balancers count,
/// because their addresses are what the packets come from.
pub(crate) fn sources(rule: &PortRule, family: Family) -> Option<Vec<IpNet>> {
    if rule.networks.is_empty() {
        return Some(Vec::new());
    }
    let all: Vec<_> = rule.networks.iter().chain(&rule.balancers).copied().collect();
    let own: Vec<_> = IpNet::aggregate(&all)
        .into_iter()
        .filter(|network| Family::of(network.network()) == family)
        .collect();
    if own.is_empty() {
        None
    } else if own.iter().any(|network| network.prefix_len() == 0) {
        Some(Vec::new())
    } else {
        Some(own)
    }
}

/// A request is not granted: what is wrong, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub(crate) struct Refusal {
    /// One line for a person.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) help: String,
}

/// Whether root's ceiling lets these ports be opened.
pub(crate) fn within_ceiling(config: &Config, ports: &[PortRule]) -> Result<(), Refusal> {
    let no = |why: String, help: &str| Err(Refusal { why, help: help.to_owned() });
    if ports.len() > MAX_RELAY_PORTS {
        return no(format!("{} ports are more than {MAX_RELAY_PORTS}", ports.len()), "ask for fewer ports");
    }
    for (index, rule) in ports.iter().enumerate() {
        let port = rule.port;
        if rule.purpose == Purpose::Control || port == CONTROL_PORT {
            return no(
                format!("port {CONTROL_PORT} is opened by root's firewall.toml only"),
                "set control.open in /etc/zone-proxy/firewall.toml and run 'zone-firewall apply'",
            );
        }
        if ports[..index].iter().any(|other| other.port == port) {
            return no(format!("port {port} is named twice"), "give each purpose a port of its own");
        }
        if port < LOWEST_PORT {
            return no(
                format!("port {port} is below {LOWEST_PORT}"),
                "choose a higher port in the zone's settings",
            );
        }
        if !config.ceiling.ports.iter().any(|ports| ports.contains(port)) {
            return no(
                format!("port {port} is beyond ceiling.ports of this host"),
                "choose another port, or have root extend ceiling.ports in /etc/zone-proxy/firewall.toml",
            );
        }
        if rule.listen.is_empty() {
            return no(
                format!("port {port} comes without an address to listen on"),
                "name at least one address",
            );
        }
        let longest = rule.listen.len().max(rule.networks.len()).max(rule.balancers.len());
        if longest > MAX_LIST_ENTRIES {
            return no(
                format!("port {port} has {longest} addresses or networks, more than {MAX_LIST_ENTRIES}"),
                "combine them into larger networks",
            );
        }
        if let Some(address) = rule
            .listen
            .iter()
            .find(|address| !config.ceiling.listen.is_empty() && !config.ceiling.listen.contains(address))
        {
            return no(
                format!("address {address} of port {port} is beyond ceiling.listen of this host"),
                "choose another address, or have root extend ceiling.listen in /etc/zone-proxy/firewall.toml",
            );
        }
        if let Some(network) = beyond_networks(config, rule) {
            return no(
                format!("{network} may not reach port {port}: it is beyond ceiling.networks of this host"),
                "name narrower networks, or have root extend ceiling.networks in /etc/zone-proxy/firewall.toml",
            );
        }
    }
    Ok(())
}

fn beyond_networks(config: &Config, rule: &PortRule) -> Option<String> {
    let ceiling = IpNet::aggregate(&config.ceiling.networks);
    if ceiling.is_empty() {
        return None;
    }
    if rule.networks.is_empty() {
        return Some("any network".to_owned());
    }
    let asked = rule.networks.iter().chain(&rule.balancers);
    asked
        .into_iter()
        .find(|network| !ceiling.iter().any(|allowed| allowed.contains(*network)))
        .map(ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(port: u16) -> PortRule {
        PortRule {
            purpose: Purpose::Endpoint,
            port,
            listen: vec!["0.0.0.0".parse().unwrap()],
            networks: Vec::new(),
            balancers: Vec::new(),
        }
    }

    fn ceiling(text: &str) -> Config {
        Config::parse(&format!("[ceiling]\n{text}\n"), "test").unwrap()
    }

    fn why(config: &Config, ports: &[PortRule]) -> String {
        within_ceiling(config, ports).unwrap_err().why
    }

    #[test]
    fn before_provisioning_the_default_numbers_are_kept_closed() {
        let desired = Desired::new(&Config::default(), &[]);
        assert!(desired.open.is_empty());
        assert_eq!(desired.closed.iter().map(|(_, port)| *port).collect::<Vec<_>>(), [17486, 17487, 17488]);
    }

    #[test]
    fn a_port_that_is_opened_is_no_longer_kept_closed() {
        let config = Config::parse("[control]\nopen = true\n", "test").unwrap();
        let desired = Desired::new(&config, &[rule(17486), rule(20000)]);
        assert_eq!(desired.open.iter().map(|rule| rule.port).collect::<Vec<_>>(), [17486, 17488, 20000]);
        assert_eq!(desired.closed, [(Purpose::ModuleServer, 17487)]);
    }

    #[test]
    fn only_control_may_send_to_where_root_allows_and_users_that_are_missing_get_no_rule() {
        let config = Config::parse(
            "[output]\nallow = [\"10.0.0.5:6514/tcp\", \"10.0.0.3:53/udp\", \"10.0.0.5:6514/tcp\"]\n",
            "test",
        )
        .unwrap();
        let confined =
            |passwd| Desired::new(&config, &[]).confine(&config, &Accounts::parse(passwd, "")).confined;
        let both = confined("zone-proxy:x:990:990::/:/x\nzone-relay:x:991:991::/:/x\n");
        let told: Vec<_> = both.iter().map(|user| (user.name, user.uid, user.destinations.len())).collect();
        assert_eq!(told, [("zone-relay", 991, 0), ("zone-proxy", 990, 2)]);
        assert_eq!(confined("olga:x:1000:1000::/:/x\nzone-relay:x:0:0::/:/x\n"), []);
    }

    #[test]
    fn devices_are_roots_whoever_asks_for_the_port() {
        let config = Config::parse(
            "[control]\nopen = true\ninterfaces = [\"mgmt1\", \"mgmt0\", \"mgmt1\"]\n[interfaces]\nendpoint = [\"eth0\"]\n",
            "test",
        );
        let desired = Desired::new(&config.unwrap(), &[rule(20000)]);
        let names = desired.open.iter().map(|rule| {
            desired.interfaces(rule).iter().map(InterfaceName::as_str).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(names.collect::<Vec<_>>(), ["mgmt0 mgmt1", "eth0"]);
    }

    #[test]
    fn nothing_beyond_the_ceiling_is_granted() {
        let free = Config::default();
        assert_eq!(within_ceiling(&free, &[rule(17486), rule(17487)]), Ok(()));
        assert_eq!(why(&free, &[rule(22)]), "port 22 is below 1024");
        assert_eq!(why(&free, &[rule(17488)]), "port 17488 is opened by root's firewall.toml only");
        assert_eq!(why(&free, &[rule(2000), rule(2000)]), "port 2000 is named twice");
        let low = ceiling("ports = [\"22\"]");
        assert_eq!(why(&low, &[rule(22)]), "port 22 is below 1024");
        let narrow = ceiling("ports = [\"17486\", \"20000-20010\"]");
        assert_eq!(within_ceiling(&narrow, &[rule(17486), rule(20010)]), Ok(()));
        assert_eq!(why(&narrow, &[rule(17487)]), "port 17487 is beyond ceiling.ports of this host");
    }

    #[test]
    fn networks_and_addresses_are_capped_too() {
        let config = ceiling("networks = [\"10.0.0.0/8\"]\nlisten = [\"192.0.2.1\"]");
        let mut asked = PortRule { listen: vec!["192.0.2.1".parse().unwrap()], ..rule(17487) };
        assert!(
            why(&config, std::slice::from_ref(&asked)).starts_with("any network may not reach port 17487")
        );
        asked.networks = vec!["10.1.0.0/16".parse().unwrap()];
        assert_eq!(within_ceiling(&config, std::slice::from_ref(&asked)), Ok(()));
        asked.networks.push("11.0.0.0/16".parse().unwrap());
        assert!(why(&config, std::slice::from_ref(&asked)).starts_with("11.0.0.0/16 may not reach"));
        asked.listen = vec!["0.0.0.0".parse().unwrap()];
        assert!(why(&config, &[asked]).starts_with("address 0.0.0.0 of port 17487 is beyond"));
    }

    #[test]
    fn balancers_are_sources_where_networks_are_named() {
        let mut asked = rule(17486);
        asked.balancers = vec!["192.0.2.8/32".parse().unwrap()];
        assert_eq!(sources(&asked, Family::V4), Some(Vec::new()));
        asked.networks = vec!["10.0.0.0/8".parse().unwrap()];
        assert_eq!(sources(&asked, Family::V4).unwrap().len(), 2);
        assert_eq!(sources(&asked, Family::V6), None);
        asked.networks.push("::/0".parse().unwrap());
        assert_eq!(sources(&asked, Family::V6), Some(Vec::new()));
    }
}
