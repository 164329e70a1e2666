//! Expressions: the instructions of which a rule consists (nft_expr_ops of the kernel, `NFTA_*` of nf_tables.h).
//!
//! Most load bytes into registers or compare what is there. There are 64 bytes of registers, and a register begins at a multiple
//! of four. What loads or computes bytes whose number is no multiple of four writes zeros behind them up to the next multiple:
//! a comparison may look at these, too (`fib saddr oif missing` loads one byte and compares four).

use super::family::Family;
use super::name::Name;
use super::xt::{XtMatch, XtTarget};

/// Some bytes of the registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisterSlice {
    /// The first byte, from 0 to 63: `NFT_REG_1` begins at 0, `NFT_REG_2` at 16, `NFT_REG32_00` at 0, `NFT_REG32_01` at 4.
    pub offset: u8,
    /// How many bytes are loaded, compared or looked up.
    pub length: u8,
}

/// What becomes of a packet, or where it goes on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It passes this base chain.
    Accept,
    /// It is gone.
    Drop,
    /// A program decides (nfnetlink_queue).
    Queue,
    /// The next rule.
    Continue,
    /// This rule does not match.
    Break,
    /// The chain, and then the next rule.
    Jump(Name),
    /// The chain, and then behind the rule that called this one.
    Goto(Name),
    /// Behind the rule that called this chain; the policy, in a base chain.
    Return,
}

