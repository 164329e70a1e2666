//! Calls that no process of the proxy makes once it serves, and whoever has taken one over would: they end the process.

use libc::c_long;

use crate::rule::{Calls, Rule};

/// Marks the number of a call of the x32 ABI, which the kernel carries out like the other one of that number.
const X32: i64 = 0x4000_0000;
const MSG_FASTOPEN: u32 = libc::MSG_FASTOPEN.cast_unsigned();
const PROT_EXEC: u32 = libc::PROT_EXEC.cast_unsigned();
/// From Linux 5.9 and 6.8 on; the C library's headers may be older.
const SYS_LISTMOUNT: c_long = 458;
const SYS_STATMOUNT: c_long = 457;

/// New sockets, and new ends for those at hand.
const SOCKETS: [c_long; 8] = [
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendmmsg,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_register,
];

/// Programs, and memory to be run that is no program's.
const PROGRAMS: [c_long; 5] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_personality,
];

/// Other processes.
const PROCESSES: [c_long; 10] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
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

/// All of them. `datagrams` are sockets that lead to one receiver, and to any other if sendmsg(2) names it: the name is behind
/// a pointer, where a filter does not see it.
pub(crate) fn attacks(datagrams: &[u32]) -> Calls {
    let whole = [&SOCKETS[..], &PROGRAMS, &PROCESSES, &NAMESPACES, &KERNEL, &OLDER];
    let mut calls: Calls = whole.into_iter().flatten().map(|number| (*number, Vec::new())).collect();
    calls.insert(libc::SYS_sendto, vec![Rule::new().has(3, MSG_FASTOPEN), Rule::new().is_not_null(4)]);
    let mut messages = vec![Rule::new().has(2, MSG_FASTOPEN)];
    messages.extend(datagrams.iter().map(|number| Rule::new().is(0, *number)));
    calls.insert(libc::SYS_sendmsg, messages);
    for number in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        calls.insert(number, vec![Rule::new().has(2, PROT_EXEC)]);
    }
    let twins: Vec<_> = calls.iter().map(|(number, rules)| (number | X32, rules.clone())).collect();
    calls.extend(twins);
    calls
}
