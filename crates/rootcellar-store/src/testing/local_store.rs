//! The clauses of [`LocalStore`], one function each.

use std::sync::{Arc, Mutex, Weak};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use rootcellar_digest::{Digest, DigestFunction};

use super::{ROOMY_BYTES, Seeded, report};
use crate::{
    BlobStoreExt as _, ErrorKind, Lease, LeaseGroups, LeaseHolder, Leased, LocalStore, Location, Shortage, Verified,
};

/// A store under test.
pub type Subject = Arc<dyn LocalStore>;

type Clause = (&'static str, u64, fn(Subject) -> BoxFuture<'static, ()>);

/// A bound that the contents of one clause exceed several times.
const TIGHT_BYTES: u64 = 2 << 20;
const BLOB_BYTES: usize = 100_000;
/// Three times what fits into [`TIGHT_BYTES`].
const PRESSURE_BLOBS: usize = 60;

const CLAUSES: [Clause; 7] = [
    ("leased blobs survive pressure", TIGHT_BYTES, |store| {
        leased_blobs_survive_pressure(store).boxed()
    }),
    (
        "all or nothing is leased, and what is missing is named once",
        TIGHT_BYTES,
        |store| what_is_missing_is_named_once(store).boxed(),
    ),
    ("a lease ends when it is dropped", TIGHT_BYTES, |store| {
        a_lease_ends_when_it_is_dropped(store).boxed()
    }),
    ("groups are let go one by one", TIGHT_BYTES, |store| {
        groups_are_let_go_one_by_one(store).boxed()
    }),
    ("leases that are kept for later give way", TIGHT_BYTES, |store| {
        leases_kept_for_later_give_way(store).boxed()
    }),
    ("the located place holds the bytes", ROOMY_BYTES, |store| {
        the_located_place_holds_the_bytes(store).boxed()
    }),
    (
        "what was spooled here is published, and stays readable",
        ROOMY_BYTES,
        |store| what_was_spooled_is_published(store).boxed(),
    ),
];

/// Runs every clause on a store that `make` makes, bounded to about the number of bytes that it is given.
///
/// # Panics
/// Names the first clause that is broken, and how.
pub async fn check_local_store(make: impl AsyncFn(u64) -> Subject) {
    for (clause, bytes_max, run) in CLAUSES {
        let store = make(bytes_max).await;
        report(clause, store.to_string(), run(store)).await;
    }
}

async fn put_several(store: &Subject, seeded: &mut Seeded, count: usize) -> Vec<Digest> {
    let mut digests = Vec::new();
    for _ in 0..count {
        let blob = seeded.blob(DigestFunction::Sha256, BLOB_BYTES);
        digests.push(blob.digest());
        store.put(blob).await.unwrap();
    }
    digests
}

/// Leased blobs are present, where they were, and whole, after more than the store's bound was put.
pub async fn leased_blobs_survive_pressure(store: Subject) {
    let mut seeded = Seeded::new(21);
    let digests = put_several(&store, &mut seeded, 5).await;
    let Leased::Held(_lease) = store.lease(&digests).await.unwrap() else {
        panic!("the blobs were put just now")
    };
    let places: Vec<Location> = digests.iter().map(|digest| store.locate(*digest).unwrap()).collect();
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    for (digest, place) in digests.into_iter().zip(places) {
        assert_eq!(store.locate(digest).unwrap(), place, "a leased blob was moved");
        assert_eq!(located(digest, &place), digest);
    }
}

/// The bytes at a place, and the digest that they have.
fn located(digest: Digest, place: &Location) -> Digest {
    let (path, offset) = match place {
        Location::Loose { path } => (path, 0),
        Location::Packed { path, offset } => (path, *offset),
    };
    let mut bytes = vec![0; usize::try_from(digest.size_bytes()).unwrap()];
    let file = std::fs::File::open(path).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut bytes, offset).unwrap();
    Digest::of(digest.function(), &bytes)
}