/// An instruction. `destination` is where bytes go, `source` where they are taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Loads a constant.
    Immediate {
        /// Where it goes; as long as the constant.
        destination: RegisterSlice,
        /// The constant.
        value: Box<[u8]>,
    },
    /// The rule's verdict.
    Verdict(Verdict),
    /// Loads bytes of the packet.
    Payload {
        /// Where they go; as many as are loaded.
        destination: RegisterSlice,
        /// Which header.
        base: PayloadBase,
        /// The first byte of it.
        offset: u32,
    },
    /// Writes bytes into the packet.
    PayloadWrite {
        /// What is written.
        source: RegisterSlice,
        /// Which header.
        base: PayloadBase,
        /// The first byte of it.
        offset: u32,
    },
    /// Loads a property of the packet.
    Meta {
        /// Where it goes. The length follows from the key ([`MetaKey::length`]).
        destination: RegisterSlice,
        /// The property.
        key: MetaKey,
    },
    /// Sets a property of the packet.
    MetaSet {
        /// The value.
        source: RegisterSlice,
        /// The property.
        key: MetaKey,
    },
    /// Loads a property of the packet's connection. The rule does not match where there is no connection, for any key but
    /// the state.
    Ct {
        /// Where it goes. The length follows from the key and the family.
        destination: RegisterSlice,
        /// The property.
        key: CtKey,
        /// Of which direction.
        direction: Option<Direction>,
    },
    /// Sets a property of the packet's connection.
    CtSet {
        /// The value.
        source: RegisterSlice,
        /// The property.
        key: CtKey,
    },
    /// Goes on if the bytes compare so, from the first byte to the last (memcmp).
    Compare {
        /// What is compared.
        source: RegisterSlice,
        /// How they are compared.
        op: Comparison,
        /// With what; as long as `source`.
        value: Box<[u8]>,
    },
    /// Goes on if the bytes are in a range, both ends included (memcmp).
    Range {
        /// What is compared.
        source: RegisterSlice,
        /// The lowest.
        from: Box<[u8]>,
        /// The highest.
        to: Box<[u8]>,
        /// Goes on if they are *not* in it.
        negated: bool,
    },
    /// Computes with bits.
    Bitwise {
        /// Of these.
        source: RegisterSlice,
        /// Where the result goes.
        destination: RegisterSlice,
        /// What is computed.
        op: Bitwise,
    },
    /// Changes the order of bytes in each number. On a machine that has the network's order nothing changes.
    ByteOrder {
        /// Of these.
        source: RegisterSlice,
        /// Where the result goes.
        destination: RegisterSlice,
        /// From which order into which.
        op: ByteOrder,
        /// Bytes of a number: 2, 4 or 8.
        size: u32,
    },
    /// Goes on if the bytes are in a set. With a map, loads what they map to.
    Lookup {
        /// The key.
        source: RegisterSlice,
        /// The set, of the same table.
        set: Name,
        /// Where the map's data goes. A map of verdicts has none, and the verdict is the rule's.
        destination: Option<RegisterSlice>,
        /// Whether the data are verdicts.
        verdict: bool,
        /// Goes on if they are *not* in it.
        negated: bool,
    },
    /// Adds to a set, or deletes from it. Goes on if that could be done and, of the expressions that the element has, all hold.
    Dynset(Dynset),
    /// Uses a stateful object of the same table, which may match or not. Objects of different kinds may have one name.
    Object(Name),
    /// Uses the stateful object that a map has for these bytes.
    ObjectMap {
        /// The key.
        source: RegisterSlice,
        /// The map.
        set: Name,
    },
    /// Counts packets and bytes.
    Counter,
    /// Goes on while a rate is kept, or only above it.
    Limit(Limit),
    /// Goes on until so many bytes have passed, or only from then on.
    Quota {
        /// Bytes at which it changes.
        bytes: u64,
        /// Only behind the limit.
        over: bool,
    },
    /// Goes on up to so many connections, or only above.
    ConnLimit {
        /// How many connections there may be.
        count: u32,
        /// Only above.
        over: bool,
    },
    /// Notes when a packet passed last.
    Last,
    /// Writes to the log.
    Log {
        /// What the line begins with.
        prefix: Option<String>,
        /// The group of nfnetlink_log, if it goes there.
        group: Option<u16>,
        /// The level by syslog(3), if it goes to the kernel's log.
        level: Option<u32>,
    },
    /// Drops, and says so.
    Reject(Reject),
    /// Rewrites the addresses of a connection.
    Nat(Nat),
    /// Rewrites its source to an address of the device it leaves by.
    Masquerade,
    /// Rewrites its destination to this host.
    Redirect {
        /// The lowest port, as two bytes in the network's order, if the port changes.
        port: Option<RegisterSlice>,
    },
    /// Hands it to a socket of this host that it is not addressed to.
    Tproxy {
        /// `None` for both.
        family: Option<Family>,
        /// The address.
        address: Option<RegisterSlice>,
        /// The port.
        port: Option<RegisterSlice>,
    },
    /// A program decides (nfnetlink_queue).
    Queue {
        /// The first queue, if it is a number.
        number: Option<u16>,
        /// It passes where no program listens.
        bypass: bool,
    },
    /// No connection is kept for it.
    Notrack,
    /// The kernel answers the handshake itself.
    Synproxy,
    /// Loads what the routing table says.
    Fib(Fib),
    /// Loads a property of a socket that is there for it already.
    Socket {
        /// Where it goes.
        destination: RegisterSlice,
        /// `NFT_SOCKET_*`.
        key: u32,
    },
    /// Loads part of an extension header, or of an option of TCP.
    ExtHdr {
        /// Where it goes, if something is loaded.
        destination: Option<RegisterSlice>,
        /// The number of the header or option.
        kind: u8,
        /// The first byte of it.
        offset: u32,
        /// Whether it is an IPv6 header (0), an option of TCP (1), of IPv4 (2), or something else (`NFT_EXTHDR_OP_*`).
        op: u32,
        /// It loads 1 or 0, for there or not there.
        presence: bool,
    },
    /// Loads a number that is counted up or random.
    Numgen {
        /// Where it goes.
        destination: RegisterSlice,
        /// It is below this one (beside the offset).
        modulus: u32,
        /// It is random.
        random: bool,
        /// Is added.
        offset: u32,
    },
    /// Loads a hash of bytes.
    Hash {
        /// Where it goes.
        destination: RegisterSlice,
        /// It is below this one (beside the offset).
        modulus: u32,
        /// Is added.
        offset: u32,
    },
    /// A match of iptables.
    XtMatch {
        /// Its name.
        name: String,
        /// Its revision.
        revision: u32,
        /// What it asks.
        what: XtMatch,
    },
    /// A target of iptables.
    XtTarget {
        /// Its name.
        name: String,
        /// Its revision.
        revision: u32,
        /// What it does.
        what: XtTarget,
    },
    /// A kind that is known by name only, such as `osf`, `rt`, `tunnel`, `xfrm`, `dup`, `fwd`, `flow_offload`; or one of a newer
    /// kernel, or whose attributes are not as expected. What it does is not known.
    Unknown {
        /// `NFTA_EXPR_NAME`.
        name: String,
        /// Registers that it loads may hold anything now.
        destination: Option<RegisterSlice>,
    },
}

/// The header that an offset counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadBase {
    /// The frame's.
    Link,
    /// IPv4's or IPv6's.
    Network,
    /// TCP's, UDP's, ...
    Transport,
    /// What comes behind it.
    Inner,
}

