//! What is tried with the rest of the system: files, programs, processes and the kernel.

use nix::libc;

use crate::attempts::{Attempt, HERE, Right};
use crate::injection::Entry;

const PTRACE_SEIZE: u64 = 0x4206;

/// Files and programs.
pub const FILES_AND_PROGRAMS: &[Attempt] = &[
    Attempt {
        name: "openat(file, O_RDONLY)",
        right: Right::Eperm,
        make: |c| {
            let path = c.path("file");
            c.open(path, libc::O_RDONLY)
        },
    },
    Attempt {
        name: "openat(file, O_WRONLY), write",
        right: Right::Eperm,
        make: |c| {
            let path = c.path("file");
            let file = c.open(path, libc::O_WRONLY)?;
            c.say(file)
        },
    },
    Attempt {
        name: "openat(/, O_PATH)",
        right: Right::Eperm,
        make: |c| {
            let path = c.injection.text("/");
            c.open(path, libc::O_PATH)
        },
    },
    Attempt {
        name: "open(file)",
        right: Right::Eperm,
        make: |c| {
            let path = c.path("file");
            c.call(libc::SYS_open, &[path, 0])
        },
    },
    Attempt {
        name: "creat(file)",
        right: Right::Eperm,
        make: |c| {
            let path = c.path("file");
            c.call(libc::SYS_creat, &[path, 0])
        },
    },
    Attempt {
        name: "openat2(file)",
        right: Right::Eperm,
        make: |c| {
            let path = c.path("file");
            let how = c.injection.put(&[0; 24]);
            c.call(libc::SYS_openat2, &[HERE, path, how, 24])
        },
    },
    Attempt {
        name: "open_by_handle_at",
        right: Right::Killed,
        make: |c| {
            let handle = c.injection.put(&[8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            c.call(libc::SYS_open_by_handle_at, &[HERE, handle, 0])
        },
    },
    Attempt {
        name: "unlink(file)",
        right: Right::Eperm,
        make: |c| {
            let path = c.path("file");
            c.call(libc::SYS_unlink, &[path])
        },
    },
    Attempt {
        name: "truncate(file)",
        right: Right::Eperm,
        make: |c| {
            let path = c.path("file");
            c.call(libc::SYS_truncate, &[path, 0])
        },
    },
    Attempt {
        name: "execve(/bin/true)",
        right: Right::Killed,
        make: |c| {
            let path = c.injection.text("/bin/true");
            c.call(libc::SYS_execve, &[path, 0, 0])
        },
    },
    Attempt {
        name: "execveat(/bin/true)",
        right: Right::Killed,
        make: |c| {
            let path = c.injection.text("/bin/true");
            c.call(libc::SYS_execveat, &[HERE, path, 0, 0, 0])
        },
    },
    Attempt {
        name: "memfd_create",
        right: Right::Killed,
        make: |c| {
            let name = c.injection.text("x");
            c.call(libc::SYS_memfd_create, &[name, 0])
        },
    },
    Attempt {
        name: "mmap(PROT_EXEC)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_mmap, &[0, 4096, 7, 0x22, u64::MAX, 0]),
    },
    Attempt {
        name: "mprotect(PROT_EXEC)",
        right: Right::Killed,
        make: |c| {
            let page = c.injection.put(&[0]) & !0xfff;
            c.call(libc::SYS_mprotect, &[page, 4096, 7])
        },
    },
    Attempt {
        name: "pkey_mprotect(PROT_EXEC)",
        right: Right::Killed,
        make: |c| {
            let page = c.injection.put(&[0]) & !0xfff;
            c.call(libc::SYS_pkey_mprotect, &[page, 4096, 7, u64::MAX])
        },
    },
    Attempt {
        name: "personality(READ_IMPLIES_EXEC)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_personality, &[0x0040_0000]),
    },
];

/// Other processes, and new ones.
pub const PROCESSES: &[Attempt] = &[
    Attempt {
        name: "ptrace(PTRACE_SEIZE, other)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_ptrace, &[PTRACE_SEIZE, c.other(), 0, 0]),
    },
    Attempt {
        name: "process_vm_readv(other)",
        right: Right::Killed,
        make: |c| {
            let vector = c.injection.put(&[0; 16]);
            c.call(libc::SYS_process_vm_readv, &[c.other(), vector, 1, vector, 1, 0])
        },
    },
    Attempt {
        name: "pidfd_open(other)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_pidfd_open, &[c.other(), 0]),
    },
    Attempt {
        name: "pidfd_getfd",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_pidfd_getfd, &[0, 0, 0]),
    },
    Attempt {
        name: "openat(/proc/OTHER/mem, O_RDWR)",
        right: Right::Eperm,
        make: |c| {
            let path = format!("/proc/{}/mem", c.other());
            let path = c.injection.text(&path);
            c.open(path, libc::O_RDWR)
        },
    },
    Attempt {
        name: "kill(other, SIGCONT)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_kill, &[c.other(), 18]),
    },
    Attempt {
        name: "tgkill(other, SIGCONT)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_tgkill, &[c.other(), c.other(), 18]),
    },
    Attempt {
        name: "tgkill(itself, 0)",
        right: Right::Harmless("abort(3) does so"),
        make: |c| c.call(libc::SYS_tgkill, &[c.process, c.process, 0]),
    },
    Attempt {
        name: "rt_sigqueueinfo(other)",
        right: Right::Eperm,
        make: |c| {
            let about = c.injection.put(&[0xff; 128]);
            c.call(libc::SYS_rt_sigqueueinfo, &[c.other(), 18, about])
        },
    },
    Attempt { name: "fork", right: Right::Killed, make: |c| c.call(libc::SYS_fork, &[]) },
    Attempt { name: "clone", right: Right::Eperm, make: |c| c.call(libc::SYS_clone, &[17, 0, 0, 0, 0]) },
    Attempt {
        name: "clone3",
        right: Right::Enosys,
        make: |c| {
            let arguments = c.injection.put(&[0; 88]);
            c.call(libc::SYS_clone3, &[arguments, 88])
        },
    },
    Attempt {
        name: "unshare(CLONE_NEWUSER)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_unshare, &[0x1000_0000]),
    },
    Attempt { name: "setns", right: Right::Killed, make: |c| c.call(libc::SYS_setns, &[0, 0]) },
];

/// Parts of the kernel that nobody needs who serves, and other doors into it.
pub const KERNEL: &[Attempt] = &[
    Attempt {
        name: "keyctl(KEYCTL_GET_KEYRING_ID)",
        right: Right::Killed,
        make: |c| c.call(libc::SYS_keyctl, &[0, (-3_i64).cast_unsigned(), 0]),
    },
    Attempt {
        name: "bpf(BPF_MAP_CREATE)",
        right: Right::Killed,
        make: |c| {
            let about = c.injection.put(&[0; 72]);
            c.call(libc::SYS_bpf, &[0, about, 72])
        },
    },
    Attempt { name: "userfaultfd", right: Right::Killed, make: |c| c.call(libc::SYS_userfaultfd, &[1]) },
    Attempt {
        name: "perf_event_open",
        right: Right::Killed,
        make: |c| {
            let about = c.injection.put(&[0; 128]);
            c.call(libc::SYS_perf_event_open, &[about, 0, u64::MAX, u64::MAX, 0])
        },
    },
    Attempt {
        name: "mount",
        right: Right::Killed,
        make: |c| {
            let path = c.injection.text("/");
            c.call(libc::SYS_mount, &[path, path, path, 0, 0])
        },
    },
    Attempt {
        name: "prctl(PR_SET_DUMPABLE, 1)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_prctl, &[4, 1, 0, 0, 0]),
    },
    Attempt {
        name: "seccomp(SECCOMP_SET_MODE_FILTER)",
        right: Right::Eperm,
        make: |c| c.call(libc::SYS_seccomp, &[1, 0, 0]),
    },
    Attempt {
        name: "ioctl(TIOCSTI)",
        right: Right::Eperm,
        make: |c| {
            let byte = c.injection.put(b"x");
            c.call(libc::SYS_ioctl, &[2, libc::TIOCSTI, byte])
        },
    },
    Attempt {
        name: "x32: socket(AF_INET)",
        right: Right::Killed,
        make: |c| c.injection.enter(Entry::X32, libc::SYS_socket, &[2, 1, 0]),
    },
    Attempt {
        name: "x32: getpid",
        right: Right::Refused,
        make: |c| c.injection.enter(Entry::X32, libc::SYS_getpid, &[]),
    },
    Attempt {
        name: "int 0x80: socket(AF_INET)",
        right: Right::Killed,
        make: |c| c.injection.enter(Entry::Int80, 359, &[2, 1, 0]),
    },
    Attempt {
        name: "int 0x80: getpid",
        right: Right::Killed,
        make: |c| c.injection.enter(Entry::Int80, 20, &[]),
    },
];
