//! What control says to a relay, and a relay to control.

use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use zone_log::{Level, Record};
use zone_protocol::identity::{Label, Role};
use zone_protocol::provisioning::{PerPort, ProcessStatus, RelayCounts};
use zone_protocol::tls::tickets::TicketKeys;
use zone_protocol::trust::Trust;
use zone_settings::{Limits, Timeouts};

use crate::frame::{MAX_MESSAGE_BYTES, MAX_RELAY_MESSAGE_BYTES};

/// What one direction of a channel carries.
pub trait Message {
    /// The longest message, as JSON.
    const MAX_BYTES: usize;

    /// Whether descriptors may come with this one.
    fn carries_descriptors(&self) -> bool;
}

impl Message for ToRelay {
    const MAX_BYTES: usize = MAX_MESSAGE_BYTES;

    fn carries_descriptors(&self) -> bool {
        matches!(self, Self::Configure(_))
    }
}

impl Message for FromRelay {
    const MAX_BYTES: usize = MAX_RELAY_MESSAGE_BYTES;

    fn carries_descriptors(&self) -> bool {
        matches!(self, Self::Hello { .. })
    }
}

/// What control says to a relay.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum ToRelay {
    /// First message to a new relay. Descriptors: one per listener, in order, then the rendezvous, then the
    /// lifeline and the file for notes where there are such.
    Configure(Box<Configure>),
    /// Start to accept; with [`Configure::takes_over`] on the port of Module Servers alone.
    Activate,
    /// The relay whose place this one takes has no CONNECT under way any more: accept endpoints, too. There is no answer.
    /// Only for a relay with [`HANDS_OVER`].
    AcceptEndpoints,
    /// Calls wait for these endpoints at the relay that took this one's place: a relay that drains lets their parks go at
    /// once. There is no answer. Only for a relay with [`HANDS_OVER`].
    Release {
        /// The endpoints.
        endpoints: Vec<Label>,
    },
    /// The relay whose place this one takes knew these endpoints: calls wait for them as if they had been here. There is no
    /// answer. Only for a relay with [`HANDS_OVER`].
    Expect {
        /// The endpoints.
        endpoints: Vec<KnownEndpoint>,
    },
    /// How many sessions the relays that drain still carry, which count against `limits.sessions`, and twice against
    /// `limits.connections`. There is no answer. Only for a relay with [`HANDS_OVER`].
    Elsewhere {
        /// In all of them.
        sessions: usize,
    },
    /// The whole policy again, changed or not.
    Policy(Box<Policy>),
    /// A question, answered with [`FromRelay::Reply`] of the same id.
    Ask {
        /// Chosen by control.
        id: u64,
        /// The question.
        query: Query,
    },
    /// Stop to accept, let parks go, keep sessions until they end or the drain deadline, then exit. It is answered when the
    /// CONNECTs that are under way have what they asked for, or `timeouts.hand_over` has passed; parks go after that.
    Drain,
    /// Close everything and exit.
    Stop,
}

/// What a new relay is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Configure {
    /// Counts relays; the higher number is the newer one.
    pub generation: u64,
    /// The provisioned state that this relay serves, by name; tells a restarted control whether it still fits.
    pub state: String,
    /// Who may take the channel up at the rendezvous, beside root.
    pub control_uid: u32,
    /// What the descriptors listen on.
    pub listeners: Vec<ListenerInfo>,
    /// Whether a descriptor is the *lifeline*: the reading end of a pipe that stays open for as long as
    /// the service manager means to have a control, running or not. Its end of file is a real stop.
    #[serde(default)]
    pub lifeline: bool,
    /// Whether the last descriptor is a file for [`Note`](crate::Note)s, to be appended to. Only for a relay with
    /// [`TAKES_NOTES`].
    #[serde(default)]
    pub notes: bool,
    /// Whether another relay serves these ports until it is told to drain. Then this one accepts no endpoint before
    /// [`ToRelay::AcceptEndpoints`], or twice `timeouts.hand_over` have passed, and says [`FromRelay::Wanted`].
    #[serde(default)]
    pub takes_over: bool,
    /// The rules that the relay goes by.
    pub policy: Policy,
}

/// One listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerInfo {
    /// Who connects there: [`Role::Endpoint`] or [`Role::ModuleServer`].
    pub role: Role,
    /// The address and port that it listens on.
    pub address: SocketAddr,
}

/// A certificate chain with its key, PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPair {
    /// Leaf first.
    pub chain: String,
    /// PKCS #8.
    pub key: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyPair(..)")
    }
}

/// The proxy's own certificates for the relay ports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// RSA 2048.
    pub rsa: KeyPair,
    /// P-256.
    pub ec: KeyPair,
}

