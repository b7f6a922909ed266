//! What a call that failed tells: whether to try again, what is missing, and words for a person.

use std::error::Error as _;
use std::time::Duration;

use prost::Message as _;
use prost_types::Any;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::rpc;
use rootcellar_reapi::{Error, Functions, ReadName};
use tonic::{Code, Status};

use crate::status::kind_of;

/// Whether the same call may succeed a moment later: the server says so, or the connection broke.
///
/// A status with a source was not sent by the server but made here, of an error of the transport.
pub(super) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}

/// When the server wants to be asked again (`google.rpc.RetryInfo`).
pub(super) fn retry_delay(status: &Status) -> Option<Duration> {
    let details = details(status);
    let info = details
        .iter()
        .find_map(|detail| detail.to_msg::<rpc::RetryInfo>().ok())?;
    info.retry_delay?.try_into().ok()
}

/// The error of a call that failed.
pub(super) fn error_of_call(status: &Status) -> Error {
    // What the transport could not do is something else than what a server does not know or did wrong.
    let code = if is_transient(status) {
        Code::Unavailable
    } else {
        status.code()
    };
    let error = error(code, status.message(), &details(status));
    match status.source() {
        Some(source) => error.about(deepest(source)),
        None => error,
    }
}

/// The error that a status inside of an answer stands for, if it is one: of an `ExecuteResponse`, an asset, or one item of a
/// batch.
///
/// # Errors
/// With the kind of the status's code, and the missing blobs that its details name.
pub fn check_status(status: &rpc::Status) -> Result<(), Error> {
    match Code::from_i32(status.code) {
        Code::Ok => Ok(()),
        code => Err(error(code, &status.message, &status.details)),
    }
}

fn error(code: Code, message: &str, details: &[Any]) -> Error {
    let missing = missing(details);
    if !missing.is_empty() {
        return Error::missing_blobs(missing);
    }
    match message {
        "" => Error::new(kind_of(code), code.description()),
        message => Error::new(kind_of(code), message),
    }
}

/// Words of the transport's error itself: those above it only say that there is one below.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut deepest = error;
    while let Some(below) = deepest.source() {
        deepest = below;
    }
    deepest.to_string()
}

fn details(status: &Status) -> Vec<Any> {
    // Details that do not decode say nothing; code and message still do.
    rpc::Status::decode(status.details()).unwrap_or_default().details
}

/// The blobs that a status says are missing (`google.rpc.PreconditionFailure`, violations of type `MISSING`).
fn missing(details: &[Any]) -> Vec<Digest> {
    let failures = details
        .iter()
        .filter_map(|detail| detail.to_msg::<rpc::PreconditionFailure>().ok());
    let violations = failures.flat_map(|failure| failure.violations);
    let functions = Functions::new(DigestFunction::ALL.to_vec()).expect("each function is there once");
    violations
        .filter(|violation| violation.r#type == "MISSING")
        .filter_map(|violation| ReadName::parse(&violation.subject, &functions).ok())
        .map(|name| name.digest)
        .collect()
}

#[cfg(test)]
mod tests {
    use rootcellar_reapi::ErrorKind;

    use super::*;
    use crate::status::to_wire;

    #[test]
    fn missing_blobs_are_read_back_from_the_wire() {
        let blobs = DigestFunction::ALL.map(|function| Digest::of(function, b"content"));
        let sent = Error::missing_blobs(blobs.to_vec());
        // SHA256TREE of a short text is its SHA-256, and the others have hashes of their own.
        let inline = check_status(&sent.to_status()).unwrap_err();
        assert_eq!(
            (inline.kind(), inline.missing()),
            (ErrorKind::FailedPrecondition, &blobs[..])
        );
        let call = error_of_call(&to_wire(sent.to_status()));
        assert_eq!(
            (call.kind(), call.missing()),
            (ErrorKind::FailedPrecondition, &blobs[..])
        );
        assert!(check_status(&rpc::Status::default()).is_ok());
    }

    #[test]
    fn a_status_without_words_is_explained_by_its_code() {
        let error = error_of_call(&Status::new(Code::PermissionDenied, ""));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn a_connection_that_broke_is_no_fault_of_the_server() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        let error = error_of_call(&Status::from_error(Box::new(broken)));
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert_eq!(error_of_call(&Status::unknown("said so")).kind(), ErrorKind::Internal);
    }

    #[test]
    fn the_server_is_heard_when_it_says_when_to_come_back() {
        let unavailable = Error::new(ErrorKind::Unavailable, "busy");
        let status = crate::status::refuse(unavailable);
        assert!(is_transient(&status));
        assert_eq!(retry_delay(&status), Some(Duration::from_secs(1)));
        assert_eq!(retry_delay(&Status::unavailable("busy")), None);
    }
}
