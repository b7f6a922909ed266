//! The requests of the API, which come in pairs: one for blobs, one for directories, with the same fields.

use std::time::SystemTime;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::{asset, reapi};

use crate::{Error, Functions, Result, functions, protobuf_time};

/// A push of a blob or a directory.
pub(super) struct Push<'a> {
    pub(super) uris: &'a [String],
    pub(super) qualifiers: &'a [asset::Qualifier],
    content: (&'static str, Option<&'a reapi::Digest>),
    function: i32,
    expire_at: Option<prost_types::Timestamp>,
    references_blobs: &'a [reapi::Digest],
    references_directories: &'a [reapi::Digest],
}

impl<'a> From<&'a asset::PushBlobRequest> for Push<'a> {
    fn from(request: &'a asset::PushBlobRequest) -> Self {
        Self {
            uris: &request.uris,
            qualifiers: &request.qualifiers,
            content: ("blob_digest", request.blob_digest.as_ref()),
            function: request.digest_function,
            expire_at: request.expire_at,
            references_blobs: &request.references_blobs,
            references_directories: &request.references_directories,
        }
    }
}

impl<'a> From<&'a asset::PushDirectoryRequest> for Push<'a> {
    fn from(request: &'a asset::PushDirectoryRequest) -> Self {
        Self {
            uris: &request.uris,
            qualifiers: &request.qualifiers,
            content: ("root_directory_digest", request.root_directory_digest.as_ref()),
            function: request.digest_function,
            expire_at: request.expire_at,
            references_blobs: &request.references_blobs,
            references_directories: &request.references_directories,
        }
    }
}

impl Push<'_> {
    /// What the URIs will lead to. Its function is that of all digests of the request.
    pub(super) fn content(&self, functions: &Functions) -> Result<Digest> {
        let (field, digest) = self.content;
        functions.digest(self.function, field, digest)
    }

    /// When the association ends, if it does by itself.
    pub(super) fn expires(&self) -> Result<Option<SystemTime>> {
        let expires = self.expire_at.map(protobuf_time::time).transpose();
        expires.map_err(|error| error.about("expire_at"))
    }

    pub(super) fn references_blobs(&self, function: DigestFunction) -> Result<Vec<Digest>> {
        read_all(function, "references_blobs", self.references_blobs)
    }

    pub(super) fn references_directories(&self, function: DigestFunction) -> Result<Vec<Digest>> {
        read_all(function, "references_directories", self.references_directories)
    }
}

fn read_all(function: DigestFunction, field: &str, digests: &[reapi::Digest]) -> Result<Vec<Digest>> {
    let read = |digest| functions::from_proto(function, digest).map_err(|error: Error| error.about(field));
    digests.iter().map(read).collect()
}

/// A fetch of a blob or a directory.
pub(super) struct Fetch<'a> {
    pub(super) uris: &'a [String],
    pub(super) qualifiers: &'a [asset::Qualifier],
    function: i32,
    timeout: Option<prost_types::Duration>,
    oldest: Option<prost_types::Timestamp>,
}

impl<'a> From<&'a asset::FetchBlobRequest> for Fetch<'a> {
    fn from(request: &'a asset::FetchBlobRequest) -> Self {
        Self {
            uris: &request.uris,
            qualifiers: &request.qualifiers,
            function: request.digest_function,
            timeout: request.timeout,
            oldest: request.oldest_content_accepted,
        }
    }
}

impl<'a> From<&'a asset::FetchDirectoryRequest> for Fetch<'a> {
    fn from(request: &'a asset::FetchDirectoryRequest) -> Self {
        Self {
            uris: &request.uris,
            qualifiers: &request.qualifiers,
            function: request.digest_function,
            timeout: request.timeout,
            oldest: request.oldest_content_accepted,
        }
    }
}

impl Fetch<'_> {
    /// The function that is wanted: SHA256 where a client does not say (REAPI Remote Asset, `FetchBlobRequest`).
    pub(super) fn function(&self, functions: &Functions) -> Result<DigestFunction> {
        match functions.named(self.function)? {
            Some(named) => Ok(named),
            None => Ok(functions.check(DigestFunction::Sha256).unwrap_or(functions.first())),
        }
    }

    /// The time since which the content must have been pushed.
    pub(super) fn oldest(&self) -> Result<Option<SystemTime>> {
        let oldest = self.oldest.map(protobuf_time::time).transpose();
        oldest.map_err(|error| error.about("oldest_content_accepted"))
    }

    /// Checks the bound on a fetch from elsewhere. There is none here, but a wrong bound is wrong all the same.
    pub(super) fn check_timeout(&self) -> Result<()> {
        let timeout = self.timeout.map(protobuf_time::duration).transpose();
        timeout.map(drop).map_err(|error| error.about("timeout"))
    }
}
