//! What a URI leads to, as bytes.
//!
//! ```text
//!   version: u8             1
//!   pushed: u64             nanoseconds since 1970, little-endian
//!   digests                 a list to the end: the content first, then all blobs that are kept with it
//! ```

use std::time::{Duration, SystemTime};

use bytes::{Buf as _, BufMut as _, Bytes};
use rootcellar_digest::Digest;

use crate::digest_list;

const VERSION: u8 = 1;

/// What was pushed under a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Association {
    pub(super) pushed: SystemTime,
    /// The blob or the topmost directory.
    pub(super) content: Digest,
    /// Every blob that has to be there: the content's own, and what it refers to.
    pub(super) closure: Vec<Digest>,
}

impl Association {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut digests = vec![self.content];
        digests.extend(&self.closure);
        let mut encoded = vec![VERSION];
        encoded.put_u64_le(nanos_since_1970(self.pushed));
        digest_list::encode(self.content.function(), &digests, &mut encoded);
        encoded
    }

    /// Reads an association; `None` if the bytes are none.
    pub(super) fn decode(mut encoded: Bytes) -> Option<Self> {
        if encoded.try_get_u8().ok()? != VERSION {
            return None;
        }
        let pushed = Duration::from_nanos(encoded.try_get_u64_le().ok()?);
        let mut digests = digest_list::decode(&encoded)?;
        if digests.is_empty() {
            return None;
        }
        let content = digests.remove(0);
        Some(Self {
            pushed: SystemTime::UNIX_EPOCH + pushed,
            content,
            closure: digests,
        })
    }
}

/// Enough until the year 2554. A clock that stands before 1970 counts as standing there.
fn nanos_since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rootcellar_digest::DigestFunction;

    use super::*;

    proptest! {
        #[test]
        fn an_association_reads_back(nanos in any::<u64>(), contents in proptest::collection::vec("[a-z]{0,4}", 1..5)) {
            let digests = contents.iter().map(|content| Digest::of(DigestFunction::Sha512, content.as_bytes()));
            let association = Association {
                pushed: SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos),
                content: Digest::of(DigestFunction::Sha512, b"content"),
                closure: digests.collect(),
            };
            prop_assert_eq!(Association::decode(association.encode().into()), Some(association));
        }

        #[test]
        fn no_bytes_make_reading_panic(encoded in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _outcome = Association::decode(encoded.into());
        }
    }
}
