//! Our policies: what they are, and what they should be.
//!
//! Policy `zone-proxy` opens the ports to whatever comes to this host (ANY to HOST). Its priority is the highest that there
//! is, which is to say that it comes last: behind all rules of the zone that a packet belongs to (ports, rich rules, ipsets)
//! and behind other policies, and just in front of what the zone does with the rest. So all of these may deny.
//!
//! What a zone does with the rest is a denial, too, where the zone is `drop` or `block`, or holds a source and drops. So
//! policy `zone-proxy` refuses our ports to each source that such a zone holds, and the policies `zone-proxy-drop` and
//! `zone-proxy-reject`, one step in front of it, to whatever the zones `drop` and `block` hold by interface, or hold from
//! now on.
//!
//! Neither is enough by itself. A rich rule can't name an interface, and knows the sources of the moment only. And
//! firewalld (1.3) forgets a zone's policies when the zone loses its last interface, whatever else it holds. Naming the
//! zones that are open won't do: firewalld takes a packet to a named zone's policy by its interface alone, also when
//! another zone holds its source; and not at all where the interface is in the default zone because nobody has put it
//! anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use zone_firewall_protocol::PortRule;

use super::listing::Section;
use super::zones::{Denial, Zones};
use crate::desired::{Desired, Family, listens, sources};

/// What all of our policies have for a target: what they do not decide, goes on.
const TARGET: &str = "CONTINUE";
/// The settings that are ours to make. Whatever else is in a policy of ours, somebody else put there.
const OURS: [&str; 5] = ["priority", "target", "ingress-zones", "egress-zones", "rich rules"];

/// What one of our policies is for, in the order in which packets come to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// It drops what zone `drop` holds.
    Drop,
    /// It rejects what zone `block` holds.
    Reject,
    /// It opens the ports.
    Open,
}

impl Role {
    /// All, in their order.
    pub(super) const ALL: [Self; 3] = [Self::Drop, Self::Reject, Self::Open];

    /// The policy's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Drop => "zone-proxy-drop",
            Self::Reject => "zone-proxy-reject",
            Self::Open => "zone-proxy",
        }
    }

    /// The one of this name.
    pub(super) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    fn priority(self) -> &'static str {
        match self {
            Self::Drop | Self::Reject => "32766",
            Self::Open => "32767",
        }
    }
}

/// A policy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Policy {
    /// Where it stands and whom it is about. A change of it takes a reload.
    pub(super) head: Head,
    /// Its rich rules, in the form that firewalld itself prints.
    pub(super) rules: BTreeSet<String>,
}

/// Where a policy stands and whom it is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// Lower ones come first, those above 0 behind the zone's own rules.
    pub(super) priority: String,
    /// What becomes of packets that no rule decides.
    pub(super) target: String,
    /// The zones that packets come from.
    pub(super) ingress: BTreeSet<String>,
    /// The zones that they go to.
    pub(super) egress: BTreeSet<String>,
    /// Settings that we never make, each as `key: value`.
    pub(super) foreign: BTreeSet<String>,
}

/// Our policies, as far as they are there.
pub(super) type Policies = BTreeMap<Role, Policy>;

/// Ours among those that `--list-all-policies` prints.
pub(super) fn listed(listing: &str) -> Policies {
    let sections = Section::all(listing);
    sections.iter().filter_map(|section| Some((Role::of(&section.name)?, Policy::of(section)))).collect()
}

