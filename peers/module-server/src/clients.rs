//! Clients of all proxies of a zone, for a program that runs long: certificates, anchors and proxies may change meanwhile.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use zone_protocol::identity::Label;

use crate::error::{Error, Result};
use crate::proxy::ProxyClient;
use crate::zone::{Credentials, ProxyEntry, Zone};

/// Is told why the zone directory can't be used at the time, once for as long as the reason stays the same.
pub type Report = Box<dyn Fn(&Error) + Send + Sync>;

/// Clients of a zone's proxies, as the zone directory has them at the time.
pub struct Clients {
    zone: Option<(Zone, Report)>,
    made: Mutex<Made>,
}

struct Made {
    clients: Arc<[ProxyClient]>,
    from: Option<Source>,
    /// Why the zone directory could not be used when it was last looked at.
    trouble: Option<String>,
}

/// What clients are made from.
#[derive(PartialEq)]
struct Source {
    own: Arc<Credentials>,
    proxies: Vec<ProxyEntry>,
}

impl Clients {
    /// Of a zone; an error where it has no proxy, or can't be read.
    pub fn of(zone: &Zone, report: Report) -> Result<Self> {
        let from = Source::read(zone)?;
        let made = Made { clients: from.clients()?, from: Some(from), trouble: None };
        Ok(Self { zone: Some((zone.clone(), report)), made: Mutex::new(made) })
    }

    /// Those to use now: new ones where the zone directory has changed, those of before where it can't be used.
    pub fn current(&self) -> Arc<[ProxyClient]> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((zone, report)) = &self.zone else { return Arc::clone(&made.clients) };
        let read = Source::read(zone).and_then(|from| {
            // Clients keep the tickets of their connections, so they are made again for a reason only.
            let changed = made.from.as_ref() != Some(&from);
            changed.then(|| Ok((from.clients()?, from))).transpose()
        });
        match read {
            Ok(changed) => {
                made.trouble = None;
                if let Some((clients, from)) = changed {
                    (made.clients, made.from) = (clients, Some(from));
                }
            }
            Err(error) => {
                let trouble = error.to_string();
                if made.trouble.as_ref() != Some(&trouble) {
                    report(&error);
                    made.trouble = Some(trouble);
                }
            }
        }
        Arc::clone(&made.clients)
    }

    /// The one of a proxy, if the zone has it still.
    pub fn client(&self, name: &Label) -> Option<ProxyClient> {
        self.current().iter().find(|client| client.name() == name).cloned()
    }
}

impl Source {
    fn read(zone: &Zone) -> Result<Self> {
        let mut proxies = zone.proxies()?;
        // It changes often, and no connection goes by it.
        for proxy in &mut proxies {
            proxy.trust_version = 0;
        }
        Ok(Self { own: Arc::new(zone.credentials()?), proxies })
    }

    fn clients(&self) -> Result<Arc<[ProxyClient]>> {
        let clients: Arc<[_]> =
            self.proxies.iter().map(|proxy| ProxyClient::of(proxy, &self.own)).collect::<Result<_>>()?;
        if clients.is_empty() { Err(Error::NoProxy) } else { Ok(clients) }
    }
}

impl From<Vec<ProxyClient>> for Clients {
    /// These and no others.
    fn from(clients: Vec<ProxyClient>) -> Self {
        let made = Made { clients: clients.into(), from: None, trouble: None };
        Self { zone: None, made: Mutex::new(made) }
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc::channel;

    use zone_protocol::provisioning::Provisioned;

    use super::*;
    use crate::zone::Settings;

    #[test]
    fn clients_follow_the_zone_directory_and_outlive_one_that_is_half_written() {
        let scratch = tempfile::tempdir().unwrap();
        let (zone, name) = (scratch.path().join("zone"), "p1".parse().unwrap());
        let zone = Zone::init(&zone, "plant-7".parse().unwrap(), "module-1".parse().unwrap()).unwrap();
        let (tell, told) = channel();
        let tell = Mutex::new(tell);
        let report = || -> Report { Box::new(|_| {}) };
        assert!(matches!(Clients::of(&zone, report()), Err(Error::NoProxy)));
        let provisioned = Provisioned {
            id: "1".into(),
            zone: zone.name().clone(),
            name,
            trust_version: 1,
            ports: Vec::new(),
        };
        let entry = ProxyEntry::new(vec!["127.0.0.1".into()], 1, Settings::default(), &provisioned);
        zone.remember_proxy(entry).unwrap();
        let report = Box::new(move |error: &Error| tell.lock().unwrap().send(error.to_string()).unwrap());
        let clients = Clients::of(&zone, report).unwrap();
        let first = clients.current();
        zone.note_trust_version(&"p1".parse().unwrap(), 7).unwrap();
        assert!(Arc::ptr_eq(&first, &clients.current()), "nothing has changed that matters");

        let path = zone.directory().join("proxies.json");
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(Arc::ptr_eq(&first, &clients.current()) && Arc::ptr_eq(&first, &clients.current()));
        fs::write(&path, whole).unwrap();
        assert!(Arc::ptr_eq(&first, &clients.current()));
        let told: Vec<_> = told.try_iter().collect();
        assert!(told.len() == 1 && told[0].contains("proxies.json"), "{told:?}");

        zone.make_next(zone_protocol::identity::Role::ZoneProxy).unwrap();
        assert!(!Arc::ptr_eq(&first, &clients.current()), "a new anchor");
        assert!(clients.client(&"p2".parse().unwrap()).is_none());
    }
}
