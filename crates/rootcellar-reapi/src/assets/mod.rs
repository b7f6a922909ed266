//! The index of assets: content of the store by the URI that it was pushed under.
//!
//! Nothing is ever fetched from elsewhere: what was not pushed is not found. Blobs and directories are apart, so that a URI may
//! stand for one of each. An asset is served only while its content, all below it, and what it was said to refer to is in the
//! store; a later push under the same name replaces it.
//!
//! The names of the messages are the API's (REAPI Remote Asset v1). Instances share one index, as they share one store.

mod association;
mod name;
mod request;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::{asset, rpc};
use rootcellar_store::{BlobStore, Clock, RecordKind, Records};

use self::association::Association;
pub use self::name::AssetNameLimits;
use self::name::AssetNames;
use self::request::{Fetch, Push};
use crate::closure::{self, ClosureLimits, Gathering};
use crate::quoted::Quoted;
use crate::spilled_records::SpilledRecords;
use crate::{Error, Functions, Result, functions};

/// The records of the two name spaces.
const BLOBS: RecordKind = RecordKind("asset-blob");
const DIRECTORIES: RecordKind = RecordKind("asset-directory");

/// What the index takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssetOptions {
    /// The digest functions that are announced.
    pub functions: Functions,
    /// Bounds on the names in one request.
    pub names: AssetNameLimits,
    /// Bounds on the blobs that are kept with one asset.
    pub closure: ClosureLimits,
}

/// Finds assets that were pushed.
#[derive(Debug, Clone)]
pub struct AssetIndex {
    blobs: SpilledRecords,
    directories: SpilledRecords,
    store: Arc<dyn BlobStore>,
    clock: Arc<dyn Clock>,
    options: AssetOptions,
}

impl AssetIndex {
    /// Makes an index that keeps associations in `records` and finds contents in `store`.
    pub fn new(
        records: Arc<dyn Records>,
        store: Arc<dyn BlobStore>,
        clock: Arc<dyn Clock>,
        options: AssetOptions,
    ) -> Self {
        Self {
            blobs: SpilledRecords {
                kind: BLOBS,
                records: records.clone(),
                store: store.clone(),
            },
            directories: SpilledRecords {
                kind: DIRECTORIES,
                records,
                store: store.clone(),
            },
            store,
            clock,
            options,
        }
    }

    /// Associates a blob that is in the store with URIs. If the call is dropped, some of the URIs may be associated already.
    ///
    /// References keep alive what of them is in the store now; a client may name more than it has uploaded.
    ///
    /// # Errors
    /// [`Error::missing_blobs`] if the blob is not in the store; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the
    /// request names no URI or no blob, or is wrong otherwise; [`ResourceExhausted`](crate::ErrorKind::ResourceExhausted) past a
    /// limit.
    pub async fn push_blob(&self, request: &asset::PushBlobRequest) -> Result<()> {
        self.push(&self.blobs, request.into()).await
    }

    /// Associates a directory that is in the store, with all below it, with URIs. Otherwise as [`Self::push_blob`].
    ///
    /// # Errors
    /// As [`Self::push_blob`]; what is missing may be anywhere below the directory.
    pub async fn push_directory(&self, request: &asset::PushDirectoryRequest) -> Result<()> {
        self.push(&self.directories, request.into()).await
    }

    async fn push(&self, records: &SpilledRecords, push: Push<'_>) -> Result<()> {
        let names = AssetNames::check(push.uris, push.qualifiers, &self.options.names)?;
        let content = push.content(&self.options.functions)?;
        let expires = push.expires()?;

        let mut closure = self.content_closure(records.kind, content).await?;
        closure.extend(self.references_closure(content.function(), &push).await?);
        let association = Association {
            pushed: self.clock.now(),
            content,
            closure,
        };
        let value = records.prepare(content.function(), association.encode()).await?;
        for (_, key) in names.keys(content.function()) {
            records.put(&key, value.clone(), expires).await?;
        }
        Ok(())
    }

