//! Records as objects.
//!
//! ```text
//!   0   version          u8, 1
//!   1   checksum         u32: XXH3-64 of the rest, its lower half
//!   5   expires          u64: microseconds since 1970; all ones is never
//!   13  key length       u32
//!   17  key, value
//! ```
//!
//! All numbers are little-endian. An object's name is the SHA-256 hash of the key; the key is in it so that nobody has to trust that.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf as _, BufMut as _, Bytes};

use super::Inner;
use crate::checksum::checksum;
use crate::{Error, ErrorKind, Record, RecordKind, Records, Result};

const VERSION: u8 = 1;
/// A longer object is none of ours.
const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// [`Records`] in a bucket. It has no bound: a lifecycle rule of the bucket removes what is older than some days, and what is put again is
/// young again.
#[derive(Clone)]
pub struct BucketRecords {
    bucket: Arc<Inner>,
}

impl BucketRecords {
    pub(super) fn new(bucket: Arc<Inner>) -> Self {
        Self { bucket }
    }

    async fn read(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Bytes>> {
        let opened = match self
            .bucket
            .requests
            .get(&self.bucket.names.record(kind.0, key), None)
            .await
        {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        if opened.meta.size > OBJECT_BYTES_MAX {
            let reason = format!("the object of a record has {} bytes", opened.meta.size);
            return Err(Error::new(ErrorKind::DataLoss, "get record", reason));
        }
        self.bucket.requests.collect(opened).await.map(Some)
    }

    /// Reads a record that was read damaged. If it reads the same again it is removed: else the fault is not the object's.
    async fn read_again(&self, kind: RecordKind, key: &[u8], damaged: &Bytes) -> Result<Option<Record>> {
        let again = self.read(kind, key).await?;
        match again {
            None => Ok(None),
            Some(again) if again == *damaged => {
                tracing::warn!(kind = kind.0, ?key, bucket = %self.bucket.requests, "a record is damaged and is dropped");
                self.remove(kind, key).await?;
                Ok(None)
            }
            Some(again) => decode(key, again).map(Some).ok_or_else(|| {
                let reason = format!("{}: a record reads differently each time", self.bucket.requests);
                Error::new(ErrorKind::Unavailable, "get record", reason)
            }),
        }
    }
}

#[async_trait]
impl Records for BucketRecords {
    async fn get(&self, kind: RecordKind, key: &[u8]) -> Result<Option<Record>> {
        let Some(content) = self.read(kind, key).await? else {
            return Ok(None);
        };
        let record = match decode(key, content.clone()) {
            Some(record) => Some(record),
            None => self.read_again(kind, key, &content).await?,
        };
        Ok(record.filter(|record| !record.is_expired(self.bucket.clock.now())))
    }

    async fn put(&self, kind: RecordKind, key: &[u8], record: Record) -> Result<()> {
        let content = Bytes::from(encode(key, &record));
        self.bucket
            .requests
            .put(&self.bucket.names.record(kind.0, key), content.into())
            .await
    }

    async fn remove(&self, kind: RecordKind, key: &[u8]) -> Result<()> {
        self.bucket
            .requests
            .delete(&self.bucket.names.record(kind.0, key))
            .await
    }
}

impl fmt::Display for BucketRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket records({})", self.bucket.requests)
    }
}

impl fmt::Debug for BucketRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketRecords")
            .field("bucket", &self.bucket.requests.to_string())
            .finish()
    }
}

fn encode(key: &[u8], record: &Record) -> Vec<u8> {
    let mut rest = Vec::with_capacity(key.len() + record.value.len() + 12);
    rest.put_u64_le(record.expiry_micros());
    rest.put_u32_le(u32::try_from(key.len()).expect("a key is short"));
    rest.put_slice(key);
    rest.put_slice(&record.value);
    let mut content = vec![VERSION];
    content.put_u32_le(checksum(&rest));
    content.extend(rest);
    content
}

/// Reads a record; `None` if it is none of that key.
fn decode(key: &[u8], mut content: Bytes) -> Option<Record> {
    if content.try_get_u8().ok()? != VERSION || content.try_get_u32_le().ok()? != checksum(&content) {
        return None;
    }
    let expiry_micros = content.try_get_u64_le().ok()?;
    let key_bytes = usize::try_from(content.try_get_u32_le().ok()?).ok()?;
    if key_bytes > content.len() || content.split_to(key_bytes) != key {
        return None;
    }
    Some(Record::of_expiry_micros(content, expiry_micros))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_record_reads_back_under_its_key_and_no_other(
            key in proptest::collection::vec(any::<u8>(), 0..40),
            other in proptest::collection::vec(any::<u8>(), 0..40),
            value in proptest::collection::vec(any::<u8>(), 0..100),
            expires in proptest::option::of(0..u64::MAX >> 1),
            flipped in any::<prop::sample::Index>(),
        ) {
            let expires = expires.map(|micros| UNIX_EPOCH + Duration::from_micros(micros));
            let record = Record { value: value.into(), expires };
            let content = encode(&key, &record);
            prop_assert_eq!(decode(&key, content.clone().into()), Some(record));
            prop_assert!(other == key || decode(&other, content.clone().into()).is_none());
            let mut damaged = content.clone();
            damaged[flipped.index(content.len())] ^= 1;
            prop_assert_eq!(decode(&key, damaged.into()), None);
            prop_assert_eq!(decode(&key, content[..content.len() - 1].to_vec().into()), None);
        }
    }
}
