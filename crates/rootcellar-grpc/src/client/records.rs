//! Records in a server's action cache: for what the API has no place for, such as associations of assets, where several front ends have
//! to share it and any server will do.
//!
//! ```text
//!   action digest     SHA-256 of "rootcellar record", a zero byte, the kind, a zero byte, and the key; the length of all that
//!   action result     stdout_raw:  0  version, u8: 1
//!                                  1  expires, u64, little-endian: microseconds since 1970; all ones is never
//!                                  9  value
//! ```
//!
//! There is no action with such a digest, and nothing in the result refers to a blob. A server may bring the standard output into its CAS;
//! then it is read from there. Records are not removed, since the API has no call for that: one that expired long ago takes their place.

use std::fmt;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::ActionResult;
use rootcellar_reapi as reapi;
use rootcellar_reapi::functions::from_proto;
use rootcellar_store::{BlobStoreExt as _, Clock, Error, ErrorKind, Record, RecordKind, Records, Result};

use super::remote::kind;
use super::{ActionCache, Connection, Remote};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const VERSION: u8 = 1;
/// A longer value is none of ours.
const VALUE_BYTES_MAX: u64 = 64 << 20;

/// [`Records`] in the action cache of a server of the API, which has to allow updates.
#[derive(Debug, Clone)]
pub struct RemoteRecords {
    results: ActionCache,
    blobs: Remote,
    connection: Connection,
    clock: Arc<dyn Clock>,
}

impl RemoteRecords {
    /// Keeps records at the other end of `connection`.
    pub fn new(connection: Connection, clock: Arc<dyn Clock>) -> Self {
        Self {
            results: ActionCache::new(connection.clone()),
            blobs: Remote::new(connection.clone()),
            connection,
            clock,
        }
    }

    async fn value(&self, result: ActionResult) -> Result<Option<Bytes>> {
        if !result.stdout_raw.is_empty() {
            return Ok(Some(result.stdout_raw));
        }
        let Some(digest) = result.stdout_digest else {
            return Ok(None);
        };
        let Ok(digest) = from_proto(FUNCTION, &digest) else {
            return Ok(None);
        };
        match self.blobs.read(digest, VALUE_BYTES_MAX).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn action(kind: RecordKind, key: &[u8]) -> Digest {
    let name = [b"rootcellar record\0", kind.0.as_bytes(), b"\0", key].concat();
    Digest::of(FUNCTION, &name)
}

fn encode(record: &Record) -> Bytes {
    let mut encoded = Vec::with_capacity(record.value.len() + 9);
    encoded.put_u8(VERSION);
    encoded.put_u64_le(record.expiry_micros());
    encoded.put_slice(&record.value);
    encoded.into()
}

fn decode(mut encoded: Bytes) -> Option<Record> {
    if encoded.try_get_u8().ok()? != VERSION {
        return None;
    }
    let expiry_micros = encoded.try_get_u64_le().ok()?;
    Some(Record::of_expiry_micros(encoded, expiry_micros))
}

fn failed(operation: &'static str, error: &reapi::Error) -> Error {
    Error::new(kind(error.kind()), operation, error.to_string())
}

#[async_trait]
impl Records for RemoteRecords {
    async fn get(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Record>> {
        let found = self
            .results
            .get(action(kind, key))
            .await
            .map_err(|error| failed("get record", &error))?;
        let Some(result) = found else { return Ok(None) };
        let record = self.value(result).await?.and_then(decode);
        Ok(record.filter(|record| !record.is_expired(self.clock.now())))
    }

    async fn put(&self, kind: RecordKind, key: &[u8], record: Record) -> Result<()> {
        let result = ActionResult {
            stdout_raw: encode(&record),
            ..ActionResult::default()
        };
        let put = self.results.update(action(kind, key), result).await;
        put.map(|_| ()).map_err(|error| failed("put record", &error))
    }

    async fn remove(&self, kind: RecordKind, key: &[u8]) -> Result<()> {
        let gone = Record {
            value: Bytes::new(),
            expires: Some(UNIX_EPOCH),
        };
        self.put(kind, key, gone).await
    }
}

impl fmt::Display for RemoteRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "remote records({})", self.connection)
    }
}
