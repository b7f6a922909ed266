//! Random sequences of operations against the simplest model: a set of the blobs that were put.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::testing::Seeded;
use rootcellar_store::{
    BlobStore as _, ByteRange, DiskOptions, DiskStore, ErrorKind, Leased, LocalStore as _, Verified,
};

use super::{LAYOUTS, assert_whole, open, options};

/// Blobs that a sequence is about.
const BLOBS: usize = 12;

#[derive(Debug, Clone)]
enum Step {
    Put(usize),
    PutMany(Vec<usize>),
    Get(usize),
    GetMany(Vec<usize>),
    Find(Vec<usize>),
    Lease(Vec<usize>),
    Close,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let one = 0..BLOBS;
    let many = || prop::collection::vec(0..BLOBS, 0..8);
    prop_oneof![
        one.clone().prop_map(Step::Put),
        many().prop_map(Step::PutMany),
        one.prop_map(Step::Get),
        many().prop_map(Step::GetMany),
        many().prop_map(Step::Find),
        many().prop_map(Step::Lease),
        Just(Step::Close),
        Just(Step::Restart),
    ]
}

/// Small ones and spooled ones, of every function.
async fn blobs(store: &DiskStore) -> Vec<Verified> {
    let mut seeded = Seeded::new(99);
    let mut blobs = Vec::new();
    for n in 0..BLOBS {
        let len = [0, 10, 5000, 140_000][n % 4];
        let function = DigestFunction::ALL[n % 8];
        blobs.push(seeded.ingested(store.spool(), function, len).await);
    }
    blobs
}

/// A store that is opened again and again, and what it was given.
struct Run<'a> {
    dir: &'a Path,
    options: DiskOptions,
    /// `None` while it is closed.
    store: Option<DiskStore>,
    /// Held anew after each start: spool files do not outlive it.
    blobs: Vec<Verified>,
    put: BTreeSet<Digest>,
}

impl Run<'_> {
    fn digests(&self, which: &[usize]) -> Vec<Digest> {
        which.iter().map(|n| self.blobs[*n].digest()).collect()
    }

    fn store(&self) -> &DiskStore {
        self.store.as_ref().unwrap()
    }

    async fn restart(&mut self) {
        self.blobs.clear();
        self.store = None;
        let store = open(self.dir, self.options.clone()).await;
        self.blobs = blobs(&store).await;
        self.store = Some(store);
    }

    /// Takes a step, and compares with the model; a store that evicts may have less.
    async fn take(&mut self, step: Step, is_roomy: bool) {
        match step {
            Step::Put(n) => {
                self.store().put(self.blobs[n].clone()).await.unwrap();
                self.put.insert(self.blobs[n].digest());
                assert_whole(self.store(), self.blobs[n].digest()).await;
            }
            Step::PutMany(which) => {
                let batch = which.iter().map(|n| self.blobs[*n].clone()).collect();
                for outcome in self.store().put_many(batch).await {
                    outcome.unwrap();
                }
                self.put.extend(self.digests(&which));
            }
            Step::Get(n) => self.get(self.blobs[n].digest(), is_roomy).await,
            Step::GetMany(which) => {
                let digests = self.digests(&which);
                for (digest, outcome) in digests.iter().zip(self.store().get_many(&digests).await) {
                    match outcome {
                        Ok(bytes) => assert_eq!(Digest::of(digest.function(), &bytes), *digest),
                        Err(error) => self.assert_absent(*digest, &error, is_roomy),
                    }
                }
            }
            Step::Find(which) => {
                let missing = self.store().find_missing(&self.digests(&which)).await.unwrap();
                let expected = self.model_missing(&which);
                assert!(expected.is_subset(&missing.iter().copied().collect()));
                assert!(!is_roomy || missing.len() == expected.len(), "{missing:?}");
            }
            Step::Lease(which) => match self.store().lease(&self.digests(&which)).await.unwrap() {
                Leased::Held(_) => assert!(self.model_missing(&which).is_empty()),
                Leased::Missing(missing) => {
                    assert!(!is_roomy || missing.len() == self.model_missing(&which).len());
                }
            },
            Step::Close => {
                self.store().close().await.unwrap();
                self.restart().await;
            }
            Step::Restart => self.restart().await,
        }
        let statistics = self.store().statistics();
        assert_eq!(statistics.counters.damaged_blobs, 0);
        assert!(statistics.bytes <= statistics.bytes_max);
    }

    async fn get(&self, digest: Digest, is_roomy: bool) {
        match self.store().get(digest, ByteRange::ALL).await {
            Ok(blob) => {
                let bytes = blob.into_bytes().await.unwrap();
                assert_eq!(Digest::of(digest.function(), &bytes), digest);
            }
            Err(error) => self.assert_absent(digest, &error, is_roomy),
        }
    }

    fn assert_absent(&self, digest: Digest, error: &rootcellar_store::Error, is_roomy: bool) {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(!is_roomy || !self.put.contains(&digest), "{digest} was put");
    }

    fn model_missing(&self, which: &[usize]) -> BTreeSet<Digest> {
        let is_absent = |digest: &Digest| !digest.is_empty_blob() && !self.put.contains(digest);
        self.digests(which).into_iter().filter(is_absent).collect()
    }
}

#[tokio::main]
async fn run(layout: &str, steps: Vec<Step>, bytes_max: u64, is_roomy: bool) {
    // Hundreds of starts, each with a sync: in memory they cost nothing.
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = options(layout, bytes_max);
    let store = open(dir.path(), options.clone()).await;
    let mut run = Run {
        dir: dir.path(),
        options,
        blobs: blobs(&store).await,
        store: Some(store),
        put: BTreeSet::new(),
    };
    for step in steps {
        run.take(step, is_roomy).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_roomy_store_has_what_was_put(which in 0..LAYOUTS.len(), steps in prop::collection::vec(step(), 1..30)) {
        run(LAYOUTS[which], steps, 1 << 30, true);
    }

    #[test]
    fn a_tight_store_has_only_what_was_put(which in 0..LAYOUTS.len(), steps in prop::collection::vec(step(), 1..30)) {
        run(LAYOUTS[which], steps, 1 << 20, false);
    }
}
