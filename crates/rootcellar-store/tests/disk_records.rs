//! What records in a file promise beyond the contract: about restarts, crashes, damage and a full disk.

#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]
#![expect(
    clippy::print_stdout,
    reason = "so is the captured output, and a child's acknowledgements"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rootcellar_store::testing::{self, Seeded};
use rootcellar_store::{
    ByteCounter, DiskRecords, Durability, ErrorKind, Record, RecordKind, Records as _, RecordsOptions, Result,
    SystemClock,
};

const KIND: RecordKind = RecordKind("kind");
/// Longer than any test.
const NEVER: Durability = Durability::Interval(Duration::from_secs(3600));

async fn open(path: &Path, durability: Durability) -> Result<DiskRecords> {
    let options = RecordsOptions {
        durability,
        ..RecordsOptions::default()
    };
    DiskRecords::open(path, options, Arc::new(SystemClock)).await
}

fn key(n: u64) -> [u8; 8] {
    n.to_be_bytes()
}

/// A value that tells its number, of some length.
fn value(n: u64) -> Bytes {
    let mut seeded = Seeded::new(n);
    let len = usize::try_from(seeded.below(3000)).unwrap();
    seeded.bytes(len)
}

async fn put(records: &DiskRecords, n: u64) -> Result<()> {
    let record = Record {
        value: value(n),
        expires: None,
    };
    records.put(KIND, &key(n), record).await
}

/// Whether the record is there. If it is, it is the right one.
async fn has(records: &DiskRecords, n: u64) -> Result<bool> {
    let found = records.get(KIND, &key(n)).await?;
    if let Some(record) = &found {
        assert_eq!(record.value, value(n), "record {n} is another");
    }
    Ok(found.is_some())
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("records.redb")
    }

    /// The bytes of the file and of its log.
    fn bytes(&self) -> u64 {
        let log = self.file().with_extension("log");
        fs::metadata(self.file()).unwrap().len() + fs::metadata(log).unwrap().len()
    }
}

