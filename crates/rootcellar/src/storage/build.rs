//! From a storage as it is configured to stores, from the leaves up.

use std::num::{NonZero, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use rootcellar_grpc::client::{ActionCache as RemoteActionCache, Endpoint, Remote, RemoteRecords, Retry};
use rootcellar_reapi::{ActionResults, ResultsBehindOptions, UpstreamBlobs};
use rootcellar_store::layout::kind_named;
use rootcellar_store::{
    BehindOptions, BlobStore, ByteCounter, Clock, DiskOptions, DiskRecords, DiskStore, Durability, ExistenceCached,
    Inventory, Limited, Limits, LocalStore, MemoryRecords, MemoryStore, Observed, PresenceOptions, RecordShard,
    Records, RecordsOptions, Scrub, Shard, Sharded, ShardedOptions, ShardedRecords, Spool, Tiered, TieredOptions,
    WhenFull,
};

use super::{Closer, FrontDir, Seen};
use crate::config::storage::{self, Storage, Write};
use crate::config::{self, Config, DiskSettings};

/// Of memory that is a store, so much is for its records.
const MEMORY_RECORDS_PART: u64 = 16;
/// How much may wait to be written behind, if nothing else is said.
const BEHIND_BYTES_MAX: u64 = 4 << 30;
/// Where there are other shards, nobody waits for one that does not answer.
const SHARD_ATTEMPTS_MAX: u32 = 2;

/// A store, and what belongs to it.
pub(crate) struct Node {
    pub(crate) store: Arc<dyn BlobStore>,
    /// The same, if its files are on this machine.
    pub(crate) local: Option<Arc<dyn LocalStore>>,
    /// The same, if it tells what it holds.
    pub(crate) inventory: Option<Arc<dyn Inventory>>,
    /// Records beside it, shared with all who use it.
    pub(crate) records: Arc<dyn Records>,
    /// Records that are this process's own.
    pub(crate) notes: Option<Arc<dyn Records>>,
    /// The action results of another server.
    pub(crate) upstream: Option<UpstreamResults>,
}

/// The action results of another server, and what lies between.
pub(crate) struct UpstreamResults {
    pub(crate) results: Arc<dyn ActionResults>,
    /// The tiers on the way, the nearest one first.
    pub(crate) tiers: Vec<Arc<dyn UpstreamBlobs>>,
    /// The nearest tier that writes blobs behind, if there is one: its place, and how. Results are written behind as it says.
    behind: Option<(String, BehindOptions)>,
}

/// A storage that was made.
pub(crate) struct Built {
    pub(crate) node: Node,
    /// How results are written behind to another server, if they are.
    pub(crate) results_behind: Option<ResultsBehindOptions>,
    pub(crate) spool: Spool,
    /// What has to be closed, what stands on others behind them.
    pub(crate) closers: Vec<Closer>,
    pub(crate) observed: Vec<(String, Seen)>,
    pub(crate) front_dir: Option<FrontDir>,
}

/// Makes a storage.
pub(crate) async fn build(config: &Config, storage: &Storage, clock: Arc<dyn Clock>) -> anyhow::Result<Built> {
    let mut builder = Builder::new(config, clock, Lists::Kept);
    let node = builder.node(storage, "storage".to_owned(), false).await?;
    let spool = match &node.local {
        Some(local) => local.spool().clone(),
        None => builder.spool()?,
    };
    let results_behind = match node.upstream.as_ref().and_then(|upstream| upstream.behind.as_ref()) {
        Some((path, behind)) => {
            let list = builder.front_dir()?.list(&format!("{path}.results"));
            let options = ResultsBehindOptions::new(list);
            Some(options.with_patience(behind.patience).synced(behind.is_synced))
        }
        None => None,
    };
    if FrontDir::within(&config.dir).exists() {
        builder.front_dir()?.tell_of_forgotten_lists()?;
    }
    Ok(Built {
        node,
        results_behind,
        spool,
        closers: builder.closers,
        observed: builder.observed,
        front_dir: builder.front_dir,
    })
}

/// Makes the first sharded store in a storage, for who wants to move its blobs; `None` if there is none. Nothing in the server's directory
/// is used: the server may be running. What is copied goes through `spool`.
pub(crate) async fn build_sharded(
    config: &Config,
    clock: Arc<dyn Clock>,
    spool: Spool,
) -> anyhow::Result<Option<(Arc<Sharded>, Vec<Closer>)>> {
    let Some((sharded, path)) = find_sharded(&config.storage, "storage".to_owned()) else {
        return Ok(None);
    };
    let mut builder = Builder::new(config, clock, Lists::InMemory);
    builder.spool = Some(spool);
    let (sharded, _) = builder.shards(sharded, &path).await?;
    builder.closers.reverse();
    Ok(Some((sharded, builder.closers)))
}

fn find_sharded(storage: &Storage, path: String) -> Option<(&storage::Sharded, String)> {
    match storage {
        Storage::Sharded(sharded) => Some((sharded, path + ".sharded")),
        Storage::Tiered(tiered) => find_sharded(&tiered.slow, path + ".tiered.slow"),
        Storage::ExistenceCached(cached) => find_sharded(&cached.store, path + ".existence_cached.store"),
        Storage::Limited(limited) => find_sharded(&limited.store, path + ".limited.store"),
        Storage::Disk(_) | Storage::Memory(_) | Storage::Bucket(_) | Storage::Remote(_) => None,
    }
}

/// The disk that uploads go to first, if there is one: of a tiered storage the fast one.
fn upload_disk(storage: &Storage) -> Option<&storage::Disk> {
    match storage {
        Storage::Disk(disk) => Some(disk),
        Storage::Tiered(tiered) => upload_disk(&tiered.fast),
        _ => None,
    }
}

/// Where it is noted what is still to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lists {
    Kept,
    InMemory,
}