/// The rules that a relay goes by. It is always sent whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// The zone.
    pub zone: Label,
    /// The proxy's name in it.
    pub name: Label,
    /// The certificates that it shows on both ports.
    pub identity: Identity,
    /// Whom it lets in.
    pub trust: Trust,
    /// For session tickets, each port its own.
    pub tickets: PerPort<TicketKeys>,
    /// Whether TLS 1.3 is allowed too.
    pub tls13: bool,
    /// Networks that may connect; empty means any.
    pub allowed_networks: PerPort<Vec<IpNet>>,
    /// Networks of balancers: connections from there to the endpoint port must begin with a PROXY header.
    pub balancers: Vec<IpNet>,
    /// Upper bounds.
    #[serde(flatten, with = "crate::settings::limits")]
    pub limits: Limits,
    /// Spans of time.
    #[serde(flatten, with = "crate::settings::timeouts")]
    pub timeouts: Timeouts,
    /// From which severity on the relay logs, by [`FromRelay::Log`] on the channel that brought this policy. `None`:
    /// to its standard error.
    #[serde(default)]
    pub log: Option<Level>,
    /// What to do at the end of file of the lifeline.
    #[serde(default)]
    pub on_stop: OnStop,
}

/// What becomes of relays when control is stopped for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnStop {
    /// They close everything and exit.
    #[default]
    Stop,
    /// They stop to accept and keep their sessions until the drain deadline.
    Drain,
    /// They go on serving and wait for the next control.
    Keep,
}

/// What control may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// What the relay carries.
    Counts,
    /// Its metrics in Prometheus' text format.
    Metrics,
    /// The sessions that are open, in the order in which they began. Only for a relay with [`LISTS_SESSIONS`].
    Sessions {
        /// Those after this one: 0, and then what the last answer said.
        after: u64,
    },
    /// The endpoints that are connected, or were lately, in order of id. Only for a relay with [`HANDS_OVER`].
    Endpoints {
        /// Those after this id: nothing, and then what the last answer said.
        after: String,
    },
}

/// The feature of a relay that answers [`Query::Sessions`].
pub const LISTS_SESSIONS: &str = "sessions";

/// The feature of a relay that writes down what becomes of its sessions while there is no control, see
/// [`Note`](crate::Note).
pub const TAKES_NOTES: &str = "notes";

/// The feature of a relay that reads the whole of a trust document in [`Policy::trust`], and goes by what it retires. Any
/// other is sent the words of the first version.
pub const READS_RETIRED: &str = "retired";

/// The feature of a relay that takes another one's place, and leaves its own to the next, so that nobody notices.
pub const HANDS_OVER: &str = "hands-over";

/// A session that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSession {
    /// Its id, as in the log.
    pub id: String,
    /// The endpoint and its service.
    pub target: String,
    /// The Module Server.
    pub caller: String,
}

/// An endpoint that a relay knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownEndpoint {
    /// Its id.
    pub id: Label,
    /// How long calls are to wait for it yet, in seconds, should it not come.
    pub seconds: u32,
}

/// The answer to a [`Query`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// What the relay carries.
    Counts(RelayCounts),
    /// Its metrics in Prometheus' text format.
    Metrics(String),
    /// Open sessions.
    Sessions {
        /// Some of them.
        sessions: Vec<OpenSession>,
        /// What to ask for next, if there are more.
        next: Option<u64>,
    },
    /// Endpoints that the relay knows, in order of id.
    Endpoints {
        /// Some of them.
        endpoints: Vec<KnownEndpoint>,
        /// What to ask for next, if there are more.
        next: Option<String>,
    },
}

/// What a relay is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RelayState {
    /// Started, not configured.
    Fresh,
    /// Configured, not accepting.
    Ready,
    /// It accepts connections.
    Serving,
    /// Not accepting any more; its sessions go on.
    Draining,
}

/// What a relay says to control.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum FromRelay {
    /// First message on every channel. Descriptors: the listening sockets, in order, where there are any.
    Hello {
        /// Process id, as it says. control goes by who sent this, which the kernel tells it.
        pid: u32,
        /// Of the program.
        version: String,
        /// Tells this executable file from any other on the host; see [`crate::build`].
        #[serde(default)]
        build: String,
        /// The process as the kernel showed it to the relay, for a control of an earlier version: this one looks itself.
        #[serde(default)]
        process: Option<ProcessStatus>,
        /// What it can be asked beside what every relay can.
        #[serde(default)]
        features: Vec<String>,
        /// What it is doing.
        state: RelayState,
        /// Generation, or 0 before [`ToRelay::Configure`].
        generation: u64,
        /// The provisioned state that it serves.
        serves: String,
        /// What the descriptors listen on.
        listeners: Vec<ListenerInfo>,
    },
    /// [`ToRelay::Configure`], [`ToRelay::Activate`], [`ToRelay::Policy`] or [`ToRelay::Drain`] was carried out.
    Done(RelayState),
    /// It could not be carried out; the relay is as it was before.
    Failed {
        /// The part that failed: `configure`, `accept`, `policy`.
        step: String,
        /// One line for the log.
        error: String,
    },
    /// The answer to a question.
    Reply {
        /// Of the question.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// Calls wait here for endpoints that may be parked at a relay that drains. Only from a relay that control has
    /// started with [`Configure::takes_over`], on its first channel.
    Wanted {
        /// The endpoints.
        endpoints: Vec<Label>,
    },
    /// Something that it logs; see [`Policy::log`].
    Log(Record),
}
