//! Who of the zone is about to lose a certificate, by the record of what was signed.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use zone_protocol::expiry::{WARNING_PERIOD, warning};
use zone_protocol::identity::{Identity, Role};
use zone_protocol::tls::certificate::facts;
use zone_protocol::trust::Denied;

use super::authority::{self, AuditEntry};
use super::directory::Zone;
use crate::error::Result;

/// More parties than these are counted and not named.
const MAX_NAMED: usize = 20;

impl Zone {
    /// One line for each authority, endpoint and other Module Server whose certificate runs out soon or has done so lately.
    /// Of several certificates of a party the last one counts; one that has not been renewed a while after its end is not
    /// missed by anybody. Proxies tell of their own.
    pub fn expiry_warnings(&self, now: OffsetDateTime) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for role in Role::FIRST_VERSION {
            let end = facts(&authority::first(&self.anchor(role)?)?, "authority")?.not_after;
            let todo = format!(
                "'zone-module authority renew {role}' puts a new one beside it: nothing that it signed is good any longer then"
            );
            warnings.extend(warning(&format!("the authority for {role}"), end, now, &todo));
        }
        let denied = self.denied()?;
        let own = self.identity(Role::ModuleServer, &self.names.module_server);
        let mut last = BTreeMap::<Identity, OffsetDateTime>::new();
        for entry in self.audit()? {
            let AuditEntry { identity, not_before, not_after, .. } = entry;
            // Ours is renewed by itself, and what is denied is meant to be of no use.
            let missed = !matches!(identity.role, Role::ZoneProxy | Role::ZoneControl)
                && identity != own
                && not_after + WARNING_PERIOD > now
                && denied.get(&identity).is_none_or(|time| not_before >= *time);
            if missed {
                let end = last.entry(identity).or_insert(not_after);
                *end = (*end).max(not_after);
            }
        }
        let mut ending: Vec<_> = last
            .into_iter()
            .filter_map(|(identity, end)| {
                let (role, name) = (identity.role, &identity.name);
                let todo = format!("'zone-module issue {role} {name} --out DIR' makes a new one");
                Some((end, warning(&identity.to_string(), end, now, &todo)?))
            })
            .collect();
        ending.sort();
        let more = ending.len().saturating_sub(MAX_NAMED);
        warnings.extend(ending.into_iter().take(MAX_NAMED).map(|(_, line)| line));
        if more > 0 {
            warnings.push(format!("certificates of {more} more parties run out; issued.jsonl has them"));
        }
        Ok(warnings)
    }

    /// The moments of the deny-list, by whom they deny.
    pub(super) fn denied(&self) -> Result<BTreeMap<Identity, OffsetDateTime>> {
        let mut denied = BTreeMap::new();
        for entry in self.trust()?.deny {
            if let Denied::Identity { identity, not_before } = entry {
                let time = denied.entry(identity).or_insert(not_before);
                *time = (*time).max(not_before);
            }
        }
        Ok(denied)
    }
}