struct Builder<'a> {
    config: &'a Config,
    clock: Arc<dyn Clock>,
    lists: Lists,
    /// `None` until something is needed of it: a disk may lie in the directory around it, and wants to make that itself.
    front_dir: Option<FrontDir>,
    /// What is copied between stores that are no disks goes through it.
    spool: Option<Spool>,
    closers: Vec<Closer>,
    observed: Vec<(String, Seen)>,
}

impl<'a> Builder<'a> {
    fn new(config: &'a Config, clock: Arc<dyn Clock>, lists: Lists) -> Self {
        Self {
            config,
            clock,
            lists,
            front_dir: None,
            spool: None,
            closers: Vec::new(),
            observed: Vec::new(),
        }
    }

    fn front_dir(&mut self) -> anyhow::Result<&mut FrontDir> {
        if self.front_dir.is_none() {
            self.front_dir = Some(FrontDir::open(&self.config.dir)?);
        }
        Ok(self.front_dir.as_mut().expect("it was opened just now if it was not"))
    }

    fn spool(&mut self) -> anyhow::Result<Spool> {
        if let Some(spool) = &self.spool {
            return Ok(spool.clone());
        }
        let spool = self.front_dir()?.spool()?;
        self.spool = Some(spool.clone());
        Ok(spool)
    }

