//! Syncing, and the end of acknowledgements: when the store is closed, and when a sync has failed.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError, RwLockReadGuard};

use super::home::Home;
use super::mark::{self, KernelTime, Mark, State};
use super::shared::Shared;
use crate::{Error, ErrorKind, Result};

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
    pub(super) fn gate(&self) -> RwLockReadGuard<'_, Gate> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
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
}

/// Makes all that is there durable, if it is not, and says so.
pub(super) fn begin(home: &Home, boot: String, is_synced: bool, is_durable: bool) -> io::Result<Mark> {
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use bytes::Bytes;
    use rootcellar_digest::DigestFunction;

    use super::*;
    use crate::disk::DiskOptions;
    use crate::{BlobStore as _, BlobStoreExt as _, DiskStore, SystemClock};

    async fn open(dir: &Path) -> DiskStore {
        DiskStore::open(dir, DiskOptions::default(), Arc::new(SystemClock))
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn after_a_failed_sync_puts_are_refused_until_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let put =
            async |store: &DiskStore, text| store.put_bytes(DigestFunction::Sha256, Bytes::from_static(text)).await;
        let before = put(&store, b"before").await.unwrap();
        store.shared.shut_after_failed_sync(&io::Error::other("a bad disk"));

        let error = put(&store, b"after").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.to_string().contains("a bad disk"), "{error}");
        assert_eq!(store.read(before, 100).await.unwrap(), "before");
        assert_eq!(store.close().await.unwrap_err().kind(), ErrorKind::Internal);
        let mark = Mark::read(dir.path()).unwrap().unwrap();
        assert_eq!(mark.state, State::Failed);
        drop(store);

        let store = open(dir.path()).await;
        assert_eq!(store.find_missing(&[before]).await.unwrap(), []);
        put(&store, b"after").await.unwrap();
    }

    /// A clock that is set back must not make the next start trust what no sync covered.
    #[tokio::test]
    async fn the_mark_stays_before_what_is_published() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let shared = &store.shared;
        let published = mark::kernel_time(&shared.home).unwrap();
        while mark::kernel_time(&shared.home).unwrap() <= published {}
        shared.sync(State::Open).unwrap();
        assert!(Mark::read(dir.path()).unwrap().unwrap().began > published);
        shared.keep_mark_before(published).unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap().unwrap().began, published);
    }
}
