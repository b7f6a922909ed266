//! What every operation of a store on disk shares, and the store's beginning.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use rootcellar_digest::Digest;
use tokio::sync::Semaphore;

use super::home::{Home, opening};
use super::index::Index;
use super::loose::Loose;
use super::mark::{KernelTime, Mark};
use super::options::{DiskOptions, Durability};
use super::recover::{Past, recover};
use super::statistics::DiskStatistics;
use super::sync::{Gate, begin};
use crate::{ByteCounter, Clock, Result, Spool};

pub(super) struct Shared {
    pub(super) home: Home,
    pub(super) loose: Loose,
    pub(super) spool: Spool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) is_synced: bool,
    /// Guards the index. Never held while the disk is touched.
    index: Mutex<Index>,
    spooled: ByteCounter,
    others: ByteCounter,
    bytes_max: u64,
    /// Turns on the disk.
    jobs: Arc<Semaphore>,
    /// Guards whether puts are accepted: read by those who publish while they do, written to stop them.
    pub(super) gate: RwLock<Gate>,
    /// Guards the sync mark's file, and knows what it says. Held while syncing.
    pub(super) mark: Mutex<Mark>,
    /// What the mark will say once the sync under way has ended, else what it says. Held for moments.
    pub(super) began: Mutex<KernelTime>,
    /// Whether something was published since the last sync began.
    pub(super) is_dirty: AtomicBool,
}

impl Shared {
    /// Blocks.
    pub(super) fn open(dir: &Path, options: DiskOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let home = Home::claim(dir)?;
        let (root, tmp) = (dir.join("loose"), dir.join("tmp"));
        fs::create_dir_all(&root).map_err(|error| opening(dir, "making loose/", error))?;
        empty(&tmp).map_err(|error| opening(dir, "emptying tmp/", error))?;
        let is_synced = options.durability == Durability::Always;
        let loose = Loose::new(root, tmp.clone());
        let past = Past::read(&home).map_err(|error| opening(dir, "reading the sync mark", error))?;
        let index = restore(&home, &loose, &options, &past, clock.now())?;
        let is_durable = index.blobs() == 0 || past.covers_everything();
        let mark = begin(&home, past.boot, is_synced, is_durable)
            .map_err(|error| opening(dir, "syncing for the first time", error))?;
        let spooled = ByteCounter::default();
        Ok(Self {
            spool: Spool::new(tmp).counted(spooled.clone(), options.bytes_max),
            loose,
            clock,
            is_synced,
            index: Mutex::new(index),
            spooled,
            others: options.others,
            bytes_max: options.bytes_max,
            jobs: Arc::new(Semaphore::new(options.jobs_max)),
            gate: RwLock::new(Gate::Open),
            began: Mutex::new(mark.began),
            mark: Mutex::new(mark),
            is_dirty: AtomicBool::new(false),
            home,
        })
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        // Its own assertions aside, no code that holds the lock can stop halfway.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `work` where it may block. It runs to its end even if the caller goes away.
    pub(super) async fn hop<T: Send + 'static>(self: &Arc<Self>, work: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let turn = self.jobs.clone().acquire_owned().await;
        let turn = turn.expect("the semaphore is never closed");
        let shared = self.clone();
        let job = move || {
            let done = work(&shared);
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(job)
            .await
            .expect("work on the disk does not panic, and the runtime outlives its tasks")
    }

    /// Bytes under the directory that the index does not know of.
    pub(super) fn other_bytes(&self) -> u64 {
        self.spooled.bytes().saturating_add(self.others.bytes())
    }

    /// Writes uses to the files' times, for the next start. Blocks.
    pub(super) fn write_uses(&self) {
        let stale = self.index().take_stale();
        for (digest, used) in stale {
            if let Err(error) = self.loose.touch(digest, used) {
                tracing::debug!(%digest, %error, "a use is not remembered across a restart");
            }
        }
    }

    /// Brings the store back under its bound when others have grown. Blocks.
    pub(super) fn trim(&self) {
        let others = self.other_bytes();
        let victims = self.index().reserve(0, others, self.clock.now());
        match victims {
            Ok(victims) => self.remove_victims(victims),
            Err(reason) => tracing::debug!(?reason, "the store is over its bound and cannot evict"),
        }
    }

    /// Removes the files of blobs that the index has given up, and ends the claims on them.
    pub(super) fn remove_victims(&self, victims: Vec<Digest>) {
        for victim in victims {
            if let Err(error) = self.loose.remove(victim) {
                tracing::error!(digest = %victim, %error, "an evicted blob's file stays");
            }
            self.index().release(victim);
        }
    }

    pub(super) fn statistics(&self) -> DiskStatistics {
        let index = self.index();
        let counters = &index.counters;
        DiskStatistics {
            blobs: index.blobs(),
            bytes: index.bytes(),
            leased_bytes: index.leased_bytes(),
            spooled_bytes: self.spooled.bytes(),
            other_bytes: self.others.bytes(),
            bytes_max: self.bytes_max,
            evicted_blobs: counters.evicted_blobs,
            evicted_bytes: counters.evicted_bytes,
            evicted_early_blobs: counters.evicted_early_blobs,
            shortest_lifetime: counters.shortest_lifetime,
            damaged_blobs: counters.damaged_blobs,
            odd_files: counters.odd_files,
        }
    }

    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_max
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("home", &self.home)
            .finish_non_exhaustive()
    }
}

fn empty(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir(dir)
}

fn restore(home: &Home, loose: &Loose, options: &DiskOptions, past: &Past, now: SystemTime) -> Result<Index> {
    let recovered = recover(loose, past)?;
    let mut index = Index::new(options);
    index.counters.damaged_blobs = recovered.torn;
    index.counters.odd_files = recovered.odd_files;
    for (digest, used) in recovered.blobs {
        index.restore(digest, used, now);
    }
    tracing::info!(
        dir = %home.path().display(),
        blobs = index.blobs(),
        bytes = index.bytes(),
        dropped = recovered.torn,
        "opened a store"
    );
    Ok(index)
}
