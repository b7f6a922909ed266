//! Which stager the server has: the best that works on this machine, or the one that was asked for.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use async_trait::async_trait;
use rootcellar_stage::{
    CopyStager, ImageLimits, Means, MountHelper, OverlayOptions, OverlayStager, OverlayUnavailable, Owner, Stager,
    StagerOptions, UserNamespaces, probe_overlay,
};
use rootcellar_store::LocalStore;
use rootcellar_worker::Slot;
use rootcellar_worker::sandbox::{Identity, MOUNT_POINTS, Sandbox};

use crate::config::StagerKind;

/// Where roots are staged: in the server's directory, on the filesystem of the store.
pub(crate) fn dir(server_dir: &Path) -> PathBuf {
    server_dir.join("stage")
}

/// Stagers that mount, the best first.
pub(crate) const MOUNTING: [StagerKind; 2] = [StagerKind::Overlay, StagerKind::OverlayTmpfs];

/// Opens the stager that was asked for, or the best that works, in `dir`.
pub(crate) async fn open(
    kind: Option<StagerKind>,
    dir: &Path,
    store: Arc<dyn LocalStore>,
    sandbox: &Sandbox,
) -> anyhow::Result<Arc<dyn Stager>> {
    let kind = match kind {
        Some(kind) => {
            probe(kind, dir, sandbox)
                .await
                .with_context(|| format!("stager = {:?}", kind.name()))?;
            kind
        }
        None => best(dir, sandbox).await,
    };
    let roots = StagerOptions {
        mount_points: MOUNT_POINTS,
        ..StagerOptions::default()
    };
    Ok(match means(kind, sandbox) {
        None => Arc::new(CopyStager::open(store, dir, roots)?),
        Some(means) => {
            let options = OverlayOptions {
                roots,
                images: ImageLimits::default(),
                means,
            };
            Arc::new(OverlayStager::open(store, dir, options)?)
        }
    })
}

async fn best(dir: &Path, sandbox: &Sandbox) -> StagerKind {
    for kind in MOUNTING {
        match probe(kind, dir, sandbox).await {
            Ok(()) => return kind,
            Err(reason) => tracing::info!("{} does not work here: {reason}", kind.name()),
        }
    }
    tracing::warn!("input roots are copied, which is slow; `rootcellar doctor` tells why nothing better works");
    StagerKind::Copy
}

/// Tries a stager as the first worker would use it. Copying always works.
pub(crate) async fn probe(kind: StagerKind, dir: &Path, sandbox: &Sandbox) -> Result<(), OverlayUnavailable> {
    match means(kind, sandbox) {
        Some(means) => probe_overlay(dir, &means, Slot(0).owner()).await,
        None => Ok(()),
    }
}

/// By what right this process can mount for its own user.
pub(crate) fn own_means(sandbox: &Sandbox) -> Means {
    let kind = match Owner::current() {
        Owner::ROOT => StagerKind::Overlay,
        _ => StagerKind::OverlayTmpfs,
    };
    means(kind, sandbox).expect("both mount")
}

fn means(kind: StagerKind, sandbox: &Sandbox) -> Option<Means> {
    match kind {
        StagerKind::Overlay => Some(Means::Privileged(Arc::new(Namespaces::of(sandbox)))),
        StagerKind::OverlayTmpfs => {
            let sandbox = sandbox.clone();
            let helper = MountHelper::new(move || sandbox.mount_helper().map_err(io::Error::other));
            Some(Means::Unprivileged(Arc::new(helper)))
        }
        StagerKind::Copy => None,
    }
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
        let made = self.sandbox.user_namespace(identity).map_err(io::Error::other)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(owner, made.try_clone()?);
        Ok(made)
    }
}
