//! TCP servers for services to lead to, each with one habit that tells whether an end arrived as what it was.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

/// Sends back everything as it comes, up to the end of what comes.
pub fn echo() -> SocketAddr {
    serve(|stream| {
        let mut reader = stream.try_clone()?;
        std::io::copy(&mut reader, &mut &stream)?;
        stream.shutdown(Shutdown::Write)
    })
}

/// Sends back everything, and nothing before what comes has ended.
pub fn echo_after_the_end() -> SocketAddr {
    serve(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(&all)?;
        stream.shutdown(Shutdown::Write)
    })
}

/// Sends `words`, ends, and goes on reading: what came then, whole, comes out of the receiver.
pub fn ends_first(words: Vec<u8>) -> (SocketAddr, Receiver<Vec<u8>>) {
    let (heard, hears) = channel();
    let address = serve(move |mut stream| {
        stream.write_all(&words)?;
        stream.shutdown(Shutdown::Write)?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        // A test that has ended wants to hear nothing more.
        let _ = heard.send(all);
        Ok(())
    });
    (address, hears)
}

/// Reads nothing and says nothing, for as long as the test runs.
pub fn stalls() -> SocketAddr {
    serve(|_held| {
        loop {
            thread::park();
        }
    })
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("bound")
}

/// Talks with each connection in a thread of its own. A connection that fails is the test's to notice.
fn serve(talk: impl Fn(TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("bound");
    let talk = Arc::new(talk);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let talk = Arc::clone(&talk);
            thread::spawn(move || talk(stream));
        }
    });
    address
}
