//! Runs a command with a staged tree as its root file system, and nothing of the host in reach.
//!
//! ```text
//! server ──socket──▶ spawner ──fork──▶ launcher ──socket──▶ init ──▶ command ──▶ ...
//! many threads,      one thread,       one for each         process 1 of the     an unprivileged user without powers,
//! never forks        server's user     sandbox              new namespaces       under a system call filter
//! ```
//!
//! The server starts its own program again with a hidden argument, once; a program that wants sandboxes therefore begins its
//! `main` with [`run_if_helper`]. The new process, the spawner, has one thread and little memory, so that it and its copies may do
//! what the server must not: fork, and change namespaces and identities.
//!
//! What is promised:
//!
//! 1. A report of the end is given after every process of the sandbox is gone, however it ended.
//! 2. When the server dies, drops the handle or kills, or when the launcher or init dies, every process dies.
//! 3. The command sees the staged root, and of the host only `/proc`'s harmless part, six device nodes and what the
//!    spec binds. It has no capabilities, cannot get any, and is an unprivileged user to the host.
//! 4. Its environment, standard streams, working directory, host name and limits are the spec's, nothing inherited.
//! 5. No symbolic link of the staged root is followed to mount something.
//!
//! Needs Linux 5.12 and the right to make user namespaces.

mod codec;
mod command;
mod dev;
mod error;
mod identity;
mod init;
mod launcher;
mod message;
mod mounts;
mod namespace;
mod order;
mod probe;
mod proc;
mod reaper;
mod root;
mod running;
mod seccomp;
mod spawner;
mod spec;
mod sys;

pub use error::{SandboxError, SandboxErrorKind};
pub use message::Usage;
pub use probe::ProbedPart;
pub use root::MOUNT_POINTS;
pub use running::{Finished, Outcome, Running, Sandbox};
pub use spec::{Bind, DEFAULT_PATH, Identity, Limits, Network, Personality, Root, SandboxSpec, Subtree};

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Does the work of the sandbox helper and ends the process, if that is what this process was started for; returns at
/// once otherwise. Call it first in `main`, before any thread is started.
pub fn run_if_helper() {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == running::HELPER_ARGUMENT)
    {
        let code = match help() {
            Ok(()) => 0,
            Err(error) => complain(&error),
        };
        std::process::exit(code);
    }
}

fn help() -> io::Result<()> {
    // A server may hold descriptors that were not marked to be closed, from libraries or from whoever started it.
    sys::close_what_was_inherited()?;
    let server = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Standard input would keep the server's socket open in every process that is started from here.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    // Whoever lists processes should not read "exe".
    rustix::thread::set_name(c"sandbox")?;
    // A key pressed at the server's terminal is for the server: it decides what becomes of its sandboxes.
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    spawner::serve(&server)
}

fn complain(error: &io::Error) -> i32 {
    // There is nobody left to tell if this cannot be written either.
    writeln!(io::stderr(), "{}: {error}", running::HELPER_ARGUMENT).unwrap_or(());
    1
}
