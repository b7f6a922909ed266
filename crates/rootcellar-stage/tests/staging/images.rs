//! Images are made once, shared, and never show anything but the bytes that their tree names.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_reapi::ErrorKind;
use rootcellar_stage::{ImageLimits, OverlayStager, StagedRoot, Stager as _};
use rootcellar_store::layout::kind_named;
use rootcellar_store::testing::Seeded;
use rootcellar_store::{BlobStore as _, BlobStoreExt as _, DiskOptions, LocalStore, Location};

use super::{FUNCTION, Fixture, Kind, capture, options, overlay, root_digest, roots};

/// Some times what is put into it at once.
const STORE_BYTES: u64 = 24 << 20;

/// One for each stager that keeps images.
async fn fixtures() -> Vec<Fixture> {
    let options = DiskOptions {
        bytes_max: STORE_BYTES,
        ..DiskOptions::default()
    };
    let mut fixtures = Vec::new();
    for kind in Kind::all().into_iter().filter(|kind| *kind != Kind::Copy) {
        fixtures.push(Fixture::with(kind, options.clone()).await);
    }
    fixtures
}

fn stager(fixture: &Fixture, images_max: usize) -> OverlayStager {
    let limits = ImageLimits {
        images_max,
        ..ImageLimits::default()
    };
    overlay(
        fixture.kind,
        &fixture.store,
        &fixture.dir.path().join("other"),
        roots(),
        limits,
    )
}

/// Small files, which lie in packs, and larger ones, which do not. All are of other bytes for each seed.
fn fill(dir: &Path, seed: u64) {
    let mut seeded = Seeded::new(seed);
    for n in 0..200 {
        fs::write(dir.join(format!("small-{n}")), seeded.bytes(1 + n * 37)).unwrap();
    }
    for n in 0..10 {
        fs::write(dir.join(format!("large-{n}")), seeded.bytes(200_000 + n)).unwrap();
    }
}

/// Every file in a root, read through it.
fn contents(root: &dyn StagedRoot) -> Vec<Digest> {
    contents_of(root.path())
}

fn contents_of(dir: &Path) -> Vec<Digest> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    names.sort();
    names
        .iter()
        .map(|path| Digest::of(FUNCTION, &fs::read(path).unwrap()))
        .collect()
}

/// A tree that has a directory in common with all others made so, and one of its own.
async fn alike(fixture: &Fixture, own: u64) -> Digest {
    let fill_both = |dir: &Path| {
        for (name, seed) in [("common", 7), ("own", own)] {
            fs::create_dir(dir.join(name)).unwrap();
            fill(&dir.join(name), seed);
        }
    };
    fixture.tree(fill_both).await
}

