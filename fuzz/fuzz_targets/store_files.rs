//! A store on disk with one file that is anything: FORMAT, a log, a pack, a blob, the uses. It opens or it says why not; what it then
//! reads is what was put; and it goes on taking blobs.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rootcellar_digest::DigestFunction;
use rootcellar_store::io::{Disk as _, Open};
use rootcellar_store::layout::kind_named;
use rootcellar_store::testing::{Lane, ManualClock, Next, Seeded, SimulatedDisk, SteppedStore};
use rootcellar_store::{DiskOptions, Verified};

const DIR: &str = "/store";
const LAYOUTS: [&str; 3] = ["loose", "packed", "hybrid"];
/// More than a store has to do when it starts.
const STEPS_MAX: usize = 1000;

#[derive(Debug, Arbitrary)]
struct Damage<'a> {
    layout: u8,
    was_closed: bool,
    file: u8,
    at: u16,
    /// Whether the file ends after what is written.
    is_cut: bool,
    bytes: &'a [u8],
}

struct Template {
    options: DiskOptions,
    disk: SimulatedDisk,
    blobs: Vec<(Verified, Bytes)>,
}

/// A store with some blobs in every place that the layout has.
fn template(layout: &str, is_closed: bool) -> Template {
    let disk = SimulatedDisk::new(1);
    let options = DiskOptions {
        layout: kind_named(layout).expect("a layout of ours"),
        bytes_max: 1 << 20,
        start_threads: 1,
        disk: Arc::new(disk.clone()),
        ..DiskOptions::default()
    };
    let mut seeded = Seeded::new(1);
    let blobs: Vec<(Verified, Bytes)> = (0..12_usize)
        .map(|n| {
            let bytes = seeded.bytes(n * n * 200 + 1);
            (Verified::of(DigestFunction::Sha256, bytes.clone()), bytes)
        })
        .collect();
    let store = SteppedStore::open(Path::new(DIR), &options, Arc::<ManualClock>::default()).expect("a new store");
    let news = blobs.iter().map(|(blob, _)| blob.clone()).collect();
    let mut put = store.put(news).expect("small blobs");
    run(&store);
    assert!(put.outcomes().expect("the commit lane ran").iter().all(Result::is_ok));
    if is_closed {
        store.close().expect("the disk is sound");
    }
    Template { options, disk: disk.after_kill(), blobs }
}

fn run(store: &SteppedStore) {
    for lane in Lane::ALL {
        let steps = (0..STEPS_MAX).take_while(|_| store.step(lane) == Next::Again).count();
        assert!(steps < STEPS_MAX, "the {lane:?} lane comes to an end");
    }
}

impl Template {
    fn damaged(&self, damage: &Damage<'_>) -> SimulatedDisk {
        let disk = self.disk.after_kill();
        let files: Vec<PathBuf> = disk.files().into_iter().map(|(path, _)| path).collect();
        let path = &files[usize::from(damage.file) % files.len()];
        let file = disk.open(path, Open::Update).expect("the file is there");
        let size = file.size().expect("the disk is sound");
        let at = u64::from(damage.at) % (size + 1);
        file.write_at(&[std::io::IoSlice::new(damage.bytes)], at).expect("the disk is sound");
        if damage.is_cut {
            file.set_size(at + damage.bytes.len() as u64).expect("the disk is sound");
        }
        disk
    }

    /// Opens the store, if it can be opened, and reads everything. What is read twice is the same twice.
    fn check(&self, disk: &SimulatedDisk) {
        let options = DiskOptions { disk: Arc::new(disk.clone()), ..self.options.clone() };
        let open = || SteppedStore::open(Path::new(DIR), &options, Arc::<ManualClock>::default());
        let Ok(store) = open() else { return };
        self.read_all(&store);
        run(&store);
        self.read_all(&store);
        let late = Verified::of(DigestFunction::Sha256, Bytes::from_static(b"late"));
        let mut put = store.put(vec![late.clone()]).expect("a small blob");
        run(&store);
        let is_stored = put.outcomes().is_some_and(|outcomes| outcomes[0].is_ok());
        let is_closed = store.close().is_ok();
        let again = open().expect("a store that was opened and closed opens");
        self.read_all(&again);
        if is_stored && is_closed {
            assert_eq!(again.read(late.digest()).expect("it was put after the damage"), "late");
        }
    }

    fn read_all(&self, store: &SteppedStore) {
        for (blob, bytes) in &self.blobs {
            if let Ok(read) = store.read(blob.digest()) {
                assert_eq!(read, bytes, "what is read is what was put");
            }
        }
    }
}

fuzz_target!(|damage: Damage<'_>| {
    static TEMPLATES: OnceLock<Vec<Template>> = OnceLock::new();
    let every = || LAYOUTS.into_iter().flat_map(|layout| [template(layout, false), template(layout, true)]);
    let templates = TEMPLATES.get_or_init(|| every().collect());
    let template = &templates[(usize::from(damage.layout) % LAYOUTS.len()) * 2 + usize::from(damage.was_closed)];
    template.check(&template.damaged(&damage));
});
