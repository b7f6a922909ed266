//! A digest as a key, and a blob with its checksum as a value.

use rootcellar_digest::Digest;

/// The hash and the size.
pub(crate) fn key(digest: &Digest) -> Vec<u8> {
    let mut key = digest.hash().to_vec();
    key.extend_from_slice(&digest.size_bytes().to_le_bytes());
    key
}

/// The bytes of a blob in memory.
pub(crate) fn content(blob: &rootcellar_store::Verified) -> &[u8] {
    match blob.content() {
        rootcellar_store::Content::Bytes(bytes) => bytes,
        _ => unreachable!("the blobs of a workload are in memory"),
    }
}