/// What our policies should be with these zones.
pub(super) fn wanted(desired: &Desired, zones: &Zones) -> Policies {
    let set = |name: &str| BTreeSet::from([name.to_owned()]);
    let ports = ports(desired);
    let denials = |denial| ports.iter().map(|(family, ports)| refuse(*family, "", ports, denial)).collect();
    let policy = |role: Role, ingress, rules| {
        let (priority, target) = (role.priority().to_owned(), TARGET.to_owned());
        let head = Head { priority, target, ingress, egress: set("HOST"), foreign: BTreeSet::new() };
        (role, Policy { head, rules })
    };
    let mut open: BTreeSet<String> = desired
        .open
        .iter()
        .flat_map(|rule| Family::ALL.into_iter().flat_map(|family| accept(rule, family)))
        .collect();
    for (source, denial) in zones.denied_sources() {
        open.extend(
            ports.iter().filter_map(|(family, ports)| refuse_source(&source, *family, ports, denial)),
        );
    }
    Policies::from([
        policy(Role::Drop, zones.shut(Denial::Drop), denials(Denial::Drop)),
        policy(Role::Reject, zones.shut(Denial::Reject), denials(Denial::Reject)),
        policy(Role::Open, set("ANY"), open),
    ])
}

impl Policy {
    fn of(section: &Section) -> Self {
        let word = |key| section.lines(key).first().cloned().unwrap_or_default();
        let foreign = section.settings.iter().filter(|(key, _)| !OURS.contains(&key.as_str()));
        let said = foreign.flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let head = Head {
            priority: word("priority"),
            target: word("target"),
            ingress: section.words("ingress-zones"),
            egress: section.words("egress-zones"),
            foreign: said
                .filter(|(_, value)| *value != "no")
                .map(|(key, value)| format!("{key}: {value}"))
                .collect(),
        };
        Self { head, rules: section.lines("rich rules").iter().cloned().collect() }
    }
}

impl Head {
    /// How this one differs from what it should be, one clause each.
    pub(super) fn differences(&self, should: &Self) -> Vec<String> {
        let list = |zones: &BTreeSet<String>| {
            if zones.is_empty() {
                "none".to_owned()
            } else {
                zones.iter().cloned().collect::<Vec<_>>().join(" ")
            }
        };
        let settings = [
            ("priority", self.priority.clone(), should.priority.clone()),
            ("target", self.target.clone(), should.target.clone()),
            ("ingress-zones", list(&self.ingress), list(&should.ingress)),
            ("egress-zones", list(&self.egress), list(&should.egress)),
        ];
        let differing = settings.into_iter().filter(|(_, is, should)| is != should);
        let differing = differing.map(|(key, is, should)| format!("{key} is {is} and should be {should}"));
        let foreign =
            self.foreign.iter().map(|setting| format!("it has '{setting}', which nothing asks for"));
        differing.chain(foreign).collect()
    }
}

impl Head {
    /// A policy without rules, in the language of firewalld's files (firewalld.policy(5)).
    pub(super) fn to_xml(&self) -> String {
        let element = |name: &str, zone: &String| format!("  <{name} name=\"{zone}\"/>\n");
        let ingress = self.ingress.iter().map(|zone| element("ingress-zone", zone));
        let egress = self.egress.iter().map(|zone| element("egress-zone", zone));
        let zones: String = ingress.chain(egress).collect();
        let (priority, target) = (&self.priority, &self.target);
        format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<policy priority=\"{priority}\" target=\"{target}\">\n{zones}</policy>\n"
        )
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |zones: &BTreeSet<String>| zones.iter().cloned().collect::<Vec<_>>().join(" ");
        let ingress = if self.ingress.is_empty() { "no zone".to_owned() } else { list(&self.ingress) };
        write!(f, "{ingress} to {}, priority {}", list(&self.egress), self.priority)
    }
}

/// The ports that are refused to whom a zone denies: all that may ever be open, so that a port opens in one step. Those
/// that follow each other are one range.
fn ports(desired: &Desired) -> BTreeSet<(Family, String)> {
    let all: BTreeSet<u16> = desired
        .open
        .iter()
        .map(|rule| rule.port)
        .chain(desired.closed.iter().map(|(_, port)| *port))
        .collect();
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in all {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => ranges.push((port, port)),
        }
    }
    let text =
        |first: u16, last: u16| if first == last { first.to_string() } else { format!("{first}-{last}") };
    let of_family = |family| ranges.iter().map(move |(first, last)| (family, text(*first, *last)));
    Family::ALL.into_iter().flat_map(of_family).collect()
}

