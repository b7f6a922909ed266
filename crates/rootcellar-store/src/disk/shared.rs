//! What every operation of a store on disk shares, and the store's beginning and end.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use rootcellar_digest::Digest;
use tokio::sync::Semaphore;

use super::home::{Home, opening};
use super::index::Index;
use super::loose::Loose;
use super::mark::{self, KernelTime, Mark, State};
use super::options::{DiskOptions, Durability};
use super::recover::{Past, recover};
use super::statistics::DiskStatistics;
use crate::{ByteCounter, Clock, Error, ErrorKind, Result, Spool};

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
    gate: RwLock<Gate>,
    /// Guards the sync mark's file, and knows what it says. Held while syncing.
    mark: Mutex<Mark>,
    /// What the mark will say once the sync under way has ended, else what it says. Held for moments.
    began: Mutex<KernelTime>,
    /// Whether something was published since the last sync began.
    is_dirty: AtomicBool,
}

/// Whether puts are accepted.
#[derive(Debug)]
pub(super) enum Gate {
    Open,
    /// No, and the reason.
    Shut(ErrorKind, String),
}

impl Gate {
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Open => Ok(()),
            Self::Shut(kind, reason) => Err(Error::new(*kind, "put", reason.clone())),
        }
    }
}

impl Shared {
    /// Blocks.
    pub(super) fn open(dir: &Path, options: DiskOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let home = Home::claim(dir)?;
        let (root, tmp) = (dir.join("loose"), dir.join("tmp"));
        fs::create_dir_all(&root).map_err(|error| opening(dir, "making loose/", error))?;
        empty(&tmp).map_err(|error| opening(dir, "emptying tmp/", error))?;
        let is_synced = options.durability == Durability::Always;
        let loose = Loose::new(root, tmp.clone(), is_synced);
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

    pub(super) fn gate(&self) -> RwLockReadGuard<'_, Gate> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
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

    /// Says that there is something to sync.
    pub(super) fn set_dirty(&self) {
        self.is_dirty.store(true, Ordering::Release);
    }

    /// Syncs what was published since the last time, if anything was. Blocks. Puts are refused if it fails.
    pub(super) fn sync_dirty(&self) {
        if !self.is_dirty.swap(false, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = self.sync(State::Open) {
            self.shut_after_failed_sync(&error);
        }
    }

    fn sync(&self, state: State) -> io::Result<()> {
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        let began = mark::kernel_time(&self.home)?;
        // Before the sync begins: who does not see this time has published before, and is synced.
        *self.began() = began;
        self.home.sync_filesystem()?;
        let next = Mark {
            began,
            state,
            ..mark.clone()
        };
        next.write(&self.home)?;
        *mark = next;
        Ok(())
    }

    /// Keeps the mark honest about a file published at `changed`, even if the kernel's clock was set back since the mark.
    pub(super) fn keep_mark_before(&self, changed: KernelTime) -> io::Result<()> {
        if changed >= *self.began() {
            return Ok(());
        }
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        if changed >= mark.began {
            return Ok(());
        }
        let next = Mark {
            began: changed,
            ..mark.clone()
        };
        next.write(&self.home)?;
        *mark = next;
        *self.began() = changed;
        Ok(())
    }

    fn began(&self) -> MutexGuard<'_, KernelTime> {
        self.began.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses puts until the next start, because what is on the disk is not known any more.
    pub(super) fn shut_after_failed_sync(&self, error: &io::Error) {
        let dir = self.home.path().display();
        let reason = format!("{dir} could not be synced ({error}); look at the disk, then restart the store");
        tracing::error!("no more puts are acknowledged: {reason}");
        self.shut(ErrorKind::Internal, reason);
        let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        mark.state = State::Failed;
        if let Err(error) = mark.write(&self.home) {
            tracing::error!(%error, "the next start will not know that this sync failed");
        }
    }

    fn shut(&self, kind: ErrorKind, reason: String) {
        let mut gate = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        if let Gate::Open = *gate {
            *gate = Gate::Shut(kind, reason);
        }
    }

    /// Waits for puts under way, refuses later ones, and syncs. Blocks.
    pub(super) fn close(&self) -> Result<()> {
        self.shut(ErrorKind::Unavailable, "the store is closed".to_owned());
        if let Gate::Shut(ErrorKind::Internal, reason) = &*self.gate() {
            return Err(Error::new(ErrorKind::Internal, "close", reason.clone()));
        }
        self.write_uses();
        self.sync(State::Clean)
            .map_err(|error| Error::io("close", format!("syncing {}", self.home.path().display()), error))
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

/// Makes all that is there durable, if it is not, and says so.
fn begin(home: &Home, boot: String, is_synced: bool, is_durable: bool) -> io::Result<Mark> {
    let began = mark::kernel_time(home)?;
    if !is_durable {
        home.sync_filesystem()?;
    }
    let mark = Mark {
        boot,
        began,
        state: State::Open,
        is_synced,
    };
    mark.write(home)?;
    Ok(mark)
}
