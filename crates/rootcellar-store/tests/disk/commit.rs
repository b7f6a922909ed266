//! Who shares a commit, and its syncs.

use std::sync::Arc;

use rootcellar_digest::DigestFunction;
use rootcellar_store::testing::{Lane, ManualClock, Next, Seeded, SteppedPut, SteppedStore};
use rootcellar_store::{DiskOptions, Durability};

use super::{LAYOUTS, options};

fn is_done(put: &mut SteppedPut) -> bool {
    put.outcomes()
        .is_some_and(|outcomes| outcomes.iter().all(Result::is_ok))
}

/// Two writers, each of which puts its next blob as soon as the one before is acknowledged.
#[test]
fn under_always_a_commit_waits_a_moment_for_those_who_come_again() {
    for layout in LAYOUTS {
        let dir = tempfile::tempdir().unwrap();
        let options = DiskOptions {
            durability: Durability::Always,
            ..options(layout, 16 << 20)
        };
        let store = SteppedStore::open(dir.path(), &options, Arc::<ManualClock>::default()).unwrap();
        let mut seeded = Seeded::new(1);
        let mut put = || store.put(vec![seeded.blob(DigestFunction::Sha256, 1000)]).unwrap();
        let step = || store.step(Lane::Commit);

        let (mut one, mut other) = (put(), put());
        assert_eq!(step(), Next::Again, "{layout}: nobody was there before them");
        assert!(is_done(&mut one) && is_done(&mut other), "{layout}");

        let mut one = put();
        assert_eq!(step(), Next::Soon, "{layout}: the other one is about to come");
        let mut other = put();
        assert_eq!(step(), Next::Again, "{layout}");
        assert!(is_done(&mut one) && is_done(&mut other), "{layout}");

        let mut one = put();
        assert_eq!(step(), Next::Soon, "{layout}");
        assert_eq!(step(), Next::Again, "{layout}: the other one does not come");
        assert!(is_done(&mut one), "{layout}");

        let mut one = put();
        assert_eq!(step(), Next::Again, "{layout}: it is alone now");
        assert!(is_done(&mut one), "{layout}");
        assert_eq!(store.statistics().counters.commits, 4, "{layout}");
    }
}
