//! zone-firewall on real rulesets: nft and iptables in network namespaces, real connections, real users.

mod broker;
mod explain;
mod export;
mod foreign;
mod host;
mod output;
mod reach;
mod rules;
mod watch;
mod words;
