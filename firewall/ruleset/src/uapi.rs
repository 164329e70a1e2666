//! The numbers of nf_tables.h, nf_tables_compat.h and nfnetlink_hook.h, under the names that they have there.

/// Numbers attributes from 1, as the enumerations of the headers do, and gives each table of attributes its reader.
macro_rules! attributes {
    ($($(#[$comment:meta])* $module:ident: $($name:ident)*;)*) => {$(
        $(#[$comment])*
        pub(crate) mod $module {
            use crate::attributes::{Attributes, DecodeError};

            #[allow(non_camel_case_types, clippy::upper_case_acronyms, dead_code, reason = "the header's names")]
            enum Number { Unspec, $($name,)* End }
            $(
                #[allow(dead_code, reason = "all are named, so that the numbers are right")]
                pub(crate) const $name: usize = Number::$name as usize;
            )*

            /// Reads a table of them.
            #[allow(dead_code, reason = "some are only written")]
            pub(crate) fn attributes(
                bytes: &[u8],
            ) -> Result<Attributes<'_, { Number::End as usize }>, DecodeError> {
                Attributes::read(bytes)
            }
        }
    )*};
}

attributes! {
    /// `NFTA_TABLE_*`
    table: NAME FLAGS USE HANDLE PAD USERDATA OWNER;
    /// `NFTA_CHAIN_*`
    chain: TABLE HANDLE NAME HOOK POLICY USE TYPE COUNTERS PAD FLAGS ID USERDATA;
    /// `NFTA_HOOK_*`
    hook: HOOKNUM PRIORITY DEV DEVS;
    /// `NFTA_RULE_*`
    rule: TABLE CHAIN HANDLE EXPRESSIONS COMPAT POSITION USERDATA;
    /// `NFTA_EXPR_*`
    expr: NAME DATA;
    /// `NFTA_SET_*`
    set: TABLE NAME FLAGS KEY_TYPE KEY_LEN DATA_TYPE DATA_LEN POLICY DESC ID TIMEOUT GC_INTERVAL USERDATA PAD OBJ_TYPE
        HANDLE EXPR EXPRESSIONS;
    /// `NFTA_SET_DESC_*`
    set_desc: SIZE CONCAT;
    /// `NFTA_SET_FIELD_*`
    set_field: LEN;
    /// `NFTA_SET_ELEM_LIST_*`
    elements: TABLE SET ELEMENTS SET_ID;
    /// `NFTA_SET_ELEM_*`
    element: KEY DATA FLAGS TIMEOUT EXPIRATION USERDATA EXPR PAD OBJREF KEY_END EXPRESSIONS;
    /// `NFTA_OBJ_*`
    object: TABLE NAME TYPE DATA USE HANDLE PAD USERDATA;
    /// `NFTA_FLOWTABLE_*`
    flowtable: TABLE NAME HOOK USE HANDLE PAD FLAGS;
    /// `NFTA_GEN_*`
    generation: ID PROC_PID PROC_NAME;
    /// `NFNL_BATCH_*`
    batch: GENID;
    /// `NFTA_DATA_*`
    data: VALUE VERDICT;
    /// `NFTA_VERDICT_*`
    verdict: CODE CHAIN CHAIN_ID;
    /// `NFTA_IMMEDIATE_*`
    immediate: DREG DATA;
    /// `NFTA_BITWISE_*`
    bitwise: SREG DREG LEN MASK XOR OP DATA SREG2;
    /// `NFTA_BYTEORDER_*`
    byteorder: SREG DREG OP LEN SIZE;
    /// `NFTA_CMP_*`
    cmp: SREG OP DATA;
    /// `NFTA_RANGE_*`
    range: SREG OP FROM_DATA TO_DATA;
    /// `NFTA_LOOKUP_*`
    lookup: SET SREG DREG SET_ID FLAGS;
    /// `NFTA_DYNSET_*`
    dynset: SET_NAME SET_ID OP SREG_KEY SREG_DATA TIMEOUT EXPR PAD FLAGS EXPRESSIONS;
    /// `NFTA_PAYLOAD_*`
    payload: DREG BASE OFFSET LEN SREG CSUM_TYPE CSUM_OFFSET CSUM_FLAGS;
    /// `NFTA_EXTHDR_*`
    exthdr: DREG TYPE OFFSET LEN FLAGS OP SREG;
    /// `NFTA_META_*`
    meta: DREG KEY SREG;
    /// `NFTA_CT_*`
    ct: DREG KEY DIRECTION SREG;
    /// `NFTA_HASH_*`
    hash: SREG DREG LEN MODULUS SEED OFFSET TYPE;
    /// `NFTA_NG_*`
    numgen: DREG MODULUS TYPE OFFSET;
    /// `NFTA_SOCKET_*`
    socket: KEY DREG LEVEL;
    /// `NFTA_FIB_*`
    fib: DREG RESULT FLAGS;
    /// `NFTA_RT_*`
    rt: DREG KEY;
    /// `NFTA_OSF_*`
    osf: DREG TTL FLAGS;
    /// `NFTA_XFRM_*`
    xfrm: DREG KEY DIR SPNUM;
    /// `NFTA_TUNNEL_*`
    tunnel: KEY DREG MODE;
    /// `NFTA_LIMIT_*`
    limit: RATE UNIT BURST TYPE FLAGS;
    /// `NFTA_QUOTA_*`
    quota: BYTES FLAGS PAD CONSUMED;
    /// `NFTA_CONNLIMIT_*`
    connlimit: COUNT FLAGS;
    /// `NFTA_LOG_*`
    log: GROUP PREFIX SNAPLEN QTHRESHOLD LEVEL FLAGS;
    /// `NFTA_REJECT_*`
    reject: TYPE ICMP_CODE;
    /// `NFTA_NAT_*`
    nat: TYPE FAMILY REG_ADDR_MIN REG_ADDR_MAX REG_PROTO_MIN REG_PROTO_MAX FLAGS;
    /// `NFTA_REDIR_*`
    redir: REG_PROTO_MIN REG_PROTO_MAX FLAGS;
    /// `NFTA_TPROXY_*`
    tproxy: FAMILY REG_ADDR REG_PORT;
    /// `NFTA_QUEUE_*`
    queue: NUM TOTAL FLAGS SREG_QNUM;
    /// `NFTA_OBJREF_*`
    objref: IMM_TYPE IMM_NAME SET_SREG SET_NAME SET_ID;
    /// `NFTA_MATCH_*`, and `NFTA_TARGET_*`, which are the same
    extension: NAME REV INFO;
    /// `NFNLA_HOOK_*`
    hooked: HOOKNUM PRIORITY DEV FUNCTION_NAME MODULE_NAME CHAIN_INFO;
    /// `NFNLA_HOOK_INFO_*`
    hooked_info: DESC TYPE;
    /// `NFNLA_CHAIN_*`
    hooked_chain: TABLE FAMILY NAME;
    /// `NFNLA_HOOK_BPF_*`
    hooked_bpf: ID;
}

/// Messages: the subsystem in the upper byte, the kind in the lower.
pub(crate) mod message {
    /// `NFNL_SUBSYS_NFTABLES`
    pub(crate) const SUBSYSTEM: u16 = 10;
    const NFTABLES: u16 = SUBSYSTEM << 8;
    pub(crate) const NEWTABLE: u16 = NFTABLES;
    pub(crate) const GETTABLE: u16 = NFTABLES + 1;
    pub(crate) const NEWCHAIN: u16 = NFTABLES + 3;
    pub(crate) const GETCHAIN: u16 = NFTABLES + 4;
    pub(crate) const NEWRULE: u16 = NFTABLES + 6;
    pub(crate) const GETRULE: u16 = NFTABLES + 7;
    pub(crate) const NEWSET: u16 = NFTABLES + 9;
    pub(crate) const GETSET: u16 = NFTABLES + 10;
    pub(crate) const NEWSETELEM: u16 = NFTABLES + 12;
    pub(crate) const GETSETELEM: u16 = NFTABLES + 13;
    pub(crate) const NEWGEN: u16 = NFTABLES + 15;
    pub(crate) const GETGEN: u16 = NFTABLES + 16;
    pub(crate) const NEWOBJ: u16 = NFTABLES + 18;
    pub(crate) const GETOBJ: u16 = NFTABLES + 19;
    pub(crate) const NEWFLOWTABLE: u16 = NFTABLES + 22;
    pub(crate) const GETFLOWTABLE: u16 = NFTABLES + 23;
    /// `NFNL_MSG_BATCH_BEGIN`, `NFNL_MSG_BATCH_END`
    pub(crate) const BATCH_BEGIN: u16 = 16;
    pub(crate) const BATCH_END: u16 = 17;
    /// `NFNL_SUBSYS_HOOK`, `NFNL_MSG_HOOK_GET`
    pub(crate) const HOOK: u16 = 12 << 8;
}