    async fn content_closure(&self, kind: RecordKind, content: Digest) -> Result<Vec<Digest>> {
        let mut gathering = Gathering::new(&*self.store, &self.options.closure);
        if kind == DIRECTORIES {
            gathering.add_directory(content).await?;
        } else {
            gathering.add([content])?;
        }
        gathering.complete().await
    }

    /// What is there of the references. A directory with directories missing below it is left out.
    async fn references_closure(&self, function: DigestFunction, push: &Push<'_>) -> Result<Vec<Digest>> {
        let mut gathering = Gathering::new(&*self.store, &self.options.closure);
        gathering.add(push.references_blobs(function)?)?;
        for root in push.references_directories(function)? {
            let added = gathering.add_directory(root).await;
            added.map_err(|error| error.about("references_directories"))?;
        }
        let (present, _) = gathering.present().await?;
        Ok(present)
    }

    /// Finds the blob of the first URI that leads to one.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if none does; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the request
    /// names no URI, or is wrong otherwise; what the store or the records say if they cannot answer.
    pub async fn fetch_blob(&self, request: &asset::FetchBlobRequest) -> Result<asset::FetchBlobResponse> {
        let (uri, content) = self.fetch(&self.blobs, request.into()).await?;
        Ok(asset::FetchBlobResponse {
            status: Some(rpc::Status::default()),
            uri,
            qualifiers: request.qualifiers.clone(),
            expires_at: None,
            blob_digest: Some(functions::to_proto(content)),
            digest_function: functions::value(content.function()).into(),
        })
    }

    /// Finds the directory of the first URI that leads to one.
    ///
    /// # Errors
    /// As [`Self::fetch_blob`].
    pub async fn fetch_directory(
        &self,
        request: &asset::FetchDirectoryRequest,
    ) -> Result<asset::FetchDirectoryResponse> {
        let (uri, content) = self.fetch(&self.directories, request.into()).await?;
        Ok(asset::FetchDirectoryResponse {
            status: Some(rpc::Status::default()),
            uri,
            qualifiers: request.qualifiers.clone(),
            expires_at: None,
            root_directory_digest: Some(functions::to_proto(content)),
            digest_function: functions::value(content.function()).into(),
        })
    }

    async fn fetch(&self, records: &SpilledRecords, fetch: Fetch<'_>) -> Result<(String, Digest)> {
        let names = AssetNames::check(fetch.uris, fetch.qualifiers, &self.options.names)?;
        let function = fetch.function(&self.options.functions)?;
        let oldest = fetch.oldest()?;
        fetch.check_timeout()?;

        for (uri, key) in names.keys(function) {
            if let Some(content) = self.find(records, &key, oldest).await? {
                return Ok((uri.clone(), content));
            }
        }
        let first = Quoted(&fetch.uris[0]);
        Err(Error::not_found(match fetch.uris.len() - 1 {
            0 => format!("nothing is here that was pushed under {first} with these qualifiers"),
            others => format!("nothing is here that was pushed under {first} or the other {others} URIs"),
        }))
    }

    async fn find(&self, records: &SpilledRecords, key: &[u8], oldest: Option<SystemTime>) -> Result<Option<Digest>> {
        let Some(found) = records.get(key).await? else {
            return Ok(None);
        };
        let Some(association) = Association::decode(found.value) else {
            records.drop_damaged(key).await?;
            return Ok(None);
        };
        if oldest.is_some_and(|oldest| association.pushed < oldest) {
            return Ok(None);
        }
        let mut needed = association.closure;
        needed.extend(found.blob);
        let is_complete = closure::is_complete(&*self.store, &needed).await?;
        Ok(is_complete.then_some(association.content))
    }
}

impl fmt::Display for AssetIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "asset index({}, {})", self.blobs.records, self.store)
    }
}