    /// Makes a store. `path` is its place in the configuration.
    fn node<'b>(
        &'b mut self,
        storage: &'b Storage,
        path: String,
        is_shard: bool,
    ) -> BoxFuture<'b, anyhow::Result<Node>> {
        async move {
            match storage {
                Storage::Disk(disk) => self.disk(disk).await,
                Storage::Memory(memory) => Ok(self.memory(memory)),
                Storage::Bucket(bucket) => self.bucket(bucket, path + ".bucket").await,
                Storage::Remote(remote) => self.remote(remote, path + ".remote", is_shard),
                Storage::Tiered(tiered) => self.tiered(tiered, path + ".tiered").await,
                Storage::Sharded(sharded) => self.sharded(sharded, path + ".sharded").await,
                Storage::ExistenceCached(cached) => self.existence_cached(cached, path + ".existence_cached").await,
                Storage::Limited(limited) => self.limited(limited, path + ".limited").await,
            }
        }
        .boxed()
    }

    fn observe(&mut self, path: String, store: Arc<dyn BlobStore>) -> Arc<dyn BlobStore> {
        let observed = Arc::new(Observed::new(store));
        self.observed.push((path, Seen::Store(observed.clone())));
        observed
    }

    async fn disk(&mut self, disk: &storage::Disk) -> anyhow::Result<Node> {
        let settings = self.config.disk.with(disk)?;
        let opening = || format!("opening the store in {}", settings.dir.display());
        let others = ByteCounter::default();
        let options = disk_options(&settings, others.clone()).with_context(opening)?;
        let store = DiskStore::open(&settings.dir, options, self.clock.clone())
            .await
            .with_context(opening)?;
        let store = Arc::new(store);
        self.closers.push(Closer::Disk(store.clone()));
        let options = RecordsOptions {
            durability: durability(&settings),
            file_bytes: others,
            ..RecordsOptions::default()
        };
        let file = settings.dir.join("records.redb");
        let records = Arc::new(
            DiskRecords::open(file, options, self.clock.clone())
                .await
                .with_context(opening)?,
        );
        self.closers.push(Closer::Records(records.clone()));
        Ok(Node {
            store: store.clone(),
            local: Some(store.clone()),
            inventory: Some(store),
            records: records.clone(),
            notes: Some(records),
            upstream: None,
        })
    }

    fn memory(&self, memory: &storage::Memory) -> Node {
        let records_bytes = memory.max_size.0 / MEMORY_RECORDS_PART;
        let store = Arc::new(MemoryStore::new(memory.max_size.0 - records_bytes));
        Node {
            store: store.clone(),
            local: None,
            inventory: Some(store),
            records: Arc::new(MemoryRecords::new(records_bytes, self.clock.clone())),
            notes: None,
            upstream: None,
        }
    }

    #[cfg(feature = "bucket")]
    async fn bucket(&mut self, settings: &storage::Bucket, path: String) -> anyhow::Result<Node> {
        let bucket = super::bucket::open(settings, self.clock.clone())
            .await
            .with_context(|| path.clone())?;
        self.observed.push((path.clone(), Seen::Bucket(bucket.clone())));
        Ok(Node {
            records: Arc::new(bucket.records()),
            inventory: Some(Arc::new(bucket.clone())),
            store: self.observe(path, Arc::new(bucket)),
            local: None,
            notes: None,
            upstream: None,
        })
    }

    #[cfg(not(feature = "bucket"))]
    #[expect(clippy::unused_async, reason = "it is awaited where there are buckets")]
    async fn bucket(&mut self, _settings: &storage::Bucket, path: String) -> anyhow::Result<Node> {
        anyhow::bail!("{path}: this program was built without buckets: build it with --features bucket")
    }

    fn remote(&mut self, remote: &storage::Remote, path: String, is_shard: bool) -> anyhow::Result<Node> {
        let mut retry = Retry::default();
        let attempts_max = remote.attempts_max.or(is_shard.then_some(SHARD_ATTEMPTS_MAX));
        retry.attempts_max = attempts_max.unwrap_or(retry.attempts_max);
        let endpoint = Endpoint::parse(&remote.url, &remote.instance).with_context(|| path.clone())?;
        // It may come and go, and need not be there yet.
        let connection = endpoint.with_retry(retry).connect_lazily();
        let store = Remote::new(connection.clone());
        Ok(Node {
            records: Arc::new(RemoteRecords::new(connection.clone(), self.clock.clone())),
            upstream: Some(UpstreamResults {
                results: Arc::new(RemoteActionCache::new(connection)),
                tiers: Vec::new(),
                behind: None,
            }),
            inventory: Some(Arc::new(store.clone())),
            store: self.observe(path, Arc::new(store)),
            local: None,
            notes: None,
        })
    }

    async fn tiered(&mut self, settings: &storage::Tiered, path: String) -> anyhow::Result<Node> {
        let fast = self.node(&settings.fast, path.clone() + ".fast", false).await?;
        let mut slow = self.node(&settings.slow, path.clone() + ".slow", false).await?;
        let mut options = TieredOptions::default();
        options.fills_max = settings.fills_max.unwrap_or(options.fills_max);
        if let Some(seconds) = settings.tell_uses_after_seconds {
            options.tell_uses_after = Duration::from_secs(seconds);
        }
        let (store, local): (Arc<dyn BlobStore>, _) = match fast.local {
            Some(local) => {
                let spool = local.spool().clone();
                let mut tiered = Tiered::new(local, slow.store, spool, &options, self.clock.clone());
                let is_behind = settings.write == Some(Write::Behind);
                let behind = self.behind_options(settings)?;
                if is_behind {
                    let list = self.front_dir()?.list(&path);
                    let written_behind = tiered.write_behind(&list, behind.clone()).await;
                    tiered = written_behind.context(path.clone())?;
                }
                let tiered = Arc::new(tiered);
                if let Some(upstream) = &mut slow.upstream {
                    upstream.tiers.insert(0, tiered.clone());
                    if is_behind {
                        upstream.behind = Some((path.clone(), behind));
                    }
                }
                self.closers.push(Closer::Tiered(tiered.clone()));
                self.observed.push((path.clone(), Seen::Tiered(tiered.clone())));
                (tiered.clone(), Some(tiered as Arc<dyn LocalStore>))
            }
            None => {
                let spool = self.spool()?;
                let tiered = Arc::new(Tiered::new(fast.store, slow.store, spool, &options, self.clock.clone()));
                if let Some(upstream) = &mut slow.upstream {
                    upstream.tiers.insert(0, tiered.clone());
                }
                self.closers.push(Closer::Tiered(tiered.clone()));
                (tiered, None)
            }
        };
        Ok(Node {
            store: self.observe(path, store),
            local,
            inventory: slow.inventory,
            records: slow.records,
            notes: fast.notes.or(slow.notes),
            upstream: slow.upstream,
        })
    }

    fn behind_options(&self, settings: &storage::Tiered) -> anyhow::Result<BehindOptions> {
        let fast = match upload_disk(&settings.fast) {
            Some(disk) => self.config.disk.with(disk)?,
            None => self.config.disk.clone(),
        };
        let usual = BEHIND_BYTES_MAX.min(fast.max_size.0 / 4);
        let bytes_max = settings.behind_max_size.map_or(usual, |size| size.0);
        let mut options = BehindOptions::default()
            .with_bytes_max(bytes_max)
            .synced(fast.durability == config::Durability::Always);
        options.blobs_max = settings.behind_max_blobs.unwrap_or(options.blobs_max);
        if let Some(seconds) = settings.behind_patience_seconds {
            options.patience = Duration::from_secs(seconds);
        }
        Ok(options)
    }

    async fn sharded(&mut self, settings: &storage::Sharded, path: String) -> anyhow::Result<Node> {
        let (sharded, records) = self.shards(settings, &path).await?;
        self.observed.push((path.clone(), Seen::Sharded(sharded.clone())));
        Ok(Node {
            store: self.observe(path, sharded),
            local: None,
            inventory: None,
            records,
            notes: None,
            upstream: None,
        })
    }

    async fn shards(
        &mut self,
        settings: &storage::Sharded,
        path: &str,
    ) -> anyhow::Result<(Arc<Sharded>, Arc<dyn Records>)> {
        let (mut shards, mut records) = (Vec::new(), Vec::new());
        for (name, storage) in &settings.shards {
            let node = self.node(storage, format!("{path}.shards.{name}"), true).await?;
            let weight = settings.weights.get(name).copied().unwrap_or(1.0);
            shards.push(Shard {
                name: name.clone(),
                weight,
                store: node.store,
                inventory: node.inventory,
            });
            records.push(RecordShard {
                name: name.clone(),
                weight,
                records: node.records,
            });
        }
        let mut options = ShardedOptions::default();
        options.replicas = settings.replicas.unwrap_or(options.replicas);
        options.look_further = settings.look_further.unwrap_or(options.look_further);
        if let Some(seconds) = settings.patience_seconds {
            options.patience = Duration::from_secs(seconds);
        }
        let records = ShardedRecords::new(records, options.replicas, options.patience, self.clock.clone());
        let records = records.with_context(|| path.to_owned())?;
        let spool = self.spool()?;
        let sharded = match self.lists {
            Lists::Kept => {
                let list = self.front_dir()?.list(path);
                Sharded::with_list(shards, spool, options, &list)
            }
            Lists::InMemory => Sharded::new(shards, spool, options),
        };
        let sharded = sharded.with_context(|| path.to_owned())?;
        let sharded = Arc::new(sharded);
        self.closers.push(Closer::Sharded(sharded.clone()));
        Ok((sharded, Arc::new(records)))
    }

    async fn existence_cached(&mut self, settings: &storage::ExistenceCached, path: String) -> anyhow::Result<Node> {
        let node = self.node(&settings.store, path + ".store", false).await?;
        let mut options = PresenceOptions::default();
        if let Some(seconds) = settings.seconds {
            options.ttl = Duration::from_secs(seconds);
        }
        if let Some(entries) = settings.entries {
            options.entries_max = NonZero::new(entries).context("existence_cached.entries: at least 1")?;
        }
        let store = Arc::new(ExistenceCached::new(node.store, options, self.clock.clone()));
        Ok(Node {
            store,
            local: None,
            ..node
        })
    }

    async fn limited(&mut self, settings: &storage::Limited, path: String) -> anyhow::Result<Node> {
        let node = self.node(&settings.store, path + ".store", false).await?;
        let limits = Limits {
            operations: settings.operations.and_then(NonZero::new),
            read_bytes_per_second: settings.read_rate.and_then(|rate| NonZeroU64::new(rate.0)),
            write_bytes_per_second: settings.write_rate.and_then(|rate| NonZeroU64::new(rate.0)),
        };
        let store = Arc::new(Limited::new(node.store, limits));
        Ok(Node {
            store,
            local: None,
            ..node
        })
    }
}

