//! What staging and capture promise, for every stager: here what the tests share.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

mod capture;
mod difference;
mod hostile;
mod images;
mod leaks;
mod namespaces;
mod roots;

use self::namespaces::{Unshared, mount_helper};

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::{from_proto, to_proto};
use rootcellar_reapi::{InputTree, Outputs, RelPath, TreeLimits, encode_directory, tree};
use rootcellar_stage::{
    Captured, CopyStager, ImageLimits, Means, OverlayOptions, OverlayStager, Owner, StageOptions, StagedRoot, Stager,
    StagerOptions, read_tree,
};
use rootcellar_store::testing::{Seeded, skip};
use rootcellar_store::{BlobStore as _, BlobStoreExt as _, DiskOptions, DiskStore, LocalStore as _, SystemClock};

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const BLOB_BYTES_MAX: u64 = 64 << 20;

/// A store, a stager on it, and the directory that holds both.
struct Fixture {
    dir: tempfile::TempDir,
    store: Arc<DiskStore>,
    kind: Kind,
    stager: Box<dyn Stager>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Copy,
    Overlay,
    OverlayTmpfs,
}

impl Kind {
    /// Those that this process may use.
    fn all() -> Vec<Self> {
        if Owner::current() == Owner::ROOT {
            return vec![Self::Copy, Self::Overlay, Self::OverlayTmpfs];
        }
        skip("EROFS images can be mounted by root only");
        vec![Self::Copy, Self::OverlayTmpfs]
    }

    fn stager(self, store: &Arc<DiskStore>, dir: &Path, roots: StagerOptions) -> Box<dyn Stager> {
        match self {
            Self::Copy => Box::new(CopyStager::open(store.clone(), dir, roots).unwrap()),
            Self::Overlay | Self::OverlayTmpfs => Box::new(overlay(self, store, dir, roots, ImageLimits::default())),
        }
    }
}

fn overlay(kind: Kind, store: &Arc<DiskStore>, dir: &Path, roots: StagerOptions, images: ImageLimits) -> OverlayStager {
    let means = match kind {
        Kind::OverlayTmpfs => Means::Unprivileged(Arc::new(mount_helper())),
        _ => Means::Privileged(Arc::new(Unshared)),
    };
    let options = OverlayOptions { roots, images, means };
    OverlayStager::open(store.clone(), dir, options).unwrap()
}

fn roots() -> StagerOptions {
    StagerOptions {
        mount_points: &["dev", "proc", "tmp"],
        ..StagerOptions::default()
    }
}

impl Fixture {
    async fn new(kind: Kind) -> Self {
        Self::with(kind, DiskOptions::default()).await
    }

    async fn with(kind: Kind, options: DiskOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskStore::open(dir.path().join("store"), options, Arc::new(SystemClock));
        let store = Arc::new(store.await.unwrap());
        let stager = kind.stager(&store, &dir.path().join("stage"), roots());
        Self {
            dir,
            store,
            kind,
            stager,
        }
    }

    /// One for each stager.
    async fn all() -> Vec<Self> {
        let mut fixtures = Vec::new();
        for kind in Kind::all() {
            fixtures.push(Self::new(kind).await);
        }
        fixtures
    }

    async fn file(&self, content: &'static [u8]) -> Option<reapi::Digest> {
        Some(to_proto(
            self.store
                .put_bytes(FUNCTION, Bytes::from_static(content))
                .await
                .unwrap(),
        ))
    }

    async fn directory(&self, directory: reapi::Directory) -> Digest {
        self.store
            .put_bytes(FUNCTION, encode_directory(directory))
            .await
            .unwrap()
    }

    /// Stores a directory of the host, which the caller fills.
    async fn tree(&self, fill: impl FnOnce(&Path)) -> Digest {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        fill(dir.path());
        read_tree(self.store.clone(), self.store.spool().clone(), FUNCTION, dir.path())
            .await
            .unwrap()
    }

