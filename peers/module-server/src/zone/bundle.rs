//! What an endpoint or another Module Server is given: a directory with everything it needs.

use std::fmt::Write as _;
use std::path::Path;

use zone_protocol::identity::{Label, Role};

use super::authority::{Issued, Validity};
use super::directory::Zone;
use super::files::{self, Mode};
use crate::error::{Error, Result};

impl Zone {
    /// Writes what `zone-endpoint` starts from: its configuration, certificate and key, and both authorities
    /// that it trusts. `proxies` are `host:port` of the endpoint ports; none given means those of the zone.
    pub fn write_endpoint_bundle(
        &self,
        id: &Label,
        out: &Path,
        proxies: &[String],
        validity: Option<Validity>,
    ) -> Result<Issued> {
        let proxies = if proxies.is_empty() { self.endpoint_addresses()? } else { proxies.to_vec() };
        refuse_existing(out, &["zone-endpoint.toml", "endpoint.crt", "endpoint.key"])?;
        let issued = self.issue(Role::Endpoint, id, validity)?;
        let configuration = endpoint_configuration(self.name(), id, &proxies);
        files::make_directory(out)?;
        files::create(&out.join("endpoint.key"), issued.key.as_bytes(), Mode::Secret)?;
        files::create(&out.join("endpoint.crt"), issued.certificate.as_bytes(), Mode::Public)?;
        self.write_anchor(Role::ZoneProxy, out)?;
        self.write_anchor(Role::ModuleServer, out)?;
        files::create(&out.join("zone-endpoint.toml"), configuration.as_bytes(), Mode::Public)?;
        Ok(issued)
    }

    /// Writes what any HTTPS proxy client needs on the Module Server port, and the endpoints' authority for
    /// those that run TLS end to end.
    pub fn write_module_server_bundle(
        &self,
        name: &Label,
        out: &Path,
        validity: Option<Validity>,
    ) -> Result<Issued> {
        refuse_existing(out, &["module-server.crt", "module-server.key"])?;
        let issued = self.issue(Role::ModuleServer, name, validity)?;
        files::make_directory(out)?;
        files::create(&out.join("module-server.key"), issued.key.as_bytes(), Mode::Secret)?;
        files::create(&out.join("module-server.crt"), issued.certificate.as_bytes(), Mode::Public)?;
        self.write_anchor(Role::ZoneProxy, out)?;
        self.write_anchor(Role::Endpoint, out)?;
        Ok(issued)
    }

    fn endpoint_addresses(&self) -> Result<Vec<String>> {
        let proxies = self.proxies()?;
        let hosts = proxies.iter().flat_map(|proxy| {
            let port = proxy.settings.ports.endpoint;
            proxy.endpoint_hosts().into_iter().map(move |host| crate::dial::join_host_port(&host, port))
        });
        Ok(hosts.collect())
    }

    pub(super) fn write_anchor(&self, role: Role, out: &Path) -> Result<()> {
        files::replace(
            &out.join(format!("{role}-ca.crt")),
            self.anchors(role)?.concat().as_bytes(),
            Mode::Public,
        )
    }
}

fn refuse_existing(out: &Path, names: &[&str]) -> Result<()> {
    match names.iter().map(|name| out.join(name)).find(|path| path.exists()) {
        Some(path) => Err(Error::Exists(path)),
        None => Ok(()),
    }
}

fn endpoint_configuration(zone: &Label, id: &Label, proxies: &[String]) -> String {
    let mut text = String::new();
    let quoted: Vec<_> = proxies.iter().map(|proxy| toml::Value::from(proxy.as_str()).to_string()).collect();
    // Writing to a String can't fail.
    let _ = write!(
        text,
        r#"# Endpoint {id} of zone {zone}. Paths are relative to this file.
id = "{id}"
zone = "{zone}"
# Endpoint ports of the zone's proxies; one of them is used at a time.
proxies = [{proxies}]
certificate = "endpoint.crt"
key = "endpoint.key"
proxy_anchors = "zone-proxy-ca.crt"
module_server_anchors = "module-server-ca.crt"
# Connections kept waiting for sessions.
parks = 2

# Nothing can be reached until a service says so. One block for each:
#
# [[service]]
# name = "ssh"
# port = 22                  # the number that stands for the name with clients that know only numbers
# target = "127.0.0.1:22"
# end_to_end = "off"         # "required" (the default) unless the service brings its own security, as ssh does
"#,
        proxies = quoted.join(", ")
    );
    text
}