/// What the configuration says of a disk. A store that is there keeps its layout, unless another one is asked for by name.
fn disk_options(settings: &DiskSettings, others: ByteCounter) -> anyhow::Result<DiskOptions> {
    let defaults = DiskOptions::default();
    let layout = match settings.layout {
        Some(layout) => layout.name().to_owned(),
        None => DiskStore::layout_of(&settings.dir)?.unwrap_or_else(|| defaults.layout.name().to_owned()),
    };
    let unknown = || format!("it has the layout {layout:?}, which this program does not know");
    Ok(DiskOptions {
        layout: kind_named(&layout).with_context(unknown)?,
        bytes_max: settings.max_size.0,
        durability: durability(settings),
        min_lifetime: settings.min_lifetime,
        when_full: match settings.when_full {
            config::WhenFull::Shorten => WhenFull::Shorten,
            config::WhenFull::Refuse => WhenFull::Refuse,
        },
        scrub: (settings.scrub_rate.0 > 0).then(|| Scrub {
            bytes_per_second: settings.scrub_rate.0,
            ..Scrub::default()
        }),
        others,
        ..defaults
    })
}

/// What a disk and the records beside it have survived when a put returns.
fn durability(settings: &DiskSettings) -> Durability {
    match settings.durability {
        config::Durability::Always => Durability::Always,
        config::Durability::Interval => Durability::Interval(settings.sync_interval),
        config::Durability::None => Durability::None,
    }
}
