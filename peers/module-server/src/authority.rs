//! Replacing an authority of the zone while everything runs.
//!
//! Whoever verifies certificates gets to know the new authority before anybody shows a certificate of it, and the old one
//! goes when nobody needs it any more. [`renew`] puts the new one beside the old one, [`retire`] takes the old one out. Both
//! find out from the files and from the proxies how far they are, so they can be run again wherever they broke off.
//!
//! Between the two, people carry the bundles to endpoints and other Module Servers: nobody can reach those from here.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;
use zone_protocol::identity::{Identity, Label, Role};

use crate::control::ControlClient;
use crate::error::{Error, Result, names};
use crate::provision;
use crate::trust::{self, Outcome};
use crate::zone::{Bundle, Need, ProxyEntry, Replacement, Zone};

/// How long the certificate of before stays good: a command that has just read it may be about to show it.
const OWN_OVERLAP: Duration = Duration::from_secs(2);

/// What happens while an authority is replaced, in words for a person.
#[derive(Debug)]
pub enum Step {
    /// There is a new authority that does not sign yet.
    Made {
        /// Its name.
        name: String,
        /// Whom it is to vouch for.
        role: Role,
    },
    /// It stands among the anchors of the zone's trust document, of this version.
    InTrust(u64),
    /// A proxy has that document.
    AtProxy {
        /// The proxy.
        name: Label,
        /// Its version of the trust document.
        version: u64,
    },
    /// A proxy could not be told, or not be given new certificates.
    NotAtProxy {
        /// The proxy.
        name: Label,
        /// Why not, with the proxy's address and the step.
        error: Error,
    },
    /// The new authority signs from now on.
    Signs(String),
    /// This Module Server shows a certificate of the new authority from now on.
    OwnRenewed,
    /// A proxy shows certificates of the new authority.
    Rotated(Label),
    /// A party needs something.
    Needs(Bundle),
    /// Nobody beside this Module Server and the proxies needs anything.
    NobodyNeeds,
    /// The old authorities of these names vouch for nobody any more.
    Retired(Vec<String>),
}

/// Where a replacement stands after a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All that the command is for was done.
    Done,
    /// Some proxy was not told: the command is to be run again.
    Again,
}

/// Puts a new authority for `role` beside the old one, at every proxy, and names who needs what of it. With `out`, that is
/// written into directories of the parties' names.
///
/// For endpoints and Module Servers the new one signs once every proxy knows it. For proxies, [`retire`] has it sign:
/// endpoints and Module Servers must know it first.
pub async fn renew(
    zone: &Zone,
    role: Role,
    out: Option<&Path>,
    report: &mut dyn FnMut(Step),
) -> Result<Progress> {
    zone.make_next(role)?;
    if let Replacement { next: Some(next), .. } = zone.replacement(role)? {
        report(Step::Made { name: next.anchor.name.clone(), role });
        if role != Role::ZoneProxy {
            report(Step::InTrust(zone.add_next_to_trust(role)?));
            if push(zone, report).await? == Progress::Again {
                return Ok(Progress::Again);
            }
            if role == Role::ModuleServer {
                zone.prolong_own()?;
            }
            zone.sign_with_next(role)?;
        }
    }
    if role != Role::ZoneProxy {
        report(Step::Signs(zone.replacement(role)?.signs.anchor.name));
    }
    bundles(zone, role, false, out, report)?;
    Ok(Progress::Done)
}

/// How [`retire`] goes about it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retirement {
    /// Sessions of whoever was signed by the old authority end at once: somebody else has its key.
    pub cut: bool,
    /// It goes on where parties have no certificate of the new authority, or a proxy can't be given one.
    pub anyway: bool,
}

/// Takes the old authority for `role` out of trust at every proxy. The bundles of [`renew`] are at their places by then: for
/// proxies and for this Module Server, certificates of the new authority are shown from here on. With `out`, the anchors
/// without the old one are written for whoever verifies by them.
pub async fn retire(
    zone: &Zone,
    role: Role,
    how: Retirement,
    out: Option<&Path>,
    report: &mut dyn FnMut(Step),
) -> Result<Progress> {
    if how.cut && role == Role::ZoneProxy {
        let why = "--cut is for authorities of endpoints and Module Servers: no proxy lets anybody in by the one for proxies";
        return Err(Error::Usage(why.into()));
    }
    let replacement = zone.replacement(role)?;
    if !replacement.old().is_empty() {
        if role != Role::ZoneProxy && replacement.next.is_some() {
            let why = format!(
                "not every proxy has the new authority for {role} yet: run 'zone-module authority renew {role}' first"
            );
            return Err(Error::Usage(why));
        }
        let without = if role == Role::ZoneProxy { Vec::new() } else { zone.without_new(role)? };
        if !without.is_empty() && !how.anyway {
            return Err(Error::WithoutNew { role, parties: without });
        }
        match role {
            Role::ModuleServer => {
                let was_new = zone.own_is_new()?;
                zone.renew_own_by_new()?;
                report(Step::OwnRenewed);
                if !was_new {
                    sleep(OWN_OVERLAP).await;
                }
            }
            Role::ZoneProxy => {
                zone.sign_with_next(role)?;
                report(Step::Signs(zone.replacement(role)?.signs.anchor.name));
                if rotate_all(zone, report).await? == Progress::Again && !how.anyway {
                    return Ok(Progress::Again);
                }
            }
            _ => {}
        }
    } else if zone.trust()?.retired.is_empty() {
        return Err(Error::NotReplaced { role });
    }
    // Also where there is none left: what broke off is ended, and proxies that were away are told.
    let names = zone.retire_former(role, how.cut)?;
    if !names.is_empty() {
        report(Step::Retired(names));
    }
    let progress = push(zone, report).await?;
    bundles(zone, role, true, out, report)?;
    Ok(progress)
}

