//! A program that runs beside the test, with everything that it says.

use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::until;

/// For the pipe of a program that has ended to be read to its end.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    said: Arc<Mutex<String>>,
    collectors: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts a program; what it writes to both outputs is collected.
    pub fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let said = Arc::new(Mutex::new(String::new()));
        let out = collect(child.stdout.take(), &said);
        let err = collect(child.stderr.take(), &said);
        Self { name, child, said, collectors: [out, err].into_iter().flatten().collect() }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("nobody panics while collecting").clone()
    }

    /// Waits for words.
    pub fn says(&self, words: &str) {
        until(&format!("{} says '{words}':\n{}", self.name, self.said()), || self.said().contains(words));
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the process is there");
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// Waits for its end.
    pub fn ends(&mut self) -> ExitStatus {
        until(&format!("{} ends:\n{}", self.name, self.said()), || !self.runs());
        // Its last words are read, unless a process that it started still holds the pipe.
        let read = || self.collectors.iter().all(JoinHandle::is_finished);
        let deadline = Instant::now() + OUTPUT_TIMEOUT;
        while !read() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.child.wait().expect("our child")
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.said());
        }
    }
}

/// Runs a program to its end, with this on its standard input.
pub fn run(command: &mut Command, input: &[u8]) -> Output {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        // A program that ends without reading is a result, not an error.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("our child");
    writer.join().expect("writing does not panic");
    output
}

/// Standard output of a program that must succeed.
pub fn succeed(command: &mut Command, input: &[u8]) -> String {
    let output = run(command, input);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Both outputs of a program that must fail.
pub fn fail(command: &mut Command, input: &[u8]) -> String {
    let output = run(command, input);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{command:?} succeeded:\n{out}\n{err}");
    format!("{out}{err}")
}

fn collect(stream: Option<impl Read + Send + 'static>, said: &Arc<Mutex<String>>) -> Option<JoinHandle<()>> {
    let (mut stream, said) = (stream?, Arc::clone(said));
    Some(std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = stream.read(&mut chunk) {
            said.lock()
                .expect("nobody panics while collecting")
                .push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    }))
}
