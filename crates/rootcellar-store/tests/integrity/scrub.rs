//! The scrub: what nobody reads is read again now and then, at a rate.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rootcellar_store::io::{Disk as _, Open};
use rootcellar_store::testing::{Lane, ManualClock, Next, SimulatedDisk, SteppedStore};
use rootcellar_store::{Clock as _, DiskOptions, Scrub, Verified};

use super::{LAYOUTS, SIZES, blobs_of, content_of, options, put_stepped};

const HOUR: Duration = Duration::from_secs(3600);
/// What one step may read more than the rest of it allows: a piece of a blob.
const STEP_BYTES: u64 = (1 << 20) + (256 << 10);

struct Scrubbed {
    disk: SimulatedDisk,
    clock: Arc<ManualClock>,
    store: SteppedStore,
}

impl Scrubbed {
    fn new(layout: &str, bytes_per_second: u64) -> Self {
        Self::open(
            SimulatedDisk::new(9),
            Arc::new(ManualClock::default()),
            layout,
            bytes_per_second,
        )
    }

    /// Closes the store, and opens it again.
    fn restart(self, layout: &str, bytes_per_second: u64) -> Self {
        self.store.close().unwrap();
        Self::open(self.disk, self.clock, layout, bytes_per_second)
    }

    fn open(disk: SimulatedDisk, clock: Arc<ManualClock>, layout: &str, bytes_per_second: u64) -> Self {
        let options = DiskOptions {
            scrub: Some(Scrub {
                bytes_per_second,
                interval: HOUR,
            }),
            disk: Arc::new(disk.clone()),
            ..options(layout)
        };
        let store = SteppedStore::open(Path::new("/store"), &options, clock.clone()).unwrap();
        Self { disk, clock, store }
    }

    /// Takes a step, and turns the clock to the next one.
    fn step(&self) {
        match self.store.step(Lane::Upkeep) {
            Next::Again | Next::Soon => {}
            Next::After(time) => self.clock.advance(time),
            Next::Idle => panic!("there is always a next pass"),
        }
    }

    fn passes(&self) -> u64 {
        self.store.statistics().scrub.passes
    }

    /// Goes on to the end of the `number`th pass. When that is.
    fn end_of_pass(&self, number: u64) -> SystemTime {
        let is_over = (0..10_000).any(|_| {
            self.step();
            self.passes() >= number
        });
        assert!(is_over, "pass {number} does not end");
        self.clock.now()
    }

    /// The file that holds a blob, and the blob's first byte in it.
    fn place_of(&self, blob: &Verified) -> (PathBuf, usize) {
        let content = content_of(blob);
        let find = |(path, size): (PathBuf, u64)| {
            let mut bytes = vec![0; usize::try_from(size).unwrap()];
            self.disk
                .open(&path, Open::Read)
                .unwrap()
                .read_at(&mut bytes, 0)
                .unwrap();
            let at = (0..bytes.len())
                .step_by(512)
                .find(|at| bytes[*at..].starts_with(content))?;
            Some((path, at))
        };
        self.disk.files().into_iter().find_map(find).unwrap()
    }
}

#[test]
fn a_flipped_byte_that_nobody_reads_is_found() {
    for layout in LAYOUTS {
        for (victim, size) in SIZES.into_iter().enumerate() {
            let scrubbed = Scrubbed::new(layout, 1 << 20);
            let blobs = blobs_of(40, &SIZES);
            put_stepped(&scrubbed.store, &blobs);
            let (path, start) = scrubbed.place_of(&blobs[victim]);
            scrubbed.disk.flip(&path, start + size - 1);
            scrubbed.end_of_pass(1);
            for (number, blob) in blobs.iter().enumerate() {
                assert_eq!(scrubbed.store.contains(&blob.digest()), number != victim, "{layout}");
            }
            assert_eq!(scrubbed.store.statistics().counters.damaged_blobs, 1);
        }
    }
}

