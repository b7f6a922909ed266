//! What is in a bucket, and what is asked of it.

use std::num::NonZero;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::faulty::FaultyObjects;
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{ObjectStore, ObjectStoreExt as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::bucket::{Bucket, BucketOptions};
use rootcellar_store::testing::{ManualClock, Seeded};
use rootcellar_store::{
    BlobStore, BlobStoreExt as _, ByteRange, Clock as _, ErrorKind, Inventory as _, PresenceOptions, Record,
    RecordKind, Records as _, SystemClock, Verified,
};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const ROOMY: u64 = 1 << 30;

fn bucket(objects: &Arc<InMemory>, options: BucketOptions) -> Bucket {
    Bucket::new(objects.clone(), "b", options, Arc::new(SystemClock)).unwrap()
}

fn name(digest: Digest) -> Path {
    let hash = digest.hash_hex().to_string();
    Path::from(format!("b/cas/sha256/{}/{hash}-{}", &hash[..2], digest.size_bytes()))
}

/// Content that can be compressed to less than half.
fn text(seed: u64, len: usize) -> Verified {
    let mut content = Seeded::new(seed).bytes(len).to_vec();
    content
        .iter_mut()
        .enumerate()
        .filter(|(at, _)| at % 64 > 16)
        .for_each(|(_, byte)| *byte = b' ');
    Verified::of(FUNCTION, content.into())
}

async fn content(blob: &Verified) -> Bytes {
    blob.open(ByteRange::ALL).unwrap().into_bytes().await.unwrap()
}

async fn overwrite(objects: &InMemory, digest: Digest, content: Vec<u8>) {
    objects.put(&name(digest), content.into()).await.unwrap();
}

async fn until(is_so: impl AsyncFn() -> bool) {
    let begin = SystemTime::now();
    while !is_so().await {
        assert!(
            begin.elapsed().unwrap() < Duration::from_secs(20),
            "it does not come to pass"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn an_object_is_the_blob_itself_under_its_name() {
    let objects = Arc::new(InMemory::new());
    let blob = Seeded::new(1).blob(FUNCTION, 1000);
    bucket(&objects, BucketOptions::default())
        .put(blob.clone())
        .await
        .unwrap();
    let object = objects.get(&name(blob.digest())).await.unwrap().bytes().await.unwrap();
    assert!(object == content(&blob).await);
}

#[tokio::test]
async fn what_is_known_is_not_asked_and_what_was_forgotten_is() {
    let objects = Arc::new(InMemory::new());
    let clock = Arc::new(ManualClock::default());
    let presence = PresenceOptions::default().with_entries_max(NonZero::new(2).unwrap());
    let ttl = presence.ttl;
    let options = BucketOptions::default().with_presence(presence);
    let bucket = Bucket::new(objects.clone(), "b", options, clock.clone()).unwrap();
    let blobs = [1, 2, 3].map(|seed| Seeded::new(seed).blob(FUNCTION, 100));
    let heads = || bucket.requests().heads;
    bucket.put(blobs[0].clone()).await.unwrap();
    assert!(bucket.contains(blobs[0].digest()).await.unwrap());
    bucket.put(blobs[0].clone()).await.unwrap();
    assert_eq!((heads(), bucket.requests().puts), (0, 1), "it was put by this one");
    clock.advance(ttl);
    assert!(bucket.contains(blobs[0].digest()).await.unwrap());
    assert!(bucket.contains(blobs[0].digest()).await.unwrap());
    assert_eq!(heads(), 1);
    bucket.put(blobs[1].clone()).await.unwrap();
    bucket.put(blobs[2].clone()).await.unwrap();
    assert!(bucket.contains(blobs[0].digest()).await.unwrap());
    assert_eq!(heads(), 2, "two are remembered, not three");
    objects.delete(&name(blobs[2].digest())).await.unwrap();
    assert!(bucket.contains(blobs[2].digest()).await.unwrap(), "it is remembered");
    assert_eq!(
        bucket.read(blobs[2].digest(), ROOMY).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    assert!(!bucket.contains(blobs[2].digest()).await.unwrap(), "until it is missed");
}

#[tokio::test]
async fn puts_and_reads_of_one_blob_at_once_are_one_request() {
    let moment = Duration::from_millis(20);
    let slow = ThrottleConfig {
        wait_get_per_call: moment,
        wait_put_per_call: moment,
        ..ThrottleConfig::default()
    };
    let objects = Arc::new(ThrottledStore::new(InMemory::new(), slow));
    let open = || Bucket::new(objects.clone(), "b", BucketOptions::default(), Arc::new(SystemClock)).unwrap();
    let (writer, reader) = (open(), open());
    let blob = Seeded::new(2).blob(FUNCTION, 5000);
    for put in join_all((0..10).map(|_| writer.put(blob.clone()))).await {
        put.unwrap();
    }
    assert_eq!(writer.requests().puts, 1);
    for read in join_all((0..10).map(|_| reader.read(blob.digest(), ROOMY))).await {
        assert!(read.unwrap() == content(&blob).await);
    }
    assert_eq!((reader.requests().gets, reader.requests().heads), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_damaged_is_not_served_is_removed_and_can_be_put_again() {
    for compressed in [false, true] {
        let objects = Arc::new(InMemory::new());
        let options = BucketOptions::default().with_zstd_level(compressed.then_some(3));
        let bucket = bucket(&objects, options);
        let blob = text(3, 2_000_000);
        let digest = blob.digest();
        bucket.put(blob.clone()).await.unwrap();
        let mut object = objects
            .get(&name(digest))
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap()
            .to_vec();
        assert_eq!(object.len() < 1_500_000, compressed);
        object[100_000] ^= 1;
        overwrite(&objects, digest, object).await;
        let error = bucket.read(digest, ROOMY).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
        assert!(!bucket.contains(digest).await.unwrap(), "it is not there from then on");
        assert_eq!(
            bucket.read(digest, ROOMY).await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert!(objects.head(&name(digest)).await.is_err(), "nor is the object");
        bucket.put(blob.clone()).await.unwrap();
        assert!(bucket.read(digest, ROOMY).await.unwrap() == content(&blob).await);
    }
}

/// Only the way to the service is broken.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_was_read_wrong_and_is_right_stays() {
    let objects = Arc::new(FaultyObjects::new(InMemory::new(), 1, 4));
    let bucket = Bucket::new(objects.clone(), "b", BucketOptions::default(), Arc::new(SystemClock)).unwrap();
    let (blob, mut damaged) = (Seeded::new(12).blob(FUNCTION, 100_000), 0);
    while bucket.put(blob.clone()).await.is_err() {}
    for _ in 0..500 {
        match bucket.read(blob.digest(), ROOMY).await {
            Ok(read) => assert!(read == content(&blob).await),
            Err(error) if error.kind() == ErrorKind::DataLoss => damaged += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    assert!(damaged > 20, "{damaged}");
}

#[tokio::test]
async fn an_object_that_is_cut_off_is_damaged_for_every_sort_of_read() {
    let objects = Arc::new(InMemory::new());
    let range = ByteRange {
        offset: 100,
        len: Some(50),
    };
    for (seed, range) in [(4, ByteRange::ALL), (5, range)] {
        let bucket = bucket(&objects, BucketOptions::default());
        let blob = Seeded::new(seed).blob(FUNCTION, 2_000_000);
        overwrite(&objects, blob.digest(), content(&blob).await[..1_000_000].to_vec()).await;
        let read = async { bucket.get(blob.digest(), range).await?.into_bytes().await };
        assert_eq!(read.await.unwrap_err().kind(), ErrorKind::DataLoss);
        assert!(!bucket.contains(blob.digest()).await.unwrap());
    }
}

#[tokio::test]
async fn what_can_be_compressed_is_and_others_who_do_not_compress_read_it_in_parts_too() {
    let objects = Arc::new(InMemory::new());
    let compressing = bucket(&objects, BucketOptions::default().with_zstd_level(Some(3)));
    let (text, noise, small) = (
        text(6, 5_000_000),
        Seeded::new(7).blob(FUNCTION, 500_000),
        text(8, 1000),
    );
    for blob in [&text, &noise, &small] {
        compressing.put(blob.clone()).await.unwrap();
    }
    let size = async |blob: &Verified| objects.head(&name(blob.digest())).await.unwrap().size;
    assert!(size(&text).await < 2_500_000);
    assert_eq!((size(&noise).await, size(&small).await), (500_000, 1000));
    let whole = content(&text).await;
    // Nobody knows yet that it is compressed; the last part lies behind the end of the object.
    for (offset, len) in [(4_900_000, 1000), (0, 10), (1_048_570, 2_000_000), (4_999_999, 5)] {
        let reader = bucket(&objects, BucketOptions::default());
        let range = ByteRange { offset, len: Some(len) };
        for _again in 0..2 {
            let part = reader.get(text.digest(), range).await.unwrap();
            let (start, end) = (
                usize::try_from(part.range().start).unwrap(),
                usize::try_from(part.range().end).unwrap(),
            );
            assert!(part.into_bytes().await.unwrap() == whole.slice(start..end), "{range:?}");
        }
    }
    let reader = bucket(&objects, BucketOptions::default());
    assert!(reader.read(text.digest(), ROOMY).await.unwrap() == whole);
    // What others can make of it.
    let object = objects.get(&name(text.digest())).await.unwrap().bytes().await.unwrap();
    assert!(zstd::decode_all(&object[..]).unwrap() == whole);
}

#[tokio::test]
async fn an_object_that_grows_a_thousandfold_is_refused_in_bounded_memory() {
    let objects = Arc::new(InMemory::new());
    let blob = Seeded::new(9).blob(FUNCTION, 3_000_000);
    let bomb = zstd::encode_all(&vec![0; 512 << 20][..], 19).unwrap();
    overwrite(&objects, blob.digest(), bomb).await;
    let bucket = bucket(&objects, BucketOptions::default());
    assert_eq!(
        bucket.read(blob.digest(), ROOMY).await.unwrap_err().kind(),
        ErrorKind::DataLoss
    );
}

#[tokio::test]
async fn a_large_blob_is_sent_in_parts_and_one_that_is_given_up_leaves_nothing() {
    let objects = Arc::new(InMemory::new());
    let options = BucketOptions::default().with_single_put_bytes_max(1 << 20);
    let bucket = bucket(&objects, options);
    let blob = Seeded::new(10).blob(FUNCTION, 5_000_000);
    bucket.put(blob.clone()).await.unwrap();
    // Begun, ten parts of half a mebibyte, and ended.
    assert_eq!(bucket.requests().puts, 12);
    assert!(bucket.read(blob.digest(), ROOMY).await.unwrap() == content(&blob).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_stays_young_and_is_touched_once_a_period() {
    let objects = Arc::new(InMemory::new());
    // The service has a clock of its own, so this one begins there.
    let clock = Arc::new(ManualClock::default());
    clock.advance(SystemTime::now().duration_since(clock.now()).unwrap());
    let day = Duration::from_hours(24);
    let presence = PresenceOptions::default().with_ttl(day / 4);
    let options = BucketOptions::default()
        .with_touch_after(Some(day))
        .with_presence(presence);
    let bucket = Bucket::new(objects.clone(), "b", options, clock.clone()).unwrap();
    let blob = Seeded::new(11).blob(FUNCTION, 1000);
    let digest = blob.digest();
    bucket.put(blob.clone()).await.unwrap();
    let modified = objects.head(&name(digest)).await.unwrap().last_modified;
    bucket.read(digest, ROOMY).await.unwrap();
    clock.advance(day - Duration::from_secs(60));
    bucket.read(digest, ROOMY).await.unwrap();
    assert_eq!(bucket.requests().copies, 0, "it is young");
    clock.advance(Duration::from_secs(120));
    for _ in 0..5 {
        bucket.read(digest, ROOMY).await.unwrap();
    }
    until(async || bucket.requests().deletes == 1).await;
    assert_eq!(bucket.requests().copies, 2);
    assert!(objects.head(&name(digest)).await.unwrap().last_modified > modified);
    assert!(bucket.contains(digest).await.unwrap());
    let all: Vec<_> = objects.list(None).try_collect().await.unwrap();
    assert_eq!(all.len(), 1, "nothing else is left");
}

#[tokio::test]
async fn what_is_in_a_bucket_can_be_listed() {
    let objects = Arc::new(InMemory::new());
    let bucket = bucket(&objects, BucketOptions::default());
    let blobs: Vec<Verified> = (0..20)
        .map(|seed| Seeded::new(seed).blob(DigestFunction::Blake3, 100))
        .collect();
    for put in bucket.put_many(blobs.clone()).await {
        put.unwrap();
    }
    objects
        .put(&Path::from("b/cas/something/else"), "x".into())
        .await
        .unwrap();
    let mut listed = bucket.list().try_concat().await.unwrap();
    let mut expected: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn what_one_server_found_others_rely_on_for_a_while_but_not_on_what_they_missed() {
    let objects = Arc::new(InMemory::new());
    let clock = Arc::new(ManualClock::default());
    clock.advance(Duration::from_hours(1000));
    let bucket = Bucket::new(objects.clone(), "b", BucketOptions::default(), clock.clone()).unwrap();
    let blobs = [20, 21, 22].map(|seed| Seeded::new(seed).blob(FUNCTION, 100));
    let digests = blobs.each_ref().map(Verified::digest);
    let ttl = BucketOptions::default().presence.ttl;
    let found = clock.now();
    clock.advance(ttl / 2);
    assert!(bucket.has_kept_since(&digests, found));
    // Each way to find out.
    bucket.read(digests[0], ROOMY).await.unwrap_err();
    bucket.contains(digests[1]).await.unwrap();
    for missed in &digests[..2] {
        assert!(!bucket.has_kept_since(&[digests[2], *missed], found));
    }
    assert!(bucket.has_kept_since(&digests[2..], found));
    bucket.put(blobs[0].clone()).await.unwrap();
    assert!(bucket.has_kept_since(&digests[..1], found));
    clock.advance(ttl / 2);
    assert!(!bucket.has_kept_since(&digests[2..], found), "it is too long ago");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_used_is_touched_however_much_it_is() {
    let objects = Arc::new(InMemory::new());
    let clock = Arc::new(ManualClock::default());
    clock.advance(SystemTime::now().duration_since(clock.now()).unwrap());
    let day = Duration::from_hours(24);
    let options = BucketOptions::default().with_touch_after(Some(day));
    let bucket = Bucket::new(objects.clone(), "b", options, clock.clone()).unwrap();
    let mut seeded = Seeded::new(30);
    let blobs: Vec<Verified> = (0..500).map(|_| seeded.blob(FUNCTION, 100)).collect();
    let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
    bucket.put_many(blobs).await;
    clock.advance(day * 2);
    assert!(bucket.find_missing(&digests).await.unwrap().is_empty());
    until(async || bucket.requests().deletes == 500).await;
    assert!(bucket.find_missing(&digests).await.unwrap().is_empty());
}

/// Only the way to the service is broken.
#[tokio::test]
async fn a_record_that_was_read_wrong_and_is_right_stays_and_one_that_is_damaged_goes() {
    let kind = RecordKind("kind");
    let record = Record {
        value: Seeded::new(40).bytes(5000),
        expires: None,
    };
    let objects = Arc::new(FaultyObjects::new(InMemory::new(), 3, 4));
    let open = |objects: Arc<dyn ObjectStore>| {
        Bucket::new(objects, "", BucketOptions::default(), Arc::new(SystemClock))
            .unwrap()
            .records()
    };
    let records = open(objects.clone());
    while records.put(kind, b"key", record.clone()).await.is_err() {}
    for _ in 0..300 {
        match records.get(kind, b"key").await {
            Ok(found) => assert_eq!(found, Some(record.clone())),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
    }
    let objects = Arc::new(InMemory::new());
    let records = open(objects.clone());
    records.put(kind, b"key", record).await.unwrap();
    let all: Vec<_> = objects.list(None).try_collect().await.unwrap();
    objects.put(&all[0].location, "damaged".into()).await.unwrap();
    assert_eq!(records.get(kind, b"key").await.unwrap(), None);
    assert!(objects.head(&all[0].location).await.is_err());
}
