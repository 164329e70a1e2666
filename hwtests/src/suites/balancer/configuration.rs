//! The balancers' configurations: the shipped examples with a few words changed.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::lab::{Cmd, Error, Result};

const HAPROXY: &str = include_str!("../../../../packaging/examples/haproxy.cfg");
const NGINX: &str = include_str!("../../../../packaging/examples/nginx.conf");

/// Whose balancer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Product {
    HaProxy,
    Nginx,
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HaProxy => "HAProxy",
            Self::Nginx => "nginx",
        })
    }
}

impl Product {
    /// The configuration that ships.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::HaProxy => HAPROXY,
            Self::Nginx => NGINX,
        }
    }

    /// Checks a configuration.
    pub(super) fn check(self, path: &str) -> Cmd {
        match self {
            Self::HaProxy => Cmd::new("haproxy").args(["-c", "-f", path]),
            Self::Nginx => Cmd::new("nginx").args(["-t", "-c", path]),
        }
    }

    /// Runs with a configuration, in the foreground, and says on its standard error which connections timed out.
    pub(super) fn run(self, path: &str) -> Cmd {
        match self {
            // The example's number of connections takes more descriptors than there may be here.
            Self::HaProxy => Cmd::new("haproxy").args(["-db", "-n", "2000", "-f", path]),
            Self::Nginx => {
                // Two of them run on one host.
                let own = format!("daemon off; error_log stderr info; pid {path}.pid;");
                Cmd::new("nginx").args(["-g", &own, "-c", path])
            }
        }
    }

    /// Whether its log says that it ended a connection of this client for its silence.
    pub(super) fn says_timed_out(self, log: &str, client: &str) -> bool {
        log.lines().any(|line| match self {
            // The first letter of the termination state: a time-out on the client's (c) or the server's (s) side while
            // data (D) was exchanged (HAProxy's configuration manual, section 8.5).
            Self::HaProxy => line.starts_with(client) && (line.contains(" cD ") || line.contains(" sD ")),
            Self::Nginx => line.contains("timed out") && line.contains(&format!("client: {client},")),
        })
    }
}

/// The PROXY protocol's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    /// It is not spoken.
    None,
    V1,
    V2,
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no PROXY protocol",
            Self::V1 => "the PROXY protocol, version 1",
            Self::V2 => "the PROXY protocol, version 2",
        })
    }
}

/// A balancer and how it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Balancer {
    pub(super) product: Product,
    pub(super) header: Header,
}

impl Balancer {
    /// The name of its host.
    pub(super) fn host(self) -> String {
        let product = match self.product {
            Product::HaProxy => "hap",
            Product::Nginx => "ngx",
        };
        match self.header {
            Header::None => format!("{product}-tcp"),
            Header::V1 => format!("{product}-v1"),
            Header::V2 => format!("{product}-v2"),
        }
    }

    /// The example, listening here and with this time-out.
    pub(super) fn configuration(self, listen: SocketAddr, idle: Duration) -> Result<String> {
        let idle = idle.as_secs();
        let changes = match self.product {
            Product::HaProxy => vec![
                ("bind [::]:17486 v4v6", format!("bind {listen}")),
                ("timeout client 6m", format!("timeout client {idle}s")),
                ("timeout server 6m", format!("timeout server {idle}s")),
                ("timeout client-fin 6m", format!("timeout client-fin {idle}s")),
                ("timeout tunnel 6m", format!("timeout tunnel {idle}s")),
                (
                    " send-proxy-v2",
                    match self.header {
                        Header::None => String::new(),
                        Header::V1 => " send-proxy".to_owned(),
                        Header::V2 => " send-proxy-v2".to_owned(),
                    },
                ),
            ],
            Product::Nginx => vec![
                ("        listen 17486 so_keepalive=on;\n", String::new()),
                ("listen [::]:17486 ", format!("listen {listen} ")),
                ("proxy_timeout 6m;", format!("proxy_timeout {idle}s;")),
                (
                    "proxy_protocol on;",
                    format!("proxy_protocol {};", if self.header == Header::None { "off" } else { "on" }),
                ),
            ],
        };
        changed(self.product.example(), &changes)
    }
}

/// A text with words replaced, each of which is there exactly once.
fn changed(text: &str, changes: &[(&str, String)]) -> Result<String> {
    changes.iter().try_fold(text.to_owned(), |text, (from, to)| match text.matches(from).count() {
        1 => Ok(text.replacen(from, to, 1)),
        count => Err(Error::other(format!(
            "the example holds {from:?} {count} times; the suite changes it where it is once"
        ))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_that_is_changed_is_in_the_examples() {
        for product in [Product::HaProxy, Product::Nginx] {
            for header in [Header::None, Header::V1, Header::V2] {
                let listen = "192.0.2.1:1".parse().unwrap();
                let text =
                    Balancer { product, header }.configuration(listen, Duration::from_secs(3)).unwrap();
                assert!(text.contains("192.0.2.1:1") && text.contains("3s"), "{text}");
                assert!(!text.contains("6m"), "{text}");
            }
        }
    }

    #[test]
    fn a_time_out_is_told_from_another_end() {
        let line = |state: &str| {
            format!(
                "198.51.100.12:556 [24/Nov/2026:07:13:24.119] short short/p2 1/0/3 370 {state} 6/3/2/0/0 0/0"
            )
        };
        assert!(Product::HaProxy.says_timed_out(&line("cD"), "198.51.100.12"));
        assert!(!Product::HaProxy.says_timed_out(&line("SD"), "198.51.100.12"));
        assert!(!Product::HaProxy.says_timed_out(&line("cD"), "198.51.100.13"));
    }
}