/// How bytes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// What is computed with bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bitwise {
    /// `(source & mask) ^ xor`
    Mask {
        /// As long as the source.
        mask: Box<[u8]>,
        /// As long as the source.
        xor: Box<[u8]>,
    },
    /// Shifts 32-bit numbers of the machine's byte order to the left.
    ShiftLeft(u32),
    /// Shifts them to the right.
    ShiftRight(u32),
    /// `and`, `or`, `xor` of two registers, or what a newer kernel has: the result may be anything.
    Other,
}

/// The directions of [`Expr::ByteOrder`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// From the network's to the machine's.
    ToHost,
    /// From the machine's to the network's.
    ToNetwork,
}

/// Properties of packets (`NFT_META_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are nft(8)'s own names")]
pub enum MetaKey {
    Length,
    Protocol,
    Priority,
    Mark,
    Iif,
    Oif,
    IifName,
    OifName,
    IifType,
    OifType,
    SkUid,
    SkGid,
    NfTrace,
    RtClassId,
    SecMark,
    NfProto,
    L4Proto,
    BridgeIifName,
    BridgeOifName,
    PktType,
    Cpu,
    IifGroup,
    OifGroup,
    Cgroup,
    Random,
    SecPath,
    IifKind,
    OifKind,
    Time,
    Day,
    Hour,
    SdIif,
    SdIifName,
    /// Another one, by its number.
    Other(u32),
}

/// Properties of connections (`NFT_CT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are nft(8)'s own names")]
pub enum CtKey {
    State,
    Direction,
    Status,
    Mark,
    SecMark,
    Expiration,
    Helper,
    L3Proto,
    Saddr,
    Daddr,
    Protocol,
    ProtoSrc,
    ProtoDst,
    Labels,
    Packets,
    Bytes,
    AvgPkt,
    Zone,
    EventMask,
    SaddrIp,
    DaddrIp,
    SaddrIp6,
    DaddrIp6,
    Id,
    /// Another one, by its number.
    Other(u32),
}

/// A direction of a connection (`IP_CT_DIR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// That of its first packet.
    Original,
    /// The other one.
    Reply,
}

/// A change of a set by a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dynset {
    /// The set.
    pub set: Name,
    /// The key.
    pub key: RegisterSlice,
    /// It is deleted, and not added.
    pub deletes: bool,
    /// Its time begins anew if it is there already (`NFT_DYNSET_OP_UPDATE`).
    pub updates: bool,
    /// Goes on if it could *not* be done, or an expression does not hold (`NFT_DYNSET_F_INV`).
    pub negated: bool,
    /// Milliseconds after which the element goes.
    pub timeout: Option<u64>,
    /// What is executed for the element.
    pub exprs: Vec<Expr>,
}

/// A rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub rate: u64,
    /// In so many seconds.
    pub seconds: u64,
    /// Beyond it at once.
    pub burst: u32,
    /// Of what.
    pub unit: LimitUnit,
    /// It holds above the rate only.
    pub over: bool,
}

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitUnit {
    /// It counts packets.
    Packets,
    /// It counts bytes.
    Bytes,
}

/// How a packet is refused (`NFT_REJECT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// By an ICMP of this family's code.
    Icmp(u8),
    /// By an ICMP of either family (`NFT_REJECT_ICMPX_*`).
    Icmpx(u8),
    /// By an RST.
    TcpReset,
}

/// A rewriting of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nat {
    /// It rewrites the destination, and not the source.
    pub destination: bool,
    /// The family of the address.
    pub family: Family,
    /// The lowest address, if it changes.
    pub address: Option<RegisterSlice>,
    /// The highest address, if there is a range.
    pub address_max: Option<RegisterSlice>,
    /// The lowest port, if it changes.
    pub port: Option<RegisterSlice>,
    /// The highest port, if there is a range.
    pub port_max: Option<RegisterSlice>,
    /// `NF_NAT_RANGE_*`.
    pub flags: u32,
}

/// What the routing table is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fib {
    /// Where the answer goes.
    pub destination: RegisterSlice,
    /// `NFT_FIB_RESULT_*`: 1 the interface's number, 2 its name, 3 the type of address (`RTN_*`).
    pub result: u32,
    /// `NFTA_FIB_F_*`: 1 the source, 2 the destination, 4 the mark, 8 the interface it came by, 16 that it leaves by, 32 whether
    /// there is a route.
    pub flags: u32,
}
