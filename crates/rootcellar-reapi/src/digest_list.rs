//! Digests as bytes in a record.
//!
//! ```text
//!   function: u8      the number that the API gives the function
//!   hash              as long as the function makes it   ┐ for each digest
//!   size: u64         little-endian                      ┘
//! ```
//!
//! All digests of a list are of one function, as all digests of a request are.

use bytes::{Buf as _, BufMut as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::digest_function::Value;

use crate::functions;

const SIZE_BYTES: usize = size_of::<u64>();

/// Bytes that a list of `count` digests takes.
const fn encoded_len(function: DigestFunction, count: usize) -> usize {
    1 + count * (function.hash_len() + SIZE_BYTES)
}

/// Appends a list.
///
/// # Panics
/// If a digest is of another function.
pub(crate) fn encode(function: DigestFunction, digests: &[Digest], into: &mut Vec<u8>) {
    into.reserve(encoded_len(function, digests.len()));
    into.put_u8(number(function));
    for digest in digests {
        assert_eq!(digest.function(), function, "the digests of a list are of one function");
        into.put_slice(digest.hash());
        into.put_u64_le(digest.size_bytes());
    }
}

/// Reads a list that takes all of the bytes; `None` if they are none.
pub(crate) fn decode(mut encoded: &[u8]) -> Option<Vec<Digest>> {
    let function = function(encoded.try_get_u8().ok()?)?;
    let entries = encoded.chunks_exact(function.hash_len() + SIZE_BYTES);
    if !entries.remainder().is_empty() {
        return None;
    }
    let digest = |entry: &[u8]| {
        let (hash, mut size) = entry.split_at(function.hash_len());
        Digest::new(function, hash, size.get_u64_le()).ok()
    };
    entries.map(digest).collect()
}

/// One digest as a key of records: what the list holds for it alone.
pub(crate) fn key(digest: Digest) -> Vec<u8> {
    let mut key = Vec::new();
    encode(digest.function(), &[digest], &mut key);
    key
}

fn number(function: DigestFunction) -> u8 {
    u8::try_from(functions::value(function) as i32).expect("the API has few functions")
}

fn function(number: u8) -> Option<DigestFunction> {
    Value::try_from(i32::from(number)).ok().and_then(functions::from_value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_functions_make_two_keys_of_one_hash() {
        let sha256 = Digest::of(DigestFunction::Sha256, b"x");
        let tree = Digest::of(DigestFunction::Sha256Tree, b"x");
        assert_eq!(sha256.hash(), tree.hash());
        assert_ne!(key(sha256), key(tree));
    }

    proptest! {
        #[test]
        fn a_list_reads_back(contents in proptest::collection::vec("[a-z]{0,4}", 0..20), which in 0..DigestFunction::ALL.len()) {
            let function = DigestFunction::ALL[which];
            let digests: Vec<Digest> = contents.iter().map(|content| Digest::of(function, content.as_bytes())).collect();
            let mut encoded = Vec::new();
            encode(function, &digests, &mut encoded);
            prop_assert_eq!(encoded.len(), encoded_len(function, digests.len()));
            prop_assert_eq!(decode(&encoded), Some(digests));
            encoded.push(0);
            prop_assert_eq!(decode(&encoded), None);
        }

        #[test]
        fn no_bytes_make_reading_panic(encoded in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = decode(&encoded);
        }
    }
}
