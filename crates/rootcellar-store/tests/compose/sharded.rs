//! What several stores with parts of the blobs promise beyond the contract.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::{Faulty, Seeded};
use rootcellar_store::{
    Blob, BlobStore, BlobStoreExt as _, ByteRange, Error, ErrorKind, MemoryStore, Result, Shard, Sharded,
    ShardedOptions, ShardedStatistics, Verified,
};

use crate::ground::{Ground, memory};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const ROOMY: u64 = 1 << 30;

/// Shards in memory that can be down.
struct Shards {
    ground: Ground,
    memories: Vec<Arc<MemoryStore>>,
    switches: Vec<Arc<Faulty<MemoryStore>>>,
}

impl Shards {
    fn new(count: usize) -> Self {
        let memories: Vec<_> = (0..count).map(|_| memory(ROOMY)).collect();
        let switch = |store: &Arc<MemoryStore>| Arc::new(Faulty::new(store.clone(), 1, 0));
        Self {
            ground: Ground::new(),
            switches: memories.iter().map(switch).collect(),
            memories,
        }
    }

    fn shard(&self, number: usize) -> Shard {
        Shard {
            name: format!("shard {number}"),
            weight: 1.0,
            store: self.switches[number].clone(),
            inventory: Some(self.memories[number].clone()),
        }
    }

    /// Those of the first `count` shards.
    fn open(&self, count: usize, options: ShardedOptions) -> Sharded {
        let shards = (0..count).map(|number| self.shard(number)).collect();
        Sharded::new(shards, self.ground.spool(), options).unwrap()
    }

    async fn copies(&self, digest: Digest) -> usize {
        let mut copies = 0;
        for memory in &self.memories {
            copies += usize::from(memory.contains(digest).await.unwrap());
        }
        copies
    }
}

fn two_copies() -> ShardedOptions {
    ShardedOptions::default()
        .with_replicas(2)
        .with_patience(Duration::from_millis(500))
}

fn blobs(seed: u64, count: usize, len: usize) -> Vec<Verified> {
    let mut seeded = Seeded::new(seed);
    (0..count).map(|_| seeded.blob(FUNCTION, len)).collect()
}

fn digests(blobs: &[Verified]) -> Vec<Digest> {
    blobs.iter().map(Verified::digest).collect()
}

async fn content(blob: &Verified) -> Bytes {
    blob.open(ByteRange::ALL).unwrap().into_bytes().await.unwrap()
}

