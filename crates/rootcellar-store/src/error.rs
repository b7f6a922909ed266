//! The one error of this crate: what the caller should do, what was tried, on what, and why it did not work.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use rootcellar_digest::Digest;
use rustix::io::Errno;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The blob or record is not here: upload or make it again.
    NotFound,
    /// The request can never succeed as it is: content that is not what its digest says, or a size that disagrees.
    InvalidArgument,
    /// The range begins behind the blob's end.
    OutOfRange,
    /// No room, no file descriptors, or a bound was reached: free something, or come back later.
    Exhausted,
    /// A backend does not answer now: try again.
    Unavailable,
    /// Stored bytes are not what they were. That blob is dropped; the store goes on.
    DataLoss,
    /// Anything else, an I/O error above all: an operator has to look.
    Internal,
}

impl ErrorKind {
    /// The kind of an I/O error: [`Exhausted`](Self::Exhausted) if space, memory or descriptors ran out, else
    /// [`Internal`](Self::Internal).
    pub fn of_io(error: &io::Error) -> Self {
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::NOSPC | Errno::DQUOT | Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Self::Exhausted,
            _ => Self::Internal,
        }
    }
}

/// Says that an operation of a store did not happen, and why.
pub struct Error(
    // Boxed: results are returned everywhere, and most of them are no errors.
    Box<Inner>,
);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    subject: Option<Digest>,
    reason: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind` that `operation` met ("get", "put", ...), with its reason in lower case.
    pub fn new(kind: ErrorKind, operation: &'static str, reason: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            subject: None,
            reason: reason.into(),
            source: None,
        }))
    }

    /// Makes the error of a blob that is not there.
    pub fn not_found(operation: &'static str, digest: Digest) -> Self {
        Self::new(ErrorKind::NotFound, operation, "no such blob").on(digest)
    }

    /// Makes an error of an I/O error, of the kind that [`ErrorKind::of_io`] tells.
    pub fn io(operation: &'static str, reason: impl Into<String>, source: io::Error) -> Self {
        Self::new(ErrorKind::of_io(&source), operation, reason).caused_by(source)
    }

    /// Names the blob that the operation was about.
    #[must_use]
    pub fn on(mut self, digest: Digest) -> Self {
        self.0.subject = Some(digest);
        self
    }

    /// Adds the error below this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The same error, for somebody else who is concerned by it.
    pub(crate) fn again(&self) -> Self {
        let Inner {
            kind,
            operation,
            subject,
            ..
        } = &*self.0;
        let reason = match &self.0.source {
            Some(source) => format!("{}: {source}", self.0.reason),
            None => self.0.reason.clone(),
        };
        let again = Self::new(*kind, operation, reason);
        match subject {
            Some(digest) => again.on(*digest),
            None => again,
        }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The blob that the operation was about, if it was about one.
    pub fn digest(&self) -> Option<Digest> {
        self.0.subject
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.operation)?;
        if let Some(digest) = &self.0.subject {
            write!(f, " {digest}")?;
        }
        write!(f, ": {}", self.0.reason)?;
        match &self.0.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({self})", self.0.kind)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0
            .source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}