/// The rich rules that open a port in one family.
fn accept(rule: &PortRule, family: Family) -> Vec<String> {
    fn texts<T: ToString>(list: Option<Vec<T>>, before: &str) -> Vec<String> {
        match list {
            None => Vec::new(),
            Some(all) if all.is_empty() => vec![String::new()],
            Some(some) => {
                some.iter().map(|one| format!(" {before} address=\"{}\"", one.to_string())).collect()
            }
        }
    }
    let from = texts::<IpNet>(sources(rule, family), "source");
    let to = texts::<IpAddr>(listens(rule, family), "destination");
    let port = rule.port;
    let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
    let family = family.as_str();
    pairs
        .map(|(from, to)| {
            format!("rule family=\"{family}\"{from}{to} port port=\"{port}\" protocol=\"tcp\" accept")
        })
        .collect()
}

/// The rich rule that refuses ports in one family, from one source if that is given.
fn refuse(family: Family, source: &str, ports: &str, denial: Denial) -> String {
    let action = match (denial, family) {
        (Denial::Drop, _) => "drop",
        (Denial::Reject, Family::V4) => "reject type=\"icmp-admin-prohibited\"",
        (Denial::Reject, Family::V6) => "reject type=\"icmp6-adm-prohibited\"",
    };
    let family = family.as_str();
    format!("rule family=\"{family}\"{source} port port=\"{ports}\" protocol=\"tcp\" {action}")
}

/// The same for a source as zones have it: an address, a network, the address of a network card, or an ipset. `None` where it is of
/// the other family.
fn refuse_source(source: &str, family: Family, ports: &str, denial: Denial) -> Option<String> {
    let action = match denial {
        Denial::Drop => "drop",
        Denial::Reject => "reject",
    };
    let of_any_family =
        |source: &str| format!("rule source {source} port port=\"{ports}\" protocol=\"tcp\" {action}");
    if let Some(name) = source.strip_prefix("ipset:") {
        return Some(of_any_family(&format!("ipset=\"{name}\"")));
    }
    let address = source.split('/').next().unwrap_or_default();
    match address.parse::<IpAddr>() {
        Ok(address) if Family::of(address) == family => {
            Some(refuse(family, &format!(" source address=\"{source}\""), ports, denial))
        }
        Ok(_) => None,
        // firewalld prints it in capitals.
        Err(_) => Some(of_any_family(&format!("mac=\"{}\"", source.to_uppercase()))),
    }
}

#[cfg(test)]
mod tests {
    use zone_firewall_protocol::Purpose;

    use super::*;
    use crate::config::Config;

    fn desired(config: &str) -> Desired {
        Desired::new(&Config::parse(config, "test").unwrap(), &[])
    }

    fn rules(policies: &Policies, role: Role) -> Vec<&str> {
        policies[&role].rules.iter().map(String::as_str).collect()
    }

    #[test]
    fn ports_become_rich_rules_of_a_policy_that_comes_last() {
        let config = "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"fd00::1\"]\nnetworks = [\"10.0.0.0/8\", \"fd00::/8\"]";
        let policies = wanted(&desired(config), &Zones::default());
        assert_eq!(
            rules(&policies, Role::Open),
            [
                r#"rule family="ipv4" source address="10.0.0.0/8" port port="17488" protocol="tcp" accept"#,
                r#"rule family="ipv6" source address="fd00::/8" destination address="fd00::1" port port="17488" protocol="tcp" accept"#,
            ]
        );
        assert_eq!(policies[&Role::Open].head.to_string(), "ANY to HOST, priority 32767");
    }

