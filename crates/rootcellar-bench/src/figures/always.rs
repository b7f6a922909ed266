//! Blobs that are durable before they are acknowledged.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_store::layout::HybridKind;
use rootcellar_store::{BlobStore as _, DiskOptions, Durability, Verified};

use super::{Ground, options};
use crate::candidate::OpenDisk;
use crate::measure::{count, micros};
use crate::random::Random;
use crate::report::{Figure, Goal};
use crate::usage::Usage;

const WRITERS: usize = 64;
const BLOB_BYTES: u64 = 4096;
const BLOBS_A_WRITER: usize = 200;
const RUNS: usize = 3;

pub(super) fn figures(ground: &Ground<'_>) -> Vec<Figure> {
    let blobs = ground.shrunk(BLOBS_A_WRITER).max(10);
    let one = contents(1, blobs);
    let many = contents(WRITERS, blobs);
    let serial = per_blob(
        Usage::least(RUNS, || ground.fresh(), |dir| write_files(dir.path(), &one)),
        &one,
    );
    let at_once = per_blob(
        Usage::least(RUNS, || ground.fresh(), |dir| write_files(dir.path(), &many)),
        &many,
    );
    let options = DiskOptions {
        durability: Durability::Always,
        ..options(Arc::new(HybridKind::default()))
    };
    let open = || {
        let dir = ground.fresh();
        (OpenDisk::open(dir.path(), &options), dir)
    };
    let ours = per_blob(
        Usage::least(RUNS, open, |(store, _dir)| put_at_once(&store, &many)),
        &many,
    );
    let figure = |question: &str, other: (f64, f64), goal| Figure {
        question: question.to_owned(),
        value: other.0 / ours.0,
        goal: Goal::AtLeast(goal),
        detail: format!(
            "on the clock {:.1} us a blob against {:.1}; CPU {:.1} against {:.1}",
            ours.0, other.0, ours.1, other.1
        ),
    };
    vec![
        figure(
            "always, 64 writers, against one serial writer with an fsync a blob",
            serial,
            20.0,
        ),
        figure("always, 64 writers, against 64 such writers at once", at_once, 8.0),
    ]
}

/// Contents for each writer.
fn contents(writers: usize, blobs: usize) -> Vec<Vec<Bytes>> {
    let mut random = Random::new(11);
    let of_one = |_| (0..blobs).map(|_| random.bytes(BLOB_BYTES)).collect();
    (0..writers).map(of_one).collect()
}

/// Microseconds a blob: on the clock, and of CPU.
fn per_blob(usage: Usage, contents: &[Vec<Bytes>]) -> (f64, f64) {
    let blobs = count(contents.iter().map(Vec::len).sum::<usize>() as u64);
    let each = |time: Duration| micros(time) / blobs;
    (each(usage.wall), each(usage.cpu))
}

/// What a store without packs and group commit does: a file for each blob, each synced with its name.
fn write_files(dir: &Path, contents: &[Vec<Bytes>]) {
    let write = |writer: usize, contents: &[Bytes]| {
        let home = File::open(dir).expect("the directory can be opened");
        for (n, content) in contents.iter().enumerate() {
            std::hint::black_box(Digest::of(DigestFunction::Sha256, content));
            let mut file = File::create(dir.join(format!("{writer}-{n}"))).expect("a file can be made");
            file.write_all(content).expect("a file can be written");
            file.sync_all().expect("a file can be synced");
            home.sync_all().expect("a directory can be synced");
        }
    };
    std::thread::scope(|scope| {
        for (writer, contents) in contents.iter().enumerate() {
            scope.spawn(move || write(writer, contents));
        }
    });
}

fn put_at_once(store: &OpenDisk, contents: &[Vec<Bytes>]) {
    let put_all = |contents: Vec<Bytes>| {
        let store = store.store.clone();
        async move {
            for content in contents {
                let blob = Verified::of(DigestFunction::Sha256, content);
                store.put(blob).await.expect("the blob is stored");
            }
        }
    };
    let writers: Vec<_> = contents
        .iter()
        .map(|contents| store.runtime.spawn(put_all(contents.clone())))
        .collect();
    for writer in writers {
        store.runtime.block_on(writer).expect("a writer ends");
    }
}
