//! The lower layer of one input root, mounted: what any number of actions share.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rootcellar_reapi::{Error, InputTree};

use super::leased::LeasedDirectory;
use super::{UserNamespaces, mounts};
use crate::Owner;
use crate::access::Access;
use crate::capture::Lower;
use crate::furnish::missing_mount_points;
use crate::stage_dir::StageDir;
use crate::write::io_error;

/// What an image is to show.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) lower: Arc<Lower>,
    pub(super) access: Access,
    /// Mount points of the sandbox that the tree does not have.
    pub(super) hidden: Vec<&'static str>,
}

impl Shown {
    /// # Errors
    /// If the tree cannot be a root with such mount points.
    pub(super) fn of(tree: InputTree, mount_points: &'static [&'static str]) -> Result<Self, Error> {
        Ok(Self {
            hidden: missing_mount_points(&tree, mount_points)?,
            access: Access::of(&tree, mount_points)?,
            lower: Arc::new(Lower::new(tree)),
        })
    }
}

/// A mounted image, and what it stands on. As long as it is there, the bytes it shows stay where they are.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) lower: Arc<Lower>,
    pub(super) access: Access,
    /// Mount points of the sandbox that the tree does not have.
    pub(super) hidden: Vec<&'static str>,
    /// Bytes that it takes in memory: those of the image, of the tree, and of where its files lie.
    pub(super) bytes: u64,
    /// How many blobs the store had lost when it was made.
    pub(super) losses: Option<u64>,
    /// The mount, until it is dropped.
    mount: Option<Arc<OwnedFd>>,
    /// The same with other owners.
    clones: Mutex<HashMap<Owner, Arc<OwnedFd>>>,
    /// What it shows stays where it is as long as these are held.
    _leased: Vec<Arc<LeasedDirectory>>,
    used: Mutex<Instant>,
    dir: StageDir,
}

impl Image {
    /// Takes over a mount that shows a tree, all of whose directories are `leased`. It takes so many `bytes` of memory.
    pub(super) fn new(
        shown: Shown,
        leased: Vec<Arc<LeasedDirectory>>,
        losses: Option<u64>,
        (mount, bytes): (OwnedFd, u64),
        dir: &StageDir,
    ) -> Self {
        let Shown { lower, access, hidden } = shown;
        Self {
            bytes: bytes + memory_of(lower.tree()) + leased.iter().map(|one| one.bytes() as u64).sum::<u64>(),
            used: Mutex::new(leased.iter().map(|one| one.since).min().expect("a tree has a root")),
            lower,
            access,
            hidden,
            mount: Some(Arc::new(mount)),
            clones: Mutex::default(),
            _leased: leased,
            losses,
            dir: dir.clone(),
        }
    }

    /// The mount in which everything belongs to `owner`; `None` if that is so anyway.
    pub(super) async fn owned_by(
        &self,
        owner: Owner,
        namespaces: &dyn UserNamespaces,
    ) -> Result<Option<Arc<OwnedFd>>, Error> {
        if owner == Owner::ROOT {
            return Ok(None);
        }
        if let Some(clone) = self.clones().get(&owner) {
            return Ok(Some(clone.clone()));
        }
        let failed = |error| io_error(format!("mapping an image to user {}", owner.uid), error);
        let namespace = namespaces.of(owner).await.map_err(failed)?;
        let clone = Arc::new(mounts::clone_for(self.mount_fd(), &namespace).map_err(failed)?);
        Ok(Some(self.clones().entry(owner).or_insert(clone).clone()))
    }

    /// The mount as it was made.
    pub(super) fn mount(&self) -> BorrowedFd<'_> {
        self.mount_fd().as_fd()
    }

    /// When the store was told last that all its blobs are in use.
    pub(super) fn used(&self) -> Instant {
        *self.used_mut()
    }

    /// The store was told so.
    pub(super) fn set_used(&self, now: Instant) {
        *self.used_mut() = now;
    }

    fn mount_fd(&self) -> &OwnedFd {
        self.mount.as_ref().expect("there until it is dropped")
    }

    fn clones(&self) -> MutexGuard<'_, HashMap<Owner, Arc<OwnedFd>>> {
        self.clones.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used_mut(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let clones = std::mem::take(&mut *self.clones());
        self.dir.close(clones.into_values().chain(self.mount.take()).collect());
    }
}

/// About how much memory a tree takes: each message as it came and as it was read.
fn memory_of(tree: &InputTree) -> u64 {
    const READ_PART: u64 = 3;
    let messages: u64 = tree
        .directories()
        .iter()
        .map(|directory| directory.digest.size_bytes())
        .sum();
    messages * (1 + READ_PART)
}
