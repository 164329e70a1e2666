//! The PROXY protocol header, versions 1 and 2, that a balancer sends before the TLS handshake.
//!
//! The framing is `ppp`'s; the limit, and what counts as a probe, are ours.

use std::net::{IpAddr, SocketAddr};

use ppp::{HeaderResult, v1, v2};

/// No header that we accept has more bytes: v1 has at most 107 bytes, v2 with room for a balancer's TLVs.
pub const LIMIT: usize = 536;

/// What the bytes so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial,
    /// A client's connection: where it really comes from, and how many bytes the header takes.
    Source(SocketAddr, usize),
    /// `LOCAL` or `UNKNOWN`: the balancer itself, probing; and how many bytes the header takes.
    Probe(usize),
}

/// Why the bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes begin like no header of either version.
    #[error(
        "no PROXY protocol header came, though the address is a balancer's: switch it on there, or take the address out of balancer.networks"
    )]
    Missing,
    /// It began like one and went on wrong.
    #[error("the PROXY protocol header is malformed")]
    Malformed,
    /// It does not end within its limit.
    #[error("the PROXY protocol header is longer than {LIMIT} bytes")]
    TooLong,
}

/// Reads a header from the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Parsed, HeaderError> {
    let begins = |prefix: &[u8]| {
        let n = prefix.len().min(bytes.len());
        bytes[..n] == prefix[..n]
    };
    let length = if begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        v1_length(bytes)?
    } else if begins(v2::PROTOCOL_PREFIX) {
        v2_length(bytes)?
    } else {
        return Err(HeaderError::Missing);
    };
    let Some(length) = length else { return Ok(Parsed::Partial) };
    match HeaderResult::parse(&bytes[..length]) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(a) => source(a.source_address.into(), a.source_port, length),
            v1::Addresses::Tcp6(a) => source(a.source_address.into(), a.source_port, length),
            v1::Addresses::Unknown => Parsed::Probe(length),
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, header.addresses) {
            (v2::Command::Proxy, v2::Addresses::IPv4(a)) => {
                source(a.source_address.into(), a.source_port, length)
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(a)) => {
                source(a.source_address.into(), a.source_port, length)
            }
            _ => Parsed::Probe(length),
        }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(HeaderError::Malformed),
    }
}

/// A text line of at most 107 bytes, CR LF included.
fn v1_length(bytes: &[u8]) -> Result<Option<usize>, HeaderError> {
    const MAX_V1_BYTES: usize = 107;
    let window = &bytes[..bytes.len().min(MAX_V1_BYTES)];
    match window.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => Ok(Some(at + 2)),
        None if bytes.len() >= MAX_V1_BYTES => Err(HeaderError::TooLong),
        None => Ok(None),
    }
}

/// Sixteen bytes, the last two of which say how many follow.
fn v2_length(bytes: &[u8]) -> Result<Option<usize>, HeaderError> {
    const V2_FIXED_BYTES: usize = 16;
    let (Some(high), Some(low)) = (bytes.get(14), bytes.get(15)) else { return Ok(None) };
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([*high, *low]));
    if length > LIMIT {
        return Err(HeaderError::TooLong);
    }
    Ok((bytes.len() >= length).then_some(length))
}

fn source(address: IpAddr, port: u16, length: usize) -> Parsed {
    Parsed::Source(SocketAddr::new(address.to_canonical(), port), length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n";

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = v2::PROTOCOL_PREFIX.to_vec();
        bytes.extend([0x20 | command, family]);
        bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn both_versions_tell_the_real_source() {
        let source = "203.0.113.7:4242".parse().unwrap();
        assert_eq!(parse(V1), Ok(Parsed::Source(source, V1.len())));
        let header = v2(1, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0x92, 0x44, 0x4e]);
        assert_eq!(parse(&header), Ok(Parsed::Source(source, header.len())));
    }

    #[test]
    fn every_cut_of_a_header_asks_for_more() {
        let header = v2(1, 0x11, &[203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0x92, 0x44, 0x4e]);
        for whole in [V1, &header] {
            for n in 0..whole.len() {
                assert_eq!(parse(&whole[..n]), Ok(Parsed::Partial), "{n} bytes");
            }
        }
    }

    #[test]
    fn bytes_after_the_header_are_left_alone() {
        let mut bytes = V1.to_vec();
        bytes.extend(b"\x16\x03\x01");
        assert!(matches!(parse(&bytes), Ok(Parsed::Source(_, n)) if n == V1.len()));
    }

    #[test]
    fn local_and_unknown_are_probes() {
        assert!(matches!(parse(&v2(0, 0, &[])), Ok(Parsed::Probe(16))));
        assert!(matches!(parse(b"PROXY UNKNOWN\r\n"), Ok(Parsed::Probe(15))));
    }

    #[test]
    fn garbage_and_endless_headers_are_refused() {
        assert_eq!(parse(b"\x16\x03\x01"), Err(HeaderError::Missing));
        assert_eq!(parse(b"PROXY TCP4 nonsense\r\n"), Err(HeaderError::Malformed));
        assert!(parse(&[b"PROXY TCP4 ".as_slice(), &[b'1'; 2000]].concat()).is_err());
        assert_eq!(parse(&v2(1, 0x11, &[0; 4000])), Err(HeaderError::TooLong));
    }
}
