//! The one error of this crate: why a request was not taken, and the gRPC code that tells a client what to do about it.

use std::fmt;

use rootcellar_proto::rpc::Code;

use crate::{LeaseId, Unsatisfiable, WorkerId};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Says why the scheduler did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The platform properties are wrong in themselves.
    InvalidPlatform(String),
    /// No worker is known, so no action can run.
    NoWorkers,
    /// No known worker could ever run the action.
    Unsatisfiable(Box<Unsatisfiable>),
    /// A bound of [`Policy`](crate::Policy) is reached.
    Full {
        /// What there is too much of.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// There is an operation of this name already.
    NameTaken(String),
    /// There is no operation of this name, or no longer.
    NoSuchOperation(String),
    /// The operation goes on, and only a finished one can be forgotten.
    NotFinished(String),
    /// The server is shutting down.
    Draining,
    /// The worker left or was given up: it has to join again.
    NoSuchWorker(WorkerId),
    /// The lease is not this worker's, or no longer: what it did counts for nothing.
    NoSuchLease(LeaseId),
    /// The worker asks for more than its slots hold.
    NoFreeSlot(WorkerId),
}

impl Error {
    /// The code that a gRPC status for this error carries.
    pub const fn code(&self) -> Code {
        match self {
            Self::InvalidPlatform(_) => Code::InvalidArgument,
            Self::NoWorkers | Self::Unsatisfiable(_) | Self::NotFinished(_) | Self::NoFreeSlot(_) => {
                Code::FailedPrecondition
            }
            Self::Full { .. } => Code::ResourceExhausted,
            Self::NameTaken(_) => Code::AlreadyExists,
            Self::NoSuchOperation(_) | Self::NoSuchWorker(_) | Self::NoSuchLease(_) => Code::NotFound,
            Self::Draining => Code::Unavailable,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidPlatform(reason) => write!(f, "invalid platform: {reason}"),
            Self::NoWorkers => f.write_str("this server has no workers to run actions"),
            Self::Unsatisfiable(unsatisfiable) => unsatisfiable.fmt(f),
            Self::Full { what, limit } => write!(f, "there are {limit} {what}, and no room for more: try again later"),
            Self::NameTaken(name) => write!(f, "operation {name} exists already"),
            Self::NoSuchOperation(name) => {
                write!(f, "no operation {name}: it never was or is forgotten, execute again")
            }
            Self::NotFinished(name) => write!(f, "operation {name} is not finished: cancel it or wait for it first"),
            Self::Draining => f.write_str("the server is shutting down: try again later"),
            Self::NoSuchWorker(WorkerId(id)) => write!(f, "worker {id} is not here: join again"),
            Self::NoSuchLease(LeaseId(id)) => write!(f, "lease {id} is over: its work counts for nothing"),
            Self::NoFreeSlot(WorkerId(id)) => write!(f, "worker {id} has no free slot for more work"),
        }
    }
}

impl std::error::Error for Error {}
