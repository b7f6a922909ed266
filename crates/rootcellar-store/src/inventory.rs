//! What a store holds, for those who move it.

use futures_util::stream::BoxStream;
use rootcellar_digest::Digest;

use crate::{BlobStore, Result};

/// A [`BlobStore`] that can tell what it holds. Serving the API takes none of this: it is for whoever moves blobs between stores.
pub trait Inventory: BlobStore {
    /// The digests of all blobs, in pages, in no order. A blob that is there from the beginning to the end is told once at least;
    /// one that comes or goes meanwhile may be. Telling is no use of a blob.
    fn list(&self) -> BoxStream<'static, Result<Vec<Digest>>>;
}
