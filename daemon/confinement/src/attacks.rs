//! Calls that no process of the proxy makes once it serves, and whoever has taken one over would: they end the process.
//!
//! Here is what holds for each of them. What else ends a relay or control stands with what it may.

use libc::c_long;

use crate::rule::{Calls, Rule};

/// Marks the number of a call of the x32 ABI, which the kernel carries out like the other one of that number.
const X32: i64 = 0x4000_0000;
const MSG_FASTOPEN: u32 = libc::MSG_FASTOPEN.cast_unsigned();
const PROT_WRITE: u32 = libc::PROT_WRITE.cast_unsigned();
const PROT_EXEC: u32 = libc::PROT_EXEC.cast_unsigned();
const MAP_ANONYMOUS: u32 = libc::MAP_ANONYMOUS.cast_unsigned();
/// From Linux 5.9 and 6.8 on; the C library's headers may be older.
const SYS_LISTMOUNT: c_long = 458;
const SYS_STATMOUNT: c_long = 457;

/// Doors to other calls, past every filter.
const RINGS: [c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];

/// Programs without a path, and memory that is like none else.
const PROGRAMS: [c_long; 3] = [libc::SYS_execveat, libc::SYS_memfd_secret, libc::SYS_personality];

/// A look into other processes.
const PROCESSES: [c_long; 7] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
];

/// Namespaces, mounts, and files without a path.
const NAMESPACES: [c_long; 19] = [
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    libc::SYS_quotactl,
    SYS_STATMOUNT,
    SYS_LISTMOUNT,
];

/// Other users, and parts of the kernel by which kernels were broken.
const KERNEL: [c_long; 27] = [
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capset,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_syslog,
];

/// Older calls of the same kinds, which younger machines never had.
#[cfg(target_arch = "x86_64")]
const OLDER: [c_long; 7] = [
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_uselib,
    libc::SYS_mknod,
    libc::SYS_modify_ldt,
    libc::SYS_ioperm,
    libc::SYS_iopl,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: [c_long; 0] = [];

/// All of them, with what is an attack by its arguments: data in the first packet of a connection, which takes no connect(2),
/// and memory to be run that is written to or no file's.
pub(crate) fn attacks() -> Calls {
    let whole = [&RINGS[..], &PROGRAMS, &PROCESSES, &NAMESPACES, &KERNEL, &OLDER];
    let mut calls: Calls = whole.into_iter().flatten().map(|number| (*number, Vec::new())).collect();
    calls.insert(libc::SYS_sendto, vec![Rule::new().has(3, MSG_FASTOPEN)]);
    calls.insert(libc::SYS_sendmsg, vec![Rule::new().has(2, MSG_FASTOPEN)]);
    let mapped =
        [Rule::new().has(2, PROT_EXEC | PROT_WRITE), Rule::new().has(2, PROT_EXEC).has(3, MAP_ANONYMOUS)];
    calls.insert(libc::SYS_mmap, mapped.to_vec());
    for number in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        calls.insert(number, vec![Rule::new().has(2, PROT_EXEC)]);
    }
    calls
}

/// The same calls by the numbers of the x32 ABI as well.
pub(crate) fn with_twins(mut calls: Calls) -> Calls {
    let twins: Vec<_> = calls.iter().map(|(number, rules)| (number | X32, rules.clone())).collect();
    calls.extend(twins);
    calls
}
