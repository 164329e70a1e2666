//! Numbers that nft has names for (its symbol tables), and the numbers of its data types.

/// Names of values, or of bits.
pub(super) type Symbols = &'static [(u128, &'static str)];

/// The name of a value.
pub(super) fn name(symbols: Symbols, value: u128) -> Option<&'static str> {
    symbols.iter().find(|(known, _)| *known == value).map(|(_, name)| *name)
}

/// The names of the bits that are set, from the lowest; `None` if one of them has no name.
pub(super) fn bits(symbols: Symbols, value: u128) -> Option<Vec<&'static str>> {
    let known = symbols.iter().fold(0, |sum, (bit, _)| sum | bit);
    (value != 0 && value & !known == 0)
        .then(|| symbols.iter().filter(|(bit, _)| value & bit == *bit).map(|(_, name)| *name).collect())
}

pub(super) const CT_STATE: Symbols =
    &[(1, "invalid"), (2, "established"), (4, "related"), (8, "new"), (64, "untracked")];
pub(super) const CT_STATUS: Symbols = &[
    (1, "expected"),
    (2, "seen-reply"),
    (4, "assured"),
    (8, "confirmed"),
    (16, "snat"),
    (32, "dnat"),
    (512, "dying"),
];
pub(super) const CT_EVENT: Symbols = &[
    (1, "new"),
    (2, "related"),
    (4, "destroy"),
    (8, "reply"),
    (16, "assured"),
    (32, "protoinfo"),
    (64, "helper"),
    (128, "mark"),
    (256, "seqadj"),
    (512, "secmark"),
    (1024, "label"),
];
pub(super) const CT_DIRECTION: Symbols = &[(0, "original"), (1, "reply")];
pub(super) const TCP_FLAGS: Symbols =
    &[(1, "fin"), (2, "syn"), (4, "rst"), (8, "psh"), (16, "ack"), (32, "urg"), (64, "ecn"), (128, "cwr")];
pub(super) const NETWORK: Symbols = &[(2, "ipv4"), (10, "ipv6")];
pub(super) const ETHER_TYPE: Symbols =
    &[(0x0800, "ip"), (0x0806, "arp"), (0x86dd, "ip6"), (0x8100, "8021q"), (0x88a8, "8021ad")];
