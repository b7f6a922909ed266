//! A user namespace without a process in it, for mounts that are to show their files as somebody's.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::process::Pid;

use super::error::Failure;
use super::identity::{self, MappingPower};
use super::spec::Identity;
use super::sys;

/// Enters a new user namespace, says so, and stays until the server has what it wants.
pub(super) fn serve(mut server: UnixStream) -> io::Result<()> {
    sys::unshare("user", libc::CLONE_NEWUSER).map_err(|failure| io::Error::from_raw_os_error(failure.errno))?;
    server.write_all(&[1])?;
    server.read_exact(&mut [0]).or_else(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Ok(()),
        _ => Err(error),
    })
}

/// Maps the ids of the namespace that `helper` has entered, and opens it.
pub(super) fn take(helper: Pid, identity: Identity) -> Result<OwnedFd, Failure> {
    identity::map_ids(helper, identity, MappingPower::of_this_process()?)?;
    let path = format!("/proc/{}/ns/user", helper.as_raw_nonzero());
    File::open(&path)
        .map(OwnedFd::from)
        .map_err(super::error::failed(format!("open {path}")))
}
