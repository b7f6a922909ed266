//! The clauses of [`BlobStore`], one function each.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _, join_all};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rootcellar_digest::{Digest, DigestFunction};

use super::{ROOMY_BYTES, Seeded, report};
use crate::{BlobStore, BlobStoreExt as _, ByteRange, Error, ErrorKind, Result, Spool, Verified};

/// A store under test.
pub type Subject = Arc<dyn BlobStore>;

type Clause = (&'static str, u64, fn(Subject) -> BoxFuture<'static, ()>);

/// A bound that the contents of one clause exceed several times. A store without a bound may ignore it.
const TIGHT_BYTES: u64 = 4 << 20;

/// Sizes around what hash functions, filesystems and this crate treat differently: the larger ones reach spool files.
const SIZES: [usize; 9] = [1, 63, 1024, 1025, 4096, 5000, 65_537, 131_073, 1_000_003];

const CLAUSES: [Clause; 13] = [
    ("1. whole or absent", ROOMY_BYTES, |store| {
        whole_or_absent(store).boxed()
    }),
    ("2. named by all of its digest", ROOMY_BYTES, |store| {
        named_by_all_of_its_digest(store).boxed()
    }),
    ("3. the empty blob is always present", ROOMY_BYTES, |store| {
        the_empty_blob_is_always_present(store).boxed()
    }),
    ("4. right bytes or an error", ROOMY_BYTES, |store| {
        right_bytes_or_an_error(store).boxed()
    }),
    ("5. absent is NotFound", ROOMY_BYTES, |store| {
        absent_is_not_found(store).boxed()
    }),
    ("6. ranges clip", ROOMY_BYTES, |store| ranges_clip(store).boxed()),
    ("7. puts are idempotent", ROOMY_BYTES, |store| {
        puts_are_idempotent(store).boxed()
    }),
    ("7. any number of puts may run at once", ROOMY_BYTES, |store| {
        puts_may_run_at_once(store).boxed()
    }),
    ("8. find_missing answers once a digest", ROOMY_BYTES, |store| {
        find_missing_answers_once_a_digest(store).boxed()
    }),
    ("8. find_missing counts as a use", TIGHT_BYTES, |store| {
        find_missing_counts_as_a_use(store).boxed()
    }),
    ("9. a batch is a list of independent operations", ROOMY_BYTES, |store| {
        a_batch_is_a_list_of_independent_operations(store).boxed()
    }),
    (
        "10. dropping a future leaves nothing half-visible",
        ROOMY_BYTES,
        |store| dropping_a_future_leaves_nothing_half_visible(store).boxed(),
    ),
    ("11. a blob being read stays readable", TIGHT_BYTES, |store| {
        a_blob_being_read_stays_readable(store).boxed()
    }),
];

/// Runs every clause on a store that `make` makes, bounded to about the number of bytes that it is given.
///
/// # Panics
/// Names the first clause that is broken, and how.
pub async fn check_blob_store(make: impl AsyncFn(u64) -> Subject) {
    for (clause, bytes_max, run) in CLAUSES {
        let store = make(bytes_max).await;
        report(clause, store.to_string(), run(store)).await;
    }
}

/// A spool whose directory goes with it.
fn spool() -> (Spool, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Spool::new(dir.path()), dir)
}

async fn content(blob: &Verified) -> Bytes {
    blob.open(ByteRange::ALL).unwrap().into_bytes().await.unwrap()
}

async fn read(store: &Subject, digest: Digest) -> Result<Bytes, Error> {
    store.read(digest, ROOMY_BYTES).await
}

/// Clause 1: for every size and digest function, from memory and from a spool.
pub async fn whole_or_absent(store: Subject) {
    let (spool, _dir) = spool();
    let mut seeded = Seeded::new(1);
    for function in DigestFunction::ALL {
        for len in SIZES {
            for blob in [seeded.blob(function, len), seeded.ingested(&spool, function, len).await] {
                let digest = blob.digest();
                assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest], "before its put");
                store.put(blob.clone()).await.unwrap();
                assert_eq!(store.find_missing(&[digest]).await.unwrap(), [], "after its put");
                assert!(
                    read(&store, digest).await.unwrap() == content(&blob).await,
                    "{digest} reads differently"
                );
            }
        }
    }
}

