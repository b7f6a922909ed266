//! Errors on their way to the wire and back: the one place where they change their form.
//!
//! An [`Error`] becomes a gRPC status with the same code and message. What it carries beside them travels as a serialised
//! `google.rpc.Status` in the trailer `grpc-status-details-bin`, where clients of the rich error model look.

use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use rootcellar_proto::rpc;
use rootcellar_reapi::{Error, ErrorKind};
use tokio::task::JoinError;
use tonic::{Code, Status};

/// Bytes of details in a trailer. Many clients take 8 KiB of headers in all; a call whose trailers are larger fails for them
/// with an error that says nothing. What is cut here is still told by the message.
pub(crate) const TRAILER_DETAILS_BYTES_MAX: usize = 4096;

/// Bytes of a message in a trailer: names that clients sent can be long, and percent-encoding triples them.
const TRAILER_MESSAGE_BYTES_MAX: usize = 1024;

/// When a client that was told to come back should do so.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The status that a call fails with. Errors that an operator has to look at are logged here.
pub(crate) fn refuse(error: impl Into<Error>) -> Status {
    let error = error.into();
    match error.kind() {
        ErrorKind::Internal | ErrorKind::DataLoss => tracing::error!(%error, "a call failed"),
        kind => tracing::debug!(%error, ?kind, "a call was refused"),
    }
    to_wire(with_retry_delay(error.to_status()))
}

/// Puts a `google.rpc.Status` into the status of a call.
pub(crate) fn to_wire(mut status: rpc::Status) -> Status {
    status
        .message
        .truncate(status.message.floor_char_boundary(TRAILER_MESSAGE_BYTES_MAX));
    let (code, message) = (Code::from_i32(status.code), status.message.clone());
    if status.details.is_empty() || status.encoded_len() > TRAILER_DETAILS_BYTES_MAX {
        return Status::new(code, message);
    }
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// Tells clients of a server that is unable for a moment when to come back (GEN-1).
fn with_retry_delay(mut status: rpc::Status) -> rpc::Status {
    if status.code == i32::from(rpc::Code::Unavailable) {
        let info = rpc::RetryInfo {
            retry_delay: Some(RETRY_DELAY.try_into().expect("a second is a valid duration")),
        };
        let detail = Any::from_msg(&info).expect("a buffer in memory grows to hold any message");
        status.details.push(detail);
    }
    status
}

/// Reads the status of a call, or of a stream that broke off, that the other side or the transport sent.
pub(crate) fn from_wire(status: &Status) -> Error {
    Error::new(kind_of(status.code()), status.message())
}

/// The error of a call whose task panicked. What the panic said is for the log only.
pub(crate) fn from_panic(panic: &JoinError) -> Error {
    tracing::error!(%panic, "a task of a call did not end");
    Error::new(ErrorKind::Internal, BUG)
}

/// What a client is told of a panic.
pub(crate) const BUG: &str = "the server met a bug in itself; its log says more";

/// An error of the scheduler, as the API tells it.
pub(crate) fn from_scheduler(error: rootcellar_scheduler::Error) -> Error {
    let code = Code::from_i32(error.code().into());
    Error::new(kind_of(code), "").caused_by(error)
}

/// The kind of error that a code stands for.
pub(crate) fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument => ErrorKind::InvalidArgument,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::OutOfRange => ErrorKind::OutOfRange,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::DataLoss => ErrorKind::DataLoss,
        Code::DeadlineExceeded => ErrorKind::DeadlineExceeded,
        Code::Aborted => ErrorKind::Aborted,
        Code::Cancelled => ErrorKind::Cancelled,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}
