//! Bytes of blobs that change: the blob is lost, its neighbours are not, and nothing wrong is handed out.

use std::fs;
use std::sync::Arc;

use rootcellar_digest::Digest;
use rootcellar_store::testing::SteppedStore;
use rootcellar_store::{
    BlobStore as _, BlobStoreExt as _, ByteRange, DiskStore, ErrorKind, Leased, LocalStore as _, SystemClock,
};

use super::{
    LAYOUTS, SIZES, assert_present_but, blobs_of, digests_of, flip, open, options, place_of, put_all, writable,
};

const ONE_BYTE: ByteRange = ByteRange {
    offset: 0,
    len: Some(1),
};

async fn assert_lost(store: &DiskStore, digest: Digest, damaged: u64) {
    let error = store.get(digest, ONE_BYTE).await.unwrap_err();
    assert_eq!((error.kind(), error.digest()), (ErrorKind::DataLoss, Some(digest)));
    let error = store.get(digest, ByteRange::ALL).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(store.statistics().counters.damaged_blobs, damaged);
}

#[tokio::test]
async fn a_flipped_byte_loses_its_blob_alone_until_it_is_put_again() {
    for layout in LAYOUTS {
        for (victim, size) in SIZES.into_iter().enumerate() {
            for at in [0, size / 2, size - 1] {
                lose_to_a_flip(layout, victim, at as u64).await;
            }
        }
    }
}

async fn lose_to_a_flip(layout: &str, victim: usize, at: u64) {
    let dir = tempfile::tempdir().unwrap();
    let blobs = blobs_of(1, &SIZES);
    let lost = blobs[victim].digest();
    let store = open(dir.path(), layout).await;
    put_all(&store, &blobs).await;
    let (path, start) = place_of(&store, lost);
    store.close().await.unwrap();
    drop(store);
    flip(&path, start + at);

    let store = open(dir.path(), layout).await;
    assert_lost(&store, lost, 1).await;
    assert_present_but(&store, &blobs, &[lost]).await;
    drop(store);

    let store = open(dir.path(), layout).await;
    assert_present_but(&store, &blobs, &[lost]).await;
    assert_eq!(store.statistics().counters.damaged_blobs, 0);
    put_all(&store, &blobs).await;
    assert_present_but(&store, &blobs, &[]).await;
    store.close().await.unwrap();
    drop(store);
    assert_present_but(&open(dir.path(), layout).await, &blobs, &[]).await;
}

#[tokio::test]
async fn a_byte_of_a_pack_that_flips_after_the_first_read_is_noticed_by_the_next() {
    let blobs = blobs_of(2, &SIZES[..4]);
    for (victim, blob) in blobs.iter().enumerate() {
        for layout in ["packed", "hybrid"] {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path(), layout).await;
            put_all(&store, &blobs).await;
            assert_present_but(&store, &blobs, &[]).await;
            let (path, start) = place_of(&store, blob.digest());
            // The range that is asked for is whole.
            flip(&path, start + SIZES[victim] as u64 - 1);
            assert_lost(&store, blob.digest(), 1).await;
            assert_present_but(&store, &blobs, &[blob.digest()]).await;
        }
    }
}

#[tokio::test]
async fn a_damaged_blob_of_a_batch_is_missing_from_it_alone() {
    for (layout, into) in LAYOUTS.into_iter().flat_map(|layout| [(layout, false), (layout, true)]) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = blobs_of(3, &SIZES);
        let store = open(dir.path(), layout).await;
        put_all(&store, &blobs).await;
        let places = [0, 5].map(|at: usize| place_of(&store, blobs[at].digest()));
        drop(store);
        for (path, start) in places {
            flip(&path, start + 50);
        }
        let store = open(dir.path(), layout).await;
        let mut buffers = SIZES.map(|size| vec![0; size]);
        let outcomes = match into {
            true => {
                let mut filled = buffers.each_mut().map(Vec::as_mut_slice);
                store.get_many_into(&digests_of(&blobs), &mut filled).await
            }
            false => {
                let outcomes = store.get_many(&digests_of(&blobs)).await;
                outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()
            }
        };
        let kinds: Vec<Option<ErrorKind>> = outcomes
            .iter()
            .map(|one| one.as_ref().err().map(rootcellar_store::Error::kind))
            .collect();
        let lost = Some(ErrorKind::DataLoss);
        assert_eq!(kinds, [lost, None, None, None, None, lost]);
    }
}

