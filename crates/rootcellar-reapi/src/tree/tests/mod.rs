//! Trees made for tests: a model in plain maps, and the same tree as blobs.

mod input;
mod message;
mod pages;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use proptest::prelude::*;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_store::{Blob, BlobStore, ByteRange, MemoryStore, Verified};

use super::TreeLimits;
use crate::{encode_directory, functions};

const FUNCTION: DigestFunction = DigestFunction::Blake3;

/// A directory as a person would write it down.
type Model = BTreeMap<String, Child>;

#[derive(Debug, Clone)]
enum Child {
    File(Vec<u8>),
    Directory(Model),
    Symlink(String),
}

/// Few names and contents, so that many directories are equal.
fn models() -> impl Strategy<Value = Model> {
    let leaf = prop_oneof![
        (0..4u8).prop_map(|content| Child::File(vec![content; usize::from(content)])),
        Just(Child::Symlink("../x".to_owned())),
    ];
    let name = || "[ab-]{1,2}";
    let child = leaf.prop_recursive(5, 40, 4, move |child| {
        proptest::collection::btree_map(name(), child, 0..4).prop_map(Child::Directory)
    });
    proptest::collection::btree_map(name(), child, 0..5)
}

/// The blobs of a tree.
#[derive(Debug, Clone, Default)]
struct Blobs {
    directories: HashMap<Digest, Bytes>,
    files: HashMap<Digest, Bytes>,
}

impl Blobs {
    /// Adds all blobs of a model.
    fn add(&mut self, model: &Model) -> Digest {
        let mut directory = reapi::Directory::default();
        for (name, child) in model {
            let name = name.clone();
            match child {
                Child::File(content) => directory.files.push(file(&name, self.add_file(content))),
                Child::Directory(model) => directory.directories.push(subdirectory(&name, self.add(model))),
                Child::Symlink(target) => directory.symlinks.push(reapi::SymlinkNode {
                    name,
                    target: target.clone(),
                    ..Default::default()
                }),
            }
        }
        self.add_directory(directory)
    }

    fn add_file(&mut self, content: &[u8]) -> Digest {
        let digest = Digest::of(FUNCTION, content);
        self.files.insert(digest, Bytes::copy_from_slice(content));
        digest
    }

    fn add_directory(&mut self, directory: reapi::Directory) -> Digest {
        self.add_encoded(encode_directory(directory))
    }

    fn add_encoded(&mut self, encoded: Bytes) -> Digest {
        let digest = Digest::of(FUNCTION, &encoded);
        self.directories.insert(digest, encoded);
        digest
    }

    /// A chain of `levels` directories, each holding the next one under each of `names`.
    fn add_levels(&mut self, levels: usize, names: &[&str]) -> Digest {
        let mut digest = self.add_directory(reapi::Directory::default());
        for _ in 1..levels {
            digest = self.add_directory(reapi::Directory {
                directories: names.iter().map(|name| subdirectory(name, digest)).collect(),
                ..Default::default()
            });
        }
        digest
    }

    /// A store with all blobs but those that `is_missing`.
    async fn stored(&self, is_missing: impl Fn(&Digest) -> bool) -> Arc<CountingStore> {
        let store = MemoryStore::new(1 << 30);
        for (digest, content) in self.directories.iter().chain(&self.files) {
            if !is_missing(digest) {
                store
                    .put(Verified::check(*digest, content.clone()).unwrap())
                    .await
                    .unwrap();
            }
        }
        Arc::new(CountingStore {
            store,
            fetched: AtomicUsize::new(0),
        })
    }

    async fn all_stored(&self) -> Arc<CountingStore> {
        self.stored(|_| false).await
    }
}

fn file(name: &str, digest: Digest) -> reapi::FileNode {
    reapi::FileNode {
        name: name.to_owned(),
        digest: Some(functions::to_proto(digest)),
        ..Default::default()
    }
}

fn subdirectory(name: &str, digest: Digest) -> reapi::DirectoryNode {
    reapi::DirectoryNode {
        name: name.to_owned(),
        digest: Some(functions::to_proto(digest)),
    }
}

/// Limits that only a broken walk goes past.
fn unlimited() -> TreeLimits {
    TreeLimits {
        entries_max: u64::MAX,
        directories_max: u64::MAX,
        directory_bytes_max: u64::MAX,
        depth_max: u64::MAX,
        path_bytes_max: u64::MAX,
        text_bytes_max: u64::MAX,
    }
}

/// Runs a test on the spot: proptest's own are not async.
fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(test)
}

/// A store that counts the blobs it was asked to read.
#[derive(Debug)]
struct CountingStore {
    store: MemoryStore,
    fetched: AtomicUsize,
}

impl CountingStore {
    fn fetched(&self) -> usize {
        self.fetched.load(Ordering::Relaxed)
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "counting {}", self.store)
    }
}

#[async_trait]
impl BlobStore for CountingStore {
    async fn find_missing(&self, digests: &[Digest]) -> rootcellar_store::Result<Vec<Digest>> {
        self.store.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> rootcellar_store::Result<Blob> {
        self.store.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> rootcellar_store::Result<()> {
        self.store.put(blob).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<rootcellar_store::Result<Bytes>> {
        self.fetched.fetch_add(digests.len(), Ordering::Relaxed);
        self.store.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<rootcellar_store::Result<()>> {
        self.store.put_many(blobs).await
    }
}
