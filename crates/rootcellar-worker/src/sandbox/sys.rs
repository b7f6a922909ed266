//! The raw system calls that rustix does not offer, each behind a safe function.
//!
//! All of it runs in the helper's processes, which have one thread each. That is what makes `clone` without `exec`,
//! and the closing of descriptors by number, sound here and nowhere else in the program.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::time::Duration;

use rustix::process::Pid;

use super::error::{Failure, failed};
use super::message::Usage;

/// The personalities of linux/personality.h: the usual one, and the one that calls a machine by its 32-bit name.
const PER_LINUX: libc::c_ulong = 0;
const PER_LINUX32: libc::c_ulong = 8;

/// The highest signal number.
const SIGNALS_MAX: libc::c_int = 64;

/// The exit code of a child that panicked. Nobody reads it: the missing report says it.
const PANICKED: i32 = 101;

/// Starts a copy of this process, in new namespaces as `flags` says, that runs `child` and then exits.
pub(super) fn clone_child(flags: libc::c_int, child: impl FnOnce() -> i32) -> io::Result<Pid> {
    let flags = libc::c_long::from(flags | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child has its own copy of all memory, and with one thread no lock is held by
    // somebody who does not exist in it. A null stack means the caller's own.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(PANICKED);
            // SAFETY: `_exit` has no preconditions. The child must not run the exit handlers of its parent.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .expect("clone returns a positive 32-bit pid")),
    }
}

/// Waits for `pid` to end, and returns its wait status and what it and the children it waited for have used.
pub(super) fn wait_with_usage(pid: Pid) -> io::Result<(i32, Usage)> {
    let mut status = 0;
    // SAFETY: rusage is plain integers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the right type.
        let waited = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, 0, &raw mut usage) };
        if waited >= 0 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let usage = Usage {
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    };
    Ok((status, usage))
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
}

/// Replaces this process by `program`; returns only to say why that did not work.
pub(super) fn execve(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let arguments = pointers(arguments);
    let environment = pointers(environment);
    // SAFETY: both arrays end with a null pointer, and the strings they point to outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

/// Changes the flags of a mount, and of all below it where `recursive`; all of them stop sharing events with others.
pub(super) fn set_mount_flags(mount: impl AsFd, recursive: bool, set: u64, clear: u64) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let attributes = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation: libc::MS_PRIVATE,
        userns_fd: 0,
    };
    let mount = mount.as_fd().as_raw_fd();
    // SAFETY: the path is a terminated string, and the structure is of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount,
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    checked(result)
}

/// Closes every descriptor from 3 up, apart from `kept`.
///
/// What owned them must not be used or dropped afterwards: for a child that ends in `exec` or `_exit`.
pub(super) fn close_descriptors_but(kept: RawFd) -> io::Result<()> {
    let kept = kept.unsigned_abs();
    if kept > 3 {
        close_range(3, kept - 1)?;
    }
    close_range(kept.max(2) + 1, libc::c_uint::MAX)
}

/// Closes every descriptor from 3 up, for a process that has just begun and has opened none itself.
pub(super) fn close_what_was_inherited() -> io::Result<()> {
    close_range(3, libc::c_uint::MAX)
}

/// Closes descriptors of the parent that a child was born with, and whose owners it will neither use nor drop.
pub(super) fn close_inherited<const N: usize>(descriptors: [RawFd; N]) {
    for descriptor in descriptors {
        // SAFETY: the caller's contract. In the child the owners are copies on a stack that is never unwound.
        unsafe { libc::close(descriptor) };
    }
}

fn close_range(first: libc::c_uint, last: libc::c_uint) -> io::Result<()> {
    // SAFETY: no pointers. The caller's contract is that nothing uses the closed descriptors any more.
    checked(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })
}

/// Returns a descriptor that tells of children that end, and stops them from telling otherwise.
pub(super) fn child_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by `sigemptyset` before it is used, and outlives the calls.
    let descriptor = unsafe {
        let mut signals: libc::sigset_t = zeroed();
        libc::sigemptyset(&raw mut signals);
        libc::sigaddset(&raw mut signals, libc::SIGCHLD);
        checked(libc::sigprocmask(libc::SIG_BLOCK, &raw const signals, ptr::null_mut()).into())?;
        libc::signalfd(-1, &raw const signals, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    checked(descriptor.into())?;
    // SAFETY: the descriptor is fresh and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Lets the kernel forget children as they end: nobody waits for them.
pub(super) fn let_children_go() -> io::Result<()> {
    set_child_signal(libc::SIG_IGN)
}

/// Undoes [`let_children_go`], for a child that has children to wait for.
pub(super) fn wait_for_children() -> io::Result<()> {
    set_child_signal(libc::SIG_DFL)
}

fn set_child_signal(handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: neither of the two values that are passed is a function that could run.
    match unsafe { libc::signal(libc::SIGCHLD, handler) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Moves this process to a new namespace of its own.
pub(super) fn unshare(name: &str, flag: libc::c_int) -> Result<(), Failure> {
    // SAFETY: no memory or descriptor table is unshared, only namespaces; and there is one thread.
    checked(unsafe { libc::unshare(flag) }.into()).map_err(failed(format!("make a new {name} namespace")))
}

/// Kills every process of this pid namespace but its init, which the caller is.
pub(super) fn kill_all_others_in_pid_namespace() -> rustix::io::Result<()> {
    // SAFETY: no pointers.
    let pid = unsafe { libc::getpid() };
    assert_eq!(pid, 1, "only the init of a pid namespace may kill everybody in sight");
    // SAFETY: no pointers.
    match unsafe { libc::kill(-1, libc::SIGKILL) } {
        0 => Ok(()),
        _ => Err(rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::IO)),
    }
}

/// Gives this process a new, empty session keyring, so that it does not possess the server's keys. A kernel without
/// keyrings has nothing to hide.
pub(super) fn join_new_session_keyring() -> io::Result<()> {
    let name: *const libc::c_char = ptr::null();
    // SAFETY: a null name asks for an anonymous keyring.
    let joined = checked(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) });
    match joined {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        joined => joined,
    }
}

/// Makes `uname` report this machine, or its 32-bit sibling, for this process and its children; all other traits that
/// a personality can have are the usual ones.
pub(super) fn set_personality(bits_32: bool) -> io::Result<()> {
    // SAFETY: no pointers.
    checked(unsafe { libc::personality(if bits_32 { PER_LINUX32 } else { PER_LINUX }) }.into())
}

/// Sets every signal to its default and unblocks all of them.
pub(super) fn reset_signals() -> io::Result<()> {
    // The kernel's `struct sigaction`, which has three or four words: SIG_DFL, no flags, an empty mask.
    let default = [0_u64; 4];
    let mask_bytes = size_of::<u64>();
    let old: *mut u64 = ptr::null_mut();
    for signal in 1..=SIGNALS_MAX {
        // The answer does not matter: SIGKILL and SIGSTOP cannot be set. libc's own call would spare the two signals
        // that it keeps for itself, which may be ignored too.
        // SAFETY: `default` is at least as large as what the kernel reads, and installs no code.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), old, mask_bytes) };
    }
    // SAFETY: the set is one word of bits, as many bytes as are passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            default.as_ptr(),
            old,
            mask_bytes,
        )
    };
    checked(result)
}

/// Brings the loopback interface of this network namespace up.
pub(super) fn bring_up_loopback() -> io::Result<()> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    checked(socket.into())?;
    // SAFETY: the descriptor is fresh and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: ifreq is plain data, for which zeroes are a value.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(up).expect("interface flags fit a short");
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which this is.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
}

fn checked(result: libc::c_long) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
