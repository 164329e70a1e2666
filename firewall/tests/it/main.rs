//! zone-firewall on real rulesets: nft and iptables in network namespaces, real connections, real users.

mod broker;
mod host;
mod output;
mod reach;
mod rules;
