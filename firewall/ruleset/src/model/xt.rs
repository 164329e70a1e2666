//! The matches and targets of iptables (x_tables.h) that are understood.

/// The matches of iptables that are understood. All of them hold or don't; `negated` is the extension's `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XtMatch {
    /// Always holds.
    Comment(String),
    /// Ports and flags of TCP (xt_tcpudp.h): all hold at once.
    Tcp {
        /// Source ports, both ends included.
        source: (u16, u16),
        /// They are any but these.
        source_negated: bool,
        /// Destination ports, both ends included.
        destination: (u16, u16),
        /// They are any but these.
        destination_negated: bool,
        /// Flags that are looked at, as in the header.
        flags_mask: u8,
        /// Those of them that are set.
        flags: u8,
        /// The flags are any but these.
        flags_negated: bool,
        /// An option that is there; 0 for none asked.
        option: u8,
        /// It is not there.
        option_negated: bool,
    },
    /// Of another protocol than TCP (`udp`, `icmp`, `icmp6`, `sctp`, ...), which the extension itself makes sure of.
    OtherProtocol,
    /// Lists of ports (xt_multiport.h).
    Multiport {
        /// Which ports.
        of: Ports,
        /// Both ends included.
        ranges: Box<[(u16, u16)]>,
        /// Any but these.
        negated: bool,
    },
    /// State of connections (xt_state.h, xt_conntrack.h), as far as it is about the state alone.
    CtState {
        /// `XT_CONNTRACK_STATE_*`: 1 invalid, 2 established, 4 related, 8 new, 64 snat, 128 dnat, 256 untracked.
        mask: u32,
        /// Any but these.
        negated: bool,
    },
    /// The kind of an address (xt_addrtype.h).
    AddrType {
        /// `1 << RTN_*` of the source; 0 for any.
        source: u16,
        /// Any but these.
        source_negated: bool,
        /// `1 << RTN_*` of the destination; 0 for any.
        destination: u16,
        /// Any but these.
        destination_negated: bool,
        /// Only for addresses of the interface it came by, or leaves by.
        on_interface: bool,
    },
    /// The packet's mark.
    Mark {
        /// After the mask.
        mark: u32,
        /// The bits that are looked at.
        mask: u32,
        /// Any but this one.
        negated: bool,
    },
    /// The connection's mark.
    ConnMark {
        /// After the mask.
        mark: u32,
        /// The bits that are looked at.
        mask: u32,
        /// Any but this one.
        negated: bool,
    },
    /// Ranges of addresses (xt_iprange.h), of the rule's family; `None` for any.
    IpRange {
        /// Of the source, both ends included.
        source: Option<(std::net::IpAddr, std::net::IpAddr)>,
        /// Any but these.
        source_negated: bool,
        /// Of the destination, both ends included.
        destination: Option<(std::net::IpAddr, std::net::IpAddr)>,
        /// Any but these.
        destination_negated: bool,
    },
    /// The source's hardware address.
    Mac {
        /// The address.
        address: [u8; 6],
        /// Any but this one.
        negated: bool,
    },
    /// The kind of frame: 0 for this host, 1 broadcast, 2 multicast.
    PktType {
        /// `PACKET_*`.
        kind: u32,
        /// Any but this one.
        negated: bool,
    },
    /// Bytes of the packet, both ends included.
    Length {
        /// The fewest.
        min: u16,
        /// The most.
        max: u16,
        /// Any but these.
        negated: bool,
    },
    /// A rate (`limit`, `hashlimit`), whose state nobody knows.
    Limit {
        /// As iptables would print it, as far as that is known; else the extension's name.
        text: String,
    },
    /// Another one: whether it holds is not known.
    Other,
}

/// The ports that [`XtMatch::Multiport`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Ports {
    Source,
    Destination,
    Either,
}

/// The targets of iptables that are understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XtTarget {
    /// Refuses it.
    Reject,
    /// Sets the mark: `(mark & !mask) ^ mark`, as in xt_mark.h.
    Mark {
        /// The bits that are set or changed.
        mark: u32,
        /// The bits that are cleared before.
        mask: u32,
    },
    /// Sets the connection's mark, or copies it from or to the packet's (`XT_CONNMARK_SET`, `_SAVE`, `_RESTORE`).
    ConnMark {
        /// `XT_CONNMARK_*`: 0 set, 1 save, 2 restore.
        mode: u8,
        /// As [`XtTarget::Mark`].
        mark: u32,
        /// As [`XtTarget::Mark`].
        mask: u32,
        /// The bits of the packet's mark.
        packet_mask: u32,
    },
    /// No connection is kept for it (`CT --notrack`, `NOTRACK`).
    Notrack,
    /// Does something that neither ends the packet's way nor changes what later rules ask (`LOG`, `NFLOG`, `AUDIT`, `TRACE`, `CT`
    /// without notrack, `TCPMSS`, `CHECKSUM`, `CLASSIFY`, `DSCP`, `TOS`, `TTL`, `HL`, `SET`, `TEE`, `SECMARK`, `RATEEST`, `LED`,
    /// `IDLETIMER`).
    Passes,
    /// Rewrites the destination (`DNAT`).
    Dnat {
        /// The lowest address, if it changes.
        address: Option<std::net::IpAddr>,
        /// The lowest and the highest port, if it changes.
        ports: Option<(u16, u16)>,
    },
    /// Rewrites the destination to this host (`REDIRECT`).
    Redirect {
        /// The lowest and the highest port, if it changes.
        ports: Option<(u16, u16)>,
    },
    /// Rewrites the source (`SNAT`, `MASQUERADE`).
    Snat,
    /// A program decides (`NFQUEUE`).
    Queue {
        /// It passes where no program listens.
        bypass: bool,
    },
    /// The kernel answers the handshake itself (`SYNPROXY`), or keeps the other side hanging (`TARPIT`).
    Takes,
    /// Hands it to a socket of this host (`TPROXY`).
    Tproxy,
    /// Another one: what it does is not known.
    Other,
}
