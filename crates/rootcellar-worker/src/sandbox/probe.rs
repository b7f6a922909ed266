//! Tries on this machine, one by one, the things that a sandbox is made of: for an operator who wants to know why none starts.

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::fs::CWD;

use super::codec::{Decoder, Encoder};
use super::error::{Failure, failed};
use super::identity::{self, MappingPower};
use super::mounts::{DATA_ONLY, Detached, INERT, Place};
use super::spec::Identity;
use super::{dev, proc, root, seccomp, sys};

/// The most that a probe has to say: a few dozen parts, each with a message of a line.
pub(super) const PROBE_BYTES_MAX: u64 = 64 << 10;

/// Tells whether one thing that a sandbox is made of works on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbedPart {
    /// What was tried, in an operator's words.
    pub name: String,
    /// Why it does not work, if it does not.
    pub failure: Option<String>,
}

/// What must work before any of the steps can be tried.
const FIRST_STEP: &str = "user and pid namespaces";

type Step = (&'static str, fn() -> Result<(), Failure>);

/// What is tried inside new user and pid namespaces, in an order that lets later steps stand on earlier ones.
const STEPS: [Step; 13] = [
    ("mount namespace", || {
        sys::unshare("mount", libc::CLONE_NEWNS).and_then(|()| root::leave_host_propagation())
    }),
    ("ipc namespace", || sys::unshare("ipc", libc::CLONE_NEWIPC)),
    ("cgroup namespace", || sys::unshare("cgroup", libc::CLONE_NEWCGROUP)),
    ("uts namespace", || sys::unshare("uts", libc::CLONE_NEWUTS)),
    ("network namespace", || sys::unshare("network", libc::CLONE_NEWNET)),
    ("loopback interface", || {
        sys::bring_up_loopback().map_err(failed("bring it up"))
    }),
    ("memory file system with mount flags", || {
        Detached::filesystem("tmpfs", &[], DATA_ONLY)?.change_flags(libc::MOUNT_ATTR_RDONLY, 0)
    }),
    ("/proc of its own", || proc::make().map(drop)),
    ("terminals of its own", || {
        Detached::filesystem("devpts", &[], INERT).map(drop)
    }),
    ("device nodes of the host", || {
        dev::host_nodes().try_for_each(|node| Detached::copy_of_host(&node).map(drop))
    }),
    ("opening paths without following links", || {
        Place::open(CWD, Path::new("/")).map(drop)
    }),
    ("session keyring", || {
        sys::join_new_session_keyring().map_err(failed("join a new one"))
    }),
    ("dropping all power, and the system call filter", || {
        identity::drop_all_power().and_then(|()| seccomp::install().map(drop))
    }),
];

/// Tries everything and tells the server at the other end of `server`.
pub(super) fn serve(mut server: UnixStream) -> io::Result<()> {
    let parts = try_all(&server).unwrap_or_else(|failure| vec![part(FIRST_STEP, Err(failure))]);
    server.write_all(&encode(&parts))
}

/// Starts a process in new namespaces, and returns what came of all the steps, or why it could not begin with them.
fn try_all(server: &UnixStream) -> Result<Vec<ProbedPart>, Failure> {
    let power = MappingPower::of_this_process()?;
    let identity = identity::for_trial()?;
    let (mut ours, mut theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
    let not_theirs = [server.as_raw_fd(), ours.as_raw_fd()];
    let child = sys::clone_child(libc::CLONE_NEWUSER | libc::CLONE_NEWPID, move || {
        sys::close_inherited(not_theirs);
        i32::from(try_steps(&mut theirs, identity, power).is_err())
    })
    .map_err(failed("start a process in a new user and pid namespace"))?;
    let parts = identity::map_ids(child, identity, power)
        .and_then(|()| ours.write_all(&[1]).map_err(failed("tell the probe to begin")))
        .and_then(|()| read_parts(&ours).map_err(failed("hear from the probe")));
    // A child that was not told to begin sees the end of its socket, and ends.
    drop(ours);
    sys::wait_with_usage(child).map_err(failed("wait for the probe"))?;
    parts
}

fn try_steps(launcher: &mut UnixStream, identity: Identity, power: MappingPower) -> io::Result<()> {
    launcher.read_exact(&mut [0])?;
    let mut parts = vec![part(FIRST_STEP, identity::assume(identity, power))];
    parts.extend(STEPS.map(|(name, step)| part(name, step())));
    launcher.write_all(&encode(&parts))
}

fn read_parts(launcher: &UnixStream) -> io::Result<Vec<ProbedPart>> {
    let mut bytes = Vec::new();
    launcher.take(PROBE_BYTES_MAX).read_to_end(&mut bytes)?;
    decode(&bytes)
}

fn part(name: &str, result: Result<(), Failure>) -> ProbedPart {
    ProbedPart {
        name: name.to_owned(),
        failure: result.err().map(|failure| failure.into_error().to_string()),
    }
}

fn encode(parts: &[ProbedPart]) -> Vec<u8> {
    let mut out = Encoder::default();
    out.list(parts, |out, part| {
        out.string(part.name.as_bytes());
        out.bool(part.failure.is_some());
        out.string(part.failure.as_deref().unwrap_or_default().as_bytes());
    });
    out.bytes
}

/// Reads what a probe has found out.
pub(super) fn decode(bytes: &[u8]) -> io::Result<Vec<ProbedPart>> {
    let mut input = Decoder::new(bytes);
    let parts = input.list(|input| {
        let (name, failed, message) = (input.text()?, input.bool()?, input.text()?);
        Ok(ProbedPart {
            name,
            failure: failed.then_some(message),
        })
    })?;
    input.end()?;
    Ok(parts)
}
