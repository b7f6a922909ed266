//! Messages that live in the store, named by the digest of their bytes.
//!
//! Whoever asks for an action names messages that somebody else uploaded: they may be absent, too large, or no messages of
//! that kind at all. Each of that is told apart here, once.

use bytes::Bytes;
use prost::Message;
use rootcellar_digest::Digest;
use rootcellar_store::{BlobStore, BlobStoreExt as _, ErrorKind as StoreErrorKind};

use crate::{Error, Result};

/// Reads the bytes of a message called `what`; `None` if the store does not have them, or found them damaged and let go of
/// them.
///
/// # Errors
/// `INVALID_ARGUMENT` if the message is larger than `bytes_max`, or else what the store met.
pub(crate) async fn read_bytes(
    store: &dyn BlobStore,
    digest: Digest,
    what: &str,
    bytes_max: u64,
) -> Result<Option<Bytes>> {
    let size = digest.size_bytes();
    if size > bytes_max {
        return Err(Error::invalid_argument(format!(
            "{what} {digest} has {size} bytes; at most {bytes_max} are allowed"
        )));
    }
    match store.read(digest, bytes_max).await {
        Ok(encoded) => Ok(Some(encoded)),
        Err(error) if matches!(error.kind(), StoreErrorKind::NotFound | StoreErrorKind::DataLoss) => Ok(None),
        Err(error) => Err(Error::from(error).about(what)),
    }
}

/// Decodes a message called `what`.
///
/// # Errors
/// `INVALID_ARGUMENT` if the bytes are something else.
pub(crate) fn decode<M: Message + Default>(encoded: &[u8], digest: Digest, what: &str) -> Result<M> {
    M::decode(encoded).map_err(|error| {
        Error::invalid_argument("it is not such a message")
            .caused_by(error)
            .about(format_args!("{what} {digest}"))
    })
}
