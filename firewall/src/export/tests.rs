use zone_firewall_protocol::PortRule;

use super::*;
use crate::config::Config;

const OPEN: &str = "[control]\nopen = true\nlisten = [\"0.0.0.0\", \"fd00::7\"]\nnetworks = [\"10.0.0.0/8\", \"fd00::/8\"]\n";

fn text(config: &str, format: ExportFormat, addresses: &[&str]) -> String {
    exported(config, format, addresses).unwrap()
}

fn exported(config: &str, format: ExportFormat, addresses: &[&str]) -> Result<String, Refusal> {
    let endpoint = PortRule {
        purpose: Purpose::Endpoint,
        port: 17486,
        listen: vec!["0.0.0.0".parse().unwrap()],
        networks: Vec::new(),
        balancers: vec!["192.0.2.8/32".parse().unwrap()],
    };
    let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    export(&Desired::new(&Config::parse(config, "test").unwrap(), &[endpoint]), format, &addresses)
}

#[test]
fn csv_has_a_line_for_each_network_and_address() {
    assert_eq!(
        text(OPEN, ExportFormat::Csv, &[]),
        "purpose,protocol,family,port,source,destination,interface\n\
         endpoint,tcp,ipv4,17486,any,any,any\n\
         control,tcp,ipv4,17488,10.0.0.0/8,any,any\n\
         control,tcp,ipv6,17488,fd00::/8,fd00::7,any\n"
    );
}

#[test]
fn a_wildcard_stands_for_the_addresses_that_are_named() {
    let csv = text(OPEN, ExportFormat::Csv, &["192.0.2.1", "198.51.100.1", "fd00::9"]);
    let lines: Vec<_> = csv.lines().skip(1).map(|line| line.split(',').nth(5).unwrap()).collect();
    assert_eq!(lines, ["192.0.2.1", "198.51.100.1", "192.0.2.1", "198.51.100.1", "fd00::7"]);
    assert!(!text(OPEN, ExportFormat::Csv, &["fd00::9"]).contains("ipv4"), "it has no IPv4 address then");
}

#[test]
fn a_device_stands_in_the_rules_of_a_host_and_in_words_elsewhere() {
    let config = format!("{OPEN}interfaces = [\"mgmt0\", \"mgmt1\"]\n");
    let nft = text(&config, ExportFormat::Nft, &[]);
    for name in ["iifname \"mgmt0\"", "meta sdifname \"mgmt1\""] {
        assert!(nft.contains(&format!("{name} ip saddr 10.0.0.0/8 tcp dport 17488 accept")), "{nft}");
    }
    let iptables = text(&config, ExportFormat::Iptables, &[]);
    assert!(iptables.contains("-A INPUT -s 10.0.0.0/8 -i mgmt1 -p tcp -m tcp --dport 17488"), "{iptables}");
    let firewalld = text(&config, ExportFormat::Firewalld, &[]);
    assert!(firewalld.contains("Port 17488 is meant for device mgmt0."), "{firewalld}");
    assert_eq!(firewalld.matches("port=\"17488\"").count(), 2, "{firewalld}");
    let panos = text(&config, ExportFormat::Panos, &["192.0.2.1"]);
    assert!(panos.contains("description \"The host takes it by mgmt0, mgmt1 only\""), "{panos}");
}

#[test]
fn panos_gets_objects_before_the_rules_that_name_them() {
    assert_eq!(
        text(OPEN, ExportFormat::Panos, &["192.0.2.1", "198.51.100.1"]),
        "set address zone-proxy-0.0.0.0_0 ip-netmask 0.0.0.0/0\n\
         set address zone-proxy-10.0.0.0_8 ip-netmask 10.0.0.0/8\n\
         set address zone-proxy-192.0.2.1_32 ip-netmask 192.0.2.1/32\n\
         set address zone-proxy-198.51.100.1_32 ip-netmask 198.51.100.1/32\n\
         set address zone-proxy-fd00--7_128 ip-netmask fd00::7/128\n\
         set address zone-proxy-fd00--_8 ip-netmask fd00::/8\n\
         set service zone-proxy-tcp-17486 protocol tcp port 17486\n\
         set service zone-proxy-tcp-17488 protocol tcp port 17488\n\
         set rulebase security rules zone-proxy-endpoint-ipv4 from any to any source zone-proxy-0.0.0.0_0 destination \
         [ zone-proxy-192.0.2.1_32 zone-proxy-198.51.100.1_32 ] application any service zone-proxy-tcp-17486 action allow\n\
         set rulebase security rules zone-proxy-control-ipv4 from any to any source zone-proxy-10.0.0.0_8 destination \
         [ zone-proxy-192.0.2.1_32 zone-proxy-198.51.100.1_32 ] application any service zone-proxy-tcp-17488 action allow\n\
         set rulebase security rules zone-proxy-control-ipv6 from any to any source zone-proxy-fd00--_8 destination \
         zone-proxy-fd00--7_128 application any service zone-proxy-tcp-17488 action allow\n"
    );
}

#[test]
fn nothing_of_an_export_is_taken_for_a_rule_of_ours() {
    for format in ExportFormat::ALL {
        assert!(!text(OPEN, format, &["192.0.2.1"]).contains("zone-proxy: "), "{format}");
    }
}

#[test]
fn where_nothing_is_open_an_export_of_the_host_shuts_the_ports() {
    let desired = Desired::new(&Config::default(), &[]);
    assert_eq!(export(&desired, ExportFormat::Panos, &[]).unwrap(), "");
    let nft = export(&desired, ExportFormat::Nft, &[]).unwrap();
    assert_eq!(nft.matches(" drop comment \"Zone Proxy ").count(), 3, "{nft}");
}

#[test]
fn a_firewall_in_front_is_not_told_to_open_a_port_to_everything_behind_it() {
    let refused = exported(OPEN, ExportFormat::Panos, &[]).unwrap_err();
    assert!(
        refused.why.starts_with("port 17486 listens on a wildcard") && refused.help.contains("--address")
    );
}
