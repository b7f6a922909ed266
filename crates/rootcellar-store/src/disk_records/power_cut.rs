//! Records on a disk that loses power before every change of it: what was synced is there, and what is there is whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::database::Database;
use super::fold::{Fold, Folded, Folder};
use super::format;
use super::journal::{Journal, Parts};
use super::log;
use super::logged::Logged;
use super::recent::Recent;
use super::uses::Uses;
use super::writer::Change;
use crate::io::Disk as _;
use crate::testing::{Fault, Loss, Seeded, SimulatedDisk};
use crate::{ByteCounter, ErrorKind, Record, RecordKind, Result};

const WORKLOADS: u64 = 40;
const STEPS: u64 = 20;
const KEYS: u64 = 20;
/// The log has a 64th of it: room for some changes, and not for many.
const BYTES_MAX: u64 = 1 << 20;
const KIND: RecordKind = RecordKind("kind");
const DIR: &str = "/store";

type Model = BTreeMap<format::Key, Option<Record>>;

/// Does what a thread would do at some moment.
struct Sometime {
    chance: Seeded,
    fold: Option<Fold>,
}

impl Folder for Sometime {
    fn is_busy(&self) -> bool {
        self.fold.is_some()
    }

    fn start(&mut self, fold: Fold) -> Result<()> {
        self.fold = Some(fold);
        Ok(())
    }

    fn poll(&mut self) -> Option<Folded> {
        if self.chance.below(4) == 0 { self.wait() } else { None }
    }

    fn wait(&mut self) -> Option<Folded> {
        self.fold.take().map(Fold::run)
    }
}

/// Records without the threads and the clock.
struct Subject {
    journal: Journal,
    database: Arc<Database>,
    logged: Arc<Logged>,
}

impl Subject {
    /// Opens the records on a disk; what is done beside the writer is done at moments that a seed chooses.
    fn open(disk: &SimulatedDisk, seed: u64) -> Self {
        Self::open_with(disk, seed, BYTES_MAX)
    }

    fn open_with(disk: &SimulatedDisk, seed: u64, bytes_max: u64) -> Self {
        let path = Path::new(DIR).join("records.redb");
        let disk = Arc::new(disk.clone());
        let database = Arc::new(Database::open(disk.clone(), path.clone(), 1 << 20).unwrap());
        let logged = Arc::new(Logged::default());
        let log_bytes_max = log::bytes_max(bytes_max);
        let parts = Parts {
            disk,
            database: database.clone(),
            logged: logged.clone(),
            recent: Arc::new(Recent::new(0)),
            uses: Arc::new(Uses::new(0)),
            bytes_max: bytes_max - log_bytes_max,
            log_bytes_max,
            file_bytes: ByteCounter::default(),
        };
        let folder = Box::new(Sometime {
            chance: Seeded::new(seed),
            fold: None,
        });
        let journal = Journal::open(&path.with_extension("log"), parts, folder).unwrap();
        Self {
            journal,
            database,
            logged,
        }
    }

    /// Whether a model says what is here.
    fn holds(&self, model: &Model) -> bool {
        (0..KEYS).all(|n| {
            let key = format::key(KIND, &n.to_be_bytes());
            self.get(&key) == model.get(&key).cloned().flatten()
        })
    }

    fn get(&self, key: &[u8]) -> Option<Record> {
        let logged = self.logged.get(key);
        logged.unwrap_or_else(|| self.database.read(key).unwrap())
    }
}

fn change(chance: &mut Seeded) -> Change {
    let key = format::key(KIND, &chance.below(KEYS).to_be_bytes());
    if chance.below(5) == 0 {
        return Change::Remove(key);
    }
    let len = usize::try_from(chance.below(9000)).unwrap();
    let value = chance.bytes(len);
    Change::Put(key, Record { value, expires: None })
}

/// Adds to some models the later ones: one for each change, since a power cut can come between them.
fn apply(models: &mut Vec<Model>, changes: &[Change]) {
    for change in changes {
        let mut model = models.last().unwrap().clone();
        let (key, record) = change.parts();
        model.insert(key.clone(), record.cloned());
        models.push(model);
    }
}

/// The disks that power cuts leave, and the models of the time: one of them has to hold.
struct Cuts {
    disks: Arc<Mutex<Vec<SimulatedDisk>>>,
}

