//! The little of netfilter's netlink that the oracle asks for itself, so that what it holds against the reader of `zone-ruleset`
//! does not come through that reader: elements of a set, a counter, traces; and the end of all connections.

use netlink_sys::{Socket, SocketAddr, constants::NETLINK_NETFILTER};

use crate::error::{Context, Error, Result};

const NFTABLES: u16 = 10;
const CONNTRACK: u16 = 1;
const GET_SET_ELEMENTS: u16 = NFTABLES << 8 | 0x0d;
const TRACE: u16 = NFTABLES << 8 | 0x11;
const GET_OBJECT: u16 = NFTABLES << 8 | 0x13;
const DELETE_CONNECTIONS: u16 = CONNTRACK << 8 | 2;
/// `NFNLGRP_NFTRACE`
const TRACE_GROUP: u32 = 9;
const NETLINK_HEADER: usize = 16;
/// netlink's header and `struct nfgenmsg`.
const HEADER: usize = 20;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
const INET: u8 = 1;
/// Enough for the traces of as many packets as are sent at once.
const RECEIVE_BUFFER: usize = 64 << 20;

/// A socket of netfilter's netlink.
pub(crate) struct Netfilter {
    socket: Socket,
    sequence: u32,
}

impl Netfilter {
    /// In the network namespace of this thread.
    pub(crate) fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER).during(|| "can't open netlink".to_owned())?;
        socket.bind_auto().during(|| "can't bind netlink".to_owned())?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The keys of all elements of a set of a table of family inet.
    pub(crate) fn elements(&mut self, table: &str, set: &str) -> Result<Vec<Vec<u8>>> {
        let mut body = Vec::new();
        put(&mut body, 1, &terminated(table));
        put(&mut body, 2, &terminated(set));
        let mut keys = Vec::new();
        for message in self.ask(GET_SET_ELEMENTS, DUMP, &body)? {
            let list = Attributes(message.get(HEADER..).unwrap_or_default());
            for (_, element) in list.get(3).into_iter().flat_map(Attributes) {
                let key = Attributes(element).get(1).and_then(|key| Attributes(key).get(1));
                keys.push(key.ok_or_else(|| Error::Netlink("an element without a key".to_owned()))?.to_vec());
            }
        }
        Ok(keys)
    }

    /// The packets that a counter of a table of family inet has counted.
    pub(crate) fn counted(&mut self, table: &str, counter: &str) -> Result<u64> {
        let mut body = Vec::new();
        put(&mut body, 1, &terminated(table));
        put(&mut body, 2, &terminated(counter));
        put(&mut body, 3, &1_u32.to_be_bytes());
        let messages = self.ask(GET_OBJECT, ACK, &body)?;
        let packets = messages.iter().find_map(|message| {
            let data = Attributes(message.get(HEADER..)?).get(4)?;
            Some(u64::from_be_bytes(Attributes(data).get(2)?.try_into().ok()?))
        });
        packets.ok_or_else(|| Error::Netlink(format!("no counter {counter}")))
    }

    /// Forgets all connections, so that ports may be used again.
    pub(crate) fn forget_connections(&mut self) -> Result<()> {
        self.ask(DELETE_CONNECTIONS, ACK, &[]).map(drop)
    }

    /// Sends a request and reads all of the answer.
    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.sequence += 1;
        let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
        let mut request = Vec::new();
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((REQUEST | flags).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        request.extend(0_u32.to_ne_bytes());
        request.extend([INET, 0, 0, 0]);
        request.extend(body);
        self.socket
            .send_to(&request, &SocketAddr::new(0, 0), 0)
            .during(|| "can't send to netlink".to_owned())?;
        let mut answer = Vec::new();
        loop {
            let (datagram, _) =
                self.socket.recv_from_full().during(|| "can't receive from netlink".to_owned())?;
            for message in messages(&datagram) {
                match u16::from_ne_bytes([message[4], message[5]]) {
                    DONE => return Ok(answer),
                    ERROR => {
                        let number = message.get(NETLINK_HEADER..NETLINK_HEADER + 4);
                        let number =
                            number.and_then(|bytes| bytes.try_into().ok()).map_or(0, i32::from_ne_bytes);
                        return if number == 0 {
                            Ok(answer)
                        } else {
                            Err(Error::Netlink(std::io::Error::from_raw_os_error(-number).to_string()))
                        };
                    }
                    _ => answer.push(message.to_vec()),
                }
            }
        }
    }
}

