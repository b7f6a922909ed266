//! The storage of the server, made of what the configuration says.
//!
//! ```text
//!   configuration ── build ──> blobs      what the services serve
//!                              local      the same, if its files are on this machine: what input roots are staged from
//!                              records    of assets, and of action results unless another server keeps those
//! ```

#[cfg(feature = "bucket")]
mod bucket;
mod build;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rootcellar_reapi::{ActionCache, ActionCacheOptions};
use rootcellar_store::io::{Disk as _, OsDisk};
use rootcellar_store::{
    BlobStore, Clock, DiskRecords, DiskStore, Inventory, LocalStore, MemoryRecords, Observed, Pending, Records,
    Sharded, Spool, SystemClock, Tiered,
};
use tokio::task::JoinHandle;

pub(crate) use self::build::build_sharded;
use self::build::{Built, Node};
use crate::config::Config;

/// Notes on results that another server keeps, where there is no disk for them.
const NOTES_BYTES_MAX: u64 = 64 << 20;

/// What the server keeps.
pub(crate) struct Storage {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) blobs: Arc<dyn BlobStore>,
    pub(crate) local: Option<Arc<dyn LocalStore>>,
    pub(crate) inventory: Option<Arc<dyn Inventory>>,
    pub(crate) records: Arc<dyn Records>,
    pub(crate) cache: Arc<ActionCache>,
    /// Where uploads go first.
    pub(crate) spool: Spool,
    closers: Vec<Closer>,
    _front_dir: Option<FrontDir>,
    reporter: Option<JoinHandle<()>>,
}

impl Storage {
    /// Opens all of it.
    pub(crate) async fn open(config: &Config, cache_options: ActionCacheOptions) -> anyhow::Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let Built {
            node,
            results_behind,
            spool,
            mut closers,
            mut observed,
            front_dir,
        } = build::build(config, &config.storage, clock.clone()).await?;
        let Node {
            store,
            local,
            inventory,
            records,
            notes,
            upstream,
        } = node;
        let cache = match upstream {
            None => ActionCache::new(records.clone(), store.clone(), cache_options),
            Some(upstream) => {
                let in_memory = || Arc::new(MemoryRecords::new(NOTES_BYTES_MAX, clock.clone())) as _;
                let notes = notes.unwrap_or_else(in_memory);
                let cache = ActionCache::new(notes, store.clone(), cache_options);
                match &results_behind {
                    None => cache.with_upstream(upstream.results),
                    Some(options) => {
                        let list = options.list.display().to_string();
                        let cache = cache
                            .with_upstream_behind(upstream.results, upstream.tiers, options)
                            .await;
                        cache.context(list)?
                    }
                }
            }
        };
        let cache = Arc::new(cache.with_clock(clock.clone()));
        observed.push(("action cache".to_owned(), Seen::Results(cache.clone())));
        // What was opened last is closed first: it stands on the others.
        closers.reverse();
        Ok(Self {
            clock: clock.clone(),
            reporter: config
                .statistics
                .map(|interval| tokio::spawn(report(observed, interval))),
            blobs: store,
            local,
            inventory,
            records,
            cache,
            spool,
            closers,
            _front_dir: front_dir,
        })
    }

    /// Closes all of it.
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        if let Some(reporter) = &self.reporter {
            reporter.abort();
        }
        if let Some(behind) = self.cache.behind_statistics().filter(|behind| behind.results > 0) {
            tracing::info!(
                "{} action results are still to be written to the upstream cache, after the next start",
                behind.results
            );
        }
        self.cache.close().await;
        for closer in &self.closers {
            closer.close().await?;
        }
        Ok(())
    }
}

/// Something that has to be ended in order.
pub(crate) enum Closer {
    Disk(Arc<DiskStore>),
    Records(Arc<DiskRecords>),
    Tiered(Arc<dyn EndTiered>),
    Sharded(Arc<Sharded>),
}

/// A tiered store over whatever fast one.
#[async_trait::async_trait]
pub(crate) trait EndTiered: Send + Sync {
    async fn end(&self);
}

#[async_trait::async_trait]
impl<F: BlobStore + ?Sized> EndTiered for Tiered<F> {
    async fn end(&self) {
        if let Some(behind) = self.behind().filter(|behind| behind.blobs > 0) {
            tracing::info!(
                "{} blobs are still to be written to the slow store, after the next start",
                behind.blobs
            );
        }
        self.close().await;
    }
}

