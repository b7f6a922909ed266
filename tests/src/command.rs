//! A child process under a deadline, its output kept in a file.
//!
//! Output goes to a file and not to a pipe, so that a child can write as much as it likes while nobody reads, and so
//! that what it wrote can be shown at any time. The child leads a process group; whatever of it is left when the
//! value is dropped is killed.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::host::wait_until;

/// How long a child has to end after a polite signal.
const GRACE: Duration = Duration::from_secs(20);

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    title: String,
    child: Child,
    output: PathBuf,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` with both its output streams in the file `output`, as the leader of a process group.
    ///
    /// # Panics
    ///
    /// When the output file or the process cannot be made.
    pub fn start(command: &mut Command, output: &Path) -> Self {
        let title = format!("{command:?}");
        let file = fs::File::create(output).expect("the test's directory is writable");
        let errors = file.try_clone().expect("a file descriptor can be cloned");
        command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0);
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{title} does not start: {error}"));
        Self {
            title,
            child,
            output: output.to_owned(),
            status: None,
        }
    }

    /// Sends `signal` to the process itself, not to its group: what a supervisor does.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(self.pid(), signal)?)
    }

    /// The id of the process.
    #[must_use]
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// What the process wrote so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    /// The exit status, once the process has ended.
    pub fn status(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
        }
        self.status
    }

    /// Waits until the process ends.
    ///
    /// # Panics
    ///
    /// With the output, when it still runs after `deadline`.
    pub fn finish(mut self, deadline: Duration) -> Finished {
        let ended = wait_until(deadline, || self.status().is_some());
        if !ended {
            let output = self.output();
            panic!("{} still runs after {deadline:?}; it wrote:\n{output}", self.title);
        }
        let status = self.status.expect("the loop above ends with a status");
        Finished {
            title: self.title.clone(),
            status,
            output: self.output(),
        }
    }

    /// Ends the process with SIGTERM, or with SIGKILL when it does not listen.
    pub fn stop(&mut self) {
        if self.status().is_some() {
            return;
        }
        // It may have ended since; the wait below sees that.
        self.signal(Signal::TERM).ok();
        if !wait_until(GRACE, || self.status().is_some()) {
            self.kill();
        }
    }

    /// Ends the whole process group at once, as a crash would.
    pub fn kill(&mut self) {
        // It may have ended by itself; the wait below sees that.
        kill_process_group(self.pid(), Signal::KILL).ok();
        self.status = self.child.wait().ok();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A process that has ended: how, and what it wrote.
#[derive(Debug)]
pub struct Finished {
    title: String,
    status: ExitStatus,
    output: String,
}

impl Finished {
    /// Both output streams, in the order of writing.
    #[must_use]
    pub fn output(&self) -> &str {
        &self.output
    }

    /// Passes the result on when the process succeeded.
    ///
    /// # Panics
    ///
    /// With the whole output, when it failed.
    pub fn expect_success(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// Passes the result on when the process failed by itself, not by a signal.
    ///
    /// # Panics
    ///
    /// With the whole output, when it succeeded or was killed.
    pub fn expect_failure(self) -> Self {
        assert!(!self.status.success() && self.status.signal().is_none(), "{self}");
        self
    }

    /// Passes the result on when the output holds `text`.
    ///
    /// # Panics
    ///
    /// With the whole output, when it does not.
    pub fn expect_text(self, text: &str) -> Self {
        assert!(self.output.contains(text), "the output lacks {text:?}: {self}");
        self
    }

    /// Passes the result on when the output does not hold `text`.
    ///
    /// # Panics
    ///
    /// With the whole output, when it does.
    pub fn expect_no_text(self, text: &str) -> Self {
        assert!(
            !self.output.contains(text),
            "the output should not hold {text:?}: {self}"
        );
        self
    }
}

impl fmt::Display for Finished {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} ended with {}; it wrote:\n{}",
            self.title, self.status, self.output
        )
    }
}
