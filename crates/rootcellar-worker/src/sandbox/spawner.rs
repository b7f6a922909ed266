//! The process that the server starts sandboxes through.
//!
//! Starting a program costs the kernel and the dynamic loader about a millisecond, and a server must not fork: it is large and has many
//! threads. So this program is started once, stays small and single-threaded, and forks itself for each order: the copy is the
//! launcher. An order comes as one byte and a socket; all else is between the launcher and the server.
//!
//! It ends when the server does, and leaves its copies alone then: each has a socket of its own that tells it. When it was killed,
//! the server starts another one.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::{launcher, namespace, probe, running, sys};

/// What a copy of the spawner does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs an order.
    Launcher,
    /// Tries things out.
    Probe,
    /// Enters a user namespace.
    Namespace,
    /// Makes mounts in one.
    Mounter,
}

impl Role {
    const ALL: [Self; 4] = [Self::Launcher, Self::Probe, Self::Namespace, Self::Mounter];

    fn byte(self) -> u8 {
        match self {
            Self::Launcher => 0,
            Self::Probe => 1,
            Self::Namespace => 2,
            Self::Mounter => 3,
        }
    }

    fn play(self, server: UnixStream) -> io::Result<()> {
        match self {
            Self::Launcher => launcher::serve(server),
            Self::Probe => probe::serve(server),
            Self::Namespace => namespace::serve(server),
            Self::Mounter => namespace::serve_mounts(server),
        }
    }
}

/// The server's side: a spawner, once it was needed.
#[derive(Debug)]
pub(super) struct Spawner {
    program: PathBuf,
    process: Mutex<Option<Process>>,
}

#[derive(Debug)]
struct Process {
    /// `None` only while it is dropped.
    control: Option<UnixStream>,
    child: Child,
}

impl Spawner {
    pub(super) fn of(program: PathBuf) -> Self {
        Self {
            program,
            process: Mutex::default(),
        }
    }

    /// Starts a process that has `socket` and plays `role`.
    pub(super) fn start(&self, role: Role, socket: &UnixStream) -> io::Result<()> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &*process {
            match running.send(role, socket) {
                Err(error) if is_gone(&error) => tracing::warn!("the process that starts sandboxes was killed"),
                sent => return sent,
            }
        }
        // Whatever was there is waited for before another one starts.
        drop(process.take());
        let started = Process::start(&self.program)?;
        let sent = started.send(role, socket);
        *process = Some(started);
        sent
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl Process {
    fn start(program: &Path) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let child = Command::new(program)
            .arg(running::HELPER_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Self {
            control: Some(ours),
            child,
        })
    }

    fn send(&self, role: Role, socket: &UnixStream) -> io::Result<()> {
        let control = self.control.as_ref().expect("there until it is dropped");
        let rights = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(
            ancillary.push(SendAncillaryMessage::ScmRights(&rights)),
            "the buffer has room for one descriptor"
        );
        sendmsg(
            control,
            &[IoSlice::new(&[role.byte()])],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The end of the socket ends the process.
        self.control = None;
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "the process that starts sandboxes was not waited for");
        }
    }
}

/// Lives the whole life of the spawner.
pub(super) fn serve(control: &UnixStream) -> io::Result<()> {
    sys::let_children_go()?;
    while let Some((role, socket)) = receive(control)? {
        let not_theirs = control.as_raw_fd();
        let started = sys::clone_child(0, move || {
            sys::close_inherited([not_theirs]);
            let played = sys::wait_for_children().and_then(|()| role.play(socket));
            match played {
                Ok(()) => 0,
                Err(error) => super::complain(&error),
            }
        });
        // The server sees the end of the socket, and that nothing was reported.
        if let Err(error) = started {
            writeln!(io::stderr(), "{}: cannot fork: {error}", running::HELPER_ARGUMENT)?;
        }
    }
    Ok(())
}

/// Waits for an order; `None` when the server has ended.
fn receive(control: &UnixStream) -> io::Result<Option<(Role, UnixStream)>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(
            control,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let socket = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    let role = Role::ALL.into_iter().find(|role| role.byte() == byte[0]);
    match (role, socket) {
        (Some(role), Some(socket)) => Ok(Some((role, socket.into()))),
        _ => Err(io::Error::other("an order that is none")),
    }
}
