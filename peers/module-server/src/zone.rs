//! The zone directory: its name, its three authorities, its trust document, its proxies.
//!
//! ```text
//! zone.toml            the zone's name and this Module Server's
//! ca/<role>.{key,crt}  the authority of a role that signs; older ones for proxies that still count follow it
//! ca/<role>.next.{key,crt}  a new one that does not sign yet
//! ca/<role>.retired.crt  those that vouch no more, to be denied if need be
//! own.{key,crt}        this Module Server's certificate
//! trust.json           the trust document in force, in the words of its first version
//! trust-<digest>.json  the whole of it; counts beside the trust.json of this digest alone
//! proxies.json         the zone's proxies, and which trust version each was last sent
//! control-<name>.json  this proxy was seen to show an identity on 17488 that no relay has
//! issued.jsonl         every certificate that was ever signed
//! ```

mod authority;
mod bundle;
mod certificates;
mod control_identity;
mod directory;
mod expiry;
mod files;
mod init;
mod leaving;
mod proxies;
mod renewal;
mod replacement;

pub use authority::{AuditEntry, BACKDATING, HostName, Issued, LEAF_LIFETIME, Validity};
pub use certificates::Credentials;
pub use directory::Zone;
pub use init::DEFAULT_MODULE_SERVER;
pub(crate) use proxies::host_names;
pub use proxies::{ProxyEntry, Settings};
pub use renewal::{Bundle, Need};
pub use replacement::{AuthorityFacts, Replacement};

#[cfg(test)]
mod tests;
