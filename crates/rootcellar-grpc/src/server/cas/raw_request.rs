//! A question of `BatchReadBlobs` whose digests stay in the bytes in which they came: each is read once, and goes into the answer as it is.

use bytes::Bytes;
use prost::encoding::{WireType, decode_varint, encoded_len_varint};
use prost::{DecodeError, Message};
use rootcellar_proto::reapi::{self, BatchReadBlobsRequest, compressor, digest_function};
use tonic::Status;

use crate::server::frames::{Chunks, undecodable};

/// The fields of `BatchReadBlobsRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RawReadRequest {
    #[prost(string, tag = "1")]
    pub(super) instance_name: String,
    /// Encoded `Digest`s.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub(super) digests: Vec<Bytes>,
    #[prost(enumeration = "compressor::Value", repeated, tag = "3")]
    acceptable_compressors: Vec<i32>,
    #[prost(enumeration = "digest_function::Value", tag = "4")]
    pub(super) digest_function: i32,
}

impl RawReadRequest {
    /// Decodes a request. Its digests stay in the bytes in which they came, which are made sure to be digests.
    ///
    /// # Errors
    /// `INTERNAL` for what the codec would refuse.
    pub(super) fn from_message(message: Chunks) -> Result<Self, Status> {
        let request = Self::decode(message).map_err(|error| undecodable(&error))?;
        for digest in request.digests.iter().filter(|digest| plain_digest(digest).is_none()) {
            reapi::Digest::decode(&digest[..]).map_err(|error| undecodable(&error))?;
        }
        Ok(request)
    }

    /// The hashes and sizes of the digests; `None` if one of them is not encoded as everybody does it.
    pub(super) fn plain_digests(&self) -> Option<Vec<(&str, i64)>> {
        self.digests.iter().map(|digest| plain_digest(digest)).collect()
    }

    /// The request as it is defined.
    ///
    /// # Errors
    /// If one of the digests is none.
    pub(super) fn decoded(self) -> Result<BatchReadBlobsRequest, DecodeError> {
        let digests: Result<_, _> = self.digests.into_iter().map(reapi::Digest::decode).collect();
        Ok(BatchReadBlobsRequest {
            instance_name: self.instance_name,
            digests: digests?,
            acceptable_compressors: self.acceptable_compressors,
            digest_function: self.digest_function,
        })
    }
}

/// Reads a `Digest` that is encoded as everybody does it: a hash of less than 128 digits, a size unless it is zero, and nothing else.
fn plain_digest(encoded: &[u8]) -> Option<(&str, i64)> {
    const HASH_KEY: u8 = 1 << 3 | WireType::LengthDelimited as u8;
    const SIZE_KEY: u8 = 2 << 3 | WireType::Varint as u8;
    let [HASH_KEY, len @ 1..0x80, rest @ ..] = encoded else {
        return None;
    };
    let (hash, rest) = rest.split_at_checked(usize::from(*len))?;
    let hash = str::from_utf8(hash).ok()?;
    match rest {
        [] => Some((hash, 0)),
        [SIZE_KEY, varint @ ..] => {
            let size = decode_varint(&mut &*varint).ok()?;
            let is_usual = size != 0 && encoded_len_varint(size) == varint.len();
            is_usual.then_some((hash, size.cast_signed()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest() -> impl Strategy<Value = reapi::Digest> {
        let size = prop_oneof![0..300_i64, any::<i64>()];
        ("[0-9a-f]{0,140}", size).prop_map(|(hash, size_bytes)| reapi::Digest { hash, size_bytes })
    }

    fn request() -> impl Strategy<Value = BatchReadBlobsRequest> {
        let digests = proptest::collection::vec(digest(), 0..4);
        (".{0,9}", digests, proptest::collection::vec(0..4_i32, 0..3), 0..10_i32).prop_map(
            |(instance_name, digests, acceptable_compressors, digest_function)| BatchReadBlobsRequest {
                instance_name,
                digests,
                acceptable_compressors,
                digest_function,
            },
        )
    }

    proptest! {
        #[test]
        fn a_request_is_what_the_codec_takes_it_for(
            request in request(),
            change in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
        ) {
            let mut encoded = request.encode_to_vec();
            if let Some((at, byte)) = change.filter(|_| !encoded.is_empty()) {
                let at = at.index(encoded.len());
                encoded[at] = byte;
            }
            let theirs = BatchReadBlobsRequest::decode(&encoded[..]);
            let ours = RawReadRequest::decode(&encoded[..]).and_then(RawReadRequest::decoded);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok());
            prop_assert_eq!(ours.ok(), theirs.ok());
        }

        #[test]
        fn a_digest_is_what_the_codec_takes_it_for(
            digest in digest(),
            change in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
        ) {
            let mut encoded = digest.encode_to_vec();
            if let Some((at, byte)) = change.filter(|_| !encoded.is_empty()) {
                let at = at.index(encoded.len());
                encoded[at] = byte;
            }
            if let Some((hash, size_bytes)) = plain_digest(&encoded) {
                let plain = reapi::Digest { hash: hash.to_owned(), size_bytes };
                prop_assert_eq!(plain.encode_to_vec(), &encoded[..]);
                prop_assert_eq!(reapi::Digest::decode(&encoded[..]), Ok(plain));
            }
        }

        #[test]
        fn what_is_no_request_is_refused_with_its_digests(
            digests in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..3),
        ) {
            let digests: Vec<Bytes> = digests.into_iter().map(Bytes::from).collect();
            let encoded = RawReadRequest { digests, ..RawReadRequest::default() }.encode_to_vec();
            let ours = RawReadRequest::from_message(Bytes::from(encoded.clone()).into());
            prop_assert_eq!(ours.is_ok(), BatchReadBlobsRequest::decode(&encoded[..]).is_ok());
        }

        #[test]
        fn usual_digests_are_plain(hash in "[0-9a-f]{1,127}", size_bytes in any::<i64>()) {
            let encoded = reapi::Digest { hash: hash.clone(), size_bytes }.encode_to_vec();
            prop_assert_eq!(plain_digest(&encoded), Some((&*hash, size_bytes)));
        }
    }
}