    #[test]
    fn what_zones_drop_and_block_hold_is_refused_in_front_of_it() {
        let zones = Zones::new("public", "drop\n  target: DROP\nblock\n  target: %%REJECT%%\n");
        let policies = wanted(&desired("[control]\nopen = true\n"), &zones);
        assert_eq!(policies[&Role::Drop].head.to_string(), "drop to HOST, priority 32766");
        assert_eq!(policies[&Role::Reject].head.to_string(), "block to HOST, priority 32766");
        assert_eq!(
            policies[&Role::Drop].head.to_xml().lines().skip(1).map(str::trim).collect::<String>(),
            r#"<policy priority="32766" target="CONTINUE"><ingress-zone name="drop"/><egress-zone name="HOST"/></policy>"#
        );
        assert_eq!(
            rules(&policies, Role::Drop),
            [
                r#"rule family="ipv4" port port="17486-17488" protocol="tcp" drop"#,
                r#"rule family="ipv6" port port="17486-17488" protocol="tcp" drop"#,
            ]
        );
        assert_eq!(
            rules(&policies, Role::Reject),
            [
                r#"rule family="ipv4" port port="17486-17488" protocol="tcp" reject type="icmp-admin-prohibited""#,
                r#"rule family="ipv6" port port="17486-17488" protocol="tcp" reject type="icmp6-adm-prohibited""#,
            ]
        );
    }

    #[test]
    fn sources_that_a_zone_drops_are_refused_whatever_kind_they_are_of() {
        let listing =
            "drop\n  target: DROP\n  sources: 192.0.2.0/24 2001:DB8::66 ipset:bad aa:bb:cc:dd:ee:ff\n";
        let zones = Zones::new("drop", listing);
        let policies = wanted(&desired("[control]\nopen = true\n"), &zones);
        assert_eq!(
            rules(&policies, Role::Open),
            [
                r#"rule family="ipv4" port port="17488" protocol="tcp" accept"#,
                r#"rule family="ipv4" source address="192.0.2.0/24" port port="17486-17488" protocol="tcp" drop"#,
                r#"rule family="ipv6" source address="2001:DB8::66" port port="17486-17488" protocol="tcp" drop"#,
                r#"rule source ipset="bad" port port="17486-17488" protocol="tcp" drop"#,
                r#"rule source mac="AA:BB:CC:DD:EE:FF" port port="17486-17488" protocol="tcp" drop"#,
            ]
        );
        assert!(policies[&Role::Drop].head.ingress.is_empty());
    }

    #[test]
    fn ports_that_follow_each_other_are_refused_in_one_rule() {
        let port = |purpose, port| PortRule {
            purpose,
            port,
            listen: vec!["0.0.0.0".parse().unwrap()],
            networks: Vec::new(),
            balancers: Vec::new(),
        };
        let relay = [port(Purpose::Endpoint, 17487), port(Purpose::ModuleServer, 20000)];
        let config = Config::parse("[control]\nopen = true\n", "test").unwrap();
        let zones = Zones::new("public", "drop\n  target: DROP\n");
        let policies = wanted(&Desired::new(&config, &relay), &zones);
        assert_eq!(
            rules(&policies, Role::Drop),
            [
                r#"rule family="ipv4" port port="17486-17488" protocol="tcp" drop"#,
                r#"rule family="ipv4" port port="20000" protocol="tcp" drop"#,
                r#"rule family="ipv6" port port="17486-17488" protocol="tcp" drop"#,
                r#"rule family="ipv6" port port="20000" protocol="tcp" drop"#,
            ]
        );
    }

    #[test]
    fn a_listed_policy_is_read_with_what_others_have_put_into_it() {
        let listing = "allow-host-ipv6 (active)\n  priority: -15000\n\nzone-proxy (active)\n  priority: -100\n  target: CONTINUE\n  \
            ingress-zones: ANY\n  egress-zones: HOST\n  services: ssh\n  ports: \n  masquerade: no\n  rich rules: \n\trule a\n\trule b\n";
        let policies = listed(listing);
        assert_eq!(policies.keys().copied().collect::<Vec<_>>(), [Role::Open]);
        let should = wanted(&desired(""), &Zones::default());
        assert_eq!(
            policies[&Role::Open].head.differences(&should[&Role::Open].head),
            ["priority is -100 and should be 32767", "it has 'services: ssh', which nothing asks for",]
        );
        assert_eq!(rules(&policies, Role::Open), ["rule a", "rule b"]);
    }
}
