//! A session as the program on the inside has it: standard input, standard output, and how they end.

use std::io::{Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use crate::until;
use crate::zone::Zone;

/// A running program that joins its standard streams to a service. Dropped, it is killed.
#[derive(Debug)]
pub struct Session {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Mutex<Stream>>,
    errors: Arc<Mutex<Stream>>,
}

#[derive(Debug, Default)]
struct Stream {
    bytes: Vec<u8>,
    ended: bool,
}

impl Session {
    /// `zone-module connect`, with TLS end to end.
    pub fn connect(zone: &Zone, target: &str) -> Self {
        Self::start(&mut zone.cli(&["connect", target]))
    }

    /// Any program that does so.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let input = child.stdin.take();
        let (output, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
        Self { child, input, output, errors }
    }

    /// Writes to its standard input.
    pub fn send(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().expect("not ended");
        input.write_all(bytes).unwrap_or_else(|error| panic!("{error}: {}", said(&self.errors)));
    }

    /// Writes more than it may ever take, for as long as it takes it, and ends its standard input then.
    pub fn sends_in_the_background(&mut self, bytes: Vec<u8>) {
        let mut input = self.input.take().expect("not ended");
        // It fails when the program ends, as it should.
        thread::spawn(move || input.write_all(&bytes));
    }

    /// Ends its standard input.
    pub fn end(&mut self) {
        self.input = None;
    }

    /// Waits for as many bytes as these, and that they are these.
    pub fn receives(&self, expected: &[u8]) {
        until(&format!("{} bytes come: {}", expected.len(), said(&self.errors)), || {
            let output = locked(&self.output);
            output.bytes.len() >= expected.len() || output.ended
        });
        let mut output = locked(&self.output);
        let length = output.bytes.len().min(expected.len());
        let bytes: Vec<_> = output.bytes.drain(..length).collect();
        assert!(
            bytes == expected,
            "{length} of {} bytes came, or others: {}",
            expected.len(),
            said(&self.errors)
        );
    }

    /// Sends bytes to a service that sends them back, and waits for them.
    pub fn exchanges(&mut self, bytes: &[u8]) {
        self.send(bytes);
        self.receives(bytes);
    }

    /// Waits for the end of its standard output, and returns what came and was not asked for yet.
    pub fn rest(&self) -> Vec<u8> {
        until(&format!("standard output ends: {}", said(&self.errors)), || locked(&self.output).ended);
        std::mem::take(&mut locked(&self.output).bytes)
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits for its end: how it went, and what it said about it.
    pub fn ends(&mut self) -> (ExitStatus, String) {
        until(&format!("the session ends: {}", said(&self.errors)), || !self.runs());
        until("standard error ends", || locked(&self.errors).ended);
        (self.child.wait().expect("our child"), said(&self.errors))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that no program could make up.
pub fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut source = std::fs::File::open("/dev/urandom").expect("randomness");
    source.read_exact(&mut bytes).expect("randomness");
    bytes
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Arc<Mutex<Stream>> {
    let into = Arc::new(Mutex::new(Stream::default()));
    let mut from = stream.expect("a pipe");
    let shared = Arc::clone(&into);
    thread::spawn(move || {
        let mut chunk = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            locked(&shared).bytes.extend_from_slice(&chunk[..n]);
        }
        locked(&shared).ended = true;
    });
    into
}

fn locked(stream: &Mutex<Stream>) -> MutexGuard<'_, Stream> {
    stream.lock().expect("nobody panics while collecting")
}

fn said(stream: &Mutex<Stream>) -> String {
    String::from_utf8_lossy(&locked(stream).bytes).into_owned()
}
