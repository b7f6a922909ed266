//! Which stager the server has: the best that works on this machine, or the one that was asked for.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use rootcellar_stage::{
    CopyStager, ImageLimits, OverlayOptions, OverlayStager, OverlayUnavailable, Owner, Stager, StagerOptions,
    UserNamespaces, probe_overlay,
};
use rootcellar_store::LocalStore;
use rootcellar_worker::Slot;
use rootcellar_worker::sandbox::{Identity, MOUNT_POINTS, Sandbox};

use crate::config::{Config, StagerKind};

/// Where roots are staged: in the server's directory, on the filesystem of the store.
pub(crate) fn dir(server_dir: &Path) -> PathBuf {
    server_dir.join("stage")
}

/// Opens the stager that the configuration names, or the best that works.
pub(crate) async fn open(
    config: &Config,
    store: Arc<dyn LocalStore>,
    sandbox: &Sandbox,
) -> anyhow::Result<Arc<dyn Stager>> {
    let dir = dir(&config.dir);
    let kind = match config.stager {
        Some(StagerKind::Overlay) => {
            probe(&dir, sandbox).await.context("stager = \"overlay\"")?;
            StagerKind::Overlay
        }
        Some(StagerKind::Copy) => StagerKind::Copy,
        None => match probe(&dir, sandbox).await {
            Ok(()) => StagerKind::Overlay,
            Err(reason) => {
                tracing::warn!("input roots are copied, which is slow, since an overlay does not work here: {reason}");
                StagerKind::Copy
            }
        },
    };
    let roots = StagerOptions {
        mount_points: MOUNT_POINTS,
        ..StagerOptions::default()
    };
    Ok(match kind {
        StagerKind::Copy => Arc::new(CopyStager::open(store, dir, roots)?),
        StagerKind::Overlay => {
            let options = OverlayOptions {
                roots,
                images: ImageLimits::default(),
                namespaces: Arc::new(Namespaces::of(sandbox)),
            };
            Arc::new(OverlayStager::open(store, dir, options)?)
        }
    })
}

/// Tries overlays as the first worker would use them.
pub(crate) async fn probe(dir: &Path, sandbox: &Sandbox) -> Result<(), OverlayUnavailable> {
    probe_overlay(dir, &Namespaces::of(sandbox), Slot(0).owner()).await
}

/// User namespaces that the sandbox's helper makes, one for each worker.
#[derive(Debug)]
struct Namespaces {
    sandbox: Sandbox,
    known: Mutex<HashMap<Owner, OwnedFd>>,
}

impl Namespaces {
    fn of(sandbox: &Sandbox) -> Self {
        Self {
            sandbox: sandbox.clone(),
            known: Mutex::default(),
        }
    }

    fn known(&self, owner: Owner) -> io::Result<Option<OwnedFd>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&owner).map(OwnedFd::try_clone).transpose()
    }
}

#[async_trait]
impl UserNamespaces for Namespaces {
    async fn of(&self, owner: Owner) -> io::Result<OwnedFd> {
        if let Some(known) = self.known(owner)? {
            return Ok(known);
        }
        let identity = Identity {
            uid: 0,
            gid: 0,
            host_uid: owner.uid,
            host_gid: owner.gid,
        };
        let made = self.sandbox.user_namespace(identity).await.map_err(io::Error::other)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(owner, made.try_clone()?);
        Ok(made)
    }
}
