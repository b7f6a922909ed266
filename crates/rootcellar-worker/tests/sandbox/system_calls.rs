//! Claims about the system call filter: what it refuses, and that no other way into the kernel gets around it.

use crate::fixture::{Fixture, run};
use crate::harness::{Claim, Need};
use crate::trial::{with_trial, with_trial_32};

pub(crate) const CLAIMS: &[Claim] = &[
    Claim {
        name: "calls_that_reach_past_the_sandbox_are_refused",
        needs: &[Need::Gcc],
        holds: refused_calls,
    },
    Claim {
        name: "calls_that_builds_make_are_allowed",
        needs: &[Need::Gcc],
        holds: allowed_calls,
    },
    Claim {
        name: "only_known_socket_families_open",
        needs: &[Need::Gcc],
        holds: only_known_socket_families_open,
    },
    Claim {
        name: "a_64_bit_program_gets_nowhere_by_32_bit_calls",
        needs: &[Need::Gcc],
        holds: refused_calls_by_int_80,
    },
    Claim {
        name: "a_32_bit_program_runs_under_the_same_rules",
        needs: &[Need::Gcc],
        holds: a_32_bit_program,
    },
    Claim {
        name: "x32_calls_do_not_exist",
        needs: &[Need::Gcc],
        holds: x32_calls_do_not_exist,
    },
    Claim {
        name: "nobody_can_type_for_the_user",
        needs: &[Need::Gcc],
        holds: nobody_can_type_for_the_user,
    },
];

/// Runs one attempt and returns its answer.
fn attempt(fixture: &Fixture, words: &[&str]) -> String {
    let arguments: Vec<&str> = ["trial"].iter().chain(words).copied().collect();
    let ran = run(fixture.spec(&arguments));
    assert_eq!(ran.code(), 0, "{words:?}: {ran:?}");
    ran.stdout.trim_end().to_owned()
}

fn refused_calls() {
    let fixture = with_trial();
    let refused = [
        "mount",
        "umount2",
        "pivot_root",
        "fsopen",
        "fsmount",
        "open_tree",
        "move_mount",
        "mount_setattr",
        "fspick",
        "setns",
        "unshare-user",
        "unshare-mount",
        "unshare-net",
        "clone-user",
        "clone-time",
        "keyctl",
        "add_key",
        "request_key",
        "bpf",
        "perf_event_open",
        "userfaultfd",
        "kexec_load",
        "init_module",
        "finit_module",
        "delete_module",
        "reboot",
        "swapon",
        "acct",
        "quotactl",
        "open_by_handle_at",
        "iopl",
        "syslog",
        "settimeofday",
        "clock_settime",
    ];
    for call in refused {
        assert_eq!(attempt(&fixture, &["call", call]), "EPERM", "{call}");
    }
    for call in ["clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert_eq!(attempt(&fixture, &["call", call]), "ENOSYS", "{call}");
    }
}

fn allowed_calls() {
    let fixture = with_trial();
    for call in [
        "fork",
        "thread",
        "unshare-files",
        "memfd",
        "personality",
        "inotify",
        "name_to_handle",
        "seccomp",
        "statmount",
    ] {
        assert_eq!(attempt(&fixture, &["call", call]), "ok", "{call}");
    }
}

fn only_known_socket_families_open() {
    let fixture = with_trial();
    for family in ["unix", "inet", "inet6", "netlink-route"] {
        assert_eq!(attempt(&fixture, &["socket", family]), "ok", "{family}");
    }
    for family in [
        "vsock",
        "packet",
        "alg",
        "bluetooth",
        "netlink-audit",
        "netlink-netfilter",
        "xdp",
        "tipc",
    ] {
        assert_eq!(attempt(&fixture, &["socket", family]), "EAFNOSUPPORT", "{family}");
    }
}

/// Calls that would succeed, or fail in another way, without a filter.
const TELLING_32_BIT_CALLS: [(&str, &str); 8] = [
    ("unshare-user", "EPERM"),
    ("keyctl", "EPERM"),
    ("add_key", "EPERM"),
    ("bpf", "EPERM"),
    ("userfaultfd", "EPERM"),
    ("io_uring_setup", "ENOSYS"),
    ("socket-vsock", "EAFNOSUPPORT"),
    ("getpid", "ok"),
];

/// Sockets asked for the old way, with the family in memory.
const HIDDEN_SOCKETS: [(&str, &str); 6] = [
    ("socketcall-unix", "ok"),
    ("socketcall-inet6", "ok"),
    ("socketcall-vsock", "EAFNOSUPPORT"),
    ("socketcall-packet", "EAFNOSUPPORT"),
    ("socketcall-nowhere", "EFAULT"),
    ("socketcall-pair", "ok"),
];

fn refused_calls_by_int_80() {
    let fixture = with_trial();
    for (call, answer) in TELLING_32_BIT_CALLS {
        assert_eq!(attempt(&fixture, &["int80", call]), answer, "{call}");
    }
}

fn a_32_bit_program() {
    let fixture = with_trial_32();
    for (call, answer) in TELLING_32_BIT_CALLS {
        assert_eq!(attempt(&fixture, &[call]), answer, "{call}");
    }
    for (call, answer) in HIDDEN_SOCKETS {
        assert_eq!(attempt(&fixture, &[call]), answer, "{call}");
    }
}

fn x32_calls_do_not_exist() {
    assert_eq!(attempt(&with_trial(), &["call", "x32-getpid"]), "ENOSYS");
}

fn nobody_can_type_for_the_user() {
    assert_eq!(attempt(&with_trial(), &["type"]), "EPERM");
}
