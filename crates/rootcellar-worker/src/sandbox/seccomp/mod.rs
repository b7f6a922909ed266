//! The system calls that a command may not make: all are allowed but a list.
//!
//! A build must be able to do what programs do, 32-bit programs and debuggers included. Refused is what reaches past the
//! sandbox (mounts, namespaces, keys, kernel modules, clocks) and what has no business in a build and a long history of
//! holes (`bpf`, `userfaultfd`, `io_uring`, odd socket families). Most of it needs privileges that the command does
//! not have anyway; the filter is the second lock.
//!
//! One program covers every way into the kernel that the machine has, such as `int 0x80` on `x86_64`; a call by an
//! unknown way ends the process. For all but five calls it looks at architecture and number only, so that the kernel
//! finds out once which numbers are always allowed, and does not run the filter for them.

mod hidden_sockets;
mod listener;
mod program;
mod tables;

pub(super) use hidden_sockets::answer_one;
pub(super) use listener::Listener;

use super::error::{Failure, failed};

/// What to do about one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// `EPERM`, as for anybody without the privilege.
    Refuse,
    /// `ENOSYS`, as on a kernel without the call, so that libraries turn to another one.
    Absent,
    /// Refused where the first argument asks for a new namespace.
    NoNewNamespace,
    /// Refused where it would type into a terminal in its user's place.
    NoTyping,
    /// Allowed for local and internet sockets, and to ask about the network's state.
    KnownFamilies,
    /// The old way to all socket calls: its `socket` has the family in memory, out of the filter's sight, so that init
    /// decides.
    AskInit,
}

/// One way into the kernel, and what it must not be used for.
#[derive(Debug)]
struct Abi {
    /// `AUDIT_ARCH_*` of linux/audit.h.
    audit_arch: u32,
    /// Numbers from here up belong to another way in, which shares the architecture.
    numbers_end: Option<u32>,
    /// Name, number and rule of each call, beyond those that have one number everywhere.
    calls: &'static [(&'static str, u32, Rule)],
}

/// Installs the filter for this process and all that it starts. Wants `no_new_privs`.
///
/// Returns what the filter leaves to its installer to decide, where there is such a thing.
pub(super) fn install() -> Result<Option<Listener>, Failure> {
    let program = program::assemble(tables::ABIS);
    let installed = if tables::ASKS_INIT {
        listener::install_with_listener(&program).map(Some)
    } else {
        listener::install(&program).map(|()| None)
    };
    installed.map_err(failed("install the seccomp filter"))
}