async fn until(sharded: &Sharded, is_so: impl Fn(&ShardedStatistics) -> bool) {
    let begin = Instant::now();
    while !is_so(&sharded.statistics()) {
        assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", sharded.statistics());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_healed(statistics: &ShardedStatistics) -> bool {
    statistics
        .shards
        .iter()
        .all(|shard| shard.to_heal == 0 && !shard.is_down)
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_shard_down_everything_goes_on_and_is_healed_when_it_is_back() {
    let shards = Shards::new(3);
    let sharded = shards.open(3, two_copies());
    let before = blobs(1, 60, 1000);
    for outcome in sharded.put_many(before.clone()).await {
        outcome.unwrap();
    }
    shards.switches[1].set_down(true);
    let mut during = blobs(2, 60, 1000);
    during.extend(blobs(3, 3, 400_000));
    for blob in &during {
        sharded.put(blob.clone()).await.unwrap();
    }
    let all: Vec<Verified> = before.into_iter().chain(during).collect();
    assert_eq!(sharded.find_missing(&digests(&all)).await.unwrap(), []);
    for blob in &all {
        assert!(sharded.read(blob.digest(), ROOMY).await.unwrap() == content(blob).await);
    }
    for (blob, read) in all.iter().zip(sharded.get_many(&digests(&all)).await) {
        assert!(read.unwrap() == content(blob).await);
    }
    let statistics = sharded.statistics();
    assert!(statistics.shards[1].to_heal > 20, "{statistics:?}");
    shards.switches[1].set_down(false);
    until(&sharded, is_healed).await;
    for blob in &all {
        assert_eq!(shards.copies(blob.digest()).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_shard_has_lost_it_gets_again_when_it_is_asked_for() {
    let shards = Shards::new(2);
    let sharded = shards.open(2, two_copies());
    let (asked, read) = (blobs(4, 10, 1000), blobs(5, 10, 1000));
    // Only one of both has them.
    shards.memories[0].put_many(asked.clone()).await;
    shards.memories[0].put_many(read.clone()).await;
    assert_eq!(sharded.find_missing(&digests(&asked)).await.unwrap(), []);
    for blob in &read {
        sharded.read(blob.digest(), ROOMY).await.unwrap();
    }
    until(&sharded, is_healed).await;
    let not_healed = shards.memories[1].find_missing(&digests(&asked)).await.unwrap();
    assert_eq!(not_healed, []);
    // A read asks the first shard first, and does not look whether the second has the blob too.
    let not_healed = shards.memories[1].find_missing(&digests(&read)).await.unwrap();
    assert!(
        not_healed.len() < read.len(),
        "those that the second shard was asked for first"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_that_are_still_to_be_made_survive_the_process() {
    let shards = Shards::new(2);
    let list = shards.ground.path();
    let open = || {
        let both = vec![shards.shard(0), shards.shard(1)];
        Sharded::with_list(both, shards.ground.spool(), two_copies(), &list).unwrap()
    };
    let sharded = open();
    shards.switches[1].set_down(true);
    let blobs = blobs(6, 20, 1000);
    for outcome in sharded.put_many(blobs.clone()).await {
        outcome.unwrap();
    }
    until(&sharded, |statistics| statistics.shards[1].to_heal == 20).await;
    // It is on disk a moment later.
    let begin = Instant::now();
    while std::fs::metadata(&list).unwrap().len() < 20 * 96 {
        assert!(begin.elapsed() < Duration::from_secs(10), "it is not noted on disk");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sharded.close().await;
    drop(sharded);
    let sharded = open();
    assert_eq!(sharded.statistics().shards[1].to_heal, 20);
    shards.switches[1].set_down(false);
    until(&sharded, is_healed).await;
    assert_eq!(shards.memories[1].find_missing(&digests(&blobs)).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_shards_of_a_blob_down_nothing_is_said_about_it() {
    let shards = Shards::new(2);
    let sharded = shards.open(2, two_copies());
    let blob = blobs(7, 1, 1000).remove(0);
    sharded.put(blob.clone()).await.unwrap();
    shards.switches.iter().for_each(|switch| switch.set_down(true));
    let digest = blob.digest();
    for error in [
        sharded.find_missing(&[digest]).await.unwrap_err(),
        sharded.get(digest, ByteRange::ALL).await.unwrap_err(),
        sharded.get_many(&[digest]).await.remove(0).unwrap_err(),
        sharded.put(blob).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    let empty = Digest::empty(FUNCTION);
    assert_eq!(sharded.read(empty, 1).await.unwrap(), "");
    assert_eq!(sharded.get_many(&[empty]).await.remove(0).unwrap(), "");
}

/// A store whose reads break off, or stop.
#[derive(Debug)]
struct Breaking {
    inner: Arc<MemoryStore>,
    hangs: bool,
    /// Sends something else before it breaks.
    lies: bool,
}

impl std::fmt::Display for Breaking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("breaking")
    }
}

#[async_trait::async_trait]
impl BlobStore for Breaking {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let blob = self.inner.get(digest, range).await?;
        let range = blob.range();
        let mut sent = blob.into_bytes().await?.to_vec();
        sent.truncate(sent.len() / 3);
        sent[0] ^= u8::from(self.lies);
        let end = match self.hangs {
            true => stream::pending().boxed(),
            false => stream::iter([Err(Error::new(ErrorKind::Unavailable, "get", "it breaks"))]).boxed(),
        };
        let pieces = stream::iter([Ok(Bytes::from(sent))]).chain(end);
        Ok(Blob::from_stream(digest, range, pieces.boxed()))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        self.inner.put(blob).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        self.inner.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        self.inner.put_many(blobs).await
    }
}

/// One shard that breaks in the middle of each read, and one that does not.
fn half_broken(ground: &Ground, hangs: bool, lies: bool) -> Sharded {
    let shard = |name: &str, store: Arc<dyn BlobStore>| Shard {
        name: name.to_owned(),
        weight: 1.0,
        store,
        inventory: None,
    };
    let breaking = Breaking {
        inner: memory(ROOMY),
        hangs,
        lies,
    };
    let shards = vec![shard("breaking", Arc::new(breaking)), shard("whole", memory(ROOMY))];
    Sharded::new(shards, ground.spool(), two_copies()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_breaks_off_goes_on_with_another_shard() {
    let ground = Ground::new();
    for hangs in [false, true] {
        let sharded = half_broken(&ground, hangs, false);
        for blob in blobs(8, 6, 300_000) {
            sharded.put(blob.clone()).await.unwrap();
            let whole = content(&blob).await;
            assert!(sharded.read(blob.digest(), ROOMY).await.unwrap() == whole);
            let range = ByteRange {
                offset: 1000,
                len: Some(200_000),
            };
            let part = sharded.get(blob.digest(), range).await.unwrap();
            assert!(part.into_bytes().await.unwrap() == whole.slice(1000..201_000));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_handed_out_before_a_read_broke_off_has_to_be_right_too() {
    let ground = Ground::new();
    let sharded = half_broken(&ground, false, true);
    let mut damaged = 0;
    for blob in blobs(9, 20, 300_000) {
        sharded.put(blob.clone()).await.unwrap();
        let pieces = sharded.get(blob.digest(), ByteRange::ALL).await.unwrap().into_stream();
        match pieces.try_collect::<Vec<Bytes>>().await {
            Ok(pieces) => assert!(pieces.concat() == content(&blob).await),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::DataLoss, "{error}");
                damaged += 1;
            }
        }
    }
    assert!(damaged > 0, "the shard that lies was never asked first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_comes_gets_its_share_and_no_more_is_moved() {
    let shards = Shards::new(4);
    let blobs = blobs(10, 400, 500);
    let before = shards.open(3, two_copies());
    for outcome in before.put_many(blobs.clone()).await {
        outcome.unwrap();
    }
    drop(before);
    let after = shards.open(4, two_copies());
    let mut reports = Vec::new();
    let done = after.rebalance(|report| reports.push(report)).await.unwrap();
    // A copy of each blob moves with the probability 1/4, twice.
    assert!((120..280).contains(&done.copied), "{done:?}");
    assert_eq!((done.shards, done.failed, done.bytes), (4, 0, done.copied * 500));
    assert!(done.misplaced > 0 && reports.len() > 4);
    assert_eq!(after.rebalance(|_| ()).await.unwrap().copied, 0, "it is done");
    assert_eq!(
        shards.memories[3].find_missing(&digests(&blobs)).await.unwrap().len(),
        400 - usize::try_from(done.copied).unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_goes_is_read_until_it_is_emptied() {
    let shards = Shards::new(3);
    let blobs = blobs(11, 100, 500);
    let options = ShardedOptions::default();
    for outcome in shards.open(3, options.clone()).put_many(blobs.clone()).await {
        outcome.unwrap();
    }
    let mut going = shards.shard(2);
    going.weight = 0.0;
    let sharded = Sharded::new(
        vec![shards.shard(0), shards.shard(1), going],
        shards.ground.spool(),
        options.clone(),
    )
    .unwrap();
    assert_eq!(sharded.find_missing(&digests(&blobs)).await.unwrap(), []);
    for read in sharded.get_many(&digests(&blobs)).await {
        read.unwrap();
    }
    let done = sharded.rebalance(|_| ()).await.unwrap();
    assert_eq!(done.failed, 0);
    let without = shards.open(2, options);
    assert_eq!(without.find_missing(&digests(&blobs)).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_copy_is_found_where_it_was_while_shards_are_moved() {
    let shards = Shards::new(3);
    let blobs = blobs(12, 100, 500);
    for outcome in shards.open(2, ShardedOptions::default()).put_many(blobs.clone()).await {
        outcome.unwrap();
    }
    let sharded = shards.open(3, ShardedOptions::default().with_look_further(1));
    assert_eq!(sharded.find_missing(&digests(&blobs)).await.unwrap(), []);
    for blob in &blobs {
        sharded.read(blob.digest(), ROOMY).await.unwrap();
    }
}

#[tokio::test]
async fn shards_that_make_no_sense_are_refused() {
    let shards = Shards::new(2);
    let open = |options| Sharded::new(vec![shards.shard(0), shards.shard(1)], shards.ground.spool(), options);
    for (options, word) in [
        (ShardedOptions::default().with_replicas(3), "3 copies on 2 shards"),
        (ShardedOptions::default().with_replicas(0), "0 copies"),
    ] {
        let error = open(options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(word), "{error}");
    }
}