#[test]
fn a_pass_tells_how_far_it_is() {
    for layout in LAYOUTS {
        let scrubbed = Scrubbed::new(layout, 1 << 20);
        put_stepped(&scrubbed.store, &blobs_of(41, &[100_000; 40]));
        let mut seen = Vec::new();
        while scrubbed.passes() == 0 {
            scrubbed.step();
            let scrub = scrubbed.store.statistics().scrub;
            if scrub.blobs > 0 {
                assert_eq!(scrub.blobs, 40);
                seen.push(scrub.scrubbed_blobs);
            }
        }
        assert!(seen.len() >= 3 && seen.is_sorted(), "{layout}: {seen:?}");
        assert_eq!(scrubbed.store.statistics().scrub.blobs, 0, "nothing is under way");
    }
}

#[test]
fn a_pass_reads_no_more_in_a_second_than_it_may() {
    const RATE: u64 = 500_000;
    const SIZE: u64 = 100_000;
    for layout in LAYOUTS {
        let scrubbed = Scrubbed::new(layout, RATE);
        put_stepped(&scrubbed.store, &blobs_of(42, &[usize::try_from(SIZE).unwrap(); 40]));
        let began = scrubbed.clock.now();
        while scrubbed.passes() == 0 {
            let since = scrubbed.clock.now().duration_since(began).unwrap();
            scrubbed.step();
            let read = scrubbed.store.statistics().scrub.scrubbed_blobs * SIZE;
            let allowed = since.as_secs() * RATE + RATE + STEP_BYTES;
            assert!(read <= allowed, "{layout}: {read} bytes after {since:?}");
        }
        let took = scrubbed.clock.now().duration_since(began).unwrap();
        // Nothing waits for the last step.
        assert!(
            took >= Duration::from_secs((40 * SIZE - STEP_BYTES) / RATE),
            "{layout}: {took:?}"
        );
    }
}

/// Puts, a need of room and the end of a lease wake the lane that scrubs.
#[test]
fn a_lane_that_is_woken_early_reads_no_more_for_that() {
    for layout in LAYOUTS {
        let scrubbed = Scrubbed::new(layout, 1000);
        put_stepped(&scrubbed.store, &blobs_of(43, &[100_000; 40]));
        for _ in 0..100 {
            scrubbed.store.step(Lane::Upkeep);
        }
        let read = scrubbed.store.statistics().scrub.scrubbed_blobs * 100_000;
        assert!(
            scrubbed.passes() == 0 && read <= STEP_BYTES,
            "{layout}: {read} bytes in no time"
        );
    }
}

#[test]
fn a_pass_begins_an_interval_after_the_last_one_has_ended() {
    for layout in LAYOUTS {
        let scrubbed = Scrubbed::new(layout, 1 << 20);
        let blobs = blobs_of(44, &SIZES);
        put_stepped(&scrubbed.store, &blobs);
        let first = scrubbed.end_of_pass(1);
        let (path, start) = scrubbed.place_of(&blobs[2]);
        scrubbed.disk.flip(&path, start);
        let second = scrubbed.end_of_pass(2);
        let between = second.duration_since(first).unwrap();
        assert!(
            between >= HOUR && between < HOUR + Duration::from_secs(60),
            "{layout}: {between:?}"
        );
        assert!(!scrubbed.store.contains(&blobs[2].digest()));
    }
}

/// A pass over a large store takes days, and servers are started anew more often than that.
#[test]
fn a_pass_goes_on_after_a_restart() {
    const RATE: u64 = 1 << 20;
    for layout in LAYOUTS {
        let mut scrubbed = Scrubbed::new(layout, RATE);
        let blobs = blobs_of(45, &[100_000; 300]);
        put_stepped(&scrubbed.store, &blobs);
        for restarts in 0.. {
            assert!(
                restarts < 100,
                "{layout}: a pass that is interrupted does not come to an end"
            );
            // After a crash other things come first.
            while scrubbed.store.statistics().scrub.blobs == 0 && scrubbed.passes() == 0 {
                scrubbed.step();
            }
            for _ in 0..8 {
                scrubbed.step();
            }
            if scrubbed.passes() > 0 {
                assert!(restarts >= 2, "{layout}: nothing was interrupted");
                break;
            }
            let scrub = scrubbed.store.statistics().scrub;
            assert!(scrub.blobs == 300 && scrub.scrubbed_blobs > 0, "{layout}: {scrub:?}");
            scrubbed = scrubbed.restart(layout, RATE);
        }
    }
}
