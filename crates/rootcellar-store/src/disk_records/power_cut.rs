//! Records on a disk that loses power before every change of it: what was synced is there, and what is there is whole.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::database::Database;
use super::format;
use super::transaction::Transaction;
use super::uses::Uses;
use super::writer::Change;
use crate::io::Disk as _;
use crate::testing::{Loss, Seeded, SimulatedDisk};
use crate::{ByteCounter, Record, RecordKind};

const WORKLOADS: u64 = 40;
const TRANSACTIONS: u64 = 12;
const KEYS: u64 = 20;
const KIND: RecordKind = RecordKind("kind");
const DIR: &str = "/store";

type Model = BTreeMap<format::Key, Option<Record>>;

fn open(disk: &SimulatedDisk) -> Database {
    let path = Path::new(DIR).join("records.redb");
    Database::open(Arc::new(disk.clone()), path, 1 << 20, ByteCounter::default()).unwrap()
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

fn apply(model: &mut Model, changes: &[Change]) {
    for change in changes {
        match change {
            Change::Put(key, record) => model.insert(key.clone(), Some(record.clone())),
            Change::Remove(key) => model.insert(key.clone(), None),
        };
    }
}

/// Whether a database holds what a model says.
fn holds(database: &Database, model: &Model) -> bool {
    (0..KEYS).all(|n| {
        let key = format::key(KIND, &n.to_be_bytes());
        let expected = model.get(&key).cloned().flatten();
        database.read(&key).unwrap() == expected
    })
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

    /// Opens each disk. It must hold one of `models`: those that were committed since the last that was synced.
    fn check(&self, models: &[Model], story: &str) -> usize {
        let disks = std::mem::take(&mut *self.disks.lock().unwrap());
        for (n, disk) in disks.iter().enumerate() {
            let database = open(disk);
            let is_one = models.iter().any(|model| holds(&database, model));
            assert!(
                is_one,
                "{story}, cut {n}: the records are those of no moment since the last sync"
            );
        }
        disks.len()
    }
}

fn run(seed: u64) -> usize {
    let mut chance = Seeded::new(seed);
    let disk = SimulatedDisk::new(chance.number());
    disk.make_dir(Path::new(DIR)).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    let database = open(&disk);
    let cuts = Cuts::of(&disk, chance.clone());
    let uses = Uses::new(0);
    let mut models = vec![Model::new()];
    let mut crashes = 0;
    for n in 0..TRANSACTIONS {
        let changes: Vec<Change> = (0..=chance.below(4)).map(|_| change(&mut chance)).collect();
        let is_synced = chance.below(2) == 0;
        let transaction = Transaction {
            changes: changes.iter().collect(),
            uses: &uses,
            bytes_max: 1 << 20,
            is_synced,
        };
        transaction.run(&database.handle("test").unwrap()).unwrap();
        let mut model = models.last().unwrap().clone();
        apply(&mut model, &changes);
        models.push(model);
        crashes += cuts.check(&models, &format!("seed {seed}, transaction {n}"));
        if is_synced {
            models.drain(..models.len() - 1);
        }
    }
    crashes
}

#[test]
fn records_survive_power_cuts_as_of_some_moment_since_the_last_sync() {
    let crashes: usize = (0..WORKLOADS).map(run).sum();
    assert!(crashes > 500, "{crashes} power cuts are too few to show anything");
}
