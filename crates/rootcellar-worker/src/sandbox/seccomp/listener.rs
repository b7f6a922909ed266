//! The raw interface of seccomp(2) and seccomp_unotify(2): installing a filter, and answering for the kernel.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{seccomp_notif, seccomp_notif_addfd, seccomp_notif_resp, sock_filter, sock_fprog};

/// Puts the descriptor in place and ends the call with its number, in one step (Linux 5.14).
const ADD_AND_ANSWER: u32 = 2;

/// Installs a filter for this process and all it will start. Wants `no_new_privs`.
pub(super) fn install(program: &[sock_filter]) -> io::Result<()> {
    set_filter(program, 0).map(drop)
}

/// Like [`install`], for a filter that leaves some calls to the process that holds the listener.
pub(super) fn install_with_listener(program: &[sock_filter]) -> io::Result<Listener> {
    let descriptor = set_filter(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made the descriptor, for us alone.
    Ok(Listener(unsafe { OwnedFd::from_raw_fd(descriptor) }))
}

fn set_filter(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = sock_fprog {
        len,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to `len` instructions, which the kernel copies and checks.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Receives the calls that the filter leaves to its holder.
#[derive(Debug)]
pub(in super::super) struct Listener(OwnedFd);

/// A call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    id: u64,
    process: libc::pid_t,
    /// The arguments of the call.
    pub(super) arguments: [u64; 6],
}

impl Listener {
    /// Takes the next call, or nothing if its process has ended meanwhile.
    pub(super) fn next(&self) -> io::Result<Option<Call>> {
        // SAFETY: plain integers, and the kernel wants the structure zeroed.
        let mut request: seccomp_notif = unsafe { zeroed() };
        // SAFETY: the request is for a structure of this type.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut request) };
        let process = request.pid.cast_signed();
        Ok(unless_gone(result)?.then_some(Call {
            id: request.id,
            process,
            arguments: request.data.args,
        }))
    }

    /// Copies three words of the memory of the process that made `call`, or nothing if it has ended meanwhile. Another
    /// thread of it may change them at any time: decide on the copy.
    pub(super) fn read_words(&self, call: Call, address: u64) -> io::Result<Option<[u32; 3]>> {
        let mut words = [0_u32; 3];
        let length = size_of::<[u32; 3]>();
        let local = libc::iovec {
            iov_base: words.as_mut_ptr().cast(),
            iov_len: length,
        };
        let address = usize::try_from(address).map_err(io::Error::other)?;
        let remote = libc::iovec {
            iov_base: std::ptr::without_provenance_mut(address),
            iov_len: length,
        };
        // SAFETY: the local vector is `words`, all of it; the remote one is memory of another process.
        let read = unsafe { libc::process_vm_readv(call.process, &raw const local, 1, &raw const remote, 1, 0) };
        if !self.still_waits(call)? {
            return Ok(None);
        }
        match usize::try_from(read) {
            Ok(read) if read == length => Ok(Some(words)),
            Ok(_) => Err(io::Error::from_raw_os_error(libc::EFAULT)),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Tells whether the call still waits: if not, its process id may be somebody else's by now.
    fn still_waits(&self, call: Call) -> io::Result<bool> {
        // SAFETY: the request is for the address of an id.
        unless_gone(unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                libc::SECCOMP_IOCTL_NOTIF_ID_VALID,
                &raw const call.id,
            )
        })
    }

    /// Ends a call with an error.
    pub(super) fn refuse(&self, call: Call, errno: i32) -> io::Result<()> {
        let answer = seccomp_notif_resp {
            id: call.id,
            val: 0,
            error: -errno,
            flags: 0,
        };
        // SAFETY: the request is for a structure of this type.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) };
        unless_gone(result).map(drop)
    }

    /// Ends a call with a copy of `descriptor`, which its process gets.
    pub(super) fn give(&self, call: Call, descriptor: impl AsFd, close_on_exec: bool) -> io::Result<()> {
        let answer = seccomp_notif_addfd {
            id: call.id,
            flags: ADD_AND_ANSWER,
            srcfd: descriptor.as_fd().as_raw_fd().unsigned_abs(),
            newfd: 0,
            newfd_flags: if close_on_exec {
                libc::O_CLOEXEC.unsigned_abs()
            } else {
                0
            },
        };
        // SAFETY: the request is for a structure of this type.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const answer) };
        unless_gone(result).map(drop)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// False where the process that made the call is not there any more.
fn unless_gone(result: libc::c_int) -> io::Result<bool> {
    if result >= 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ENOENT) {
        Ok(false)
    } else {
        Err(error)
    }
}