#[tokio::test]
async fn records_survive_an_orderly_end_in_every_mode() {
    for durability in [Durability::Always, NEVER, Durability::None] {
        let place = Place::new();
        let records = open(&place.file(), durability).await.unwrap();
        put(&records, 1).await.unwrap();
        drop(records);
        let records = open(&place.file(), durability).await.unwrap();
        assert!(has(&records, 1).await.unwrap(), "after a drop, {durability:?}");
        put(&records, 2).await.unwrap();
        records.close().await.unwrap();
        assert_eq!(put(&records, 3).await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert!(has(&records, 2).await.unwrap(), "a closed one still reads");
        drop(records);
        let records = open(&place.file(), durability).await.unwrap();
        assert!(has(&records, 2).await.unwrap(), "after a close, {durability:?}");
    }
}

#[tokio::test]
async fn recency_survives_a_restart() {
    // Ten records of 1,000 bytes, with key and bookkeeping, and a 64th for a log that no record fits into.
    const BYTES_MAX: u64 = 10 * ("kind".len() as u64 + 1 + 8 + 1000 + 192) * 64 / 63 + 1;
    let place = Place::new();
    let options = RecordsOptions {
        bytes_max: BYTES_MAX,
        durability: NEVER,
        ..RecordsOptions::default()
    };
    let open = || DiskRecords::open(place.file(), options.clone(), Arc::new(SystemClock));
    let put = async |records: &DiskRecords, n: u64| {
        let record = Record {
            value: vec![1; 1000].into(),
            expires: None,
        };
        records.put(KIND, &key(n), record).await.unwrap();
    };
    let records = open().await.unwrap();
    for n in 0..9 {
        put(&records, n).await;
    }
    records.get(KIND, &key(0)).await.unwrap().unwrap();
    drop(records);
    let records = open().await.unwrap();
    for n in 100..104 {
        put(&records, n).await;
    }
    let mut present = Vec::new();
    for n in 0..9 {
        if records.get(KIND, &key(n)).await.unwrap().is_some() {
            present.push(n);
        }
    }
    assert_eq!(present, [0, 4, 5, 6, 7, 8]);
}

#[tokio::test]
async fn the_size_of_the_files_is_told() {
    let place = Place::new();
    let file_bytes = ByteCounter::default();
    let options = RecordsOptions {
        file_bytes: file_bytes.clone(),
        durability: Durability::Always,
        ..RecordsOptions::default()
    };
    let records = DiskRecords::open(place.file(), options, Arc::new(SystemClock))
        .await
        .unwrap();
    let at_first = file_bytes.bytes();
    assert_eq!(at_first, place.bytes());
    let record = Record {
        value: vec![1; 4 << 20].into(),
        expires: None,
    };
    records.put(KIND, b"large", record).await.unwrap();
    records.close().await.unwrap();
    assert!(file_bytes.bytes() > at_first + (4 << 20));
    assert_eq!(file_bytes.bytes(), place.bytes());
}

#[tokio::test]
async fn a_file_that_is_in_use_foreign_or_newer_is_refused_by_name() {
    let place = Place::new();
    let refusal = async |file: &Path| {
        let error = open(file, NEVER).await.unwrap_err();
        assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
        error
    };
    let records = open(&place.file(), NEVER).await.unwrap();
    assert_eq!(refusal(&place.file()).await.kind(), ErrorKind::Unavailable);
    drop(records);

    let foreign = place.dir.path().join("foreign");
    fs::write(&foreign, vec![7; 100_000]).unwrap();
    assert_eq!(refusal(&foreign).await.kind(), ErrorKind::InvalidArgument);
    assert_eq!(fs::read(&foreign).unwrap(), vec![7; 100_000]);

    for extension in ["log", "lock"] {
        let taken = place.dir.path().join("named").with_extension(extension);
        assert_eq!(refusal(&taken).await.kind(), ErrorKind::InvalidArgument);
        assert!(!taken.exists(), "nothing was made before it was refused");
    }

    let database = redb::Database::create(place.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    let about = redb::TableDefinition::<&str, u64>::new("about");
    transaction.open_table(about).unwrap().insert("version", 3).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = refusal(&place.file()).await;
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("version 3") && error.to_string().contains("version 2"));
}

/// Whichever of log, memory and database a reader meets, it sees what was acknowledged, or something later.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_sees_no_value_from_before_an_acknowledged_put() {
    const KEYS: u64 = 4;
    const PUTS: u64 = 1500;
    let place = Place::new();
    let options = RecordsOptions {
        // A log of 4 KiB, which is taken into the database all the time.
        bytes_max: 256 << 10,
        durability: Durability::None,
        ..RecordsOptions::default()
    };
    let records = DiskRecords::open(place.file(), options, Arc::new(SystemClock));
    let records = Arc::new(records.await.unwrap());
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..KEYS).map(|_| AtomicU64::new(0)).collect());
    let numbers = |record: Record| u64::from_le_bytes(record.value[..8].try_into().unwrap());
    let readers = (0..4 * KEYS).map(|n| {
        let (records, acknowledged) = (records.clone(), acknowledged.clone());
        tokio::spawn(async move {
            let counter = &acknowledged[usize::try_from(n % KEYS).unwrap()];
            loop {
                let least = counter.load(Ordering::SeqCst);
                let found = records.get(KIND, &key(n % KEYS)).await.unwrap().map_or(0, numbers);
                assert!(found >= least, "{found} was read after {least} was acknowledged");
                if least == PUTS {
                    break;
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let writers = (0..KEYS).map(|n| {
        let (records, acknowledged) = (records.clone(), acknowledged.clone());
        tokio::spawn(async move {
            for number in 1..=PUTS {
                let value = [number.to_le_bytes().as_slice(), &[0; 500]].concat().into();
                let record = Record { value, expires: None };
                records.put(KIND, &key(n), record).await.unwrap();
                acknowledged[usize::try_from(n).unwrap()].store(number, Ordering::SeqCst);
            }
        })
    });
    for task in writers.collect::<Vec<_>>().into_iter().chain(readers) {
        task.await.unwrap();
    }
}

/// What the version without a log wrote is read, and goes on as this version.
#[tokio::test]
async fn a_file_without_a_log_is_brought_up_to_date() {
    let place = Place::new();
    let records = open(&place.file(), NEVER).await.unwrap();
    put(&records, 1).await.unwrap();
    drop(records);
    fs::remove_file(place.file().with_extension("log")).unwrap();
    let database = redb::Database::open(place.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    let about = redb::TableDefinition::<&str, u64>::new("about");
    let mut table = transaction.open_table(about).unwrap();
    table.insert("version", 1).unwrap();
    table.remove("log").unwrap().unwrap();
    drop(table);
    transaction.commit().unwrap();
    drop(database);
    for n in 1..3 {
        let records = open(&place.file(), NEVER).await.unwrap();
        assert!(has(&records, n).await.unwrap());
        put(&records, n + 1).await.unwrap();
    }
}

/// A log that belongs to another file says nothing here.
#[tokio::test]
async fn a_file_that_was_moved_away_leaves_no_records_behind() {
    let place = Place::new();
    let log = place.file().with_extension("log");
    let records = open(&place.file(), NEVER).await.unwrap();
    put(&records, 1).await.unwrap();
    let logged = fs::read(&log).unwrap();
    drop(records);
    fs::remove_file(place.file()).unwrap();
    fs::write(&log, logged).unwrap();
    let records = open(&place.file(), NEVER).await.unwrap();
    assert!(!has(&records, 1).await.unwrap());
}

/// Whatever byte of the file changes: an error, an absent record, or the right one, and never a crash of the process.
#[tokio::test]
async fn a_damaged_file_yields_no_wrong_record() {
    const RECORDS: u64 = 40;
    let place = Place::new();
    let records = open(&place.file(), NEVER).await.unwrap();
    for n in 0..RECORDS {
        put(&records, n).await.unwrap();
    }
    drop(records);
    let whole = fs::read(place.file()).unwrap();
    let mut seeded = Seeded::new(5);
    let (mut refused, mut absent) = (0, 0);
    for _round in 0..60 {
        let mut damaged = whole.clone();
        // Most of the file is free: aim at bytes that are not zero.
        let at = loop {
            let at = usize::try_from(seeded.below(whole.len() as u64)).unwrap();
            if whole[at] != 0 {
                break at;
            }
        };
        damaged[at] ^= 1 << seeded.below(8);
        let file = place.dir.path().join("damaged.redb");
        fs::write(&file, damaged).unwrap();
        let Ok(records) = open(&file, NEVER).await else {
            refused += 1;
            continue;
        };
        for n in 0..RECORDS {
            if !has(&records, n).await.unwrap_or(false) {
                absent += 1;
            }
        }
    }
    println!("{refused} files were refused, {absent} records were absent");
    assert!(absent > 0, "no damage hit a record");
}

#[test]
fn a_killed_process_loses_no_record_that_always_syncs() {
    crash("a_killed_process_loses_no_record_that_always_syncs", Durability::Always);
}

#[test]
fn a_killed_process_loses_no_record_that_syncs_at_intervals() {
    let durability = Durability::Interval(Duration::from_millis(3));
    crash("a_killed_process_loses_no_record_that_syncs_at_intervals", durability);
}

#[test]
fn a_killed_process_loses_no_record_that_never_syncs() {
    crash("a_killed_process_loses_no_record_that_never_syncs", Durability::None);
}

const DIR: &str = "ROOTCELLAR_RECORDS_DIR";
const ROUND: &str = "ROOTCELLAR_RECORDS_ROUND";
const ROUNDS: u64 = 5;
const ROUND_RECORDS: u64 = 1_000_000;

fn crash(test: &str, durability: Durability) {
    if let Some(dir) = std::env::var_os(DIR) {
        let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
        return load(dir.as_ref(), durability, round * ROUND_RECORDS);
    }
    let place = Place::new();
    let mut seeded = Seeded::new(0xdead);
    for round in 0..ROUNDS {
        // Few enough for the bound in all.
        let acks = 1 + seeded.below(60) + round * 100;
        let acknowledged = spawn_and_kill(test, place.dir.path(), round, acks);
        check(&place.file(), durability, &acknowledged);
        println!("round {round}: killed after {acks} acknowledged records or a few more");
    }
}

fn spawn_and_kill(test: &str, dir: &Path, round: u64, acks: u64) -> Vec<u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(DIR, dir)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(n) = line.strip_prefix("ack ").and_then(|line| line.strip_suffix(" end")) else {
            continue;
        };
        acknowledged.push(n.parse().unwrap());
        if acknowledged.len() as u64 == acks {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success() && acknowledged.len() as u64 >= acks);
    acknowledged
}

#[tokio::main]
async fn check(file: &Path, durability: Durability, acknowledged: &[u64]) {
    let records = open(file, durability).await.unwrap();
    let mut lost = 0;
    for n in acknowledged.iter().copied() {
        lost += u64::from(!has(&records, n).await.unwrap());
    }
    assert_eq!(lost, 0, "were lost of {}", acknowledged.len());
    for round in 0..ROUNDS {
        // A round's records follow each other: the first that is absent ends them. Those that are there are right.
        for n in round * ROUND_RECORDS.. {
            if !has(&records, n).await.unwrap() {
                break;
            }
        }
    }
}

#[tokio::main]
async fn load(dir: &Path, durability: Durability, first: u64) {
    let options = RecordsOptions {
        // A log of 64 KiB: it goes around all the time, and into the database.
        bytes_max: 4 << 20,
        durability,
        ..RecordsOptions::default()
    };
    let records = DiskRecords::open(dir.join("records.redb"), options, Arc::new(SystemClock));
    let records = records.await.unwrap();
    for n in first.. {
        put(&records, n).await.unwrap();
        println!("ack {n} end");
    }
}

/// A small filesystem in memory, unmounted when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` without the privilege to mount.
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(dir.path())
            .status();
        mount.is_ok_and(|status| status.success()).then_some(Self(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg("-l").arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

#[tokio::test]
async fn records_go_on_when_a_full_disk_has_room_again() {
    let Some(filesystem) = Mounted::new() else {
        testing::skip("root, to mount a filesystem");
        return;
    };
    let (file, ballast) = (
        filesystem.0.path().join("records.redb"),
        filesystem.0.path().join("ballast"),
    );
    let records = open(&file, Durability::Always).await.unwrap();
    put(&records, 0).await.unwrap();
    fs::write(&ballast, vec![1; 50 << 20]).unwrap();
    let large = |n: u64| Record {
        value: vec![u8::try_from(n).unwrap(); 200_000].into(),
        expires: None,
    };
    let mut acknowledged = 0;
    let error = loop {
        match records.put(KIND, &key(1000 + acknowledged), large(acknowledged)).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    let all_are_there = async |records: &DiskRecords| {
        assert!(has(records, 0).await.unwrap());
        for n in 0..acknowledged {
            let found = records.get(KIND, &key(1000 + n)).await.unwrap();
            assert_eq!(found, Some(large(n)), "record {n} of {acknowledged}");
        }
    };
    all_are_there(&records).await;
    fs::remove_file(ballast).unwrap();
    put(&records, 1).await.unwrap();
    all_are_there(&records).await;
    drop(records);
    let records = open(&file, Durability::Always).await.unwrap();
    all_are_there(&records).await;
    assert!(has(&records, 1).await.unwrap());
}