/// What the kernel says of packets that are traced.
pub(crate) struct Traces {
    socket: Socket,
}

/// One step of a traced packet.
#[derive(Debug, Clone)]
pub(crate) struct Traced {
    /// The packet, as the kernel numbers it.
    pub(crate) packet: u32,
    /// `NFPROTO_*` of the table.
    pub(crate) family: u8,
    pub(crate) table: Vec<u8>,
    pub(crate) chain: Vec<u8>,
    /// `None` where a chain's policy speaks.
    pub(crate) handle: Option<u64>,
    /// The verdict's code, or the policy: 0 drop, 1 accept, negative for jumps and the like.
    pub(crate) verdict: i32,
    /// The packet's network header, which comes with its first step in each chain of a hook.
    pub(crate) network: Option<Vec<u8>>,
    /// The packet's transport header, likewise.
    pub(crate) transport: Option<Vec<u8>>,
}

impl Traces {
    /// In the network namespace of this thread.
    pub(crate) fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER).during(|| "can't open netlink".to_owned())?;
        socket.bind_auto().during(|| "can't bind netlink".to_owned())?;
        socket.set_rx_buf_sz(RECEIVE_BUFFER).during(|| "can't set a receive buffer".to_owned())?;
        socket.add_membership(TRACE_GROUP).during(|| "can't subscribe to traces".to_owned())?;
        socket.set_non_blocking(true).during(|| "can't make netlink non-blocking".to_owned())?;
        Ok(Self { socket })
    }

    /// What has come so far.
    pub(crate) fn drain(&mut self) -> Result<Vec<Traced>> {
        let mut out = Vec::new();
        loop {
            match self.socket.recv_from_full() {
                Ok((datagram, _)) => out.extend(messages(&datagram).filter_map(traced)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(out),
                Err(source) => return Err(Error::System { what: "can't receive traces".to_owned(), source }),
            }
        }
    }
}

fn traced(message: &[u8]) -> Option<Traced> {
    if u16::from_ne_bytes([message[4], message[5]]) != TRACE {
        return None;
    }
    let attributes = Attributes(message.get(HEADER..)?);
    let number = |bytes: &[u8]| Some(i32::from_be_bytes(bytes.try_into().ok()?));
    let name = |kind| Some(attributes.get(kind)?.split(|byte| *byte == 0).next()?.to_vec());
    let handle = attributes.get(3).and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)));
    let code = attributes.get(5).and_then(|verdict| Attributes(verdict).get(1)).and_then(number);
    let policy = attributes.get(16).and_then(number);
    Some(Traced {
        packet: attributes.get(6).and_then(number)?.cast_unsigned(),
        family: message[NETLINK_HEADER],
        table: name(1)?,
        chain: name(2)?,
        handle,
        verdict: code.or(policy)?,
        network: attributes.get(8).map(<[u8]>::to_vec),
        transport: attributes.get(9).map(<[u8]>::to_vec),
    })
}

/// The messages of a datagram, each with its header.
fn messages(datagram: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let message = rest.get(..length).filter(|_| length >= NETLINK_HEADER)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Attributes, each with its number (without the flags of nesting and byte order).
#[derive(Clone)]
struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    fn get(&self, wanted: u16) -> Option<&'a [u8]> {
        self.clone().find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

fn put(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

fn terminated(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}
