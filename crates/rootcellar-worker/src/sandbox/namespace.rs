//! User namespaces without a command in them: for mounts that are to show their files as somebody's, and for mounts that a server
//! without privileges wants made.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::process::Pid;

use super::error::{Failure, failed};
use super::identity::{self, MappingPower};
use super::spec::Identity;
use super::{root, sys};

/// Enters a new user namespace, says which process has, and stays until the server has what it wants.
pub(super) fn serve(mut server: UnixStream) -> io::Result<()> {
    enter(&mut server).map(drop)
}

/// Enters a new user namespace, and once it is mapped makes mounts there until the server has ended.
pub(super) fn serve_mounts(mut server: UnixStream) -> io::Result<()> {
    if !enter(&mut server)? {
        return Ok(());
    }
    let prepared = sys::unshare("mount", libc::CLONE_NEWNS).and_then(|()| root::leave_host_propagation());
    prepared.map_err(|failure| io_error(&failure))?;
    rootcellar_stage::serve_mounts(&server)
}

/// Enters a user namespace and tells the server. Returns whether it was mapped: if not, the server has ended, or has enough.
fn enter(server: &mut UnixStream) -> io::Result<bool> {
    sys::unshare("user", libc::CLONE_NEWUSER).map_err(|failure| io_error(&failure))?;
    server.write_all(&std::process::id().to_le_bytes())?;
    Ok(server.read(&mut [0])? == 1)
}

fn io_error(failure: &Failure) -> io::Error {
    io::Error::from_raw_os_error(failure.errno)
}

/// Reads which process has entered a namespace, and maps its ids.
pub(super) fn map(helper: &mut impl io::Read, identity: Identity) -> Result<Pid, Failure> {
    let mut pid = [0; size_of::<u32>()];
    helper
        .read_exact(&mut pid)
        .map_err(failed("enter a new user namespace"))?;
    let pid = i32::try_from(u32::from_le_bytes(pid)).ok().and_then(Pid::from_raw);
    let pid = pid.expect("the helper says which process it is");
    identity::map_ids(pid, identity, MappingPower::of_this_process()?)?;
    Ok(pid)
}

/// Opens the namespace of a process.
pub(super) fn open(helper: Pid) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{}/ns/user", helper.as_raw_nonzero());
    File::open(&path)
        .map(OwnedFd::from)
        .map_err(failed(format!("open {path}")))
}
