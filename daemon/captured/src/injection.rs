//! Code execution in a running process, played by ptrace(2): one of its threads makes the system calls that are asked for,
//! and the others stand still, as whoever has taken a process over would see to.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc::user_regs_struct;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// For a call to come back.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How far below the stack pointer there is room for arguments.
const ROOM_BYTES: u64 = 4096;
/// What marks the number of a call of the x32 ABI.
const X32: u64 = 0x4000_0000;

/// Why a call came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The kernel ended the process for it.
    Killed,
    /// The kernel refused it.
    Refused(Errno),
}

/// What a call returned.
pub type Called = Result<u64, Stopped>;

/// By which door a call enters the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// `syscall`.
    Native,
    /// `syscall`, with the number of the x32 ABI.
    X32,
    /// `int 0x80`, with the numbers of i386.
    Int80,
}

/// A thread that does as it is told. Dropped, it goes on with what it was doing, and so do the others.
pub struct Injection {
    process: Pid,
    thread: Pid,
    others: Vec<Pid>,
    saved: user_regs_struct,
    memory: File,
    syscall: u64,
    int80: u64,
    room: u64,
    used: u64,
    is_there: bool,
}

impl Injection {
    /// Stops all of these threads of this process; the one at `turn`, counted round, will make calls.
    pub fn new(process: Pid, mut threads: Vec<Pid>, turn: usize) -> Self {
        for thread in &threads {
            ptrace::attach(*thread).expect("root may attach");
            wait(*thread, &[]).expect("it is there");
        }
        let thread = threads.swap_remove(turn % threads.len());
        let saved = ptrace::getregs(thread).expect("it is stopped");
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{process}/mem"));
        let memory = memory.expect("its memory");
        let code = code(process, &memory);
        let find = |bytes: [u8; 2]| {
            let place = |(start, code): &(u64, Vec<u8>)| {
                let at = code.windows(2).position(|window| window == bytes)?;
                Some(start + at as u64)
            };
            code.iter().find_map(place).expect("any library has these two bytes somewhere")
        };
        Self {
            process,
            thread,
            others: threads,
            saved,
            memory,
            syscall: find([0x0f, 0x05]),
            int80: find([0xcd, 0x80]),
            room: (saved.rsp - ROOM_BYTES) & !0xff,
            used: 0,
            is_there: true,
        }
    }

    /// Puts bytes into its memory, and returns where they are.
    pub fn put(&mut self, bytes: &[u8]) -> u64 {
        let place = self.room + self.used;
        self.used += (bytes.len() as u64).next_multiple_of(16);
        assert!(self.used < ROOM_BYTES - 512, "more than there is room for");
        self.memory.write_all_at(bytes, place).expect("its stack can be written");
        place
    }

    /// The `int` at a place in its memory.
    pub fn number(&self, place: u64) -> u64 {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, place).expect("its stack can be read");
        u64::from(u32::from_ne_bytes(bytes))
    }

    /// A path or name, as C has it.
    pub fn text(&mut self, text: &str) -> u64 {
        self.put(&[text.as_bytes(), b"\0"].concat())
    }

    /// Has it make a call. Arguments that are not given are 0.
    pub fn call(&mut self, number: i64, arguments: &[u64]) -> Called {
        self.enter(Entry::Native, number, arguments)
    }

    /// The same, by any door.
    pub fn enter(&mut self, entry: Entry, number: i64, arguments: &[u64]) -> Called {
        assert!(self.is_there, "a process that was killed makes no calls");
        let argument = |at: usize| arguments.get(at).copied().unwrap_or_default();
        let number = number.cast_unsigned();
        let mut registers = self.saved;
        registers.orig_rax = u64::MAX;
        registers.rax = if entry == Entry::X32 { number | X32 } else { number };
        registers.rip = if entry == Entry::Int80 { self.int80 } else { self.syscall };
        if entry == Entry::Int80 {
            (registers.rbx, registers.rcx) = (argument(0), argument(1));
            (registers.rdx, registers.rsi) = (argument(2), argument(3));
        } else {
            (registers.rdi, registers.rsi, registers.rdx) = (argument(0), argument(1), argument(2));
            (registers.r10, registers.r8, registers.r9) = (argument(3), argument(4), argument(5));
        }
        // A child of such a call returns to address 0, and that is its end.
        registers.rsp = self.put(&[0; 16]);
        ptrace::setregs(self.thread, registers).expect("it is stopped");
        ptrace::step(self.thread, None).expect("it is stopped");
        match wait(self.thread, &self.others) {
            Some(
                WaitStatus::Stopped(_, Signal::SIGSYS) | WaitStatus::Signaled(..) | WaitStatus::Exited(..),
            ) => {
                self.is_there = false;
                Err(Stopped::Killed)
            }
            // A thread that executes a program becomes the first one of the process.
            None => {
                self.is_there = false;
                Ok(0)
            }
            Some(_) => returned(ptrace::getregs(self.thread).expect("it is stopped").rax),
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let threads = self.others.iter().chain([&self.thread]);
        if self.is_there {
            // It may be another program by now, or be gone.
            let _ = ptrace::setregs(self.thread, self.saved);
            for thread in threads {
                let _ = ptrace::detach(*thread, None);
            }
            return;
        }
        // It may have lost this thread alone, or be another program by now.
        let _ = kill(self.process, Signal::SIGKILL);
        // Whoever started it waits in vain until its tracer has waited for each thread.
        let mut left: Vec<_> = threads.copied().collect();
        let deadline = Instant::now() + CALL_TIMEOUT;
        while !left.is_empty() && Instant::now() < deadline {
            left.retain(|thread| waitpid(*thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)).is_ok());
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

fn returned(value: u64) -> Called {
    match value.cast_signed() {
        error @ -4095..0 => Err(Stopped::Refused(Errno::from_raw(i32::try_from(-error).expect("small")))),
        _ => Ok(value),
    }
}

/// The executable mappings of a process, with where each starts.
fn code(process: Pid, memory: &File) -> Vec<(u64, Vec<u8>)> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("its mappings");
    let executable = maps.lines().filter(|line| line.contains("r-xp") && line.contains(".so"));
    let read = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut code = vec![0; usize::try_from(end - start).ok()?];
        memory.read_exact_at(&mut code, start).ok()?;
        Some((start, code))
    };
    executable.filter_map(read).collect()
}

/// Waits for a thread to stop or end; `None` where there is no such thread any more. A process has ended when the end of
/// each of its threads was waited for.
fn wait(thread: Pid, others: &[Pid]) -> Option<WaitStatus> {
    let deadline = Instant::now() + CALL_TIMEOUT;
    loop {
        for other in others {
            let _ = waitpid(*other, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG));
        }
        match waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
            // A filter of somebody else's may end the one thread. The end of a process' first one is not told before the others'.
            Ok(WaitStatus::StillAlive) if is_dead(thread) => {
                return Some(WaitStatus::Signaled(thread, Signal::SIGSYS, false));
            }
            Ok(WaitStatus::StillAlive) => {
                assert!(Instant::now() < deadline, "thread {thread} does not come back from a call");
                std::thread::sleep(Duration::from_micros(200));
            }
            Ok(status) => return Some(status),
            Err(Errno::ECHILD) => return None,
            Err(error) => panic!("thread {thread}: {error}"),
        }
    }
}

fn is_dead(thread: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{thread}/status")).is_ok_and(|status| status.contains("State:\tZ"))
}
