//! A cached result as bytes.
//!
//! ```text
//!   version: u8             1
//!   flags: u8               bit 0: the action was seen and may be cached
//!   result bytes: u32       little-endian
//!   result                  an encoded ActionResult
//!   closure                 a list of digests, to the end
//! ```

use bytes::{Buf as _, BufMut as _, Bytes};
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;

use crate::digest_list;

const VERSION: u8 = 1;
const ACTION_SEEN: u8 = 1;

/// What is kept of one action.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) result: reapi::ActionResult,
    /// Whether the Action was in the store, and allowed caching, when the result was put. If not, it has to be asked again.
    pub(super) action_seen: bool,
    /// Every blob that the result needs.
    pub(super) closure: Vec<Digest>,
}

impl Entry {
    /// Writes the entry; all digests are of `function`.
    pub(super) fn encode(&self, function: DigestFunction) -> Vec<u8> {
        let result_bytes = self.result.encoded_len();
        let mut encoded = Vec::with_capacity(result_bytes + 8);
        encoded.put_u8(VERSION);
        encoded.put_u8(if self.action_seen { ACTION_SEEN } else { 0 });
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
        let result_bytes = usize::try_from(encoded.try_get_u32_le().ok()?).ok()?;
        if result_bytes > encoded.len() {
            return None;
        }
        let result = encoded.split_to(result_bytes);
        Some(Self {
            result: reapi::ActionResult::decode(result).ok()?,
            action_seen: flags & ACTION_SEEN != 0,
            closure: digest_list::decode(&encoded)?,
        })
    }
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
            contents in proptest::collection::vec("[a-z]{0,4}", 0..5),
            cut in 1..40usize,
        ) {
            let result = reapi::ActionResult { exit_code, ..Default::default() };
            let closure = contents.iter().map(|content| Digest::of(FUNCTION, content.as_bytes())).collect();
            let entry = Entry { result, action_seen, closure };
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
