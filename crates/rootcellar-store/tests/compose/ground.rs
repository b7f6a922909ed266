//! What the stores under test are made of.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rootcellar_store::testing::{Faulty, Persistent};
use rootcellar_store::{
    BlobStore, Checked, DiskOptions, DiskStore, Durability, LocalStore, MemoryStore, Spool, SystemClock, Tiered,
    TieredOptions,
};

/// One operation in so many goes wrong.
pub(crate) const ONE_IN: u64 = 7;

/// Makes things in a directory that goes with it.
pub(crate) struct Ground {
    dir: tempfile::TempDir,
    next: AtomicU64,
    faulty: Mutex<Vec<Arc<Faulty<MemoryStore>>>>,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            next: AtomicU64::new(1),
            faulty: Mutex::default(),
        }
    }

    /// A path that nobody else was given.
    pub(crate) fn path(&self) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(number.to_string())
    }

    pub(crate) fn spool(&self) -> Spool {
        let path = self.path();
        std::fs::create_dir(&path).unwrap();
        Spool::new(path)
    }

    pub(crate) async fn disk(&self, bytes_max: u64) -> Arc<DiskStore> {
        self.disk_at(self.path(), bytes_max).await
    }

    pub(crate) async fn disk_at(&self, path: PathBuf, bytes_max: u64) -> Arc<DiskStore> {
        let options = DiskOptions {
            bytes_max,
            durability: Durability::None,
            ..DiskOptions::default()
        };
        Arc::new(DiskStore::open(path, options, Arc::new(SystemClock)).await.unwrap())
    }

    /// A store that fails now and then, and does not tell damage from what it should be.
    pub(crate) fn faulty(&self, bytes_max: u64) -> Arc<Faulty<MemoryStore>> {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        let faulty = Arc::new(Faulty::new(memory(bytes_max), seed, ONE_IN));
        self.faulty.lock().unwrap().push(faulty.clone());
        faulty
    }

    /// How much went wrong on this ground so far.
    pub(crate) fn injected(&self) -> u64 {
        self.faulty.lock().unwrap().iter().map(|store| store.injected()).sum()
    }

    /// The same behind a check of what is read, as what comes from a network always is.
    pub(crate) fn unreliable(&self, bytes_max: u64) -> Arc<dyn BlobStore> {
        Arc::new(Checked::new(self.faulty(bytes_max)))
    }

    pub(crate) fn tiered(&self, fast: Arc<dyn LocalStore>, slow: Arc<dyn BlobStore>) -> Tiered {
        let spool = fast.spool().clone();
        Tiered::new(fast, slow, spool, &TieredOptions::default(), Arc::new(SystemClock))
    }
}

pub(crate) fn memory(bytes_max: u64) -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(bytes_max))
}

pub(crate) fn persistent(store: impl BlobStore) -> Arc<dyn BlobStore> {
    Arc::new(Persistent::new(Arc::new(store)))
}