impl Closer {
    pub(crate) async fn close(&self) -> anyhow::Result<()> {
        match self {
            Self::Disk(disk) => disk.close().await.with_context(|| format!("closing {disk}")),
            Self::Records(records) => records.close().await.with_context(|| format!("closing {records}")),
            Self::Tiered(tiered) => {
                tiered.end().await;
                Ok(())
            }
            Self::Sharded(sharded) => {
                sharded.close().await;
                Ok(())
            }
        }
    }
}

/// What is seen of a store, by its place in the configuration.
pub(crate) enum Seen {
    Store(Arc<Observed<dyn BlobStore>>),
    #[cfg(feature = "bucket")]
    Bucket(rootcellar_store::bucket::Bucket),
    Tiered(Arc<Tiered>),
    Sharded(Arc<Sharded>),
    Results(Arc<ActionCache>),
}

/// Writes into the log what was asked of each store, again and again.
async fn report(observed: Vec<(String, Seen)>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        for (path, seen) in &observed {
            match seen {
                Seen::Store(store) => tracing::info!("{path}: {}", store.statistics()),
                #[cfg(feature = "bucket")]
                Seen::Bucket(bucket) => tracing::info!("{path}: requests to the service: {:?}", bucket.requests()),
                Seen::Tiered(tiered) => {
                    if let Some(behind) = tiered.behind() {
                        tracing::info!("{path}: written behind: {behind:?}");
                    }
                }
                Seen::Sharded(sharded) => tracing::info!("{path}: {:?}", sharded.statistics()),
                Seen::Results(cache) => {
                    if let Some(behind) = cache.behind_statistics() {
                        tracing::info!("{path}: written behind: {behind:?}");
                    }
                }
            }
        }
    }
}

/// Of the files that list what is still to be copied.
const LIST_EXTENSION: &str = "pending";

/// A directory of the server's own, beside what a disk in the same place has: uploads where there is no disk for them, and lists of what is
/// still to be done. One process has it at a time.
pub(crate) struct FrontDir {
    dir: PathBuf,
    /// The lists that somebody works on.
    lists: HashSet<PathBuf>,
    _lock: Box<dyn std::fmt::Debug + Send + Sync>,
}

impl FrontDir {
    /// Takes the directory, which is made if it is not there.
    fn open(server_dir: &Path) -> anyhow::Result<Self> {
        let dir = Self::within(server_dir);
        OsDisk.make_dir(&dir).with_context(|| dir.display().to_string())?;
        let lock = OsDisk.lock(&dir.join("lock"));
        let _lock = lock.with_context(|| format!("{}: does another server use it?", dir.display()))?;
        Ok(Self {
            dir,
            lists: HashSet::new(),
            _lock,
        })
    }

    fn within(server_dir: &Path) -> PathBuf {
        server_dir.join("front")
    }

    /// Where uploads go. What an earlier process left there goes.
    fn spool(&self) -> anyhow::Result<Spool> {
        let spool = self.dir.join("tmp");
        let prepare = || {
            if spool.exists() {
                std::fs::remove_dir_all(&spool)?;
            }
            OsDisk.make_dir(&spool)
        };
        prepare().with_context(|| spool.display().to_string())?;
        Ok(Spool::new(spool))
    }

    /// The file of a list, named for its place in the configuration.
    fn list(&mut self, path: &str) -> PathBuf {
        let list = self.dir.join(format!("{}.{LIST_EXTENSION}", path.replace('/', "_")));
        self.lists.insert(list.clone());
        list
    }

    /// Tells of lists that nobody works on any more: what is on them was acknowledged.
    fn tell_of_forgotten_lists(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(&self.dir).with_context(|| self.dir.display().to_string())? {
            let path = entry?.path();
            if path.extension() != Some(OsStr::new(LIST_EXTENSION)) || self.lists.contains(&path) {
                continue;
            }
            let waiting = Pending::open(Arc::new(OsDisk), &path, false)?.all().len();
            if waiting > 0 {
                tracing::error!(
                    list = %path.display(),
                    waiting,
                    "what is listed here was acknowledged and is still to be copied, and with this configuration nobody does it: start with the \
                     earlier one until it is done, or remove the list"
                );
            }
        }
        Ok(())
    }
}
