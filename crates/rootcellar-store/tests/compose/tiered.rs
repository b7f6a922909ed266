//! What a fast store in front of a slow one promises beyond the contract.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, TryStreamExt as _};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::{Faulty, ManualClock, Seeded};
use rootcellar_store::{
    BehindOptions, BehindStatistics, Blob, BlobStore, BlobStoreExt as _, ByteRange, DiskStore, Error, ErrorKind,
    Leased, LocalStore as _, MemoryStore, Observed, Operation, Tiered, TieredOptions, Verified,
};

use crate::ground::{Ground, memory};

const LARGE: usize = 5_000_003;
const FUNCTION: DigestFunction = DigestFunction::Sha256;

fn blob(seed: u64, len: usize) -> Verified {
    Seeded::new(seed).blob(FUNCTION, len)
}

async fn content(blob: &Verified) -> Bytes {
    blob.open(ByteRange::ALL).unwrap().into_bytes().await.unwrap()
}

/// A disk in front of a store in memory that is watched.
struct Tiers {
    _ground: Ground,
    fast: Arc<DiskStore>,
    slow: Arc<Observed<MemoryStore>>,
    tiered: Tiered,
}

impl Tiers {
    async fn new() -> Self {
        let ground = Ground::new();
        let fast = ground.disk(1 << 30).await;
        let slow = Arc::new(Observed::new(memory(1 << 30)));
        let tiered = ground.tiered(fast.clone(), slow.clone());
        Self {
            _ground: ground,
            fast,
            slow,
            tiered,
        }
    }

    fn reads(&self) -> u64 {
        let seen = self.slow.statistics();
        seen.of(Operation::Get).calls + seen.of(Operation::GetMany).calls
    }
}

