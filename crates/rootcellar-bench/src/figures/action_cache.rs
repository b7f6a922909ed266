//! A hit on the result of an action that made many files.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_reapi::{ActionCache, ActionCacheOptions};
use rootcellar_store::layout::HybridKind;
use rootcellar_store::{BlobStoreExt as _, DiskRecords, RecordsOptions, SystemClock, Verified};

use super::{Ground, options};
use crate::candidate::{Candidate as _, OpenDisk};
use crate::random::Random;
use crate::report::{Figure, Goal};
use crate::usage::Usage;

const FILES: usize = 50_000;
const FILES_A_DIRECTORY: usize = 500;
const HITS: u32 = 200;
const FUNCTION: DigestFunction = DigestFunction::Sha256;

pub(super) fn figures(ground: &Ground<'_>) -> Vec<Figure> {
    let dir = ground.fresh();
    let store = OpenDisk::open(&dir.path().join("store"), &options(Arc::new(HybridKind::default())));
    let files = ground.shrunk(FILES);
    let tree = put_tree(&store, files);
    let action = Verified::of(FUNCTION, reapi::Action::default().encode_to_vec().into());
    let action_digest = action.digest();
    store.put_many(vec![action]);
    let records = DiskRecords::open(
        dir.path().join("records.redb"),
        RecordsOptions::default(),
        Arc::new(SystemClock),
    );
    let records = store.runtime.block_on(records).expect("the records open");
    let cache = ActionCache::new(Arc::new(records), store.store.clone(), ActionCacheOptions::default());
    let result = reapi::ActionResult {
        output_directories: vec![reapi::OutputDirectory {
            path: "out".to_owned(),
            tree_digest: Some(to_proto(tree)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let kept = store.runtime.block_on(cache.put(action_digest, result));
    kept.expect("the result is kept");
    let hit = || {
        let found = store.runtime.block_on(cache.get(action_digest));
        assert!(found.expect("the cache answers").is_some(), "the result is complete");
    };
    let ((), first) = Usage::of(hit);
    let ((), later) = Usage::of(|| (0..HITS).for_each(|_| hit()));
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    vec![Figure {
        question: "hit on a result whose closure has 50,000 blobs, ms".to_owned(),
        value: ms(later.wall / HITS),
        goal: Goal::AtMost(1.0),
        detail: format!(
            "CPU {:.3} ms; the first one, which looks through all of it, {:.1} ms; {files} files",
            ms(later.cpu / HITS),
            ms(first.wall)
        ),
    }]
}

fn to_proto(digest: Digest) -> reapi::Digest {
    reapi::Digest {
        hash: digest.hash_hex().to_string(),
        size_bytes: i64::try_from(digest.size_bytes()).expect("blobs of a benchmark are small"),
    }
}

/// Puts a tree of so many files, and tells the digest of its Tree message.
fn put_tree(store: &OpenDisk, files: usize) -> Digest {
    let mut random = Random::new(21);
    let mut tree = reapi::Tree::default();
    let mut root = reapi::Directory::default();
    for (number, names) in (0..files).collect::<Vec<_>>().chunks(FILES_A_DIRECTORY).enumerate() {
        let blobs: Vec<Verified> = names
            .iter()
            .map(|_| Verified::of(FUNCTION, random.bytes(100)))
            .collect();
        let node = |(name, blob): (&usize, &Verified)| reapi::FileNode {
            name: format!("{name:08}"),
            digest: Some(to_proto(blob.digest())),
            ..Default::default()
        };
        let directory = reapi::Directory {
            files: names.iter().zip(&blobs).map(node).collect(),
            ..Default::default()
        };
        let digest = Digest::of(FUNCTION, &directory.encode_to_vec());
        root.directories.push(reapi::DirectoryNode {
            name: format!("{number:04}"),
            digest: Some(to_proto(digest)),
        });
        tree.children.push(directory);
        store.put_many(blobs);
    }
    tree.root = Some(root);
    let put = store.store.put_bytes(FUNCTION, tree.encode_to_vec().into());
    store.runtime.block_on(put).expect("the tree is stored")
}
