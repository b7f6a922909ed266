//! An order: a spec and the descriptors it comes with, sent over the helper's socket.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::message::{SPEC_BYTES_MAX, decode_spec};
use super::spec::{Root, SandboxSpec};

/// The descriptors of an order: stdout, stderr, and the root if it is a mount.
const DESCRIPTORS_MAX: usize = 3;

/// What the server wants run, as the helper gets it.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) spec: SandboxSpec,
    pub(super) stdout: File,
    pub(super) stderr: File,
}

impl Order {
    /// Reads an order from the server.
    pub(super) fn receive(mut server: &UnixStream) -> io::Result<Self> {
        let (length, descriptors) = receive_header(server)?;
        if length > SPEC_BYTES_MAX {
            return Err(io::Error::other(format!(
                "spec of {length} bytes, more than {SPEC_BYTES_MAX}"
            )));
        }
        let mut spec = Vec::new();
        if server.by_ref().take(length).read_to_end(&mut spec)? as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut descriptors = descriptors.into_iter();
        let mut file = || descriptors.next().map(File::from).ok_or(io::ErrorKind::UnexpectedEof);
        let (stdout, stderr) = (file()?, file()?);
        Ok(Self {
            spec: decode_spec(&spec, descriptors.next())?,
            stdout,
            stderr,
        })
    }
}

/// Sends the descriptors of an order and the length of the spec that will follow them. The socket must be fresh: its
/// empty buffer takes the few bytes at once.
pub(super) fn send_header(
    helper: &UnixStream,
    length: usize,
    spec: &SandboxSpec,
    streams: [&File; 2],
) -> io::Result<()> {
    let mut descriptors: Vec<BorrowedFd<'_>> = streams.iter().map(AsFd::as_fd).collect();
    if let Root::Mount(mount) = &spec.root {
        descriptors.push(mount.as_fd());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    assert!(
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)),
        "the buffer has room for an order"
    );
    let length = (length as u64).to_le_bytes();
    let sent = sendmsg(helper, &[IoSlice::new(&length)], &mut ancillary, SendFlags::NOSIGNAL)?;
    if sent == length.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

fn receive_header(server: &UnixStream) -> io::Result<(u64, Vec<OwnedFd>)> {
    let mut length = [0; size_of::<u64>()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = recvmsg(server, &mut [IoSliceMut::new(&mut length)], &mut ancillary, flags)?;
    if received.bytes != length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok((u64::from_le_bytes(length), descriptors))
}
