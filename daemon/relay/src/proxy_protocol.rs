//! The PROXY protocol: the header of a balancer's connection, read from the bare socket before TLS begins.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use zone_protocol::proxy_header::{HeaderError, LIMIT, Parsed, parse};

use crate::rules::{Port, Rules};

/// What a balancer's connection began with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyHeader {
    /// A client's connection, and where it really comes from.
    Source(SocketAddr),
    /// The balancer looking whether we are there.
    Probe,
}

/// Why there was no header.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyProtocolError {
    /// Something else came.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// It began, and not all of it came in time.
    #[error("the PROXY protocol header did not come within the deadline")]
    TooSlow,
    /// The connection failed.
    #[error("while reading the PROXY protocol header: {0}")]
    Io(#[from] io::Error),
}

/// Whether a connection from this address must begin with a header: one of a balancer to the endpoint port must, and
/// nobody else may. Only balancers are believed when they say where a connection comes from.
pub(crate) fn is_due(rules: &Rules, port: Port, from: IpAddr) -> bool {
    port == Port::Endpoint && rules.is_balancer(from)
}

/// Reads the header and not one byte more: the next belongs to TLS.
///
/// A connection that closes, is reset, or reaches the deadline before its first byte is a probe.
pub(crate) async fn read(
    stream: &mut TcpStream,
    deadline: Instant,
) -> Result<ProxyHeader, ProxyProtocolError> {
    let mut have = 0;
    match timeout_at(deadline, read_exactly(stream, &mut have)).await {
        Ok(read) => read,
        Err(_) if have == 0 => Ok(ProxyHeader::Probe),
        Err(_) => Err(ProxyProtocolError::TooSlow),
    }
}

/// `have` says how much has come, whenever this is given up.
async fn read_exactly(stream: &mut TcpStream, have: &mut usize) -> Result<ProxyHeader, ProxyProtocolError> {
    let mut bytes = [0; LIMIT];
    loop {
        let end = (*have + wanted(&bytes[..*have])).min(LIMIT);
        let read = match stream.read(&mut bytes[*have..end]).await {
            Err(error) if *have == 0 && error.kind() == io::ErrorKind::ConnectionReset => 0,
            read => read?,
        };
        if read == 0 {
            return if *have == 0 { Ok(ProxyHeader::Probe) } else { Err(HeaderError::Malformed.into()) };
        }
        *have += read;
        match parse(&bytes[..*have])? {
            Parsed::Partial => {}
            Parsed::Source(address, _) => return Ok(ProxyHeader::Source(address)),
            Parsed::Probe(_) => return Ok(ProxyHeader::Probe),
        }
    }
}

/// What a connection from anybody but a balancer begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Something that TLS is to judge.
    Bytes,
    /// A PROXY protocol header, which only balancers may send.
    Header,
    /// Its end: whoever it is only looked whether we are there, as balancers without the PROXY protocol do.
    Probe,
}

/// Looks at the first bytes and leaves them where they are. Waits without a bound.
pub(crate) async fn peek(stream: &TcpStream) -> Opening {
    let mut first = [0; 6];
    match stream.peek(&mut first).await {
        Ok(0) => Opening::Probe,
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Opening::Probe,
        // No TLS record begins so: its first byte is its content type.
        Ok(read) if b"PROXY ".starts_with(&first[..read]) || b"\r\n\r\n\0\r".starts_with(&first[..read]) => {
            Opening::Header
        }
        Ok(_) | Err(_) => Opening::Bytes,
    }
}

/// How many bytes can be read without running past the header's end: no header has fewer than 15, a version 2
/// header tells its length in bytes 15 and 16, a version 1 header ends where its line ends.
fn wanted(have: &[u8]) -> usize {
    const SHORTEST: usize = 15;
    const FIXED: usize = 16;
    match have {
        [b'P', ..] if have.len() >= SHORTEST => 1,
        [b'\r', ..] if have.len() >= SHORTEST => match have.get(14..FIXED) {
            Some(&[high, low]) => {
                (FIXED + usize::from(u16::from_be_bytes([high, low]))).saturating_sub(have.len()).max(1)
            }
            _ => 1,
        },
        _ => SHORTEST - have.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn in_time() -> Instant {
        Instant::now() + Duration::from_secs(5)
    }

    async fn after(sent: &[u8]) -> (Result<ProxyHeader, ProxyProtocolError>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let proxy_protocol = read(&mut server, in_time()).await;
        let mut rest = Vec::new();
        let _ = server.read_to_end(&mut rest).await;
        (proxy_protocol, rest)
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left_to_tls() {
        let source = ProxyHeader::Source("203.0.113.7:4242".parse().unwrap());
        let (proxy_protocol, rest) = after(b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\nHELLO").await;
        assert_eq!((proxy_protocol.unwrap(), rest.as_slice()), (source, b"HELLO".as_slice()));
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        v2.extend([203, 0, 113, 7, 192, 0, 2, 1, 0x10, 0x92, 0x44, 0x4e]);
        v2.extend(b"HELLO");
        let (proxy_protocol, rest) = after(&v2).await;
        assert_eq!((proxy_protocol.unwrap(), rest.as_slice()), (source, b"HELLO".as_slice()));
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_a_probe() {
        assert_eq!(after(b"").await.0.unwrap(), ProxyHeader::Probe);
        assert_eq!(after(b"PROXY UNKNOWN\r\n").await.0.unwrap(), ProxyHeader::Probe);
    }

    #[tokio::test]
    async fn a_connection_that_stays_silent_is_a_probe_and_one_that_stops_in_its_header_is_too_slow() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let soon = Duration::from_millis(50);
        assert_eq!(read(&mut server, Instant::now() + soon).await.unwrap(), ProxyHeader::Probe);
        client.write_all(b"PROXY T").await.unwrap();
        assert!(matches!(read(&mut server, Instant::now() + soon).await, Err(ProxyProtocolError::TooSlow)));
    }

    #[tokio::test]
    async fn a_connection_that_is_reset_before_its_first_byte_is_a_probe() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        client.set_zero_linger().unwrap();
        drop(client);
        assert_eq!(read(&mut server, in_time()).await.unwrap(), ProxyHeader::Probe);
    }

    #[tokio::test]
    async fn a_header_from_anybody_is_told_from_tls_and_from_an_end() {
        async fn opening(sent: &[u8]) -> Opening {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (server, _) = listener.accept().await.unwrap();
            client.write_all(sent).await.unwrap();
            client.shutdown().await.unwrap();
            peek(&server).await
        }
        assert_eq!(opening(b"PROXY TCP4 203.0.113.7 192.0.2.1 4242 17486\r\n").await, Opening::Header);
        assert_eq!(opening(b"\r\n\r\n\0\r\nQUIT\n").await, Opening::Header);
        assert_eq!(opening(b"\x16\x03\x01").await, Opening::Bytes);
        assert_eq!(opening(b"GET / HTTP/1.1\r\n").await, Opening::Bytes);
        assert_eq!(opening(b"").await, Opening::Probe);
    }

    #[tokio::test]
    async fn tls_without_a_header_is_refused() {
        assert!(matches!(after(b"\x16\x03\x01\x00\x05abcde").await.0, Err(ProxyProtocolError::Header(_))));
    }
}
