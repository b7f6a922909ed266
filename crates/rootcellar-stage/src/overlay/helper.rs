//! Mounts for a server that may not mount: a process in a user namespace of its own makes them, and passes them back.
//!
//! ```text
//!   server ── which mount, and descriptors ──> helper, root of a user namespace whose root is the server's user
//!          <──── 0 and a mount, or an errno ──
//! ```
//!
//! A request is 17 bytes, maybe paths behind them, and maybe a descriptor; an answer is 4 bytes and maybe one. What is mounted can be
//! reached by whoever has the descriptor: the server writes a tree into a file system in memory that the helper made, and hands overlays
//! to sandboxes.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::mounts::{self, Layers, Marks};

const REQUEST_BYTES: usize = 17;
const ANSWER_BYTES: usize = 4;
const DESCRIPTORS_MAX: usize = 1;
/// Three of the longest paths.
const PATHS_BYTES_MAX: u64 = 3 * 4096;

const MEMORY: u8 = 0;
const OVERLAY: u8 = 1;
const READ_ONLY: u8 = 2;

/// How a helper is reached: a new one for each call.
type Connect = Box<dyn Fn() -> io::Result<UnixStream> + Send + Sync>;

/// A process that mounts, on call. It is started when it is first needed, and again when it is gone.
pub struct MountHelper {
    connect: Connect,
    socket: Mutex<Option<UnixStream>>,
}

impl fmt::Debug for MountHelper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MountHelper")
    }
}

impl MountHelper {
    /// Has `connect` start a process that runs [`serve_mounts`] at the other end of what it returns, as the root of a user namespace
    /// and in a mount namespace of its own. It may block.
    pub fn new(connect: impl Fn() -> io::Result<UnixStream> + Send + Sync + 'static) -> Self {
        Self {
            connect: Box::new(connect),
            socket: Mutex::default(),
        }
    }

    /// Makes a file system in memory. Blocks.
    pub(super) fn memory(&self, bytes: u64, files: u64) -> io::Result<OwnedFd> {
        let mut request = [0; REQUEST_BYTES];
        request[0] = MEMORY;
        request[1..9].copy_from_slice(&bytes.to_le_bytes());
        request[9..].copy_from_slice(&files.to_le_bytes());
        self.ask(&request, &[], None)?.ok_or_else(no_mount)
    }

    /// Mounts an overlay. Blocks.
    pub(super) fn overlay(&self, layers: &Layers<'_>) -> io::Result<OwnedFd> {
        let mut request = [0; REQUEST_BYTES];
        request[0] = OVERLAY;
        let mut paths = Vec::new();
        for path in [Some(layers.upper), Some(layers.work), layers.data]
            .into_iter()
            .flatten()
        {
            paths.extend_from_slice(path.as_os_str().as_bytes());
            paths.push(0);
        }
        request[1..9].copy_from_slice(&(paths.len() as u64).to_le_bytes());
        self.ask(&request, &paths, Some(layers.lower))?.ok_or_else(no_mount)
    }

    /// Makes an overlay read-only for good. Blocks.
    pub(super) fn make_read_only(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        let mut request = [0; REQUEST_BYTES];
        request[0] = READ_ONLY;
        self.ask(&request, &[], Some(mount)).map(drop)
    }

    fn ask(
        &self,
        request: &[u8; REQUEST_BYTES],
        paths: &[u8],
        mount: Option<BorrowedFd<'_>>,
    ) -> io::Result<Option<OwnedFd>> {
        let mut socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(helper) = &*socket {
            match exchange(helper, request, paths, mount) {
                Ok((errno, mount)) => return outcome(errno, mount),
                Err(error) => tracing::warn!(%error, "the process that mounts is gone: another one is started"),
            }
        }
        let helper = (self.connect)()?;
        let (errno, mount) = exchange(&helper, request, paths, mount)?;
        *socket = Some(helper);
        outcome(errno, mount)
    }
}

fn outcome(errno: i32, mount: Option<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match errno {
        0 => Ok(mount),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn no_mount() -> io::Error {
    io::Error::other("the process that mounts returned no mount")
}

fn exchange(
    helper: &UnixStream,
    request: &[u8; REQUEST_BYTES],
    paths: &[u8],
    mount: Option<BorrowedFd<'_>>,
) -> io::Result<(i32, Option<OwnedFd>)> {
    send(helper, request, mount)?;
    (&mut &*helper).write_all(paths)?;
    let mut answer = [0; ANSWER_BYTES];
    let mount = receive(helper, &mut answer)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok((i32::from_le_bytes(answer), mount))
}

/// Answers until the other end is closed. For a process that is the root of a user namespace, in a mount namespace of its own.
///
/// # Errors
/// If the other end cannot be heard or told.
pub fn serve_mounts(server: &UnixStream) -> io::Result<()> {
    let mut request = [0; REQUEST_BYTES];
    while let Some(mount) = receive(server, &mut request)? {
        let mut paths = Vec::new();
        if request[0] == OVERLAY {
            let len = number(&request, 1).min(PATHS_BYTES_MAX);
            (&mut &*server).take(len).read_to_end(&mut paths)?;
        }
        let (errno, mount) = match answer(&request, &paths, mount.as_ref()) {
            Ok(mount) => (0, mount),
            Err(error) => (error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()), None),
        };
        send(server, &errno.to_le_bytes(), mount.as_ref().map(AsFd::as_fd))?;
    }
    Ok(())
}

fn answer(request: &[u8; REQUEST_BYTES], paths: &[u8], mount: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match (request[0], mount) {
        (MEMORY, None) => mounts::mount_memory(number(request, 1), number(request, 9)).map(Some),
        (OVERLAY, Some(lower)) => {
            let mut paths = paths
                .split(|byte| *byte == 0)
                .map(|path| Path::new(OsStr::from_bytes(path)));
            let mut path = || paths.next().filter(|path| path.is_absolute());
            let layers = Layers {
                lower: lower.as_fd(),
                upper: path().ok_or(Errno::INVAL)?,
                work: path().ok_or(Errno::INVAL)?,
                data: path(),
            };
            mounts::mount_overlay(&layers, Marks::User).map(Some)
        }
        (READ_ONLY, Some(mount)) => mounts::make_read_only(mount.as_fd()).map(|()| None),
        _ => Err(Errno::INVAL.into()),
    }
}

fn number(request: &[u8; REQUEST_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(request[at..at + 8].try_into().expect("8 bytes"))
}

fn send(socket: &UnixStream, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let descriptors = descriptor.as_slice();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
        assert!(fits, "the buffer has room for all descriptors of a request");
    }
    let sent = sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    match sent == bytes.len() {
        true => Ok(()),
        false => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Fills `bytes`, and returns the descriptor that came with them, if one did; `None` at the end.
fn receive(socket: &UnixStream, bytes: &mut [u8]) -> io::Result<Option<Option<OwnedFd>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let wanted = bytes.len();
    let received = recvmsg(socket, &mut [IoSliceMut::new(bytes)], &mut ancillary, flags)?;
    if received.bytes == 0 {
        return Ok(None);
    }
    if received.bytes < wanted {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let rights = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    Ok(Some(rights))
}
