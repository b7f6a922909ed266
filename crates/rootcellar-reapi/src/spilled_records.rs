//! Records of any length: what is too long for a record lies in the store as a blob, and the record only names it.
//!
//! ```text
//!   00 value...             the value itself
//!   01 digest               a list of one digest: the blob that is the value
//! ```
//!
//! The closure of a whole system takes megabytes, and a store of records is made for kilobytes. A value in a blob can be evicted
//! on its own; then the record counts as absent, as anything else that has to be made again.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::{Buf as _, Bytes};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::{BlobStore, BlobStoreExt as _, Record, RecordKind, Records};

use crate::{Error, Result, digest_list, message_blob};

/// Values up to this length stay in their records.
const INLINE_BYTES_MAX: usize = 32 * 1024;

/// The longest record: what is longer lies in the store.
pub(crate) const RECORD_BYTES_MAX: usize = INLINE_BYTES_MAX + 1;

/// The longest value: a million digests of the longest function and a result, with some room.
const VALUE_BYTES_MAX: u64 = 96 << 20;

const INLINE: u8 = 0;
const SPILLED: u8 = 1;

/// Records of one kind over a store that takes the long values.
#[derive(Debug, Clone)]
pub(crate) struct SpilledRecords {
    pub(crate) kind: RecordKind,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) store: Arc<dyn BlobStore>,
}

/// A value as it was read.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) value: Bytes,
    /// The blob that holds the value. It has to be kept alive with what the value speaks of.
    pub(crate) blob: Option<Digest>,
}

/// A value that is ready to be written under any number of keys.
#[derive(Debug, Clone)]
pub(crate) struct Prepared(Bytes);

impl Prepared {
    /// Bytes of the record.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl SpilledRecords {
    /// Reads a value; `None` if there is none, or not any more.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<Option<Found>> {
        match self.get_record(key).await? {
            Some(record) => self.resolve(key, record).await,
            None => Ok(None),
        }
    }

    /// Reads the record of a value, which is the same for the same value.
    pub(crate) async fn get_record(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let record = self.records.get(self.kind, key).await?;
        Ok(record.map(|record| record.value))
    }

    /// Reads the value of a record under `key`; `None` if it is not there any more.
    pub(crate) async fn resolve(&self, key: &[u8], record: Bytes) -> Result<Option<Found>> {
        match read(record) {
            Some(Place::Inline(value)) => Ok(Some(Found { value, blob: None })),
            Some(Place::Blob(digest)) => self.read_blob(digest).await,
            None => {
                self.drop_damaged(key).await?;
                Ok(None)
            }
        }
    }

    async fn read_blob(&self, digest: Digest) -> Result<Option<Found>> {
        let value = message_blob::read_bytes(&*self.store, digest, self.kind.0, VALUE_BYTES_MAX).await?;
        Ok(value.map(|value| Found {
            value,
            blob: Some(digest),
        }))
    }

    /// Brings a value where it will stay. A long one becomes a blob named by `function`.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` if it is too long; what the store met.
    pub(crate) async fn prepare(&self, function: DigestFunction, value: Vec<u8>) -> Result<Prepared> {
        let len = value.len() as u64;
        if len > VALUE_BYTES_MAX {
            return Err(Error::resource_exhausted(format!(
                "a record would have {len} bytes; at most {VALUE_BYTES_MAX} are kept"
            )));
        }
        let mut record = Vec::new();
        if value.len() <= INLINE_BYTES_MAX {
            record.push(INLINE);
            record.extend(value);
        } else {
            let digest = self.store.put_bytes(function, value.into()).await?;
            record.push(SPILLED);
            digest_list::encode(function, &[digest], &mut record);
        }
        Ok(Prepared(record.into()))
    }

    /// Writes a value under a key.
    pub(crate) async fn put(&self, key: &[u8], value: Prepared, expires: Option<SystemTime>) -> Result<()> {
        let value = value.0;
        Ok(self.records.put(self.kind, key, Record { value, expires }).await?)
    }

    /// Removes a record whose bytes mean nothing, so that it is reported once.
    pub(crate) async fn drop_damaged(&self, key: &[u8]) -> Result<()> {
        tracing::warn!(kind = self.kind.0, ?key, records = %self.records, "a record is damaged and is dropped");
        Ok(self.records.remove(self.kind, key).await?)
    }
}

enum Place {
    Inline(Bytes),
    Blob(Digest),
}

fn read(mut record: Bytes) -> Option<Place> {
    match record.try_get_u8().ok()? {
        INLINE => Some(Place::Inline(record)),
        SPILLED => match digest_list::decode(&record)?.as_slice() {
            [digest] => Some(Place::Blob(*digest)),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rootcellar_store::MemoryRecords;
    use rootcellar_store::testing::ManualClock;

    use super::*;
    use crate::forgetful_store::ForgetfulStore;

    const FUNCTION: DigestFunction = DigestFunction::Sha384;
    const KIND: RecordKind = RecordKind("test");

    fn records(store: &Arc<ForgetfulStore>) -> SpilledRecords {
        SpilledRecords {
            kind: KIND,
            records: Arc::new(MemoryRecords::new(1 << 20, Arc::new(ManualClock::default()))),
            store: store.clone(),
        }
    }

    async fn put(records: &SpilledRecords, len: usize) {
        let value = records.prepare(FUNCTION, vec![7; len]).await.unwrap();
        records.put(b"key", value, None).await.unwrap();
    }

    #[tokio::test]
    async fn a_long_value_lies_in_the_store_and_reads_back() {
        let store = Arc::new(ForgetfulStore::new());
        let records = records(&store);
        for (len, is_spilled) in [
            (0, false),
            (INLINE_BYTES_MAX, false),
            (INLINE_BYTES_MAX + 1, true),
            (1 << 20, true),
        ] {
            put(&records, len).await;
            let found = records.get(b"key").await.unwrap().unwrap();
            assert_eq!(found.value, vec![7; len]);
            assert_eq!(found.blob.is_some(), is_spilled, "{len} bytes");
        }
    }

    #[tokio::test]
    async fn a_value_whose_blob_is_gone_is_absent() {
        let store = Arc::new(ForgetfulStore::new());
        let records = records(&store);
        put(&records, INLINE_BYTES_MAX + 1).await;
        let blob = records.get(b"key").await.unwrap().unwrap().blob;
        store.forget(blob.unwrap());
        assert!(records.get(b"key").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_damaged_record_is_dropped() {
        let store = Arc::new(ForgetfulStore::new());
        let records = records(&store);
        for damaged in [b"".as_slice(), b"\x02", b"\x01", b"\x01\x01", b"\x01\x00"] {
            let record = Record {
                value: Bytes::from_static(damaged),
                expires: None,
            };
            records.records.put(KIND, b"key", record).await.unwrap();
            assert!(records.get(b"key").await.unwrap().is_none());
            assert_eq!(records.records.get(KIND, b"key").await.unwrap(), None);
        }
    }
}
