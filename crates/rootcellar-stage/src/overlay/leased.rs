//! Directories whose files are leased and found: roots that are mostly alike share them.
//!
//! An image keeps those of its tree, and with them what it shows. For the next root, only what is new in it is looked up.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rootcellar_digest::{Digest, Secret};
use rootcellar_reapi::tree::TreeDirectory;
use rootcellar_reapi::{Error, InputTree};
use rootcellar_store::{Lease, LeaseGroups, Leased, LocalStore, Location};

/// Directories of which nothing is left are forgotten when there are so many.
const FORGOTTEN_AT_LEAST: usize = 1024;

/// A Directory message and its files, under a lease.
pub(super) struct LeasedDirectory {
    /// Where each file lies, in the order of the message.
    pub(super) files: Box<[Option<Location>]>,
    /// When the lease was taken, which was a use of each blob.
    pub(super) since: Instant,
    /// How many blobs the store had lost by then. One that it finds damaged is lost though it is leased, and may come back elsewhere.
    losses: Option<u64>,
    _lease: Lease,
}

impl fmt::Debug for LeasedDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeasedDirectory of {} files", self.files.len())
    }
}

impl LeasedDirectory {
    /// About how much memory it takes.
    pub(super) fn bytes(&self) -> usize {
        const LEAST_BYTES: usize = 256;
        // Of one that lies by itself: its path, and its part of the lease.
        const ALONE_BYTES: usize = 256;
        let is_alone = |file: &&Option<Location>| matches!(file, Some(Location::Loose { .. }));
        let alone = self.files.iter().filter(is_alone).count();
        LEAST_BYTES + size_of_val(&*self.files) + alone * ALONE_BYTES
    }
}

/// The directories that are leased now.
#[derive(Debug)]
pub(super) struct LeasedDirectories {
    store: Arc<dyn LocalStore>,
    /// A lease that is older is not shared: its blobs may not seem to be in use.
    shared_for: Duration,
    live: Mutex<Live>,
}

#[derive(Debug)]
struct Live {
    directories: HashMap<Digest, Weak<LeasedDirectory>, Secret>,
    /// When there are more, those that are gone are forgotten.
    directories_max: usize,
}

impl LeasedDirectories {
    pub(super) fn new(store: Arc<dyn LocalStore>, shared_for: Duration) -> Self {
        Self {
            store,
            shared_for,
            live: Mutex::new(Live {
                directories: HashMap::default(),
                directories_max: FORGOTTEN_AT_LEAST,
            }),
        }
    }

    /// Leases all of a tree, in the order of its directories.
    ///
    /// # Errors
    /// [`Error::missing_blobs`] with all that is missing; what the store says if it cannot answer.
    pub(super) async fn of(&self, tree: &InputTree) -> Result<Vec<Arc<LeasedDirectory>>, Error> {
        let found = self.find(tree);
        let is_new = |found: &Option<Arc<LeasedDirectory>>| found.is_none();
        let new: Vec<&TreeDirectory> = tree
            .directories()
            .iter()
            .zip(&found)
            .filter(|(_, found)| is_new(found))
            .map(|(directory, _)| &**directory)
            .collect();
        let mut leased = self.lease(&new).await?.into_iter();
        let all = found.into_iter().map(|found| found.or_else(|| leased.next()));
        Ok(all.map(|one| one.expect("what was not found was leased")).collect())
    }

    fn find(&self, tree: &InputTree) -> Vec<Option<Arc<LeasedDirectory>>> {
        let (now, losses) = (Instant::now(), self.losses());
        let is_right = |leased: &Arc<LeasedDirectory>| {
            now.duration_since(leased.since) < self.shared_for && leased.losses == losses
        };
        let live = self.live();
        let find = |directory: &Arc<TreeDirectory>| {
            let leased = live.directories.get(&directory.digest)?.upgrade();
            leased.filter(is_right)
        };
        tree.directories().iter().map(find).collect()
    }

