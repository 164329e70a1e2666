//! The numbers of properties, and how many bytes each has.

use super::expr::{CtKey, MetaKey};
use super::family::Family;

/// Bytes of a name (`IFNAMSIZ`, `NF_CT_HELPER_NAME_LEN`), and of the longest property of all.
const NAME: u8 = 16;

impl MetaKey {
    /// By `NFT_META_*`.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Length,
            1 => Self::Protocol,
            2 => Self::Priority,
            3 => Self::Mark,
            4 => Self::Iif,
            5 => Self::Oif,
            6 => Self::IifName,
            7 => Self::OifName,
            8 => Self::IifType,
            9 => Self::OifType,
            10 => Self::SkUid,
            11 => Self::SkGid,
            12 => Self::NfTrace,
            13 => Self::RtClassId,
            14 => Self::SecMark,
            15 => Self::NfProto,
            16 => Self::L4Proto,
            17 => Self::BridgeIifName,
            18 => Self::BridgeOifName,
            19 => Self::PktType,
            20 => Self::Cpu,
            21 => Self::IifGroup,
            22 => Self::OifGroup,
            23 => Self::Cgroup,
            24 => Self::Random,
            25 => Self::SecPath,
            26 => Self::IifKind,
            27 => Self::OifKind,
            30 => Self::Time,
            31 => Self::Day,
            32 => Self::Hour,
            33 => Self::SdIif,
            34 => Self::SdIifName,
            other => Self::Other(other),
        }
    }

    /// The bytes that are loaded. One that is not known may have up to 16.
    #[must_use]
    pub fn length(self) -> u8 {
        match self {
            Self::SecPath | Self::Day => 1,
            Self::Protocol | Self::IifType | Self::OifType => 2,
            Self::Time => 8,
            Self::IifName
            | Self::OifName
            | Self::BridgeIifName
            | Self::BridgeOifName
            | Self::IifKind
            | Self::OifKind
            | Self::SdIifName
            | Self::Other(_) => NAME,
            // NfProto and L4Proto among them: one byte, and three of zeros behind it.
            _ => 4,
        }
    }

    /// The bytes that are taken where it is set.
    #[must_use]
    pub fn length_to_set(self) -> u8 {
        match self {
            Self::NfTrace | Self::PktType | Self::Other(_) => 1,
            _ => self.length(),
        }
    }
}

impl CtKey {
    /// By `NFT_CT_*`.
    #[must_use]
    pub fn from_number(number: u32) -> Self {
        match number {
            0 => Self::State,
            1 => Self::Direction,
            2 => Self::Status,
            3 => Self::Mark,
            4 => Self::SecMark,
            5 => Self::Expiration,
            6 => Self::Helper,
            7 => Self::L3Proto,
            8 => Self::Saddr,
            9 => Self::Daddr,
            10 => Self::Protocol,
            11 => Self::ProtoSrc,
            12 => Self::ProtoDst,
            13 => Self::Labels,
            14 => Self::Packets,
            15 => Self::Bytes,
            16 => Self::AvgPkt,
            17 => Self::Zone,
            18 => Self::EventMask,
            19 => Self::SaddrIp,
            20 => Self::DaddrIp,
            21 => Self::SaddrIp6,
            22 => Self::DaddrIp6,
            23 => Self::Id,
            other => Self::Other(other),
        }
    }

    /// The bytes that are loaded or set in a table of this family. One that is not known may have up to 16.
    #[must_use]
    pub fn length(self, family: Family) -> u8 {
        match self {
            Self::Direction | Self::L3Proto | Self::Protocol => 1,
            Self::ProtoSrc | Self::ProtoDst | Self::Zone => 2,
            Self::State
            | Self::Status
            | Self::Mark
            | Self::SecMark
            | Self::Expiration
            | Self::EventMask
            | Self::SaddrIp
            | Self::DaddrIp
            | Self::Id => 4,
            Self::Packets | Self::Bytes | Self::AvgPkt => 8,
            Self::Saddr | Self::Daddr if family == Family::Ip => 4,
            Self::Saddr
            | Self::Daddr
            | Self::SaddrIp6
            | Self::DaddrIp6
            | Self::Helper
            | Self::Labels
            | Self::Other(_) => NAME,
        }
    }
}
