//! The images that are kept: a root that comes again is mounted already.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use rootcellar_digest::Digest;
use rootcellar_reapi::tree::KnownDirectories;
use rootcellar_reapi::{Error, InputTree};
use rootcellar_store::{LeaseHolder, Leased, LocalStore, Shortage};
use tokio::sync::OnceCell;

use super::image::{Image, Shown};
use super::leased::LeasedDirectories;
use super::places::Places;
use super::{Means, OverlayOptions, in_erofs, in_tmpfs};
use crate::StagerOptions;
use crate::stage_dir::StageDir;
use crate::write::blocking;

/// An image that was not staged for so long gives way when a store makes room.
const IDLE_AFTER: Duration = Duration::from_secs(600);

/// Blobs that are staged are in use: the store is told so again after this time.
const USE_TOLD_EVERY: Duration = Duration::from_secs(600);

/// Bounds on the images that are kept for later. Those that actions run on are kept in any case.
#[derive(Debug, Clone)]
pub struct ImageLimits {
    /// How many.
    pub images_max: usize,
    /// Bytes in memory: of the images themselves, and of the Directories that they were made of.
    pub bytes_max: u64,
    /// Bytes in memory of Directories that are kept beyond those of images, for roots that are new and mostly like others.
    pub directories_bytes_max: u64,
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self {
            images_max: 256,
            bytes_max: 512 << 20,
            directories_bytes_max: 256 << 20,
        }
    }
}

/// What became of requests for images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImageStatistics {
    /// Images that are kept, those in use included.
    pub kept: usize,
    /// Bytes that these take in memory.
    pub bytes: u64,
    /// How many were made since the start.
    pub made: u64,
    /// How often one was there already.
    pub reused: u64,
}

/// Makes images, and keeps them.
#[derive(Debug)]
pub(super) struct Images {
    store: Arc<dyn LocalStore>,
    options: StagerOptions,
    limits: ImageLimits,
    means: Means,
    dir: StageDir,
    known: KnownDirectories,
    leased: LeasedDirectories,
    kept: Mutex<LruCache<Digest, Arc<Slot>>>,
    asked: AtomicU64,
    made: AtomicU64,
}

/// A place for an image. Whoever comes first makes it, and the others wait.
#[derive(Debug)]
struct Slot {
    image: OnceCell<Arc<Image>>,
    asked: Mutex<Instant>,
}

impl Slot {
    fn new() -> Self {
        Self {
            image: OnceCell::new(),
            asked: Mutex::new(Instant::now()),
        }
    }

    fn asked(&self) -> MutexGuard<'_, Instant> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bytes(&self) -> u64 {
        self.image.get().map_or(0, |image| image.bytes)
    }

    /// Whether nobody but the cache has it: neither an action nor whoever makes it.
    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.image.get().is_none_or(|image| Arc::strong_count(image) == 1)
    }
}

impl Images {
    pub(super) fn new(store: Arc<dyn LocalStore>, dir: StageDir, options: &OverlayOptions) -> Arc<Self> {
        let images = Arc::new(Self {
            leased: LeasedDirectories::new(store.clone(), USE_TOLD_EVERY),
            store,
            options: options.roots.clone(),
            limits: options.images.clone(),
            means: options.means.clone(),
            dir,
            known: KnownDirectories::new(options.images.directories_bytes_max),
            kept: Mutex::new(LruCache::unbounded()),
            asked: AtomicU64::new(0),
            made: AtomicU64::new(0),
        });
        let holder: Arc<dyn LeaseHolder> = images.clone();
        images.store.on_shortage(Arc::downgrade(&holder));
        images
    }