    async fn lease(&self, directories: &[&TreeDirectory]) -> Result<Vec<Arc<LeasedDirectory>>, Error> {
        if directories.is_empty() {
            return Ok(Vec::new());
        }
        let mut groups = LeaseGroups::default();
        for directory in directories {
            let files = directory.directory.files().iter().map(|file| &file.digest);
            groups.add(files.chain([&directory.digest]));
        }
        let (since, losses) = (Instant::now(), self.losses());
        let mut locations = Vec::with_capacity(groups.digests().len());
        let mut see = |location| locations.push(location);
        let leases = match self.store.lease_each(&groups, &mut see).await? {
            Leased::Held(leases) => leases,
            Leased::Missing(missing) => return Err(Error::missing_blobs(missing)),
        };
        assert_eq!(locations.len(), groups.digests().len(), "a store shows every place");
        let mut locations = locations.into_iter();
        let mut leased = Vec::with_capacity(directories.len());
        for (directory, lease) in directories.iter().zip(leases) {
            let files = locations.by_ref().take(directory.directory.files().len()).collect();
            let _own = locations.next();
            leased.push(Arc::new(LeasedDirectory {
                files,
                since,
                losses,
                _lease: lease,
            }));
        }
        self.live().add(directories, &leased);
        Ok(leased)
    }

    /// How many blobs the store has lost, if it counts them.
    pub(super) fn losses(&self) -> Option<u64> {
        self.store.mark().map(|mark| mark.losses)
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn add(&mut self, directories: &[&TreeDirectory], leased: &[Arc<LeasedDirectory>]) {
        let digests = directories.iter().map(|directory| directory.digest);
        self.directories.extend(digests.zip(leased.iter().map(Arc::downgrade)));
        if self.directories.len() > self.directories_max {
            self.directories.retain(|_, leased| leased.strong_count() > 0);
            self.directories_max = FORGOTTEN_AT_LEAST.max(2 * self.directories.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;
    use rootcellar_proto::reapi;
    use rootcellar_reapi::functions::to_proto;
    use rootcellar_reapi::{TreeLimits, encode_directory};
    use rootcellar_store::{BlobStoreExt as _, DiskOptions, DiskStore, SystemClock};

    use super::*;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;
    const LONG: Duration = Duration::from_secs(3600);

    /// A tree of a directory with this file and another one with nothing.
    async fn tree(store: &DiskStore, content: &'static str) -> InputTree {
        let file = reapi::FileNode {
            name: "file".to_owned(),
            digest: Some(to_proto(store.put_bytes(FUNCTION, content.into()).await.unwrap())),
            ..Default::default()
        };
        let mut directories = Vec::new();
        for (name, files) in [("common", Vec::new()), ("own", vec![file])] {
            let encoded = encode_directory(reapi::Directory {
                files,
                ..Default::default()
            });
            directories.push(reapi::DirectoryNode {
                name: name.to_owned(),
                digest: Some(to_proto(store.put_bytes(FUNCTION, encoded).await.unwrap())),
            });
        }
        let encoded = encode_directory(reapi::Directory {
            directories,
            ..Default::default()
        });
        let root = store.put_bytes(FUNCTION, encoded).await.unwrap();
        InputTree::load(store, root, &TreeLimits::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_directory_is_shared_while_somebody_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path(), DiskOptions::default(), Arc::new(SystemClock));
        let store = Arc::new(store.await.unwrap());
        let (one, other) = (tree(&store, "one").await, tree(&store, "other").await);
        let leased = LeasedDirectories::new(store.clone(), LONG);
        let first = leased.of(&one).await.unwrap();
        let second = leased.of(&other).await.unwrap();
        let is_shared: Vec<bool> = first.iter().zip(&second).map(|(a, b)| Arc::ptr_eq(a, b)).collect();
        assert_eq!(is_shared, [false, true, false]);
        let files: Vec<usize> = second.iter().map(|directory| directory.files.len()).collect();
        assert_eq!(files, [0, 0, 1]);
        let places = |leased: &[Arc<LeasedDirectory>]| leased[2].files.to_vec();
        assert_ne!(places(&first), places(&second));

        let before = first[2].since;
        drop(first);
        assert!(
            leased.of(&one).await.unwrap()[2].since > before,
            "nobody had it any more"
        );
        let old = LeasedDirectories::new(store, Duration::ZERO);
        let (first, again) = (old.of(&one).await.unwrap(), old.of(&one).await.unwrap());
        assert!(first.iter().zip(&again).all(|(a, b)| !Arc::ptr_eq(a, b)));
    }

    #[tokio::test]
    async fn what_is_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path(), DiskOptions::default(), Arc::new(SystemClock));
        let store = Arc::new(store.await.unwrap());
        let one = tree(&store, "one").await;
        let leased = LeasedDirectories::new(store.clone(), LONG);
        leased.live().directories_max = 3;
        drop(leased.of(&one).await.unwrap());
        assert_eq!(leased.live().directories.len(), 3);
        let _kept = leased.of(&tree(&store, "other").await).await.unwrap();
        assert_eq!(leased.live().directories.len(), 3);
        assert_eq!(leased.live().directories_max, FORGOTTEN_AT_LEAST);
    }
}
