//! What can go wrong on the way to a result, sorted by what the caller should do about it.
//!
//! A command that ends badly is no error: that is an [`Outcome`](super::Outcome).

use std::fmt;
use std::io;

/// Says what the caller should do about a [`SandboxError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxErrorKind {
    /// The spec or the staged root is not fit to run, here or anywhere: tell whoever sent the action.
    Unfit,
    /// This machine could not build the sandbox: another worker may, and its operator should hear of it.
    Machine,
    /// The sandbox ended without a report (killed from outside, out of memory): run the action again.
    Lost,
}

/// Tells why a sandbox gave no result: the kind, the step that failed, and the kernel's answer if it was the kernel's.
#[derive(Debug)]
pub struct SandboxError {
    kind: SandboxErrorKind,
    step: String,
    source: Option<io::Error>,
}

impl SandboxError {
    pub(super) fn new(kind: SandboxErrorKind, step: impl Into<String>, source: Option<io::Error>) -> Self {
        let step = step.into();
        Self { kind, step, source }
    }

    pub(super) fn unfit(step: impl Into<String>) -> Self {
        Self::new(SandboxErrorKind::Unfit, step, None)
    }

    /// Returns what the caller should do.
    pub fn kind(&self) -> SandboxErrorKind {
        self.kind
    }

    /// Returns the step that failed, such as `mount /proc`.
    pub fn step(&self) -> &str {
        &self.step
    }
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{}: {source}", self.step),
            None => f.write_str(&self.step),
        }
    }
}

impl std::error::Error for SandboxError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source
            .as_ref()
            .map(|source| source as &(dyn std::error::Error + 'static))
    }
}

/// A failure inside the helper: small enough to travel over a pipe, from whichever process saw it to the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: SandboxErrorKind,
    pub(super) step: String,
    /// The kernel's error number, or 0 where the kernel was not asked.
    pub(super) errno: i32,
}

impl Failure {
    pub(super) fn unfit(step: impl Into<String>) -> Self {
        Self {
            kind: SandboxErrorKind::Unfit,
            step: step.into(),
            errno: 0,
        }
    }

    pub(super) fn into_error(self) -> SandboxError {
        let source = (self.errno != 0).then(|| io::Error::from_raw_os_error(self.errno));
        SandboxError::new(self.kind, self.step, source)
    }
}

/// Makes the closure that `map_err` wants: the machine's refusal of one step.
pub(super) fn failed<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |source| {
        let errno = source.into().raw_os_error().unwrap_or(0);
        Failure {
            kind: SandboxErrorKind::Machine,
            step: step.into(),
            errno,
        }
    }
}

/// Like [`failed`], where the fault lies with the spec or the staged root.
pub(super) fn unfit<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Failure {
    move |source| Failure {
        kind: SandboxErrorKind::Unfit,
        ..failed(step)(source)
    }
}