/// Sends every proxy the trust document and says which have it.
async fn push(zone: &Zone, report: &mut dyn FnMut(Step)) -> Result<Progress> {
    let mut progress = Progress::Done;
    for (name, outcome) in trust::push(zone).await? {
        report(match outcome {
            Outcome::UpToDate { version } | Outcome::Sent { version, .. } => Step::AtProxy { name, version },
            Outcome::Failed(error) => {
                progress = Progress::Again;
                Step::NotAtProxy { name, error }
            }
        });
    }
    Ok(progress)
}

/// Gives every proxy certificates of the authority that signs which does not show one yet.
async fn rotate_all(zone: &Zone, report: &mut dyn FnMut(Step)) -> Result<Progress> {
    let mut progress = Progress::Done;
    for proxy in zone.proxies()? {
        let name = proxy.name.clone();
        let rotated = async {
            if !shows_new(zone, &proxy).await? {
                provision::rotate(zone, &name, &mut |_| {}).await?;
            }
            Ok(())
        };
        report(match rotated.await {
            Ok(()) => Step::Rotated(name),
            Err(error) => {
                progress = Progress::Again;
                Step::NotAtProxy { name, error }
            }
        });
    }
    Ok(progress)
}

/// Whether a proxy shows a certificate of the authority that signs.
async fn shows_new(zone: &Zone, proxy: &ProxyEntry) -> Result<bool> {
    let mut own = zone.credentials()?;
    own.proxy_anchors = vec![zone.replacement(Role::ZoneProxy)?.signs.pem];
    match ControlClient::of(zone, proxy, &own)?.status().await {
        Ok(_) => Ok(true),
        Err(error) if error.is_somebody_else() => Ok(false),
        Err(error) => Err(error),
    }
}

fn bundles(
    zone: &Zone,
    role: Role,
    retired: bool,
    out: Option<&Path>,
    report: &mut dyn FnMut(Step),
) -> Result<()> {
    let renewals = zone.renewals(role, retired)?;
    if renewals.is_empty() {
        report(Step::NobodyNeeds);
    }
    for mut bundle in renewals {
        bundle.directory = out.map(|out| zone.write_renewal(&bundle, out)).transpose()?;
        report(Step::Needs(bundle));
    }
    Ok(())
}

/// What is to be done next about the authority for a role, in words for a person; `None` where nothing is.
pub fn next_step(zone: &Zone, role: Role) -> Result<Option<String>> {
    let replacement = zone.replacement(role)?;
    let retire = format!("'zone-module authority retire {role}'");
    let renew = format!("'zone-module authority renew {role}'");
    let all: Vec<Identity> = zone.renewals(role, false)?.into_iter().map(|bundle| bundle.identity).collect();
    let without = if role == Role::ZoneProxy { Vec::new() } else { zone.without_new(role)? };
    Ok(match (&replacement.next, replacement.former.is_empty()) {
        (None, true) => None,
        (Some(_), _) if role != Role::ZoneProxy => {
            Some(format!("{renew} goes on: the new one signs once every proxy has it"))
        }
        _ if !without.is_empty() => Some(format!(
            "'zone-module authority renew {role} --out DIR' writes certificates for those that have none of the new one: {}",
            names(&without)
        )),
        _ if all.is_empty() => Some(format!("{retire} takes the old one out")),
        _ => Some(format!("{retire} takes the old one out, once the bundles of {renew} are at their places")),
    })
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Made { name, role } => write!(f, "the new authority for {role} is '{name}'"),
            Self::InTrust(version) => {
                write!(f, "it stands beside the old one in the trust document, version {version}")
            }
            Self::AtProxy { name, version } => write!(f, "{name}: has trust version {version}"),
            Self::NotAtProxy { name, error } => write!(f, "{name}: NOT YET: {error}"),
            Self::Signs(name) => {
                write!(f, "'{name}' signs from now on; certificates of the old one stay good")
            }
            Self::OwnRenewed => f.write_str("this Module Server has a certificate of the new authority"),
            Self::Rotated(name) => write!(f, "{name}: shows certificates of the new authority"),
            Self::Needs(Bundle { identity, need, directory }) => {
                let what = match need {
                    Need::Certificate => "a certificate of the new authority",
                    Need::Anchors => "the anchors as they are now",
                };
                write!(f, "{} {} needs {what}", identity.role, identity.name)?;
                directory.as_ref().map_or(Ok(()), |path| write!(f, ": {}", path.display()))
            }
            Self::NobodyNeeds => f.write_str("no endpoint and no other Module Server needs anything"),
            Self::Retired(names) => write!(f, "retired: {}", names.join(", ")),
        }
    }
}
