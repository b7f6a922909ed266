//! The one error of this crate, made so that it turns into a `google.rpc.Status` without loss.
//!
//! Kinds follow the canonical codes of gRPC, since they say what a caller should do. Beside its message an error can carry
//! two lists that clients act on: the blobs that are missing, which a client uploads before it tries again, and the fields
//! of the request that are wrong.

use std::error::Error as StdError;
use std::fmt;

use rootcellar_digest::{Digest, DigestError};
use rootcellar_proto::rpc::{self, bad_request, precondition_failure};

use crate::resource_name::blob_name;

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The longest list of violations in a status. A client that is told of this many missing blobs uploads them, tries again
/// and hears of the others; the whole status stays well under the 4 MiB that every gRPC peer accepts.
pub const VIOLATIONS_MAX: usize = 16_384;

/// What a caller can do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong whatever the server holds.
    InvalidArgument,
    /// The request is right but the server is not in the state for it; a blob that has to be uploaded first is missing.
    FailedPrecondition,
    /// What was named is not here.
    NotFound,
    /// What should be made is here already.
    AlreadyExists,
    /// An offset lies behind the end.
    OutOfRange,
    /// A quota or a limit was reached.
    ResourceExhausted,
    /// The caller may not do this.
    PermissionDenied,
    /// The server does not offer this.
    Unimplemented,
    /// Trying again later can help.
    Unavailable,
    /// Stored bytes are not what they were.
    DataLoss,
    /// Time ran out.
    DeadlineExceeded,
    /// A check of consistency failed while the request was served.
    Aborted,
    /// The caller, or somebody for them, asked for the end.
    Cancelled,
    /// An operator has to look.
    Internal,
}

impl ErrorKind {
    /// The code of the kind, as a gRPC status and a `google.rpc.Status` carry it.
    pub const fn code(self) -> rpc::Code {
        match self {
            Self::InvalidArgument => rpc::Code::InvalidArgument,
            Self::FailedPrecondition => rpc::Code::FailedPrecondition,
            Self::NotFound => rpc::Code::NotFound,
            Self::AlreadyExists => rpc::Code::AlreadyExists,
            Self::OutOfRange => rpc::Code::OutOfRange,
            Self::ResourceExhausted => rpc::Code::ResourceExhausted,
            Self::PermissionDenied => rpc::Code::PermissionDenied,
            Self::Unimplemented => rpc::Code::Unimplemented,
            Self::Unavailable => rpc::Code::Unavailable,
            Self::DataLoss => rpc::Code::DataLoss,
            Self::DeadlineExceeded => rpc::Code::DeadlineExceeded,
            Self::Aborted => rpc::Code::Aborted,
            Self::Cancelled => rpc::Code::Cancelled,
            Self::Internal => rpc::Code::Internal,
        }
    }
}

/// Says why a request of the API was not served.
pub struct Error(
    // Boxed: results are returned everywhere, and most of them are no errors.
    Box<Inner>,
);

struct Inner {
    kind: ErrorKind,
    message: String,
    missing: Vec<Digest>,
    field_violations: Vec<FieldViolation>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// A field of a request that is wrong (`google.rpc.BadRequest.FieldViolation`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path in the request, such as `qualifiers.name`.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Error {
    /// Makes an error of `kind` with a message in lower case that says what to do next where that is not plain.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            missing: Vec::new(),
            field_violations: Vec::new(),
            source: None,
        }))
    }

    /// Makes the error of a request that is wrong in itself.
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgument, message)
    }

    /// Makes the error of a thing that is not here.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Makes the error of a limit that the request goes past.
    pub fn resource_exhausted(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::ResourceExhausted, message)
    }

    /// Makes the error of an execution whose inputs are not all in the store: `FAILED_PRECONDITION` with one `MISSING`
    /// violation for each blob, upon which clients upload them and try again (REAPI, `Execution.Execute`).
    ///
    /// # Panics
    /// If nothing is missing.
    pub fn missing_blobs(missing: Vec<Digest>) -> Self {
        let first = missing
            .first()
            .expect("an error about missing blobs names at least one");
        let message = match missing.len() {
            1 => format!(
                "{} is missing from the store: upload it and try again",
                blob_name(first)
            ),
            count => format!(
                "{count} blobs are missing from the store, {} among them: upload them and try again",
                blob_name(first)
            ),
        };
        let mut error = Self::new(ErrorKind::FailedPrecondition, message);
        error.0.missing = missing;
        error
    }

    /// Adds fields of the request that are wrong, for clients that read `google.rpc.BadRequest`.
    #[must_use]
    pub fn with_field_violations(mut self, violations: Vec<FieldViolation>) -> Self {
        self.0.field_violations = violations;
        self
    }

    /// Says what the error is about, in front of the message.
    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.0.message = match self.0.message.as_str() {
            "" => subject.to_string(),
            message => format!("{subject}: {message}"),
        };
        self
    }

    /// Adds the error below this one.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The blobs to upload before the next try; empty unless [`Self::missing_blobs`] made this.
    pub fn missing(&self) -> &[Digest] {
        &self.0.missing
    }

    /// The error as it travels: in the trailers of a call, in an `ExecuteResponse`, or for one item of a batch.
    pub fn to_status(&self) -> rpc::Status {
        rpc::Status {
            code: self.0.kind.code().into(),
            message: self.to_string(),
            details: self.details(),
        }
    }

    fn details(&self) -> Vec<prost_types::Any> {
        let mut details = Vec::new();
        if !self.0.missing.is_empty() {
            details.push(packed(&self.precondition_failure()));
        }
        if !self.0.field_violations.is_empty() {
            details.push(packed(&self.bad_request()));
        }
        details
    }

    fn precondition_failure(&self) -> rpc::PreconditionFailure {
        let violation = |digest| precondition_failure::Violation {
            r#type: "MISSING".to_owned(),
            subject: blob_name(digest),
            description: "the blob is not in the store".to_owned(),
        };
        rpc::PreconditionFailure {
            violations: self.0.missing.iter().take(VIOLATIONS_MAX).map(violation).collect(),
        }
    }

    fn bad_request(&self) -> rpc::BadRequest {
        let violation = |FieldViolation { field, description }: &FieldViolation| bad_request::FieldViolation {
            field: field.clone(),
            description: description.clone(),
            ..Default::default()
        };
        rpc::BadRequest {
            field_violations: self
                .0
                .field_violations
                .iter()
                .take(VIOLATIONS_MAX)
                .map(violation)
                .collect(),
        }
    }
}