pub(super) const PROTOCOL: Symbols = &[
    (0, "ip"),
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipencap"),
    (6, "tcp"),
    (17, "udp"),
    (33, "dccp"),
    (41, "ipv6"),
    (43, "ipv6-route"),
    (44, "ipv6-frag"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (59, "ipv6-nonxt"),
    (60, "ipv6-opts"),
    (88, "eigrp"),
    (89, "ospf"),
    (94, "ipip"),
    (103, "pim"),
    (108, "ipcomp"),
    (112, "vrrp"),
    (115, "l2tp"),
    (132, "sctp"),
    (136, "udplite"),
];
pub(super) const PKT_TYPE: Symbols = &[(0, "host"), (1, "broadcast"), (2, "multicast"), (3, "other")];
pub(super) const DEVICE_GROUP: Symbols = &[(0, "default")];
pub(super) const DEVICE_TYPE: Symbols = &[
    (1, "ether"),
    (512, "ppp"),
    (768, "ipip"),
    (769, "ipip6"),
    (772, "loopback"),
    (776, "sit"),
    (778, "ipgre"),
];
pub(super) const ARP_OPERATION: Symbols = &[
    (1, "request"),
    (2, "reply"),
    (3, "rrequest"),
    (4, "rreply"),
    (8, "inrequest"),
    (9, "inreply"),
    (10, "nak"),
];
pub(super) const ICMP_TYPE: Symbols = &[
    (0, "echo-reply"),
    (3, "destination-unreachable"),
    (4, "source-quench"),
    (5, "redirect"),
    (8, "echo-request"),
    (9, "router-advertisement"),
    (10, "router-solicitation"),
    (11, "time-exceeded"),
    (12, "parameter-problem"),
    (13, "timestamp-request"),
    (14, "timestamp-reply"),
    (15, "info-request"),
    (16, "info-reply"),
    (17, "address-mask-request"),
    (18, "address-mask-reply"),
];
pub(super) const ICMP_CODE: Symbols = &[
    (0, "net-unreachable"),
    (1, "host-unreachable"),
    (2, "prot-unreachable"),
    (3, "port-unreachable"),
    (4, "frag-needed"),
    (9, "net-prohibited"),
    (10, "host-prohibited"),
    (13, "admin-prohibited"),
];
pub(super) const ICMPV6_TYPE: Symbols = &[
    (1, "destination-unreachable"),
    (2, "packet-too-big"),
    (3, "time-exceeded"),
    (4, "parameter-problem"),
    (128, "echo-request"),
    (129, "echo-reply"),
    (130, "mld-listener-query"),
    (131, "mld-listener-report"),
    (132, "mld-listener-done"),
    (133, "nd-router-solicit"),
    (134, "nd-router-advert"),
    (135, "nd-neighbor-solicit"),
    (136, "nd-neighbor-advert"),
    (137, "nd-redirect"),
    (138, "router-renumbering"),
    (141, "ind-neighbor-solicit"),
    (142, "ind-neighbor-advert"),
    (143, "mld2-listener-report"),
];
pub(super) const ICMPV6_CODE: Symbols = &[
    (0, "no-route"),
    (1, "admin-prohibited"),
    (3, "addr-unreachable"),
    (4, "port-unreachable"),
    (5, "policy-fail"),
    (6, "reject-route"),
];
pub(super) const ICMPX_CODE: Symbols =
    &[(0, "no-route"), (1, "port-unreachable"), (2, "host-unreachable"), (3, "admin-prohibited")];
pub(super) const IGMP_TYPE: Symbols = &[
    (0x11, "membership-query"),
    (0x12, "membership-report-v1"),
    (0x16, "membership-report-v2"),
    (0x17, "leave-group"),
    (0x22, "membership-report-v3"),
];
pub(super) const ADDRESS_TYPE: Symbols = &[
    (0, "unspec"),
    (1, "unicast"),
    (2, "local"),
    (3, "broadcast"),
    (4, "anycast"),
    (5, "multicast"),
    (6, "blackhole"),
    (7, "unreachable"),
    (8, "prohibit"),
];
pub(super) const DSCP: Symbols = &[
    (0x00, "cs0"),
    (0x08, "cs1"),
    (0x10, "cs2"),
    (0x18, "cs3"),
    (0x20, "cs4"),
    (0x28, "cs5"),
    (0x30, "cs6"),
    (0x38, "cs7"),
    (0x01, "lephb"),
    (0x0a, "af11"),
    (0x0c, "af12"),
    (0x0e, "af13"),
    (0x12, "af21"),
    (0x14, "af22"),
    (0x16, "af23"),
    (0x1a, "af31"),
    (0x1c, "af32"),
    (0x1e, "af33"),
    (0x22, "af41"),
    (0x24, "af42"),
    (0x26, "af43"),
    (0x2c, "va"),
    (0x2e, "ef"),
];
pub(super) const ECN: Symbols = &[(0, "not-ect"), (1, "ect1"), (2, "ect0"), (3, "ce")];
pub(super) const LOG_LEVEL: Symbols = &[
    (0, "emerg"),
    (1, "alert"),
    (2, "crit"),
    (3, "err"),
    (4, "warn"),
    (5, "notice"),
    (6, "info"),
    (7, "debug"),
    (8, "audit"),
];
pub(super) const WEEKDAY: Symbols = &[
    (0, "Sunday"),
    (1, "Monday"),
    (2, "Tuesday"),
    (3, "Wednesday"),
    (4, "Thursday"),
    (5, "Friday"),
    (6, "Saturday"),
];
pub(super) const TCP_OPTION: Symbols = &[
    (0, "eol"),
    (1, "nop"),
    (2, "maxseg"),
    (3, "window"),
    (4, "sack-perm"),
    (5, "sack"),
    (8, "timestamp"),
    (30, "mptcp"),
    (34, "fastopen"),
];
pub(super) const IPV6_HEADER: Symbols =
    &[(0, "hbh"), (43, "rt"), (44, "frag"), (51, "auth"), (60, "dst"), (135, "mh")];
pub(super) const PRESENCE: Symbols = &[(0, "missing"), (1, "exists")];