/// One missing blob among present ones: no lease, in the order of first mention; the present ones may be evicted.
pub async fn what_is_missing_is_named_once(store: Subject) {
    let mut seeded = Seeded::new(22);
    let present = put_several(&store, &mut seeded, 2).await;
    let absent = [1, 2].map(|_| seeded.blob(DigestFunction::Sha256, BLOB_BYTES).digest());
    let empty = Digest::empty(DigestFunction::Sha256);
    let asked = [present[0], absent[1], absent[0], empty, absent[1], present[1]];
    let Leased::Missing(missing) = store.lease(&asked).await.unwrap() else {
        panic!("two blobs were never put")
    };
    assert_eq!(missing, [absent[1], absent[0]]);
    let (mut groups, mut see) = (LeaseGroups::default(), |_| panic!("nothing is leased"));
    groups.add(&asked[..1]);
    groups.add(&asked[1..]);
    let Leased::Missing(missing) = store.lease_each(&groups, &mut see).await.unwrap() else {
        panic!("two blobs were never put")
    };
    assert_eq!(missing, [absent[1], absent[0]]);
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert_eq!(
        store.find_missing(&present).await.unwrap(),
        present,
        "they were not leased"
    );
    assert!(matches!(store.lease(&[empty, empty]).await.unwrap(), Leased::Held(_)));
    assert_eq!(store.locate(empty).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.locate(absent[0]).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Of two leases on one blob either protects it; without one it is evicted as others are.
pub async fn a_lease_ends_when_it_is_dropped(store: Subject) {
    let mut seeded = Seeded::new(23);
    let digests = put_several(&store, &mut seeded, 1).await;
    let twice = [digests[0], digests[0]];
    let first = store.lease(&twice).await.unwrap();
    let second = store.lease(&digests).await.unwrap();
    drop(first);
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert!(
        store.contains(digests[0]).await.unwrap(),
        "the second lease is still held"
    );
    drop(second);
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert!(!store.contains(digests[0]).await.unwrap(), "no lease is held any more");
}

/// Each group protects its own blobs, however long others are held.
pub async fn groups_are_let_go_one_by_one(store: Subject) {
    let mut seeded = Seeded::new(25);
    let digests = put_several(&store, &mut seeded, 2).await;
    let empty = Digest::empty(DigestFunction::Sha256);
    let mut groups = LeaseGroups::default();
    groups.add([]);
    groups.add([&empty, &digests[0]]);
    groups.add([&digests[1], &digests[0]]);
    groups.add([&digests[1]]);
    let Leased::Held(leases) = store.lease_each(&groups, &mut |_| ()).await.unwrap() else {
        panic!("they were put just now")
    };
    let Ok([none, first, both, second]) = <[Lease; 4]>::try_from(leases) else {
        panic!("a lease for each group")
    };
    drop((none, both));
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert!(store.find_missing(&digests).await.unwrap().is_empty());
    drop(first);
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert!(store.contains(digests[1]).await.unwrap(), "its lease is still held");
    drop(second);
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert_eq!(
        store.find_missing(&digests).await.unwrap(),
        digests,
        "no lease is held any more"
    );
}

/// Keeps one lease until it is asked for it in earnest.
#[derive(Default)]
struct Hoard(Mutex<Option<Lease>>);

impl LeaseHolder for Hoard {
    fn let_go(&self, shortage: Shortage) -> bool {
        shortage == Shortage::Full && self.0.lock().unwrap().take().is_some()
    }
}

/// Leases on all that a store can hold make room when somebody needs it, and not before.
pub async fn leases_kept_for_later_give_way(store: Subject) {
    let mut seeded = Seeded::new(25);
    let hoard = Arc::new(Hoard::default());
    let holder: Weak<dyn LeaseHolder> = Arc::downgrade(&(hoard.clone() as Arc<dyn LeaseHolder>));
    store.on_shortage(holder);
    let few = put_several(&store, &mut seeded, 5).await;
    let Leased::Held(lease) = store.lease(&few).await.unwrap() else {
        panic!("the blobs were put just now")
    };
    *hoard.0.lock().unwrap() = Some(lease);
    put_several(&store, &mut seeded, PRESSURE_BLOBS).await;
    assert!(hoard.0.lock().unwrap().is_some(), "there was other room to be made");
    let mut leases = Vec::new();
    // Each a lease of somebody who works, until nothing is left but the hoard.
    while hoard.0.lock().unwrap().is_some() {
        assert!(
            leases.len() < PRESSURE_BLOBS,
            "the hoard stays while nothing else could go"
        );
        let digests = put_several(&store, &mut seeded, 1).await;
        // In a store so full it may be gone again, which is as good.
        if let Leased::Held(lease) = store.lease(&digests).await.unwrap() {
            leases.push(lease);
        }
    }
}

/// For every function and for small and large blobs.
pub async fn the_located_place_holds_the_bytes(store: Subject) {
    let mut seeded = Seeded::new(24);
    for (n, function) in DigestFunction::ALL.into_iter().enumerate() {
        let blob = seeded.ingested(store.spool(), function, 1 + n * BLOB_BYTES).await;
        let digest = blob.digest();
        store.put(blob).await.unwrap();
        let Leased::Held(_lease) = store.lease(&[digest]).await.unwrap() else {
            panic!("{digest} was put just now")
        };
        let place = store.locate(digest).unwrap();
        let empty = Digest::empty(function);
        let (mut groups, mut places) = (LeaseGroups::default(), Vec::new());
        groups.add([&empty, &digest]);
        groups.add([&digest]);
        let leased = store.lease_each(&groups, &mut |place| places.push(place)).await;
        assert!(matches!(leased.unwrap(), Leased::Held(_)), "{digest} was put just now");
        assert_eq!(places, [None, Some(place.clone()), Some(place.clone())]);
        assert_eq!(located(digest, &place), digest);
        if let Location::Loose { path } = place {
            assert!(path.starts_with(store.loose_dir().unwrap()), "{}", path.display());
        }
    }
}

/// The content that was put can be read from where it was, before and after its holder lets go.
pub async fn what_was_spooled_is_published(store: Subject) {
    let blob: Verified = Seeded::new(25)
        .ingested(store.spool(), DigestFunction::Blake3, 1_000_003)
        .await;
    let digest = blob.digest();
    store.put(blob.clone()).await.unwrap();
    let whole = |bytes: &Bytes| Digest::of(DigestFunction::Blake3, bytes) == digest;
    let held = blob.open(crate::ByteRange::ALL).unwrap().into_bytes().await.unwrap();
    assert!(whole(&held), "the holder reads other bytes");
    drop(blob);
    let stored = store.read(digest, ROOMY_BYTES).await.unwrap();
    assert!(whole(&stored), "the store reads other bytes");
}
