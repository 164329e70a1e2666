//! A topology that is up.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::cleanup::RUN_DIR;
use super::description::{Host, Kind, Topology};
use super::error::{Context, Error, Result};
use super::files::Overlay;
use super::netns::Netns;
use super::network::{Links, Namespace};
use super::nspawn::{BOOT_TIMEOUT, Nspawn};
use super::target::Target;

/// Hosts and links that are up. All of it goes down with this handle.
pub struct World {
    // Hosts go down before the links that they are plugged into.
    hosts: BTreeMap<String, Box<dyn Target>>,
    links: Links,
    dir: PathBuf,
}

impl World {
    /// Makes everything, boots what boots, and waits until all is up. `name` is used once in a run.
    pub fn up(name: &str, topology: &Topology, roots: &Path) -> Result<Self> {
        topology.validate()?;
        let dir = Path::new(RUN_DIR).join(name);
        fs::create_dir_all(&dir).during(|| format!("can't make {}", dir.display()))?;
        let links = Links::make(topology)?;
        let mut world = Self { hosts: BTreeMap::new(), links, dir };
        for host in &topology.hosts {
            let target = world.make(name, host, roots)?;
            world.hosts.insert(host.name.clone(), target);
        }
        thread::scope(|scope| {
            let waiting: Vec<_> =
                world.hosts.values().map(|host| scope.spawn(|| host.wait_booted(BOOT_TIMEOUT))).collect();
            waiting.into_iter().try_for_each(|wait| match wait.join() {
                Ok(booted) => booted.map(|_| ()),
                Err(_) => Err(Error::other("waiting for a host panicked")),
            })
        })?;
        Ok(world)
    }

    fn make(&self, name: &str, host: &Host, roots: &Path) -> Result<Box<dyn Target>> {
        let unique = format!("{}{name}-{}", super::cleanup::PREFIX, host.name);
        let namespace = Arc::new(Namespace::make(&unique, host, &self.links)?);
        let dir = self.dir.join(&host.name);
        let overlay = |root: &super::roots::Root| -> Result<Overlay> {
            let files = Overlay::mount(&root.path(roots), &dir.join("files"))?;
            let hosts = format!("127.0.0.1 localhost {0}\n::1 localhost {0}\n", host.name);
            fs::write(files.path().join("etc/hosts"), hosts)
                .during(|| format!("{}: can't write /etc/hosts", host.name))?;
            Ok(files)
        };
        Ok(match &host.kind {
            Kind::Netns => Box::new(Netns::new(host, namespace, None, &dir)?),
            Kind::Chroot(root) => {
                let mut files = overlay(root)?;
                files.mount_kernel_files()?;
                host.shared.iter().try_for_each(|(here, there)| files.share(here, there))?;
                Box::new(Netns::new(host, namespace, Some(Arc::new(files)), &dir)?)
            }
            Kind::Booted(root) => {
                let files = Arc::new(overlay(root)?);
                Box::new(Nspawn::boot(host, namespace, files, &dir, &unique)?)
            }
        })
    }

    /// A host by its name.
    pub fn host(&self, name: &str) -> Result<&dyn Target> {
        self.hosts
            .get(name)
            .map(AsRef::as_ref)
            .ok_or_else(|| Error::description(format!("there is no host {name}")))
    }

    /// All hosts by name.
    pub fn hosts(&self) -> impl Iterator<Item = &dyn Target> {
        self.hosts.values().map(AsRef::as_ref)
    }

    /// Where its files are on this machine, logs among them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.hosts.clear();
        // In memory, and gone with the worker at the latest.
        let _ = fs::remove_dir_all(&self.dir);
    }
}
