//! What can go wrong, each in one line that a person can act on.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zone_protocol::identity::{Identity, IdentityError, Label, Role, Target};
use zone_protocol::problem::Problem;
use zone_protocol::tls::TlsError;

use crate::end_to_end::EndToEnd;

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something was not done. Where a peer is involved, it is named with the step that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{}: can't {doing}: {source}", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What was tried, as a verb.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Something is there that must not be overwritten.
    #[error("{} exists already and is not overwritten: choose another place, or move it away", .0.display())]
    Exists(PathBuf),
    /// A directory that holds no zone.
    #[error("{} is no zone directory (no zone.toml in it): give --zone DIR, or make one with 'zone-module init ZONE_NAME'", .0.display())]
    NoZone(PathBuf),
    /// A file of the zone directory that can't be read for what it should be.
    #[error("{}: {why}", path.display())]
    Malformed {
        /// The file that can't be read.
        path: PathBuf,
        /// What is wrong with its content.
        why: String,
    },
    /// A name that is none.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An authority whose time is over vouches for nobody.
    #[error(
        "{what}: this authority ended at {at}, so nobody would accept what it signs: 'zone-module authority renew ROLE' makes a new one"
    )]
    AuthorityEnded {
        /// The file of its key.
        what: String,
        /// Its last second, RFC 3339.
        at: String,
    },
    /// There is nothing to retire.
    #[error(
        "the authority for {role} is not being replaced: 'zone-module authority renew {role}' makes a new one"
    )]
    NotReplaced {
        /// Whom it vouches for.
        role: Role,
    },
    /// Parties would lose their certificate with the old authority.
    #[error(
        "these have no certificate of the new authority for {role} and would be shut out: {}; 'zone-module authority renew {role} --out DIR' writes new ones, --anyway goes on without", names(.parties)
    )]
    WithoutNew {
        /// Whom the authority vouches for.
        role: Role,
        /// Those without a certificate of the new one.
        parties: Vec<Identity>,
    },
    /// A certificate could not be made.
    #[error("{what}: can't be signed: {why}")]
    Signing {
        /// The party that it was for.
        what: String,
        /// The reason that signing failed.
        why: String,
    },
    /// Certificates, keys or anchors that TLS can't use.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The command line asks for something that can't be.
    #[error("{0}")]
    Usage(String),
    /// Standard input holds neither a payload nor a token.
    #[error("standard input: {0}")]
    Payload(String),
    /// A local port can't be had.
    #[error("can't listen on {address}: {source}")]
    Listen {
        /// The address that could not be bound.
        address: std::net::SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The zone has no proxy of this name.
    #[error("this zone has no proxy named {0}; 'zone-module status' lists them")]
    NoSuchProxy(Label),
    /// The zone has no proxy at all.
    #[error("this zone has no proxy yet: 'zone-module provision --name NAME' adds one")]
    NoProxy,
    /// The name is another proxy's.
    #[error(
        "the zone has a proxy named {name} at {address} already: choose another name, or 'zone-module unprovision {name}' (with --forget where it is gone for good)"
    )]
    NameTaken {
        /// The name that is taken.
        name: Label,
        /// The first address of the proxy that has it.
        address: String,
    },

    /// No TCP connection.
    #[error("{peer}: can't connect: {why}")]
    Dial {
        /// The peer that was dialed.
        peer: String,
        /// What went wrong.
        why: String,
        /// Whether the host is there and says that nothing listens.
        refused: bool,
    },
    /// None of a proxy's addresses answered.
    #[error("no address of the proxy answers: {}", join(.each))]
    NoneReached {
        /// What became of each.
        each: Vec<Error>,
    },
    /// The TLS handshake failed.
    #[error("{peer}: TLS handshake failed: {why}")]
    Handshake {
        /// The peer that was dialed.
        peer: String,
        /// What went wrong.
        why: String,
    },
    /// The other side's certificate is not accepted.
    #[error("{peer} is not whom it should be: {why}")]
    NotTrusted {
        /// The peer that was dialed.
        peer: String,
        /// What its certificate says.
        why: String,
    },
    /// 17488 shows what the relays show, and was seen to show an identity that no relay has.
    #[error(
        "{peer} shows {shown}, whose keys a relay holds, and not {}, which this zone has seen there: whoever took over the relay could do so from another place, and was told nothing; if the proxy's package was downgraded or its state restored, run 'zone-proxy token new' on its host and 'zone-module provision --name {}' with what that prints",
        Identity { role: Role::ZoneControl, ..shown.clone() }, shown.name
    )]
    RelayIdentity {
        /// The peer that was dialed.
        peer: String,
        /// What its certificate says.
        shown: Identity,
    },
    /// A proxy of the zone shows that it belongs to none.
    #[error(
        "{peer} belongs to no zone any more: it was reset or un-provisioned there, and is told nothing; run 'zone-proxy show payload' on its host and {} with what that prints, or 'zone-module unprovision {} --forget' to do without it",
        provision_again(.name.as_ref()), name_or_placeholder(.name.as_ref())
    )]
    Reset {
        /// The peer that was dialed.
        peer: String,
        /// The proxy's name in the zone; `None` where any of its proxies was expected.
        name: Option<Label>,
    },
    /// A proxy of the zone shows that it belongs to another one.
    #[error(
        "{peer} belongs to zone {} now ({shown}), and is told nothing: if it is to come back, run 'zone-proxy reset' on its host, then 'zone-proxy show payload', and {} with what that prints",
        .shown.zone, provision_again(.name.as_ref())
    )]
    OtherZone {
        /// The peer that was dialed.
        peer: String,
        /// What its certificate says.
        shown: Identity,
        /// The proxy's name in this zone; `None` where any of its proxies was expected.
        name: Option<Label>,
    },
    /// The keys shown are not those of the token.
    #[error("{peer} does not hold the keys that the token names")]
    NotPinned {
        /// The peer that was dialed.
        peer: String,
    },
    /// Nothing came in time.
    #[error("{peer}: {step}: no answer within {} s", .after.as_secs())]
    Deadline {
        /// The peer that did not answer.
        peer: String,
        /// The step that it did not answer.
        step: String,
        /// How long the answer was waited for.
        after: Duration,
    },
    /// The connection ended, or what came over it made no sense.
    #[error("{peer}: {step}: {why}")]
    Broken {
        /// The peer at the other end.
        peer: String,
        /// The step that was under way.
        step: String,
        /// What happened to the connection.
        why: String,
    },
    /// The proxy answered with a problem document (RFC 9457).
    #[error("{peer} refused {step}: {}", legible(&problem.to_string()))]
    Problem {
        /// The peer that refused.
        peer: String,
        /// The step that it refused.
        step: String,
        /// What it says of the reason.
        problem: Box<Problem>,
    },
    /// The answer lacks a good proof.
    #[error(
        "{peer}: the answer to {step} does not prove that its sender knows the token's secret: it was altered on the way, or comes from somebody else; nothing in it was believed"
    )]
    AnswerProof {
        /// The peer that answered.
        peer: String,
        /// The step that it answered.
        step: String,
    },
    /// The token is good for nothing any more.
    #[error(
        "{peer} no longer holds the keys of this token: it was provisioned by somebody else, or the token was replaced; 'zone-proxy show payload' there prints the one in force"
    )]
    TokenSpent {
        /// The peer that was dialed.
        peer: String,
    },
    /// The proxy is a member already, under another name.
    #[error("the proxy at {address} is already provisioned by this zone, as {name}")]
    ProvisionedAs {
        /// The address that was dialed.
        address: String,
        /// The name that the proxy has.
        name: Label,
    },
    /// Certificates of ours would not be valid there.
    #[error(
        "{peer} has the time {theirs}, here it is {ours}: certificates signed now would not be valid there; set the clock that is wrong"
    )]
    Clocks {
        /// The peer whose clock differs.
        peer: String,
        /// The time by its clock, RFC 3339.
        theirs: String,
        /// The time by our clock, RFC 3339.
        ours: String,
    },

    /// A CONNECT was refused.
    #[error("{peer} refused {target}: {why}")]
    Refused {
        /// The peer that refused.
        peer: String,
        /// The endpoint and service that were asked for.
        target: Target,
        /// Another proxy may do better: the endpoint is unknown or not parked here.
        elsewhere: bool,
        /// The reason in the proxy's words, with the error type of RFC 9209.
        why: String,
    },
    /// Every proxy of the zone failed.
    #[error("no proxy of the zone could connect {target}: {}", join(.each))]
    NoneConnected {
        /// The endpoint and service that were asked for.
        target: Target,
        /// The error of each proxy.
        each: Vec<Error>,
    },
    /// The endpoint's policy is not the caller's.
    #[error("{peer}, {target}: {}", policy(*.offered))]
    Policy {
        /// The peer that the session goes through.
        peer: String,
        /// The endpoint and service that were asked for.
        target: Target,
        /// The policy that the answer states.
        offered: EndToEnd,
    },
    /// The session ended without the closing alert.
    #[error(
        "{peer}: the session was cut off ({why}): what came before was delivered, what was to follow is missing"
    )]
    Truncated {
        /// The peer that the session goes through.
        peer: String,
        /// How the session ended.
        why: String,
    },
    /// Our own side of a session failed.
    #[error("{what}: {source}")]
    Local {
        /// The end that failed.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn file(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.to_owned(), doing, source }
    }

    /// Whether the request may have been carried out although no answer came.
    pub(crate) fn is_lost_answer(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Broken { .. })
    }

    /// Whether a host is there and says that nothing listens at the port.
    pub(crate) fn is_refused_connection(&self) -> bool {
        match self {
            Self::Dial { refused, .. } => *refused,
            Self::NoneReached { each } => each.iter().any(Self::is_refused_connection),
            _ => false,
        }
    }

    /// Whether somebody answered who is not whom this zone expects there.
    pub fn is_somebody_else(&self) -> bool {
        matches!(self, Self::NotTrusted { .. } | Self::Reset { .. } | Self::OtherZone { .. })
    }

    /// The same of the proxy of this name.
    pub(crate) fn of_proxy(self, proxy: Option<&Label>) -> Self {
        match self {
            Self::Reset { peer, .. } => Self::Reset { peer, name: proxy.cloned() },
            Self::OtherZone { peer, shown, .. } => Self::OtherZone { peer, shown, name: proxy.cloned() },
            other => other,
        }
    }

    /// The exit status that goes with it: 2 for usage, 3 for a session that was cut off, otherwise 1.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Identity(_) => 2,
            Self::Truncated { .. } => 3,
            _ => 1,
        }
    }
}

/// A peer's words, fit for one line of a terminal: control characters escaped, cut to 400 characters.
pub(crate) fn legible(text: &str) -> String {
    const MAX_LEGIBLE_CHARS: usize = 400;
    text.chars()
        .take(MAX_LEGIBLE_CHARS)
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The first of many, and how many more.
pub(crate) fn names(parties: &[Identity]) -> String {
    const MAX_NAMED: usize = 20;
    let named: Vec<_> = parties.iter().take(MAX_NAMED).map(|party| party.name.to_string()).collect();
    match parties.len() - named.len() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn join(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// The command that takes a proxy into the zone.
fn provision_again(name: Option<&Label>) -> String {
    format!("'zone-module provision --name {}'", name_or_placeholder(name))
}

fn name_or_placeholder(name: Option<&Label>) -> &str {
    name.map_or("NAME", Label::as_str)
}

fn policy(offered: EndToEnd) -> &'static str {
    match offered {
        EndToEnd::Off => {
            "the answer says that this service runs without TLS end to end, so the proxy could read and alter it; where the service brings its own security, pass --end-to-end off"
        }
        EndToEnd::Required => {
            "the endpoint requires TLS end to end for this service: leave out --end-to-end off"
        }
    }
}