impl Cuts {
    fn of(disk: &SimulatedDisk, chance: Seeded) -> Self {
        let disks: Arc<Mutex<Vec<SimulatedDisk>>> = Arc::default();
        let kept = disks.clone();
        let chance = Mutex::new(chance);
        disk.watch(move |disk| {
            let mut chance = chance.lock().unwrap();
            let loss = [Loss::Some, Loss::Everything, Loss::Some][usize::try_from(chance.below(3)).unwrap()];
            kept.lock().unwrap().push(disk.after_power_cut(loss, chance.number()));
        });
        Self { disks }
    }

    /// Opens each disk. It must hold one of `models`: those of the moments since the last that was synced.
    fn check(&self, models: &[Model], story: &str) -> usize {
        let disks = std::mem::take(&mut *self.disks.lock().unwrap());
        for (n, disk) in disks.iter().enumerate() {
            let subject = Subject::open(disk, 0);
            let is_one = models.iter().any(|model| subject.holds(model));
            assert!(
                is_one,
                "{story}, cut {n}: the records are those of no moment since the last sync"
            );
        }
        disks.len()
    }
}

fn disk(seed: u64) -> SimulatedDisk {
    let disk = SimulatedDisk::new(seed);
    disk.make_dir(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn run(seed: u64, disk: &SimulatedDisk) -> usize {
    let mut chance = Seeded::new(seed);
    let mut subject = Subject::open(disk, seed);
    let cuts = Cuts::of(disk, chance.clone());
    let mut models = vec![Model::new()];
    let mut crashes = 0;
    for n in 0..STEPS {
        let changes: Vec<Change> = (0..=chance.below(4)).map(|_| change(&mut chance)).collect();
        apply(&mut models, &changes);
        let what = chance.below(7);
        let is_durable = match what {
            0..=3 => subject.journal.write(changes, false).map(|()| false),
            4 => subject.journal.write(changes, true).map(|()| true),
            5 => subject.journal.fold(changes).map(|()| true),
            _ => subject
                .journal
                .write(changes, false)
                .and_then(|()| subject.journal.sync())
                .map(|()| true),
        };
        let is_durable = is_durable.unwrap();
        let story = format!("seed {seed}, step {n} of sort {what}");
        assert!(subject.holds(models.last().unwrap()), "{story}");
        crashes += cuts.check(&models, &story);
        if is_durable {
            models.drain(..models.len() - 1);
        }
        // Killed, and started again by the next process.
        if chance.below(4) == 0 {
            drop(subject);
            subject = Subject::open(disk, seed);
            assert!(subject.holds(models.last().unwrap()), "{story}, and a new start");
            crashes += cuts.check(&models, &story);
        }
    }
    crashes
}

#[test]
fn records_survive_power_cuts_as_of_some_moment_since_the_last_sync() {
    let crashes: usize = (0..WORKLOADS).map(|seed| run(seed, &disk(seed))).sum();
    assert!(crashes > 500, "{crashes} power cuts are too few to show anything");
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "redb")
}

#[test]
#[should_panic(expected = "no moment since the last sync")]
fn a_log_that_is_not_synced_is_found_out() {
    for seed in 0..WORKLOADS {
        run(seed, &disk(seed).ignoring_syncs_of(is_log));
    }
}

/// A change of one record, and another of another.
fn put(key: u64, text: &'static str) -> Change {
    let value = text.into();
    Change::Put(format::key(KIND, &key.to_be_bytes()), Record { value, expires: None })
}

/// What is true after these changes.
fn model(changes: &[Change]) -> Model {
    let mut models = vec![Model::new()];
    apply(&mut models, changes);
    models.pop().unwrap()
}

/// A disk as it was left, or with all or nothing of what was not synced.
fn after_any_end(disk: &SimulatedDisk) -> [SimulatedDisk; 4] {
    [
        disk.after_kill(),
        disk.after_power_cut(Loss::Everything, 5),
        disk.after_power_cut(Loss::Some, 5),
        disk.after_power_cut(Loss::Nothing, 5),
    ]
}

#[test]
fn what_a_disk_could_not_sync_is_refused_and_does_not_come_back_over_what_is_newer() {
    let disk = disk(1);
    let mut subject = Subject::open(&disk, 0);
    subject.journal.write(vec![put(0, "first")], true).unwrap();
    disk.set_fault(Some(Fault::NoSync));
    subject.journal.write(vec![put(0, "refused")], true).unwrap_err();
    assert!(
        subject.holds(&model(&[put(0, "first")])),
        "what was refused is not shown"
    );
    disk.set_fault(None);
    drop(subject);
    let mut subject = Subject::open(&disk, 0);
    subject.journal.write(vec![put(0, "later")], true).unwrap();
    for disk in after_any_end(&disk) {
        assert!(Subject::open(&disk, 0).holds(&model(&[put(0, "later")])));
    }
}

#[test]
fn what_the_log_cannot_sync_goes_into_the_database() {
    let disk = disk(1).sparing_syncs_of(is_database);
    let mut subject = Subject::open(&disk, 0);
    subject.journal.write(vec![put(0, "early")], false).unwrap();
    disk.set_fault(Some(Fault::NoSync));
    subject.journal.write(vec![put(1, "always")], true).unwrap();
    subject.journal.write(vec![put(2, "interval")], false).unwrap();
    subject.journal.sync().unwrap();
    let all = model(&[put(0, "early"), put(1, "always"), put(2, "interval")]);
    for disk in after_any_end(&disk) {
        assert!(Subject::open(&disk, 0).holds(&all));
    }
}

/// The kernel tells once that it could not write: a sync that succeeds after that proves nothing.
#[test]
fn a_sync_is_not_believed_after_one_that_failed() {
    let disk = disk(1);
    let mut subject = Subject::open(&disk, 0);
    subject.journal.write(vec![put(0, "value")], false).unwrap();
    disk.set_fault(Some(Fault::NoSync));
    subject.journal.sync().unwrap_err();
    disk.set_fault(None);
    // The database takes nothing any more, so that only the log could.
    assert!(subject.journal.sync().is_err(), "it was not written by anybody");
    assert!(subject.holds(&model(&[put(0, "value")])));
}

#[test]
fn a_full_disk_takes_no_record_that_was_acknowledged() {
    // More than the file begins with, so that it has to grow.
    const BYTES_MAX: u64 = 16 << 20;
    const RECORDS: u64 = 2000;
    let record = |n: u64| Record {
        value: Seeded::new(n).bytes(8000),
        expires: None,
    };
    let key = |n: u64| format::key(KIND, &n.to_be_bytes());
    let disk = disk(1);
    let mut subject = Subject::open_with(&disk, 0, BYTES_MAX);
    disk.set_fault(Some(Fault::NoSpace));
    let refused = (0..RECORDS).find_map(|n| {
        let put = vec![Change::Put(key(n), record(n))];
        subject.journal.write(put, true).err().map(|error| (n, error))
    });
    let (acknowledged, error) = refused.unwrap();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    let has_all = |subject: &Subject| (0..acknowledged).all(|n| subject.get(&key(n)) == Some(record(n)));
    assert!(
        acknowledged > 10 && has_all(&subject),
        "{acknowledged} were acknowledged"
    );
    for disk in after_any_end(&disk) {
        disk.set_fault(Some(Fault::NoSpace));
        let mut subject = Subject::open_with(&disk, 0, BYTES_MAX);
        assert!(
            has_all(&subject),
            "what is in the log is read though the database is full"
        );
        disk.set_fault(None);
        subject.journal.write(vec![Change::Remove(key(RECORDS))], true).unwrap();
        assert!(has_all(&subject));
        drop(subject);
        assert!(has_all(&Subject::open_with(&disk, 0, BYTES_MAX)));
    }
}

/// A write that a power cut tore had a whole entry behind a torn one. When the torn one is written again, byte for byte, the other one must not
/// come back with it.
#[test]
fn an_entry_that_was_lost_does_not_come_back() {
    let disk = disk(1);
    let mut subject = Subject::open(&disk, 0);
    subject
        .journal
        .write(vec![put(0, "torn"), put(1, "whole")], false)
        .unwrap();
    let disk = disk.after_kill();
    disk.flip(&Path::new(DIR).join("records.log"), 0);
    let mut subject = Subject::open(&disk, 0);
    assert!(subject.holds(&Model::new()));
    subject.journal.write(vec![put(0, "torn")], true).unwrap();
    let subject = Subject::open(&disk.after_kill(), 0);
    assert!(subject.holds(&model(&[put(0, "torn")])));
}