/// Clause 2: neither another size nor another function names the blob.
pub async fn named_by_all_of_its_digest(store: Subject) {
    let blob = Seeded::new(2).blob(DigestFunction::Sha256, 5000);
    let digest = blob.digest();
    store.put(blob).await.unwrap();
    let sizes = [0, 4999, 5001, u64::MAX >> 1];
    let mut others = sizes
        .map(|size| Digest::new(DigestFunction::Sha256, digest.hash(), size).unwrap())
        .to_vec();
    for function in [DigestFunction::Blake3, DigestFunction::Sha256Tree] {
        others.push(Digest::new(function, digest.hash(), digest.size_bytes()).unwrap());
    }
    assert_eq!(store.find_missing(&others).await.unwrap(), others);
    for other in others {
        let error = store.get(other, ByteRange::ALL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    assert!(store.contains(digest).await.unwrap());
}

/// Clause 3: in every function, unasked for; and it can be put nevertheless.
pub async fn the_empty_blob_is_always_present(store: Subject) {
    for function in DigestFunction::ALL {
        let empty = Digest::empty(function);
        assert_eq!(store.find_missing(&[empty, empty]).await.unwrap(), []);
        assert_eq!(read(&store, empty).await.unwrap(), Bytes::new());
        for mut outcomes in many(&store, &[empty]).await {
            assert_eq!(outcomes.remove(0).unwrap(), Bytes::new());
        }
        let stream = store.get(empty, ByteRange::ALL).await.unwrap().into_stream();
        let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"");
        store.put(Verified::of(function, Bytes::new())).await.unwrap();
        let range = ByteRange { offset: 1, len: None };
        assert_eq!(store.get(empty, range).await.unwrap_err().kind(), ErrorKind::OutOfRange);
    }
}

/// Clause 4: as bytes, as a stream and in a batch, over and over.
pub async fn right_bytes_or_an_error(store: Subject) {
    let (spool, _dir) = spool();
    let mut seeded = Seeded::new(4);
    let mut blobs = Vec::new();
    for len in SIZES {
        blobs.push(seeded.ingested(&spool, DigestFunction::Blake3, len).await);
    }
    for outcome in store.put_many(blobs.clone()).await {
        outcome.unwrap();
    }
    for _again in 0..2 {
        for blob in &blobs {
            let (digest, expected) = (blob.digest(), content(blob).await);
            let stream = store.get(digest, ByteRange::ALL).await.unwrap().into_stream();
            let pieces: Vec<Bytes> = stream.try_collect().await.unwrap();
            assert!(pieces.concat() == expected, "{digest} streams differently");
            for mut outcomes in many(&store, &[digest]).await {
                assert!(
                    outcomes.remove(0).unwrap() == expected,
                    "{digest} reads differently in a batch"
                );
            }
        }
    }
}

/// Clause 5: for every way to read, before the first byte.
pub async fn absent_is_not_found(store: Subject) {
    for (function, len) in DigestFunction::ALL.into_iter().zip(SIZES) {
        let digest = Seeded::new(5).blob(function, len).digest();
        let error = store.get(digest, ByteRange::ALL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert_eq!(error.digest(), Some(digest), "the error names the blob");
        for mut outcomes in many(&store, &[digest]).await {
            let error = outcomes.remove(0).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        }
    }
}

/// Clause 6: inside, across the end, at the end and behind it, of small and large blobs.
pub async fn ranges_clip(store: Subject) {
    for len in [1, 5000, 1_000_003] {
        let blob = Seeded::new(6).blob(DigestFunction::Sha256, len);
        let (digest, size, whole) = (blob.digest(), len as u64, content(&blob).await);
        store.put(blob).await.unwrap();
        let offsets = [0, 1, size / 2, size - 1, size];
        let lens = [None, Some(0), Some(1), Some(size / 3), Some(size), Some(u64::MAX)];
        for (offset, len) in offsets.into_iter().flat_map(|at| lens.map(|len| (at, len))) {
            let range = ByteRange { offset, len };
            let part = store.get(digest, range).await.unwrap();
            let expected = range.resolve(digest).unwrap();
            assert_eq!(part.range(), expected, "{range:?} of {size} bytes");
            let expected = usize::try_from(expected.start).unwrap()..usize::try_from(expected.end).unwrap();
            assert!(
                part.into_bytes().await.unwrap() == whole.slice(expected),
                "{range:?} of {size} bytes reads differently"
            );
        }
        for offset in [size + 1, u64::MAX] {
            for len in lens {
                let error = store.get(digest, ByteRange { offset, len }).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
            }
        }
    }
}

/// Clause 7, first half: again, from another source, and in one batch.
pub async fn puts_are_idempotent(store: Subject) {
    let (spool, _dir) = spool();
    for len in [100, 1_000_003] {
        let blob = Seeded::new(7).blob(DigestFunction::Sha256, len);
        let same = Seeded::new(7).ingested(&spool, DigestFunction::Sha256, len).await;
        store.put(blob.clone()).await.unwrap();
        store.put(same.clone()).await.unwrap();
        for outcome in store.put_many(vec![blob.clone(), same.clone(), blob.clone()]).await {
            outcome.unwrap();
        }
        assert!(read(&store, blob.digest()).await.unwrap() == content(&blob).await);
    }
}

/// Clause 7, second half: puts, batches and readers of one blob all at once.
pub async fn puts_may_run_at_once(store: Subject) {
    const AT_ONCE: usize = 16;
    let (spool, _dir) = spool();
    for len in [100, 1_000_003] {
        let blob = Seeded::new(70).blob(DigestFunction::Sha256, len);
        let spooled = Seeded::new(70).ingested(&spool, DigestFunction::Sha256, len).await;
        let expected = content(&blob).await;
        let runs = (0..AT_ONCE).map(|run| {
            let blob = if run % 2 == 0 { blob.clone() } else { spooled.clone() };
            let (store, digest, expected) = (store.clone(), blob.digest(), expected.clone());
            tokio::spawn(async move {
                match read(&store, digest).await {
                    Ok(bytes) => assert!(bytes == expected, "a reader saw other bytes"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
                }
                if run % 3 == 0 {
                    for outcome in store.put_many(vec![blob.clone(), blob]).await {
                        outcome.unwrap();
                    }
                } else {
                    store.put(blob).await.unwrap();
                }
                assert!(read(&store, digest).await.unwrap() == expected, "after its put");
            })
        });
        for outcome in join_all(runs).await {
            outcome.unwrap();
        }
    }
}

/// Clause 8, first half: the answer's order and duplicates.
pub async fn find_missing_answers_once_a_digest(store: Subject) {
    let mut seeded = Seeded::new(8);
    let blobs: Vec<Verified> = (0..6).map(|_| seeded.blob(DigestFunction::Sha256, 300)).collect();
    let name = |which: usize| blobs[which].digest();
    store.put(blobs[1].clone()).await.unwrap();
    store.put(blobs[4].clone()).await.unwrap();
    let asked = [5, 1, 3, 5, 4, 0, 3, 1, 2, 5].map(name);
    assert_eq!(store.find_missing(&asked).await.unwrap(), [5, 3, 0, 2].map(name));
    assert_eq!(store.find_missing(&[]).await.unwrap(), []);
}

/// Clause 8, second half: a blob that is asked for again and again outlives more than the store's bound of others.
pub async fn find_missing_counts_as_a_use(store: Subject) {
    let mut seeded = Seeded::new(80);
    let used = seeded.blob(DigestFunction::Sha256, 100_000);
    store.put(used.clone()).await.unwrap();
    for others in 0..60 {
        assert!(
            store.contains(used.digest()).await.unwrap(),
            "gone after {others} others"
        );
        store.put(seeded.blob(DigestFunction::Sha256, 100_000)).await.unwrap();
    }
}

/// Clause 9: order, and one absent blob among present ones.
pub async fn a_batch_is_a_list_of_independent_operations(store: Subject) {
    let mut seeded = Seeded::new(9);
    let blobs: Vec<Verified> = (0..200)
        .map(|n| seeded.blob(DigestFunction::ALL[n % 8], 1 + 37 * n))
        .collect();
    let outcomes = store.put_many(blobs.clone()).await;
    assert_eq!(outcomes.len(), blobs.len());
    for outcome in outcomes {
        outcome.unwrap();
    }
    let absent = seeded.blob(DigestFunction::Sha256, 77).digest();
    let mut asked: Vec<Digest> = blobs.iter().rev().map(Verified::digest).collect();
    asked.insert(50, absent);
    for outcomes in many(&store, &asked).await {
        assert_eq!(outcomes.len(), asked.len());
        for (digest, outcome) in asked.iter().zip(outcomes) {
            match outcome {
                Ok(bytes) => assert_eq!(Digest::of(digest.function(), &bytes), *digest),
                Err(error) => assert_eq!((error.kind(), *digest), (ErrorKind::NotFound, absent)),
            }
        }
    }
    assert!(store.put_many(Vec::new()).await.is_empty());
    for outcomes in many(&store, &[]).await {
        assert!(outcomes.is_empty());
    }
}

/// What is read in a batch, in each of the two ways.
async fn many(store: &Subject, digests: &[Digest]) -> [Vec<Result<Bytes>>; 2] {
    let len = |digest: &Digest| usize::try_from(digest.size_bytes()).unwrap();
    let mut buffers: Vec<Vec<u8>> = digests.iter().map(|digest| vec![0xa5; len(digest)]).collect();
    let mut filled: Vec<&mut [u8]> = buffers.iter_mut().map(Vec::as_mut_slice).collect();
    let outcomes = store.get_many_into(digests, &mut filled).await;
    assert_eq!(outcomes.len(), digests.len());
    let read_into = outcomes.into_iter().zip(buffers);
    let read_into = read_into.map(|(outcome, buffer)| outcome.map(|()| buffer.into()));
    [store.get_many(digests).await, read_into.collect()]
}

/// Clause 10: futures that were polled a few times and dropped; what they may have done is whole, and can be done again.
pub async fn dropping_a_future_leaves_nothing_half_visible(store: Subject) {
    let (spool, _dir) = spool();
    let mut seeded = Seeded::new(10);
    for polls in 0..6 {
        for len in [100, 1_000_003] {
            let blob = seeded.ingested(&spool, DigestFunction::Sha256, len).await;
            poll_and_drop(polls, store.put(blob.clone())).await;
            match read(&store, blob.digest()).await {
                Ok(bytes) => assert!(bytes == content(&blob).await, "a dropped put left other bytes"),
                Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
            }
            poll_and_drop(polls, store.put_many(vec![blob.clone()])).await;
            store.put(blob.clone()).await.unwrap();
            poll_and_drop(polls, store.get(blob.digest(), ByteRange::ALL)).await;
            poll_and_drop(polls, store.get_many(&[blob.digest()])).await;
            assert!(read(&store, blob.digest()).await.unwrap() == content(&blob).await);
        }
    }
}

async fn poll_and_drop<T>(polls: usize, future: impl Future<Output = T>) {
    let mut future = pin!(future);
    for _ in 0..polls {
        if futures_util::poll!(&mut future).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Clause 11: a reader in the middle of a blob, while more than the store's bound of other blobs is put.
pub async fn a_blob_being_read_stays_readable(store: Subject) {
    let mut seeded = Seeded::new(11);
    let blob = seeded.blob(DigestFunction::Sha256, 1_000_003);
    store.put(blob.clone()).await.unwrap();
    let open = store.get(blob.digest(), ByteRange::ALL).await.unwrap();
    let mut begun = store.get(blob.digest(), ByteRange::ALL).await.unwrap().into_stream();
    let first = begun.next().await.unwrap().unwrap();
    for _ in 0..16 {
        store.put(seeded.blob(DigestFunction::Sha256, 1_000_003)).await.unwrap();
    }
    let expected = content(&blob).await;
    let rest: Vec<Bytes> = begun.try_collect().await.unwrap();
    assert!([&first[..], &rest.concat()].concat() == expected, "a begun read");
    assert!(open.into_bytes().await.unwrap() == expected, "an opened blob");
}