fn packed(message: &impl prost::Name) -> prost_types::Any {
    prost_types::Any::from_msg(message).expect("a buffer in memory grows to hold any message")
}

impl From<rootcellar_store::Error> for Error {
    fn from(error: rootcellar_store::Error) -> Self {
        use rootcellar_store::ErrorKind as Store;
        let kind = match error.kind() {
            Store::NotFound => ErrorKind::NotFound,
            Store::InvalidArgument => ErrorKind::InvalidArgument,
            Store::OutOfRange => ErrorKind::OutOfRange,
            Store::Exhausted => ErrorKind::ResourceExhausted,
            Store::Unavailable => ErrorKind::Unavailable,
            Store::DataLoss => ErrorKind::DataLoss,
            _ => ErrorKind::Internal,
        };
        Self::new(kind, "").caused_by(error)
    }
}

impl From<DigestError> for Error {
    fn from(error: DigestError) -> Self {
        Self::invalid_argument("").caused_by(error)
    }
}

impl From<&Error> for rpc::Status {
    fn from(error: &Error) -> Self {
        error.to_status()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.message.as_str(), &self.0.source) {
            ("", Some(source)) => write!(f, "{source}"),
            (message, Some(source)) => write!(f, "{message}: {source}"),
            (message, None) => f.write_str(message),
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

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;

    use super::*;

    #[test]
    fn every_missing_blob_is_a_violation_of_its_own() {
        let sha256 = Digest::of(DigestFunction::Sha256, b"a");
        let blake3 = Digest::of(DigestFunction::Blake3, b"b");
        let status = Error::missing_blobs(vec![sha256, blake3]).to_status();
        assert_eq!(status.code, i32::from(rpc::Code::FailedPrecondition));
        assert_eq!(status.details.len(), 1, "a foreign detail makes clients give up");
        let failure: rpc::PreconditionFailure = status.details[0].to_msg().unwrap();
        let subjects: Vec<_> = failure.violations.iter().map(|v| v.subject.as_str()).collect();
        assert_eq!(
            subjects,
            [
                format!("blobs/{}/1", sha256.hash_hex()),
                format!("blobs/blake3/{}/1", blake3.hash_hex())
            ]
        );
        assert!(failure.violations.iter().all(|v| v.r#type == "MISSING"));
    }

    #[test]
    fn wrong_fields_travel_as_a_bad_request() {
        let violation = FieldViolation {
            field: "qualifiers.name".to_owned(),
            description: "\"x\" not supported".to_owned(),
        };
        let status = Error::invalid_argument("unsupported qualifiers")
            .with_field_violations(vec![violation])
            .to_status();
        let bad: rpc::BadRequest = status.details[0].to_msg().unwrap();
        assert_eq!(bad.field_violations[0].field, "qualifiers.name");
        assert_eq!(bad.field_violations[0].description, "\"x\" not supported");
    }

    #[test]
    fn the_list_of_violations_is_bounded() {
        let digest = Digest::of(DigestFunction::Sha512, b"a");
        let status = Error::missing_blobs(vec![digest; VIOLATIONS_MAX + 1]).to_status();
        let failure: rpc::PreconditionFailure = status.details[0].to_msg().unwrap();
        assert_eq!(failure.violations.len(), VIOLATIONS_MAX);
        assert!(prost::Message::encoded_len(&status) < 4 * 1024 * 1024);
    }

    #[test]
    fn an_error_of_the_store_keeps_its_kind_and_its_words() {
        let digest = Digest::of(DigestFunction::Sha256, b"a");
        let error = Error::from(rootcellar_store::Error::not_found("get", digest)).about("input root");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(error.to_string(), format!("input root: get {digest}: no such blob"));
    }
}
