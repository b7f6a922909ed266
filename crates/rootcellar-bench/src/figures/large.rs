//! A large blob, as it arrives.

use std::fs;
use std::sync::Arc;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::LocalStore as _;
use rootcellar_store::layout::HybridKind;

use super::{Ground, options};
use crate::candidate::OpenDisk;
use crate::random::Random;
use crate::report::{Figure, Goal};
use crate::usage::Usage;

const BLOB_BYTES: u64 = 64 << 20;
/// Pieces as BuildStream sends them.
const PIECE_BYTES: usize = 1 << 20;
const RUNS: usize = 8;

pub(super) fn figures(ground: &Ground<'_>) -> Vec<Figure> {
    let content = Random::new(13).bytes(BLOB_BYTES / ground.shrink);
    let digest = Digest::of(DigestFunction::Sha256, &content);
    let plain = Usage::least(
        RUNS,
        || ground.fresh(),
        |dir| {
            std::hint::black_box(Digest::of(DigestFunction::Sha256, &content));
            fs::write(dir.path().join("blob"), &content).expect("a file can be written");
        },
    );
    let options = options(Arc::new(HybridKind::default()));
    let open = || {
        let dir = ground.fresh();
        (OpenDisk::open(dir.path(), &options), dir)
    };
    let ours = Usage::least(RUNS, open, |(store, _dir)| put(&store, digest, &content));
    let (plain, ours) = (plain.cpu.as_secs_f64() * 1e3, ours.cpu.as_secs_f64() * 1e3);
    vec![Figure {
        question: "64 MiB put, against hashing and writing a plain file".to_owned(),
        value: plain / ours,
        goal: Goal::AtLeast(0.8),
        detail: format!("{ours:.1} ms of CPU against {plain:.1}, in pieces of 1 MiB"),
    }]
}

fn put(store: &OpenDisk, digest: Digest, content: &Bytes) {
    let blob = store.runtime.block_on(async {
        let mut ingest = store.store.spool().ingest(digest).expect("the spool takes it");
        for at in (0..content.len()).step_by(PIECE_BYTES) {
            let piece = content.slice(at..content.len().min(at + PIECE_BYTES));
            ingest.write(piece).await.expect("the spool takes it");
        }
        ingest.finish().expect("the content is what its digest says")
    });
    store.put(blob);
}
