//! A bucket in which the object of a blob, and that of a record, is anything. What is read is the blob or an error, whole and in parts;
//! a record is one or none; and the bucket goes on taking blobs.

#![no_main]

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::bucket::{Bucket, BucketOptions};
use rootcellar_store::testing::ManualClock;
use rootcellar_store::{BlobStore as _, BlobStoreExt as _, ByteRange, Inventory as _, RecordKind, Records as _, Verified};

#[derive(Debug, Arbitrary)]
struct Objects<'a> {
    /// The blob: a few bytes, many times.
    unit: [u8; 8],
    units: u16,
    /// Whether the object begins as what is there when the blob is compressed.
    is_compressed: bool,
    /// Where it is changed, and by what.
    at: u32,
    bytes: &'a [u8],
    cut: Option<u32>,
    offset: u32,
    len: u32,
}

const KIND: RecordKind = RecordKind("kind");

fuzz_target!(|input: Objects<'_>| {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(input));
});

async fn run(input: Objects<'_>) {
    let content: Bytes = input.unit.repeat(usize::from(input.units) * 8).into();
    let blob = Verified::of(DigestFunction::Sha256, content.clone());
    let digest = blob.digest();
    let objects = Arc::new(InMemory::new());
    let options = BucketOptions::default().with_zstd_level(input.is_compressed.then_some(1));
    let open = || Bucket::new(objects.clone(), "", options.clone(), Arc::new(ManualClock::default())).expect("a bucket");
    let writer = open();
    writer.put(blob.clone()).await.expect("memory takes it");
    let record = rootcellar_store::Record { value: content.slice(..content.len().min(100)), expires: None };
    writer.records().put(KIND, b"key", record.clone()).await.expect("memory takes it");
    let names: Vec<Path> = objects.list(None).map_ok(|meta| meta.location).try_collect().await.expect("memory lists");
    for name in names {
        let mut object = objects.get(&name).await.expect("it is there").bytes().await.expect("it is there").to_vec();
        change(&mut object, &input);
        objects.put(&name, object.into()).await.expect("memory takes it");
    }
    let reader = open();
    let range = ByteRange { offset: u64::from(input.offset) % (digest.size_bytes() + 1), len: Some(input.len.into()) };
    if let Ok(whole) = reader.read(digest, 1 << 30).await {
        assert!(whole == content, "other bytes were read");
    }
    if let Ok(part) = reader.get(digest, range).await {
        let wanted = part.len();
        if let Ok(part) = part.into_bytes().await {
            assert_eq!(part.len() as u64, wanted, "a part of another length was read");
        }
    }
    if let Ok(Some(found)) = reader.records().get(KIND, b"key").await {
        assert_eq!(found, record);
    }
    // Objects that are none of blobs are passed over.
    let listed: Vec<Digest> = reader.list().try_concat().await.expect("memory lists");
    assert!(listed.iter().all(|listed| *listed == digest));
    // Whatever was there, the blob can be put, and is right then.
    if reader.contains(digest).await.is_ok_and(|is_there| !is_there) {
        reader.put(blob).await.expect("memory takes it");
        assert!(reader.read(digest, 1 << 30).await.expect("it was put") == content);
    }
}

fn change(object: &mut Vec<u8>, input: &Objects<'_>) {
    if let Some(cut) = input.cut {
        object.truncate(cut as usize);
    }
    let at = input.at as usize % (object.len() + 1);
    for (place, byte) in object.iter_mut().skip(at).zip(input.bytes) {
        *place = *byte;
    }
}