async fn churn(fixture: &Fixture, seed: u64, bytes: u64) {
    let mut seeded = Seeded::new(seed);
    let mut put = 0;
    while put < bytes {
        let size = usize::try_from(1 + seeded.below(40_000)).unwrap();
        fixture.store.put(seeded.blob(FUNCTION, size)).await.unwrap();
        put += size as u64;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_on_one_root_at_once_make_one_image() {
    for fixture in fixtures().await {
        let stager = Arc::new(stager(&fixture, 10));
        let digest = fixture.tree(|dir| fill(dir, 1)).await;
        let stage = |stager: Arc<OverlayStager>| async move { stager.stage(digest, options("")).await.unwrap() };
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(stage(stager.clone()))).collect();
        let mut staged = Vec::new();
        for task in tasks {
            staged.push(task.await.unwrap());
        }
        let first = contents(&*staged[0]);
        assert!(first.len() == 210 && staged.iter().all(|root| contents(&**root) == first));
        fs::write(staged[0].path().join("small-1"), "changed").unwrap();
        assert_eq!(contents(&*staged[1]), first);
        let statistics = stager.image_statistics();
        assert_eq!((statistics.kept, statistics.made, statistics.reused), (1, 1, 7));
        assert!(statistics.bytes > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_beyond_the_bound_go_those_used_last_stay() {
    for fixture in fixtures().await {
        let stager = stager(&fixture, 2);
        let mut digests = Vec::new();
        for seed in 0..3 {
            digests.push(fixture.tree(|dir| fill(dir, seed)).await);
        }
        let in_use = stager.stage(digests[0], options("")).await.unwrap();
        let before = contents(&*in_use);
        for digest in [digests[1], digests[2], digests[1]] {
            stager.stage(digest, options("")).await.unwrap().remove().await.unwrap();
        }
        let statistics = stager.image_statistics();
        assert_eq!((statistics.kept, statistics.made, statistics.reused), (2, 3, 1));
        assert_eq!(contents(&*in_use), before, "what runs on an image keeps it");
    }
}

/// A full store evicts and compacts under a staged root, which shows what it showed; then the image that nobody uses gives way.
#[tokio::test(flavor = "multi_thread")]
async fn pressure_takes_idle_images_and_never_changes_one_in_use() {
    for fixture in fixtures().await {
        let stager = stager(&fixture, 10);
        let digest = fixture.tree(|dir| fill(dir, 4)).await;
        let root = stager.stage(digest, options("")).await.unwrap();
        let before = contents(&*root);
        for seed in 0..4 {
            churn(&fixture, 100 + seed, STORE_BYTES / 2).await;
            let other = stager.stage(digest, options("")).await.unwrap();
            assert_eq!((contents(&*root), contents(&*other)), (before.clone(), before.clone()));
            other.remove().await.unwrap();
        }
        let counters = fixture.store.statistics().counters;
        assert!(
            counters.compacted_regions > 0 && counters.evicted_blobs > 0,
            "{counters:?}"
        );
        root.remove().await.unwrap();
        // Leases of somebody who works fill the store, until only the image is left to go.
        let mut leases = Vec::new();
        for seed in 0..200 {
            if stager.image_statistics().kept == 0 {
                break;
            }
            let blob = Seeded::new(1000 + seed).blob(FUNCTION, 300_000);
            let digest = blob.digest();
            fixture.store.put(blob).await.unwrap();
            leases.push(LocalStore::lease(&*fixture.store, &[digest]).await.unwrap());
        }
        assert_eq!(
            stager.image_statistics().kept,
            0,
            "an idle image stays while nothing else could go"
        );
        drop(leases);
        churn(&fixture, 200, 2 * STORE_BYTES).await;
        // Gone, and said to be.
        let error = stager.stage(digest, options("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert_eq!(
            stager.image_statistics().kept,
            0,
            "no place is kept for what cannot be made"
        );
        // Uploaded again, it is staged again.
        assert_eq!(fixture.tree(|dir| fill(dir, 4)).await, digest);
        let root = stager.stage(digest, options("")).await.unwrap();
        assert_eq!(contents(&*root), before);
        assert_eq!(root_digest(&capture(&*root, &["."]).await), digest);
    }
}

/// A root that is mostly like another one stands on what is leased for that one, as long as it is there itself; what only the other one
/// had may go with it.
#[tokio::test(flavor = "multi_thread")]
async fn roots_share_directories_and_nothing_else() {
    for fixture in fixtures().await {
        let stager = stager(&fixture, 1);
        let (first, second) = (alike(&fixture, 8).await, alike(&fixture, 9).await);
        let root = stager.stage(first, options("")).await.unwrap();
        let common = contents_of(&root.path().join("common"));
        let lost = contents_of(&root.path().join("own"));
        let other = stager.stage(second, options("")).await.unwrap();
        root.remove().await.unwrap();
        let own = contents_of(&other.path().join("own"));
        assert_eq!(stager.image_statistics().kept, 1);
        churn(&fixture, 300, 4 * STORE_BYTES).await;
        let counters = fixture.store.statistics().counters;
        assert!(
            counters.compacted_regions > 0 && counters.evicted_blobs > 0,
            "{counters:?}"
        );
        assert_eq!(contents_of(&other.path().join("common")), common);
        assert_eq!(contents_of(&other.path().join("own")), own);
        for blobs in [&common, &own] {
            assert_eq!(fixture.store.find_missing(blobs).await.unwrap(), []);
        }
        // A few lie in a pack with what is leased.
        let missing = fixture.store.find_missing(&lost).await.unwrap().len();
        assert!(missing > lost.len() / 2, "{missing} of {} went", lost.len());
        // Once more, with nothing of the directory that went.
        let error = stager.stage(first, options("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    }
}

/// Damage that the store finds under an image is not shown any longer once the blobs were put again, wherever they lie then: neither in
/// that root nor in another one that has the same directory.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_damaged_and_put_again_is_right() {
    for fixture in fixtures().await {
        let stager = stager(&fixture, 10);
        let (first, second) = (alike(&fixture, 1).await, alike(&fixture, 2).await);
        let root = stager.stage(first, options("")).await.unwrap();
        let common = contents_of(&root.path().join("common"));
        let damaged = ["small-150", "large-3"].map(|name| {
            let bytes = fs::read(root.path().join("common").join(name)).unwrap();
            damage(&fixture, Digest::of(FUNCTION, &bytes))
        });
        let read = fixture.store.get_many(&damaged).await;
        assert!(read.iter().all(Result::is_err), "damage is found");
        assert_eq!(fixture.store.find_missing(&common).await.unwrap().len(), 2);
        for digest in [first, second] {
            let error = stager.stage(digest, options("")).await.unwrap_err();
            assert_eq!(error.missing().len(), 2, "{error}");
        }
        alike(&fixture, 1).await;
        for digest in [second, first] {
            let root = stager.stage(digest, options("")).await.unwrap();
            assert_eq!(contents_of(&root.path().join("common")), common);
        }
    }
}

/// Changes a byte of a stored blob.
fn damage(fixture: &Fixture, digest: Digest) -> Digest {
    let (path, offset) = match LocalStore::locate(&*fixture.store, digest).unwrap() {
        Location::Loose { path } => (path, 0),
        Location::Packed { path, offset } => (path, offset),
        other => panic!("{other:?}"),
    };
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let file = fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[!byte[0]], offset).unwrap();
    digest
}

/// Wherever a layout puts blobs: all alone, all in packs, or some of each.
#[tokio::test(flavor = "multi_thread")]
async fn every_layout_is_staged_from() {
    for kind in Kind::all() {
        for layout in ["loose", "packed", "hybrid"] {
            let options = DiskOptions {
                layout: kind_named(layout).unwrap(),
                ..DiskOptions::default()
            };
            let fixture = Fixture::with(kind, options).await;
            let digest = fixture.tree(|dir| fill(dir, 6)).await;
            let root = fixture.stage(digest).await;
            let expected = tempfile::tempdir().unwrap();
            fill(expected.path(), 6);
            for entry in fs::read_dir(expected.path()).unwrap() {
                let entry = entry.unwrap();
                let staged = fs::read(root.path().join(entry.file_name())).unwrap();
                assert_eq!(
                    staged,
                    fs::read(entry.path()).unwrap(),
                    "{kind:?}, {layout}, {:?}",
                    entry.file_name()
                );
            }
            fs::write(root.path().join("small-7"), "changed").unwrap();
            fs::write(root.path().join("large-7"), vec![9; 300_000]).unwrap();
            let changed = root_digest(&capture(&*root, &["."]).await);
            root.remove().await.unwrap();
            let root = fixture.stage(changed).await;
            assert_eq!(fs::read(root.path().join("small-7")).unwrap(), b"changed");
            assert_eq!(fs::read(root.path().join("large-7")).unwrap(), vec![9; 300_000]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_asked_for_and_the_next_attempt_finds_it() {
    for fixture in fixtures().await {
        let stager = stager(&fixture, 10);
        let other = Fixture::new(Kind::Overlay).await;
        let digest = other.tree(|dir| fill(dir, 5)).await;
        let error = stager.stage(digest, options("")).await.unwrap_err();
        assert_eq!(error.missing(), [digest]);
        let directory = other.store.read(digest, 1 << 20).await.unwrap();
        fixture.store.put_bytes(FUNCTION, directory).await.unwrap();
        let error = stager.stage(digest, options("")).await.unwrap_err();
        assert_eq!(error.missing().len(), 210);
        assert_eq!(fixture.tree(|dir| fill(dir, 5)).await, digest);
        stager.stage(digest, options("")).await.unwrap();
    }
}
