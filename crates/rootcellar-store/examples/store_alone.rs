//! The store alone, without gRPC: put, find, read, and where a blob lies.
//!
//!     cargo run -p rootcellar-store --example store_alone

#![allow(clippy::print_stdout, reason = "an example says what it does")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::{
    BlobStore as _, BlobStoreExt as _, ByteRange, DiskOptions, DiskStore, Leased, LocalStore as _, SystemClock,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let options = DiskOptions {
        bytes_max: 1 << 30,
        ..DiskOptions::default()
    };
    let store = DiskStore::open(dir.path().join("store"), options, Arc::new(SystemClock)).await?;

    // Small content, from memory.
    let hello = store
        .put_bytes(DigestFunction::Sha256, Bytes::from_static(b"hello\n"))
        .await?;
    // Large content, as it arrives: it is hashed on its way into a file, which the store then takes as it is.
    let content = Bytes::from(vec![7; 1_000_000]);
    let mut ingest = store.spool().ingest(Digest::of(DigestFunction::Blake3, &content))?;
    for piece in content.chunks(60_000) {
        ingest.write(content.slice_ref(piece)).await?;
    }
    let large = ingest.finish()?;
    let large_digest = large.digest();
    store.put(large).await?;

    let absent = Digest::of(DigestFunction::Sha256, b"nobody put this");
    assert_eq!(store.find_missing(&[hello, absent, large_digest]).await?, [absent]);
    assert_eq!(store.read(hello, 1 << 20).await?, "hello\n");
    let range = ByteRange {
        offset: 999_000,
        len: Some(5_000),
    };
    assert_eq!(store.get(large_digest, range).await?.into_bytes().await?.len(), 1_000);

    // While it is leased it stays where it is, for whoever works with the file itself.
    if let Leased::Held(lease) = store.lease(&[large_digest]).await? {
        println!("{large_digest} lies at {:?}", store.locate(large_digest)?);
        drop(lease);
    }
    println!("{store}: {} blobs", store.statistics().blobs);
    store.close().await?;
    Ok(())
}

#[test]
fn the_example_runs() {
    main().unwrap();
}
