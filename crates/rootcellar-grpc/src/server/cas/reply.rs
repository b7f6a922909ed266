//! An answer of `BatchReadBlobs` that is laid out before its blobs are read, so that they are read into it.

use std::ops::Range;

use bytes::{BufMut as _, Bytes};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use rootcellar_store::PooledBuffer;

use crate::server::frames;

/// The number of `BatchReadBlobsResponse.responses`.
const RESPONSES_FIELD: u32 = 1;
/// The numbers of the fields of one response.
const DIGEST_FIELD: u32 = 1;
const DATA_FIELD: u32 = 2;
const STATUS_FIELD: u32 = 3;

/// The message in which every blob is there, with its prefix, and holes where their bytes go.
#[derive(Debug)]
pub(super) struct Reply {
    bytes: PooledBuffer,
    holes: Vec<Range<usize>>,
}

impl Reply {
    /// Lays out the answer to encoded digests of blobs of these sizes. `None` if the message would have more than `bytes_max`.
    pub(super) fn lay_out<'a>(asked: impl Iterator<Item = (&'a Bytes, u64)> + Clone, bytes_max: usize) -> Option<Self> {
        let mut message_bytes = 0_usize;
        for (digest, size) in asked.clone() {
            let item_bytes = item_len(digest, usize::try_from(size).ok()?)?;
            message_bytes = message_bytes.checked_add(field_len(RESPONSES_FIELD, item_bytes)?)?;
        }
        if message_bytes > bytes_max {
            return None;
        }
        let mut bytes = PooledBuffer::new(frames::PREFIX_BYTES + message_bytes);
        let len = bytes.len();
        let mut rest = &mut bytes[..];
        rest.put_slice(&frames::prefix(message_bytes)?);
        let mut holes = Vec::with_capacity(asked.size_hint().0);
        for (digest, size) in asked {
            let size = usize::try_from(size).ok()?;
            begin(&mut rest, RESPONSES_FIELD, item_len(digest, size)?);
            begin(&mut rest, DIGEST_FIELD, digest.len());
            rest.put_slice(digest);
            if size > 0 {
                begin(&mut rest, DATA_FIELD, size);
            }
            let at = len - rest.len();
            holes.push(at..at + size);
            rest = &mut rest[size..];
            begin(&mut rest, STATUS_FIELD, 0);
        }
        Some(Self { bytes, holes })
    }

    /// Where the bytes of each blob go.
    pub(super) fn holes(&mut self) -> Vec<&mut [u8]> {
        let (mut rest, mut at) = (&mut self.bytes[..], 0);
        let mut holes = Vec::with_capacity(self.holes.len());
        for hole in &self.holes {
            let (filled, behind) = rest[hole.start - at..].split_at_mut(hole.len());
            holes.push(filled);
            (rest, at) = (behind, hole.end);
        }
        holes
    }

    /// The message with its prefix, once all holes are filled.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.freeze()
    }

    /// The bytes of each blob, for a message that is encoded otherwise.
    pub(super) fn into_contents(self) -> impl Iterator<Item = Bytes> {
        let bytes = self.bytes.freeze();
        self.holes.into_iter().map(move |hole| bytes.slice(hole))
    }
}

/// Begins a field of `len` bytes.
fn begin(rest: &mut &mut [u8], field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, rest);
    encode_varint(len as u64, rest);
}

/// Bytes of a response with a blob of `size`. Its status is OK, which is an empty message.
fn item_len(digest: &[u8], size: usize) -> Option<usize> {
    let data = if size > 0 { field_len(DATA_FIELD, size)? } else { 0 };
    let around = field_len(DIGEST_FIELD, digest.len())? + field_len(STATUS_FIELD, 0)?;
    data.checked_add(around)
}

/// Bytes of a field of `len` bytes with what comes before it.
fn field_len(field: u32, len: usize) -> Option<usize> {
    len.checked_add(key_len(field) + encoded_len_varint(len as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use rootcellar_proto::reapi::BatchReadBlobsResponse;
    use rootcellar_proto::reapi::batch_read_blobs_response::Response as Item;
    use rootcellar_proto::{reapi, rpc};

    use super::*;

    fn item(hash: String, data: Vec<u8>) -> Item {
        Item {
            digest: Some(reapi::Digest {
                hash,
                size_bytes: i64::try_from(data.len()).unwrap(),
            }),
            data: data.into(),
            status: Some(rpc::Status::default()),
            ..Item::default()
        }
    }

    fn items() -> impl Strategy<Value = Vec<Item>> {
        let data = proptest::collection::vec(any::<u8>(), 0..300);
        proptest::collection::vec(
            ("[0-9a-f]{0,200}", data).prop_map(|(hash, data)| item(hash, data)),
            0..20,
        )
    }

    /// The encoded digests that are asked for, and the sizes of their blobs.
    fn asked(items: &[Item]) -> Vec<(Bytes, u64)> {
        let digest = |item: &Item| item.digest.as_ref().unwrap().encode_to_vec().into();
        items
            .iter()
            .map(|item| (digest(item), item.data.len() as u64))
            .collect()
    }

    fn lay_out(asked: &[(Bytes, u64)], bytes_max: usize) -> Option<Reply> {
        Reply::lay_out(asked.iter().map(|(digest, size)| (digest, *size)), bytes_max)
    }

    fn filled(items: &[Item]) -> Reply {
        let mut reply = lay_out(&asked(items), usize::MAX).unwrap();
        for (hole, item) in reply.holes().into_iter().zip(items) {
            hole.copy_from_slice(&item.data);
        }
        reply
    }

    proptest! {
        #[test]
        fn it_is_what_the_codec_would_make_of_it(items in items()) {
            let encoded = BatchReadBlobsResponse { responses: items.clone() }.encode_to_vec();
            let mut expected = frames::prefix(encoded.len()).unwrap().to_vec();
            expected.extend(&encoded);
            prop_assert_eq!(filled(&items).into_bytes(), expected);
            let contents: Vec<Bytes> = filled(&items).into_contents().collect();
            prop_assert!(contents.iter().eq(items.iter().map(|item| &item.data)));
        }

        #[test]
        fn it_is_as_long_as_it_may_be(items in items()) {
            let len = BatchReadBlobsResponse { responses: items.clone() }.encoded_len();
            let asked = asked(&items);
            prop_assert!(lay_out(&asked, len).is_some());
            prop_assert!(len == 0 || lay_out(&asked, len - 1).is_none());
        }
    }

    #[test]
    fn sizes_that_no_message_has_are_not_laid_out() {
        for size in [u64::MAX, u64::MAX / 2] {
            let asked = vec![(Bytes::new(), size); 3];
            assert!(lay_out(&asked, 1 << 20).is_none());
        }
    }
}