    async fn stage(&self, root: Digest) -> Box<dyn StagedRoot> {
        self.stage_with(root, options("")).await.unwrap()
    }

    async fn stage_with(
        &self,
        root: Digest,
        options: StageOptions,
    ) -> Result<Box<dyn StagedRoot>, rootcellar_reapi::Error> {
        self.stager.stage(root, options).await
    }

    /// Makes sure that all of what was captured is in the store.
    async fn check_closure(&self, captured: &Captured) {
        for file in &captured.files {
            self.read(file.digest.as_ref()).await;
        }
        for directory in &captured.directories {
            if let Some(root) = &directory.root_directory_digest {
                let root = from_proto(FUNCTION, root).unwrap();
                InputTree::load(&*self.store, root, &TreeLimits::default())
                    .await
                    .unwrap();
            }
            if directory.tree_digest.is_some() {
                let message = self.read(directory.tree_digest.as_ref()).await;
                let decoded = tree::message::decode(FUNCTION, &message, &TreeLimits::default()).unwrap();
                let files = decoded.tree.files();
                assert_eq!(self.store.find_missing(files).await.unwrap(), []);
            }
        }
    }

    async fn read(&self, digest: Option<&reapi::Digest>) -> Bytes {
        self.store
            .read(from_proto(FUNCTION, digest.unwrap()).unwrap(), BLOB_BYTES_MAX)
            .await
            .unwrap()
    }
}

fn options(working_directory: &str) -> StageOptions {
    StageOptions {
        owner: Owner::current(),
        working_directory: RelPath::parse(working_directory).unwrap(),
        directories: BTreeSet::new(),
    }
}

fn outputs(paths: &[&str]) -> Outputs {
    let command = reapi::Command {
        output_paths: paths.iter().map(ToString::to_string).collect(),
        output_directory_format: 1,
        ..reapi::Command::default()
    };
    Outputs::parse(&command, &RelPath::root()).unwrap()
}

#[expect(deprecated, reason = "clients older than API 2.1 send the older lists")]
fn older_outputs(files: &[&str], directories: &[&str]) -> Outputs {
    let command = reapi::Command {
        output_files: files.iter().map(ToString::to_string).collect(),
        output_directories: directories.iter().map(ToString::to_string).collect(),
        ..reapi::Command::default()
    };
    Outputs::parse(&command, &RelPath::root()).unwrap()
}

async fn capture(root: &dyn StagedRoot, paths: &[&str]) -> Captured {
    root.capture(&outputs(paths)).await.unwrap()
}

fn root_digest(captured: &Captured) -> Digest {
    from_proto(
        FUNCTION,
        captured.directories[0].root_directory_digest.as_ref().unwrap(),
    )
    .unwrap()
}

/// One of `choices`.
fn pick<T: Copy>(seeded: &mut Seeded, choices: &[T]) -> T {
    let index = seeded.below(choices.len() as u64);
    choices[usize::try_from(index).unwrap()]
}

/// Fills `dir` with random files, links and directories, a few of each awkward kind.
fn grow(seeded: &mut Seeded, dir: &Path, depth: u64) {
    for index in 0..seeded.below(6) {
        let path = dir.join(format!(
            "{}-{index}",
            pick(seeded, &["plain", "ünïcode", "with space", ".dot"])
        ));
        match seeded.below(if depth == 0 { 3 } else { 5 }) {
            0 => symlink(pick(seeded, &["/etc/passwd", "..", "nowhere/at all"]), &path).unwrap(),
            1 | 2 => {
                let size = pick(seeded, &[0, 1, 500, 70_000, 300_000]);
                fs::write(&path, seeded.bytes(size)).unwrap();
                let mode = if seeded.below(2) == 0 { 0o644 } else { 0o755 };
                fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            }
            _ => {
                fs::create_dir(&path).unwrap();
                grow(seeded, &path, depth - 1);
            }
        }
    }
}
