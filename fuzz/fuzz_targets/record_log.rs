//! Records whose log is anything from some byte on. They open; what is read is what was put, and all of it before that byte; and they go on.

#![no_main]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rootcellar_store::io::{Disk as _, Open};
use rootcellar_store::testing::{ManualClock, Seeded, SimulatedDisk};
use rootcellar_store::{DiskRecords, Durability, Record, RecordKind, Records as _, RecordsOptions};

const KIND: RecordKind = RecordKind("kind");
const RECORDS: u64 = 12;
/// A log of 16 KiB.
const BYTES_MAX: u64 = 1 << 20;

#[derive(Debug, Arbitrary)]
struct Damage<'a> {
    at: u16,
    is_cut: bool,
    bytes: &'a [u8],
}

fn value(n: u64) -> Bytes {
    Seeded::new(n).bytes(usize::try_from(n * n * 7).expect("a small number"))
}

async fn open(disk: &SimulatedDisk) -> DiskRecords {
    let options = RecordsOptions {
        bytes_max: BYTES_MAX,
        durability: Durability::Always,
        disk: Arc::new(disk.clone()),
        ..RecordsOptions::default()
    };
    let records = DiskRecords::open("/records.redb", options, Arc::<ManualClock>::default()).await;
    records.expect("a log keeps no records from opening")
}

async fn put(records: &DiskRecords, n: u64) {
    let record = Record { value: value(n), expires: None };
    records.put(KIND, &n.to_be_bytes(), record).await.expect("there is room");
}

/// A disk with records in the log, as a killed process leaves it, and where in it each ends.
async fn template() -> (SimulatedDisk, Vec<u64>) {
    let disk = SimulatedDisk::new(1);
    let records = open(&disk).await;
    let mut ends = Vec::new();
    for n in 0..RECORDS {
        put(&records, n).await;
        let key_bytes = "kind".len() as u64 + 1 + 8;
        let entry_bytes = 16 + key_bytes + 12 + value(n).len() as u64;
        ends.push(ends.last().copied().unwrap_or(0) + entry_bytes);
    }
    (disk.after_kill(), ends)
}

fuzz_target!(|damage: Damage<'_>| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(run(&damage));
});

async fn run(damage: &Damage<'_>) {
    static TEMPLATE: OnceLock<(SimulatedDisk, Vec<u64>)> = OnceLock::new();
    let (disk, ends) = match TEMPLATE.get() {
        Some(template) => template,
        None => {
            let template = template().await;
            TEMPLATE.get_or_init(|| template)
        }
    };
    let disk = disk.after_kill();
    let log = disk.open(Path::new("/records.log"), Open::Update).expect("there is a log");
    let at = u64::from(damage.at).min(log.size().expect("a size"));
    log.write_at(&[std::io::IoSlice::new(damage.bytes)], at).expect("a disk with room");
    if damage.is_cut {
        log.set_size(at + damage.bytes.len() as u64).expect("a size");
    }
    let records = open(&disk).await;
    for n in 0..RECORDS {
        let found = records.get(KIND, &n.to_be_bytes()).await.expect("an answer");
        let is_before = ends[usize::try_from(n).expect("a small number")] <= at;
        match found {
            Some(record) => assert_eq!(record.value, value(n)),
            None => assert!(!is_before, "record {n} is gone, and the damage is at {at}"),
        }
    }
    put(&records, RECORDS).await;
    drop(records);
    let records = open(&disk).await;
    let found = records.get(KIND, &RECORDS.to_be_bytes()).await.expect("an answer");
    assert_eq!(found.map(|record| record.value), Some(value(RECORDS)));
}
