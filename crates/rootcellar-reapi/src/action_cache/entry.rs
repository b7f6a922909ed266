//! A cached result as bytes.
//!
//! ```text
//!   version: u8             1
//!   flags: u8               bit 0: the action was seen and may be cached
//!                           bit 1: it is known when the closure was complete
//!   complete: u64           little-endian: microseconds since 1970; only with bit 1
//!   result bytes: u32       little-endian
//!   result                  an encoded ActionResult
//!   closure                 a list of digests, to the end
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;

use crate::digest_list;

const VERSION: u8 = 1;
const ACTION_SEEN: u8 = 1;
const COMPLETE_AT: u8 = 2;

/// What is kept of one action.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) result: reapi::ActionResult,
    /// Whether the Action was in the store, and allowed caching, when the result was put. If not, it has to be asked again.
    pub(super) action_seen: bool,
    /// When all blobs were there, if the store relies on such a time.
    pub(super) complete_at: Option<SystemTime>,
    /// Every blob that the result needs.
    pub(super) closure: Vec<Digest>,
}

impl Entry {
    /// Writes the entry; all digests are of `function`.
    pub(super) fn encode(&self, function: DigestFunction) -> Vec<u8> {
        let result_bytes = self.result.encoded_len();
        let mut encoded = Vec::with_capacity(result_bytes + 8);
        encoded.put_u8(VERSION);
        let seen = if self.action_seen { ACTION_SEEN } else { 0 };
        let complete_at = self.complete_at.and_then(micros);
        encoded.put_u8(seen | complete_at.map_or(0, |_| COMPLETE_AT));
        if let Some(complete_at) = complete_at {
            encoded.put_u64_le(complete_at);
        }
        encoded.put_u32_le(u32::try_from(result_bytes).expect("the size of a result is bounded before it is kept"));
        self.result
            .encode(&mut encoded)
            .expect("a buffer in memory grows to hold any message");
        digest_list::encode(function, &self.closure, &mut encoded);
        encoded
    }

    /// Reads an entry; `None` if the bytes are none.
    pub(super) fn decode(mut encoded: Bytes) -> Option<Self> {
        if encoded.try_get_u8().ok()? != VERSION {
            return None;
        }
        let flags = encoded.try_get_u8().ok()?;
        let complete_at = match flags & COMPLETE_AT {
            0 => None,
            _ => UNIX_EPOCH.checked_add(Duration::from_micros(encoded.try_get_u64_le().ok()?)),
        };
        let result_bytes = usize::try_from(encoded.try_get_u32_le().ok()?).ok()?;
        if result_bytes > encoded.len() {
            return None;
        }
        let result = encoded.split_to(result_bytes);
        Some(Self {
            result: reapi::ActionResult::decode(result).ok()?,
            action_seen: flags & ACTION_SEEN != 0,
            complete_at,
            closure: digest_list::decode(&encoded)?,
        })
    }
}

fn micros(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_micros()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Blake3;

    proptest! {
        #[test]
        fn an_entry_reads_back_and_half_of_it_does_not(
            exit_code in any::<i32>(),
            action_seen in any::<bool>(),
            complete_at in proptest::option::of(0..1_u64 << 60),
            contents in proptest::collection::vec("[a-z]{0,4}", 0..5),
            cut in 1..40usize,
        ) {
            let result = reapi::ActionResult { exit_code, ..Default::default() };
            let closure = contents.iter().map(|content| Digest::of(FUNCTION, content.as_bytes())).collect();
            let complete_at = complete_at.map(|micros| UNIX_EPOCH + Duration::from_micros(micros));
            let entry = Entry { result, action_seen, complete_at, closure };
            let encoded = Bytes::from(entry.encode(FUNCTION));
            prop_assert_eq!(Entry::decode(encoded.clone()), Some(entry));
            let half = encoded.slice(..encoded.len().saturating_sub(cut));
            prop_assert_eq!(Entry::decode(half), None);
        }

        #[test]
        fn no_bytes_make_reading_panic(encoded in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _outcome = Entry::decode(Bytes::from(encoded));
        }
    }
}