#[tokio::test]
async fn a_damaged_blob_is_not_leased() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let blobs = blobs_of(4, &SIZES);
        let store = open(dir.path(), layout).await;
        put_all(&store, &blobs).await;
        let places = [1, 4].map(|at: usize| place_of(&store, blobs[at].digest()));
        drop(store);
        for (path, start) in places {
            flip(&path, start);
        }
        let store = open(dir.path(), layout).await;
        let Leased::Missing(missing) = store.lease(&digests_of(&blobs)).await.unwrap() else {
            panic!("{layout}: a damaged blob was leased")
        };
        assert_eq!(missing, [blobs[1].digest(), blobs[4].digest()]);
        assert_present_but(&store, &blobs, &missing).await;
    }
}

#[tokio::test]
async fn a_file_that_was_cut_off_or_removed_loses_its_blob_alone() {
    for layout in ["loose", "hybrid"] {
        for cut in [None, Some(0), Some(19_999)] {
            let dir = tempfile::tempdir().unwrap();
            let blobs = blobs_of(5, &SIZES);
            let lost = blobs[4].digest();
            let store = open(dir.path(), layout).await;
            put_all(&store, &blobs).await;
            let (path, _) = place_of(&store, lost);
            drop(store);
            match cut {
                Some(len) => writable(&path).set_len(len).unwrap(),
                None => fs::remove_file(&path).unwrap(),
            }
            let expected = cut.map_or(ErrorKind::NotFound, |_| ErrorKind::DataLoss);
            let stepped = SteppedStore::open(dir.path(), &options(layout), Arc::new(SystemClock)).unwrap();
            let error = stepped.read(lost).unwrap_err();
            assert_eq!(error.kind(), expected, "{error}");
            drop(stepped);
            // A file of another length is nobody's: the sweep after a start removes it, and may be there before a reader.
            let store = open(dir.path(), layout).await;
            let error = store.read(lost, u64::MAX).await.unwrap_err();
            assert!([expected, ErrorKind::NotFound].contains(&error.kind()), "{error}");
            assert_present_but(&store, &blobs, &[lost]).await;
            put_all(&store, &blobs).await;
            assert_present_but(&store, &blobs, &[]).await;
        }
    }
}

#[tokio::test]
async fn a_pack_that_was_cut_off_loses_what_was_behind_its_end() {
    for was_closed in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let blobs = blobs_of(6, &SIZES);
        let store = open(dir.path(), "packed").await;
        put_all(&store, &blobs).await;
        let mut places: Vec<(u64, Digest)> = digests_of(&blobs)
            .into_iter()
            .map(|digest| (place_of(&store, digest).1, digest))
            .collect();
        places.sort_unstable();
        let (path, _) = place_of(&store, blobs[0].digest());
        if was_closed {
            store.close().await.unwrap();
        }
        drop(store);
        let (last_but_one, last) = (places[4], places[5]);
        writable(&path).set_len(last_but_one.0 + 3).unwrap();

        let store = open(dir.path(), "packed").await;
        for (_, lost) in [last_but_one, last] {
            store.read(lost, u64::MAX).await.unwrap_err();
        }
        let is_lost = |digest: &Digest| [last.1, last_but_one.1].contains(digest);
        let lost: Vec<Digest> = digests_of(&blobs).into_iter().filter(is_lost).collect();
        assert_present_but(&store, &blobs, &lost).await;
        put_all(&store, &blobs).await;
        assert_present_but(&store, &blobs, &[]).await;
    }
}
