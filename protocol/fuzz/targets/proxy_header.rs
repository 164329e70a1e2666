//! The PROXY protocol header: every strict prefix of an accepted one asks for more, what follows it is left
//! alone, and the source is the one that a plain reading finds.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use libfuzzer_sys::fuzz_target;
use zone_protocol::proxy_header::{HeaderError, LIMIT, Parsed, parse};

/// "PROXY protocol" version 1 ends within this.
const LONGEST_TEXT: usize = 107;

fuzz_target!(|data: &[u8]| {
    match parse(data) {
        Ok(Parsed::Partial) => {
            assert!(data.len() < LIMIT, "an endless header is cut");
            every_cut_asks_for_more(data);
        }
        Ok(Parsed::Source(source, length)) => {
            accepted(data, length);
            assert_eq!(plain_source(&data[..length]), Some(source));
        }
        Ok(Parsed::Probe(length)) => accepted(data, length),
        Err(HeaderError::Missing) => {
            assert_eq!(parse(&data[..data.len().min(12)]), Err(HeaderError::Missing), "known at the start");
        }
        Err(error) => {
            let more = [data, b"\r\n"].concat();
            assert_eq!(parse(&more), Err(error), "more bytes don't mend it");
        }
    }
});

fn accepted(data: &[u8], length: usize) {
    assert!(length <= data.len() && length <= LIMIT);
    assert!(data[0] != b'P' || length <= LONGEST_TEXT);
    assert_eq!(parse(&data[..length]), parse(data), "what follows changes nothing");
    every_cut_asks_for_more(&data[..length]);
}

fn every_cut_asks_for_more(data: &[u8]) {
    for cut in 0..data.len() {
        assert_eq!(parse(&data[..cut]), Ok(Parsed::Partial), "at {cut}");
    }
}

/// The source by the letter of the specification, without its library.
fn plain_source(header: &[u8]) -> Option<SocketAddr> {
    let (address, port): (IpAddr, u16) = if header[0] == b'P' {
        let line = std::str::from_utf8(header).ok()?.strip_suffix("\r\n")?;
        let [_, _, source, _, port, _] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
        (source.parse().ok()?, port.parse().ok()?)
    } else {
        assert_eq!(header[12], 0x21, "only PROXY has a source");
        let body = &header[16..];
        let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
        match header[13] >> 4 {
            1 => (Ipv4Addr::from(*body.first_chunk::<4>()?).into(), port(8)?),
            2 => (Ipv6Addr::from(*body.first_chunk::<16>()?).into(), port(32)?),
            _ => return None,
        }
    };
    Some(SocketAddr::new(address.to_canonical(), port))
}
