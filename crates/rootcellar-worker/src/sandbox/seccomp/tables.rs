//! The numbers of the filtered system calls, one table for each way into the kernel (the kernel's `syscall.tbl` files).

use super::Rule::{Absent, AskInit, KnownFamilies, NoNewNamespace, NoTyping, Refuse};
use super::{Abi, Rule};

/// One row: name, number, rule.
type Row = (&'static str, u32, Rule);

const EM_ARM: u32 = 40;
const EM_X86_64: u32 = 62;
const EM_386: u32 = 3;
const EM_AARCH64: u32 = 183;
const EM_RISCV: u32 = 243;
const BITS_64: u32 = 0x8000_0000;
const LITTLE_ENDIAN: u32 = 0x4000_0000;

/// From here up lie the numbers of x32, which calls itself `x86_64`.
const X32_NUMBERS: u32 = 0x4000_0000;

pub(super) const X86_64: Abi = Abi {
    audit_arch: EM_X86_64 | BITS_64 | LITTLE_ENDIAN,
    numbers_end: Some(X32_NUMBERS),
    calls: X86_64_CALLS,
};
pub(super) const I386: Abi = Abi {
    audit_arch: EM_386 | LITTLE_ENDIAN,
    numbers_end: None,
    calls: I386_CALLS,
};
pub(super) const AARCH64: Abi = Abi {
    audit_arch: EM_AARCH64 | BITS_64 | LITTLE_ENDIAN,
    numbers_end: None,
    calls: GENERIC_CALLS,
};
pub(super) const ARM: Abi = Abi {
    audit_arch: EM_ARM | LITTLE_ENDIAN,
    numbers_end: None,
    calls: ARM_CALLS,
};
pub(super) const RISCV64: Abi = Abi {
    audit_arch: EM_RISCV | BITS_64 | LITTLE_ENDIAN,
    numbers_end: None,
    calls: GENERIC_CALLS,
};

/// The ways into the kernel of the machine that this program is built for.
pub(super) const ABIS: &[Abi] = if cfg!(target_arch = "x86_64") {
    &[X86_64, I386]
} else if cfg!(target_arch = "aarch64") {
    &[AARCH64, ARM]
} else if cfg!(target_arch = "riscv64") {
    &[RISCV64]
} else {
    panic!("the sandbox has no table of system calls for this architecture")
};

/// Whether one of the tables leaves a call to init.
pub(super) const ASKS_INIT: bool = cfg!(target_arch = "x86_64");

/// Calls that are so young that they have one number on every architecture.
pub(super) const EVERYWHERE: &[Row] = &[
    ("io_uring_setup", 425, Absent),
    ("io_uring_enter", 426, Absent),
    ("io_uring_register", 427, Absent),
    ("open_tree", 428, Refuse),
    ("move_mount", 429, Refuse),
    ("fsopen", 430, Refuse),
    ("fsconfig", 431, Refuse),
    ("fsmount", 432, Refuse),
    ("fspick", 433, Refuse),
    // Its flags lie in memory, out of the filter's sight; libraries fall back to `clone`.
    ("clone3", 435, Absent),
    ("mount_setattr", 442, Refuse),
    ("quotactl_fd", 443, Refuse),
    ("open_tree_attr", 467, Refuse),
];

const X86_64_CALLS: &[Row] = &[
    ("ioctl", 16, NoTyping),
    ("socket", 41, KnownFamilies),
    ("clone", 56, NoNewNamespace),
    ("syslog", 103, Refuse),
    ("uselib", 134, Refuse),
    ("pivot_root", 155, Refuse),
    ("acct", 163, Refuse),
    ("settimeofday", 164, Refuse),
    ("mount", 165, Refuse),
    ("umount2", 166, Refuse),
    ("swapon", 167, Refuse),
    ("swapoff", 168, Refuse),
    ("reboot", 169, Refuse),
    ("iopl", 172, Refuse),
    ("ioperm", 173, Refuse),
    ("init_module", 175, Refuse),
    ("delete_module", 176, Refuse),
    ("quotactl", 179, Refuse),
    ("clock_settime", 227, Refuse),
    ("kexec_load", 246, Refuse),
    ("add_key", 248, Refuse),
    ("request_key", 249, Refuse),
    ("keyctl", 250, Refuse),
    ("unshare", 272, NoNewNamespace),
    ("perf_event_open", 298, Refuse),
    ("open_by_handle_at", 304, Refuse),
    ("setns", 308, Refuse),
    ("finit_module", 313, Refuse),
    ("kexec_file_load", 320, Refuse),
    ("bpf", 321, Refuse),
    ("userfaultfd", 323, Refuse),
];

const I386_CALLS: &[Row] = &[
    ("mount", 21, Refuse),
    ("umount", 22, Refuse),
    ("stime", 25, Refuse),
    ("acct", 51, Refuse),
    ("umount2", 52, Refuse),
    ("ioctl", 54, NoTyping),
    ("settimeofday", 79, Refuse),
    ("uselib", 86, Refuse),
    ("swapon", 87, Refuse),
    ("reboot", 88, Refuse),
    ("ioperm", 101, Refuse),
    ("socketcall", 102, AskInit),
    ("syslog", 103, Refuse),
    ("iopl", 110, Refuse),
    ("vm86old", 113, Refuse),
    ("swapoff", 115, Refuse),
    ("clone", 120, NoNewNamespace),
    ("init_module", 128, Refuse),
    ("delete_module", 129, Refuse),
    ("quotactl", 131, Refuse),
    ("vm86", 166, Refuse),
    ("pivot_root", 217, Refuse),
    ("clock_settime", 264, Refuse),
    ("kexec_load", 283, Refuse),
    ("add_key", 286, Refuse),
    ("request_key", 287, Refuse),
    ("keyctl", 288, Refuse),
    ("unshare", 310, NoNewNamespace),
    ("perf_event_open", 336, Refuse),
    ("open_by_handle_at", 342, Refuse),
    ("setns", 346, Refuse),
    ("finit_module", 350, Refuse),
    ("bpf", 357, Refuse),
    ("socket", 359, KnownFamilies),
    ("userfaultfd", 374, Refuse),
    ("clock_settime64", 404, Refuse),
];

/// The numbers of `asm-generic/unistd.h`, which the newer architectures share.
const GENERIC_CALLS: &[Row] = &[
    ("ioctl", 29, NoTyping),
    ("umount2", 39, Refuse),
    ("mount", 40, Refuse),
    ("pivot_root", 41, Refuse),
    ("quotactl", 60, Refuse),
    ("acct", 89, Refuse),
    ("unshare", 97, NoNewNamespace),
    ("kexec_load", 104, Refuse),
    ("init_module", 105, Refuse),
    ("delete_module", 106, Refuse),
    ("clock_settime", 112, Refuse),
    ("syslog", 116, Refuse),
    ("reboot", 142, Refuse),
    ("settimeofday", 170, Refuse),
    ("socket", 198, KnownFamilies),
    ("add_key", 217, Refuse),
    ("request_key", 218, Refuse),
    ("keyctl", 219, Refuse),
    ("clone", 220, NoNewNamespace),
    ("swapon", 224, Refuse),
    ("swapoff", 225, Refuse),
    ("perf_event_open", 241, Refuse),
    ("open_by_handle_at", 265, Refuse),
    ("setns", 268, Refuse),
    ("finit_module", 273, Refuse),
    ("bpf", 280, Refuse),
    ("userfaultfd", 282, Refuse),
    ("kexec_file_load", 294, Refuse),
];

const ARM_CALLS: &[Row] = &[
    ("mount", 21, Refuse),
    ("acct", 51, Refuse),
    ("umount2", 52, Refuse),
    ("ioctl", 54, NoTyping),
    ("settimeofday", 79, Refuse),
    ("uselib", 86, Refuse),
    ("swapon", 87, Refuse),
    ("reboot", 88, Refuse),
    ("syslog", 103, Refuse),
    ("swapoff", 115, Refuse),
    ("clone", 120, NoNewNamespace),
    ("init_module", 128, Refuse),
    ("delete_module", 129, Refuse),
    ("quotactl", 131, Refuse),
    ("pivot_root", 218, Refuse),
    ("clock_settime", 262, Refuse),
    ("socket", 281, KnownFamilies),
    ("add_key", 309, Refuse),
    ("request_key", 310, Refuse),
    ("keyctl", 311, Refuse),
    ("unshare", 337, NoNewNamespace),
    ("kexec_load", 347, Refuse),
    ("perf_event_open", 364, Refuse),
    ("open_by_handle_at", 371, Refuse),
    ("setns", 375, Refuse),
    ("finit_module", 379, Refuse),
    ("bpf", 386, Refuse),
    ("userfaultfd", 388, Refuse),
    ("kexec_file_load", 401, Refuse),
    ("clock_settime64", 404, Refuse),
];
