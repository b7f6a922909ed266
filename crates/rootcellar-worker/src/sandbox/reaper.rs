//! What process 1 does while the command runs: it reaps whatever ends, and answers for the system call filter.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, wait};

use super::error::{Failure, failed};
use super::seccomp::{self, Listener};
use super::sys;

/// Hears of every process that ends, from when it is made.
#[derive(Debug)]
pub(super) struct Reaper {
    signals: OwnedFd,
}

impl Reaper {
    /// Begins to listen. The command must be started after that.
    pub(super) fn new() -> Result<Self, Failure> {
        sys::child_signals()
            .map(|signals| Self { signals })
            .map_err(failed("listen for the end of processes"))
    }

    /// Works until the command ends; returns its wait status.
    pub(super) fn run_until_end_of(&self, command: Pid, listener: Option<&Listener>) -> Result<i32, Failure> {
        loop {
            if let Some(status) = reap_all_ended(command)? {
                return Ok(status);
            }
            let mut sources = vec![PollFd::new(&self.signals, PollFlags::IN)];
            sources.extend(listener.map(|listener| PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)));
            match poll(&mut sources, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("wait for the command")(errno)),
            }
            let ready: Vec<bool> = sources.iter().map(|source| !source.revents().is_empty()).collect();
            if ready[0] {
                self.forget_signals()?;
            }
            if let (Some(listener), Some(true)) = (listener, ready.get(1)) {
                seccomp::answer_one(listener).map_err(failed("answer for the system call filter"))?;
            }
        }
    }

    /// Takes the signals that have come: who has ended is asked of the kernel itself.
    fn forget_signals(&self) -> Result<(), Failure> {
        let mut buffer = [0; 8 * size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.signals, &mut buffer) {
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Err(errno) => Err(failed("read signals")(errno)),
        }
    }
}

/// Reaps everything that has ended; returns the command's wait status if it is among that.
fn reap_all_ended(command: Pid) -> Result<Option<i32>, Failure> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == command => return Ok(Some(status.as_raw())),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(None),
            Err(errno) => return Err(failed("reap the processes of the sandbox")(errno)),
        }
    }
}

/// Kills and reaps what the command left behind. The kernel would do it when this process ends, but would not count
/// what those processes used.
pub(super) fn end_all_others() -> Result<(), Failure> {
    match sys::kill_all_others_in_pid_namespace() {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => return Err(failed("kill what the command left behind")(errno)),
    }
    loop {
        match wait(WaitOptions::empty()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::CHILD) => return Ok(()),
            Err(errno) => return Err(failed("reap what the command left behind")(errno)),
        }
    }
}