    /// The image of the tree under `root`.
    pub(super) async fn get(&self, root: Digest) -> Result<Arc<Image>, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let (slot, image) = loop {
            let slot = self.slot(root);
            let image = slot.image.get_or_try_init(|| self.make(root)).await.cloned();
            match &image {
                // What it shows may have been found damaged, and put again since.
                Ok(image) if image.losses != self.leased.losses() => self.forget(root, &slot),
                _ => break (slot, image),
            }
        };
        let image = match image {
            Ok(image) if image.used().elapsed() > USE_TOLD_EVERY => self.tell_use(&image).await.map(|()| image),
            image => image,
        };
        if image.is_err() {
            self.forget(root, &slot);
        }
        drop(slot);
        self.keep_within_limits();
        image
    }

    pub(super) fn statistics(&self) -> ImageStatistics {
        let made = self.made.load(Ordering::Relaxed);
        let kept = self.kept();
        ImageStatistics {
            kept: kept.len(),
            bytes: kept.iter().map(|(_, slot)| slot.bytes()).sum(),
            made,
            reused: self.asked.load(Ordering::Relaxed).saturating_sub(made),
        }
    }

    fn slot(&self, root: Digest) -> Arc<Slot> {
        let mut kept = self.kept();
        let slot = kept.get_or_insert(root, || Arc::new(Slot::new())).clone();
        *slot.asked() = Instant::now();
        slot
    }

    async fn make(&self, root: Digest) -> Result<Arc<Image>, Error> {
        self.made.fetch_add(1, Ordering::Relaxed);
        let tree = InputTree::load_unknown(&*self.store, root, &self.options.input, Some(&self.known)).await?;
        let losses = self.leased.losses();
        let leased = self.leased.of(&tree).await?;
        let (directories, loose_dir) = (leased.clone(), self.store.loose_dir());
        let places = blocking(move || Places::of(&directories, loose_dir.as_deref())).await?;
        let shown = Shown::of(tree, self.options.mount_points)?;
        let (tree, hidden) = (shown.lower.clone(), shown.hidden.clone());
        let mounted = match &self.means {
            Means::Privileged(_) => {
                let dir = self.dir.clone();
                blocking(move || in_erofs::mount(&places, tree.tree(), &hidden, dir.path())).await?
            }
            Means::Unprivileged(helper) => in_tmpfs::mount(&self.store, &places, tree.tree(), &hidden, helper).await?,
        };
        Ok(Arc::new(Image::new(shown, leased, losses, mounted, &self.dir)))
    }

    /// Tells the store that what an image shows is in use. What it shows stays under the leases that it has.
    async fn tell_use(&self, image: &Image) -> Result<(), Error> {
        let now = Instant::now();
        match self.store.lease(&image.lower.tree().closure()).await? {
            Leased::Held(_) => {
                image.set_used(now);
                Ok(())
            }
            Leased::Missing(missing) => Err(Error::missing_blobs(missing)),
        }
    }

    /// Takes a slot out in which nothing could be made, or whose blobs are damaged.
    fn forget(&self, root: Digest, slot: &Arc<Slot>) {
        let mut kept = self.kept();
        if kept.peek(&root).is_some_and(|other| Arc::ptr_eq(other, slot)) {
            let forgotten = kept.pop(&root);
            drop(kept);
            drop(forgotten);
        }
    }

    fn keep_within_limits(&self) {
        let mut kept = self.kept();
        let mut bytes: u64 = kept.iter().map(|(_, slot)| slot.bytes()).sum();
        let mut gone = Vec::new();
        while kept.len() > self.limits.images_max || bytes > self.limits.bytes_max {
            let Some((_, slot)) = kept.pop_lru() else { break };
            bytes -= slot.bytes();
            gone.push(slot);
        }
        drop(kept);
        drop(gone);
    }

    fn kept(&self) -> MutexGuard<'_, LruCache<Digest, Arc<Slot>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseHolder for Images {
    fn let_go(&self, shortage: Shortage) -> bool {
        let mut kept = self.kept();
        let may_go =
            |slot: &Arc<Slot>| slot.is_idle() && (shortage == Shortage::Full || slot.asked().elapsed() > IDLE_AFTER);
        let idle: Vec<Digest> = kept
            .iter()
            .filter(|(_, slot)| may_go(slot))
            .map(|(root, _)| *root)
            .collect();
        let gone: Vec<Arc<Slot>> = idle.iter().filter_map(|root| kept.pop(root)).collect();
        drop(kept);
        !gone.is_empty()
    }
}
