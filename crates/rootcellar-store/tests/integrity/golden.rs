//! Stores that an earlier build of this format version has written: they open and read, byte for byte, for ever.
//!
//! ```text
//! golden/<layout>/        a store that was closed, as `make_golden_stores` made it, without the file `lock`
//! ```
//!
//! The empty directory `tmp/` is not among the files, and a store does without it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_store::io::{Disk as _, Open};
use rootcellar_store::testing::{ManualClock, SimulatedDisk, SteppedStore};
use rootcellar_store::{DiskOptions, Verified};
use twox_hash::XxHash3_64;

use super::fsck::look;
use super::{LAYOUTS, assert_present_but, blobs_of, open, options, put_all, put_stepped, settle};

const SIZES: [usize; 8] = [1, 300, 512, 3000, 5001, 16_384, 16_385, 20_000];

fn blobs() -> Vec<Verified> {
    blobs_of(2026, &SIZES)
}

fn golden(layout: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/integrity/golden")
        .join(layout)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let copied = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &copied);
        } else {
            fs::copy(entry.path(), copied).unwrap();
        }
    }
}

/// The files of a store with the golden blobs, made on a disk and at a time that are the same always.
fn make(layout: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let disk = SimulatedDisk::new(2026);
    let options = DiskOptions {
        disk: Arc::new(disk.clone()),
        ..options(layout)
    };
    let store = SteppedStore::open(Path::new("/store"), &options, Arc::new(ManualClock::default())).unwrap();
    put_stepped(&store, &blobs()[..5]);
    put_stepped(&store, &blobs()[5..]);
    // So that there is something to write into `uses`.
    assert!(blobs().iter().all(|blob| store.touch(&blob.digest())));
    // What was not looked through once since the start does not end in good order.
    settle(&store);
    store.close().unwrap();
    let read = |(path, size): (PathBuf, u64)| {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        disk.open(&path, Open::Read).unwrap().read_at(&mut bytes, 0).unwrap();
        (path.strip_prefix("/store").unwrap().to_owned(), bytes)
    };
    disk.files().into_iter().map(read).collect()
}

#[test]
#[ignore = "makes the files that the other tests read; for a new version of the format"]
fn make_golden_stores() {
    for layout in LAYOUTS {
        for (path, bytes) in make(layout) {
            let path = golden(layout).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_golden_store_is_clean_and_reads_whether_it_was_closed_or_not() {
    for layout in LAYOUTS {
        for is_closed in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            copy(&golden(layout), &path);
            if !is_closed {
                fs::remove_file(path.join("closed")).unwrap();
            }
            // The check takes the lock, and changes nothing else.
            fs::write(path.join("lock"), format!("{}\n", std::process::id())).unwrap();
            let report = look(&path);
            assert!(report.is_clean() && report.blobs == SIZES.len() as u64, "{report}");
            assert_eq!(report.was_closed, is_closed);
            assert!(path.join("uses").exists());
            fs::remove_file(path.join("lock")).unwrap();

            let store = open(&path, layout).await;
            assert_present_but(&store, &blobs(), &[]).await;
            put_all(&store, &blobs_of(50, &SIZES)).await;
            assert_present_but(&store, &blobs_of(50, &SIZES), &[]).await;
        }
    }
}

fn check_of(bytes: &[u8], check_at: usize, seed: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[check_at..check_at + 4].fill(0);
    let check = XxHash3_64::oneshot_with_seed(seed, &bytes);
    check.to_le_bytes()[..4].to_vec()
}

/// A log's header and first entry, field by field as `docs/format.md` draws them.
#[test]
fn a_golden_log_has_its_fields_where_the_document_says() {
    for (layout, log, kind) in [
        ("loose", "loose.logs/00000001.log", 2),
        ("packed", "packs/00000001.log", 1),
        ("hybrid", "loose.logs/00000001.log", 2),
        ("hybrid", "packs/00000001.log", 1),
    ] {
        let dir = golden(layout);
        let bytes = fs::read(dir.join(log)).unwrap();
        let format = fs::read_to_string(dir.join("FORMAT")).unwrap();
        let id = format.lines().nth(3).unwrap().strip_prefix("id ").unwrap();
        let id = u128::from_str_radix(id, 16).unwrap().to_be_bytes();

        let header = &bytes[..64];
        assert_eq!(header[..8], *b"rootclog");
        assert_eq!(
            header[8..12],
            [1, 0, kind, 0],
            "version, kind, what its writer acknowledges"
        );
        assert_eq!(header[12..16], check_of(header, 12, 0));
        assert_eq!(header[16..24], [1, 0, 0, 0, 0, 0, 0, 0], "number, zero");
        assert_eq!(header[24..40], id);
        assert_eq!(
            header[40..56],
            1u128.to_be_bytes(),
            "the first boot of a simulated machine"
        );
        assert_eq!(header[56..], [0; 8]);

        let seed = XxHash3_64::oneshot(&[&id[..], &[kind], &1u32.to_le_bytes()].concat());
        assert_first_entry(&bytes[64..128], seed.wrapping_add(64));
    }
}

fn assert_first_entry(entry: &[u8], seed: u64) {
    let blobs = blobs();
    let blob = blobs.iter().find(|blob| blob.digest().hash() == &entry[32..]).unwrap();
    let content = super::content_of(blob);
    assert_eq!(entry[..4], [1, 1, 0, 0], "stored, SHA-256, zero");
    assert_eq!(entry[4..8], check_of(entry, 4, seed));
    assert_eq!(entry[8..16], (content.len() as u64).to_le_bytes());
    assert_eq!(entry[16..20], [0; 4], "the first place");
    assert_eq!(entry[20..24], XxHash3_64::oneshot(content).to_le_bytes()[..4]);
    assert_eq!(entry[28..32], [0; 4]);
}

/// Every log ends with a mark that speaks of all before it.
#[test]
fn a_golden_log_ends_with_a_mark_as_the_document_says() {
    for (layout, log) in [("loose", "loose.logs/00000001.log"), ("packed", "packs/00000001.log")] {
        let bytes = fs::read(golden(layout).join(log)).unwrap();
        let mark_at = 64 + SIZES.len() * 64;
        let marks: Vec<&[u8]> = bytes[64..]
            .chunks(32)
            .filter(|slot| slot[..4] == [3, 0, 0, 0])
            .collect();
        let last = marks.last().unwrap();
        let position = u64::from_le_bytes(*last[8..].first_chunk().unwrap());
        assert!(
            position >= mark_at as u64,
            "{layout}: the mark speaks of {position} bytes"
        );
        assert_eq!(last[16..], [0; 16]);
    }
}