#[tokio::test]
async fn a_part_of_a_blob_is_passed_on_and_the_whole_is_not_brought() {
    let tiers = Tiers::new().await;
    let blob = blob(1, LARGE);
    tiers.slow.put(blob.clone()).await.unwrap();
    let range = ByteRange {
        offset: 1_000_000,
        len: Some(5000),
    };
    let part = tiers
        .tiered
        .get(blob.digest(), range)
        .await
        .unwrap()
        .into_bytes()
        .await
        .unwrap();
    assert_eq!(part, content(&blob).await.slice(1_000_000..1_005_000));
    assert_eq!(tiers.slow.statistics().of(Operation::Get).bytes, 5000);
    assert!(!tiers.fast.contains(blob.digest()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_blob_is_brought_once_for_all_who_ask() {
    let tiers = Tiers::new().await;
    let blob = blob(2, LARGE);
    tiers.slow.put(blob.clone()).await.unwrap();
    let expected = content(&blob).await;
    let readers = (0..20).map(|_| tiers.tiered.read(blob.digest(), 1 << 30));
    for read in join_all(readers).await {
        assert!(read.unwrap() == expected);
    }
    assert_eq!(tiers.reads(), 1);
    assert!(tiers.fast.contains(blob.digest()).await.unwrap());
    assert!(tiers.tiered.read(blob.digest(), 1 << 30).await.unwrap() == expected);
    assert_eq!(tiers.reads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_does_not_hold_up_the_others() {
    let tiers = Tiers::new().await;
    let blob = blob(3, LARGE);
    tiers.slow.put(blob.clone()).await.unwrap();
    let mut slow_reader = tiers
        .tiered
        .get(blob.digest(), ByteRange::ALL)
        .await
        .unwrap()
        .into_stream();
    let first = slow_reader.next().await.unwrap().unwrap();
    let other = tiers.tiered.read(blob.digest(), 1 << 30).await.unwrap();
    assert!(other == content(&blob).await);
    let rest: Vec<Bytes> = slow_reader.try_collect().await.unwrap();
    assert!([&first[..], &rest.concat()].concat() == other);
    assert_eq!(tiers.reads(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn small_blobs_of_a_batch_are_brought_with_one_call() {
    let tiers = Tiers::new().await;
    let blobs: Vec<Verified> = (0..50).map(|n| blob(100 + n, 1000)).collect();
    let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
    tiers.slow.put_many(blobs).await;
    for outcome in tiers.tiered.get_many(&digests).await {
        outcome.unwrap();
    }
    assert_eq!(tiers.reads(), 1);
    assert!(tiers.fast.find_missing(&digests).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_read_into_place_from_both_stores() {
    let tiers = Tiers::new().await;
    let [in_fast, in_slow, absent] = [200, 201, 202].map(|seed| blob(seed, 1000));
    tiers.fast.put(in_fast.clone()).await.unwrap();
    tiers.slow.put(in_slow.clone()).await.unwrap();
    let asked = [&in_slow, &absent, &in_fast, &in_slow];
    let digests = asked.map(Verified::digest);
    let mut buffers = [[0; 1000]; 4];
    let mut places = buffers.each_mut().map(<[u8; 1000]>::as_mut_slice);
    let outcomes = tiers.tiered.get_many_into(&digests, &mut places).await;
    for ((blob, outcome), buffer) in asked.into_iter().zip(outcomes).zip(buffers) {
        match outcome {
            Ok(()) => assert_eq!(&buffer[..], content(blob).await),
            Err(error) => assert_eq!((error.kind(), blob.digest()), (ErrorKind::NotFound, absent.digest())),
        }
    }
    assert_eq!(tiers.reads(), 1);
    assert!(tiers.fast.contains(in_slow.digest()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_brings_what_is_missing() {
    let tiers = Tiers::new().await;
    let blobs = [blob(4, 100), blob(5, LARGE), blob(6, 70_000)];
    let digests = blobs.each_ref().map(Verified::digest);
    tiers.slow.put_many(blobs.to_vec()).await;
    let Leased::Held(_lease) = tiers.tiered.lease(&digests).await.unwrap() else {
        panic!("all of them are in the slow store")
    };
    for digest in digests {
        tiers.tiered.locate(digest).unwrap();
    }
}

#[tokio::test]
async fn a_write_through_that_the_slow_store_refuses_is_refused() {
    let ground = Ground::new();
    let slow = Arc::new(Faulty::new(memory(1 << 30), 1, 0));
    let tiered = ground.tiered(ground.disk(1 << 30).await, slow.clone());
    let blob = blob(7, 1000);
    slow.set_down(true);
    assert_eq!(
        tiered.put(blob.clone()).await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    assert!(tiered.put_many(vec![blob.clone()]).await.remove(0).is_err());
    slow.set_down(false);
    assert!(
        !tiered.contains(blob.digest()).await.unwrap(),
        "a refused put is nowhere"
    );
    tiered.put(blob.clone()).await.unwrap();
    assert!(slow.contains(blob.digest()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_used_in_the_fast_store_is_used_in_the_slow_one_now_and_then_and_brought_back_to_it() {
    let ground = Ground::new();
    let clock = Arc::new(ManualClock::default());
    let (fast, slow) = (ground.disk(1 << 30).await, Arc::new(Observed::new(memory(1 << 30))));
    let hour = Duration::from_hours(1);
    let options = TieredOptions::default().with_tell_uses_after(hour);
    let spool = ground.spool();
    let tiered = Tiered::new(fast.clone(), slow.clone(), spool, &options, clock.clone());
    let blob = blob(8, 1000);
    // Only the fast store has it, as if the other one had let it go.
    fast.put(blob.clone()).await.unwrap();
    assert!(tiered.contains(blob.digest()).await.unwrap());
    until(|| slow.statistics().of(Operation::PutMany).bytes == 1000).await;
    let asked = || slow.statistics().of(Operation::FindMissing).calls;
    let before = asked();
    for _ in 0..10 {
        tiered.read(blob.digest(), 1 << 20).await.unwrap();
    }
    assert_eq!(asked(), before, "it was told a moment ago");
    clock.advance(hour);
    tiered.read(blob.digest(), 1 << 20).await.unwrap();
    until(|| asked() == before + 1).await;
}

async fn until(is_so: impl Fn() -> bool) {
    let begin = SystemTime::now();
    while !is_so() {
        assert!(
            begin.elapsed().unwrap() < Duration::from_secs(20),
            "it does not come to pass"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A disk that writes behind, to a store that may be down.
struct Behind {
    ground: Ground,
    fast_dir: std::path::PathBuf,
    list: std::path::PathBuf,
    slow: Arc<Faulty<MemoryStore>>,
}

impl Behind {
    fn new() -> Self {
        let ground = Ground::new();
        Self {
            fast_dir: ground.path(),
            list: ground.path(),
            slow: Arc::new(Faulty::new(memory(1 << 30), 1, 0)),
            ground,
        }
    }

    async fn open(&self, options: BehindOptions) -> (Arc<DiskStore>, Tiered) {
        let fast = self.ground.disk_at(self.fast_dir.clone(), 8 << 20).await;
        let tiered = self.ground.tiered(fast.clone(), self.slow.clone());
        (fast, tiered.write_behind(&self.list, options).await.unwrap())
    }
}

fn depth(tiered: &Tiered) -> BehindStatistics {
    tiered.behind().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_written_survives_the_process_and_the_pressure_on_the_fast_store() {
    let behind = Behind::new();
    behind.slow.set_down(true);
    let blobs: Vec<Verified> = (0..20).map(|n| blob(200 + n, 100_000)).collect();
    let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
    let (fast, tiered) = behind.open(BehindOptions::default()).await;
    for outcome in tiered.put_many(blobs).await {
        outcome.unwrap();
    }
    assert_eq!((depth(&tiered).blobs, depth(&tiered).bytes), (20, 2_000_000));
    end(tiered, fast).await;
    let (fast, tiered) = behind.open(BehindOptions::default()).await;
    assert_eq!(depth(&tiered).blobs, 20);
    for n in 0..100 {
        fast.put(blob(1000 + n, 100_000)).await.unwrap();
    }
    assert!(
        fast.find_missing(&digests).await.unwrap().is_empty(),
        "they are kept until they are written"
    );
    behind.slow.set_down(false);
    tiered.flush().await;
    assert!(behind.slow.find_missing(&digests).await.unwrap().is_empty());
    let depth = depth(&tiered);
    assert_eq!((depth.blobs, depth.bytes, depth.written, depth.lost), (0, 0, 20, 0));
    end(tiered, fast).await;
    let (_fast, tiered) = behind.open(BehindOptions::default()).await;
    assert_eq!(self::depth(&tiered).blobs, 0, "it is not written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_slow_store_is_down_what_is_not_known_is_missing_so_that_it_is_put() {
    let behind = Behind::new();
    let (_fast, tiered) = behind.open(BehindOptions::default()).await;
    let (known, unknown) = (blob(700, 1000), blob(701, 1000));
    behind.slow.put(unknown.clone()).await.unwrap();
    behind.slow.set_down(true);
    tiered.put(known.clone()).await.unwrap();
    let asked = [known.digest(), unknown.digest()];
    for _again in 0..2 {
        assert_eq!(tiered.find_missing(&asked).await.unwrap(), [unknown.digest()]);
    }
    behind.slow.set_down(false);
    tiered.flush().await;
    // A call that was under way when it failed may have told so after another one that did not.
    let begin = SystemTime::now();
    while !tiered.find_missing(&asked).await.unwrap().is_empty() {
        assert!(
            begin.elapsed().unwrap() < Duration::from_secs(20),
            "it is not asked again"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_wait_when_too_much_waits_and_are_refused_in_the_end() {
    let behind = Behind::new();
    behind.slow.set_down(true);
    let patience = Duration::from_millis(300);
    let options = BehindOptions::default().with_bytes_max(1 << 20).with_patience(patience);
    let (_fast, tiered) = behind.open(options).await;
    for n in 0..10 {
        tiered.put(blob(300 + n, 100_000)).await.unwrap();
    }
    let begin = SystemTime::now();
    let error = tiered.put(blob(399, 100_000)).await.unwrap_err();
    assert!(begin.elapsed().unwrap() >= patience);
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("10 blobs"), "{error}");
    assert_eq!(depth(&tiered).refused, 1);
    // What waits already needs no room.
    tiered.put(blob(300, 100_000)).await.unwrap();
    let waiting = async { tiered.put(blob(398, 100_000)).await };
    let back = async { behind.slow.set_down(false) };
    let (put, ()) = tokio::join!(waiting, back);
    put.unwrap();
    tiered.flush().await;
    assert!(depth(&tiered).failures > 0, "the failed attempts are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_larger_than_what_may_wait_is_let_through_in_parts() {
    let behind = Behind::new();
    let options = BehindOptions::default().with_bytes_max(300_000).with_blobs_max(2);
    let (_fast, tiered) = behind.open(options).await;
    let mut blobs: Vec<Verified> = (0..20).map(|n| blob(500 + n, 100_000)).collect();
    blobs.push(blob(599, 1_000_000));
    let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
    for outcome in tiered.put_many(blobs).await {
        outcome.unwrap();
    }
    tiered.flush().await;
    assert!(behind.slow.find_missing(&digests).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_the_fast_store_lost_is_given_up_aloud() {
    let behind = Behind::new();
    behind.slow.set_down(true);
    let (fast, tiered) = behind.open(BehindOptions::default()).await;
    tiered.put(blob(600, 1000)).await.unwrap();
    end(tiered, fast).await;
    remove_all(&behind.fast_dir);
    let (_fast, tiered) = behind.open(BehindOptions::default()).await;
    assert_eq!((depth(&tiered).blobs, depth(&tiered).lost), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_written_out_is_written_before_its_turn_and_brought_again_if_the_slow_store_lost_it() {
    let behind = Behind::new();
    behind.slow.set_down(true);
    let (fast, tiered) = behind.open(BehindOptions::default()).await;
    let (waits, was_lost) = (blob(800, 1000), blob(801, 1_000_000));
    tiered.put(waits.clone()).await.unwrap();
    // Here only: the slow store had it, and evicted it.
    fast.put(was_lost.clone()).await.unwrap();
    let digests = [waits.digest(), was_lost.digest()];
    let error = tiered.write_out(&digests).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    behind.slow.set_down(false);
    assert_eq!(tiered.write_out(&digests).await.unwrap(), []);
    assert!(behind.slow.find_missing(&digests).await.unwrap().is_empty());
    assert_eq!(depth(&tiered).blobs, 0);
    let nowhere = Digest::of(FUNCTION, b"nobody has it");
    let asked = [digests[0], nowhere, digests[1]];
    assert_eq!(tiered.write_out(&asked).await.unwrap(), [nowhere]);
}

/// Another server, say: it knows one digest function, and takes no blob above a size.
#[derive(Debug)]
struct Picky {
    inner: Arc<MemoryStore>,
    size_max: AtomicU64,
}

impl Picky {
    fn up_to(size_max: u64) -> Arc<Self> {
        Arc::new(Self {
            inner: memory(1 << 30),
            size_max: AtomicU64::new(size_max),
        })
    }

    fn takes(&self, digests: &[Digest]) -> Result<(), Error> {
        match digests.iter().find(|digest| digest.function() != FUNCTION) {
            Some(digest) => Err(Error::new(ErrorKind::InvalidArgument, "ask", "unknown function").on(*digest)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Picky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("picky")
    }
}

#[async_trait]
impl BlobStore for Picky {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, Error> {
        self.takes(digests)?;
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob, Error> {
        self.inner.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> Result<(), Error> {
        self.takes(&[blob.digest()])?;
        match blob.digest().size_bytes() > self.size_max.load(Ordering::Relaxed) {
            true => Err(Error::new(ErrorKind::Exhausted, "put", "it is too large").on(blob.digest())),
            false => self.inner.put(blob).await,
        }
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes, Error>> {
        self.inner.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<(), Error>> {
        join_all(blobs.into_iter().map(|blob| self.put(blob))).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_the_slow_store_refuses_hold_up_no_others() {
    let ground = Ground::new();
    let slow = Picky::up_to(100_000);
    let tiered = ground.tiered(ground.disk(1 << 30).await, slow.clone());
    let tiered = tiered
        .write_behind(&ground.path(), BehindOptions::default())
        .await
        .unwrap();
    let good: Vec<Verified> = (0..200).map(|n| blob(900 + n, 1000)).collect();
    let of_another_function = |n| Seeded::new(n).blob(DigestFunction::Blake3, 1000);
    let large = blob(899, 200_000);
    let mut blobs = vec![large.clone()];
    for (number, blob) in (0..).zip(&good) {
        blobs.push(blob.clone());
        blobs.extend((number % 4 == 0).then(|| of_another_function(number)));
    }
    let digests: Vec<Digest> = good.iter().map(Verified::digest).collect();
    for outcome in tiered.put_many(blobs).await {
        outcome.unwrap();
    }
    let arrive = async {
        while depth(&tiered).blobs > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(60), arrive).await;
    assert!(outcome.is_ok(), "{:?}", depth(&tiered));
    assert!(slow.find_missing(&digests).await.unwrap().is_empty());
    assert_eq!(
        (depth(&tiered).written, depth(&tiered).lost),
        (200, 50),
        "given up aloud"
    );
    assert!(tiered.write_out(&[large.digest()]).await.is_err());
    slow.size_max.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(tiered.write_out(&[large.digest()]).await.unwrap(), []);
    assert!(slow.find_missing(&[large.digest()]).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_that_are_refused_again_and_again_give_way_to_others() {
    let ground = Ground::new();
    let slow = Picky::up_to(100_000);
    let tiered = ground.tiered(ground.disk(1 << 30).await, slow.clone());
    let options = BehindOptions::default()
        .with_bytes_max(1 << 20)
        .with_patience(Duration::from_millis(200));
    let tiered = tiered.write_behind(&ground.path(), options).await.unwrap();
    for number in 0..5 {
        tiered.put(blob(1200 + number, 200_000)).await.unwrap();
    }
    while depth(&tiered).failures < 5 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let small = blob(1300, 90_000);
    let refused = tiered.put(small.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("too large"), "{refused}");
    assert_eq!((depth(&tiered).blobs, depth(&tiered).lost), (4, 1));
    tiered.put(small.clone()).await.unwrap();
    let arrive = async {
        while !slow.find_missing(&[small.digest()]).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), arrive).await.unwrap();
}

/// Lets go of both, without writing anything.
async fn end(tiered: Tiered, fast: Arc<DiskStore>) {
    tiered.close().await;
    drop((tiered, fast));
}

fn remove_all(dir: &Path) {
    std::fs::remove_dir_all(dir).unwrap();
}
