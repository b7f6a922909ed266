//! What staging and capture promise, for every stager.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::Arc;

mod difference;
mod hostile;
mod images;
mod leaks;
mod namespaces;

use self::namespaces::{Unshared, mount_helper};

use bytes::Bytes;
use prost_types::Timestamp;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::{from_proto, to_proto};
use rootcellar_reapi::{ErrorKind, InputTree, Outputs, RelPath, TreeLimits, encode_directory, tree};
use rootcellar_stage::{
    CaptureLimits, Captured, CopyStager, ImageLimits, Means, OverlayOptions, OverlayStager, Owner, StageOptions,
    StagedRoot, Stager, StagerOptions, read_tree, write_tree,
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

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_comes_back_as_it_was_staged() {
    for fixture in Fixture::all().await {
        for seed in 0..20 {
            let mut seeded = Seeded::new(seed);
            let digest = fixture.tree(|dir| grow(&mut seeded, dir, 4)).await;
            let root = fixture.stage(digest).await;
            let captured = capture(&*root, &["."]).await;
            assert_eq!(root_digest(&captured), digest, "seed {seed}");
            root.remove().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_written_tree_reads_back_the_same() {
    for fixture in Fixture::all().await {
        let digest = fixture.tree(|dir| grow(&mut Seeded::new(7), dir, 4)).await;
        let tree = InputTree::load(&*fixture.store, digest, &TreeLimits::default())
            .await
            .unwrap();
        let out = tempfile::tempdir().unwrap();
        write_tree(fixture.store.clone(), &tree, out.path()).await.unwrap();
        let spool = fixture.store.spool().clone();
        assert_eq!(
            read_tree(fixture.store.clone(), spool, FUNCTION, out.path())
                .await
                .unwrap(),
            digest
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn staged_files_have_the_modes_times_and_owner_that_were_asked_for() {
    for fixture in Fixture::all().await {
        let content = fixture.file(b"the same blob").await;
        let file = |name: &str, is_executable, node_properties| reapi::FileNode {
            name: name.to_owned(),
            digest: content.clone(),
            is_executable,
            node_properties,
        };
        let properties = reapi::NodeProperties {
            mtime: Some(Timestamp {
                seconds: 1_000_000_007,
                nanos: 5,
            }),
            unix_mode: Some(0o104_751),
            ..reapi::NodeProperties::default()
        };
        let root = reapi::Directory {
            files: vec![
                file("data", false, None),
                file("program", true, None),
                file("special", false, Some(properties)),
            ],
            ..reapi::Directory::default()
        };
        let staged = fixture.stage(fixture.directory(root).await).await;
        let stat = |name: &str| fs::symlink_metadata(staged.path().join(name)).unwrap();
        assert_eq!(
            (stat("data").mode() & 0o7777, stat("data").mtime()),
            (0o644, 1_321_009_871)
        );
        assert_eq!(stat("program").mode() & 0o7777, 0o755);
        assert_eq!(
            stat("special").mode() & 0o7777,
            0o751,
            "no set-user-id bit comes from a tree"
        );
        assert_eq!(
            (stat("special").mtime(), stat("special").mtime_nsec()),
            (1_000_000_007, 5)
        );
        assert_eq!(stat("").mtime(), 1_321_009_871, "making mount points does not show");
        assert_eq!(stat("data").uid(), Owner::current().uid);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_belongs_to_whoever_runs_in_it() {
    for fixture in Fixture::all().await {
        let digest = fixture
            .tree(|dir| {
                fs::create_dir(dir.join("directory")).unwrap();
                fs::write(dir.join("directory/small"), "in a pack").unwrap();
                fs::write(dir.join("large"), vec![1; 100_000]).unwrap();
                symlink("large", dir.join("link")).unwrap();
            })
            .await;
        let owners = match Owner::current() {
            Owner::ROOT if fixture.kind != Kind::OverlayTmpfs => vec![
                Owner {
                    uid: 1_900_000_000,
                    gid: 1_900_000_001,
                },
                Owner { uid: 77, gid: 78 },
                Owner::ROOT,
            ],
            own => vec![own],
        };
        let mut staged = Vec::new();
        for owner in owners {
            let options = StageOptions {
                owner,
                directories: BTreeSet::from([RelPath::parse("made/below").unwrap()]),
                ..options("")
            };
            staged.push((owner, fixture.stage_with(digest, options).await.unwrap()));
        }
        for (owner, root) in &staged {
            for path in [
                "",
                "directory",
                "directory/small",
                "large",
                "link",
                "made",
                "made/below",
                "tmp",
            ] {
                let metadata = match path {
                    "" => fs::metadata(root.path()).unwrap(),
                    path => fs::symlink_metadata(root.path().join(path)).unwrap(),
                };
                assert_eq!((metadata.uid(), metadata.gid()), (owner.uid, owner.gid), "{path}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_in_place_changes_neither_the_store_nor_another_root() {
    for fixture in Fixture::all().await {
        let digest = fixture
            .tree(|dir| {
                fs::write(dir.join("empty"), "").unwrap();
                fs::write(dir.join("full"), "as it was").unwrap();
            })
            .await;
        let first = fixture.stage(digest).await;
        fs::write(first.path().join("empty"), "no longer").unwrap();
        fs::write(first.path().join("full"), "changed").unwrap();
        let second = fixture.stage(digest).await;
        assert_eq!(fs::read(second.path().join("empty")).unwrap(), b"");
        assert_eq!(fs::read(second.path().join("full")).unwrap(), b"as it was");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_missing_blob_is_named() {
    for fixture in Fixture::all().await {
        let absent = [Digest::of(FUNCTION, b"not put 1"), Digest::of(FUNCTION, b"not put 2")];
        let node = |(name, digest): (&str, &Digest)| reapi::FileNode {
            name: name.to_owned(),
            digest: Some(to_proto(*digest)),
            ..reapi::FileNode::default()
        };
        let files = ["a", "b"].into_iter().zip(&absent).map(node).collect();
        let root = fixture
            .directory(reapi::Directory {
                files,
                ..reapi::Directory::default()
            })
            .await;
        let error = fixture.stage_with(root, options("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert_eq!(BTreeSet::from_iter(error.missing()), BTreeSet::from_iter(&absent));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_directory_that_is_none_is_refused() {
    for fixture in Fixture::all().await {
        let root = fixture.tree(|dir| fs::write(dir.join("file"), "").unwrap()).await;
        for path in ["file", "nowhere"] {
            let error = fixture.stage_with(root, options(path)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path}");
            assert!(error.to_string().contains(path));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parents_of_outputs_are_made_and_outputs_are_not() {
    for fixture in Fixture::all().await {
        let root = fixture.tree(|_| {}).await;
        let wanted = outputs(&["a/b/c", "d"]);
        let staged = fixture
            .stage_with(
                root,
                StageOptions {
                    directories: wanted.parents(),
                    ..options("")
                },
            )
            .await
            .unwrap();
        assert!(staged.path().join("a/b").is_dir());
        assert!(!staged.path().join("a/b/c").exists() && !staged.path().join("d").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mount_points_of_the_sandbox_are_no_outputs_but_those_of_the_tree_are() {
    for fixture in Fixture::all().await {
        let bare = fixture.tree(|_| {}).await;
        let furnished = fixture.tree(|dir| fs::create_dir(dir.join("proc")).unwrap()).await;
        for root in [bare, furnished] {
            let staged = fixture.stage(root).await;
            assert!(
                ["dev", "proc", "tmp"]
                    .iter()
                    .all(|name| staged.path().join(name).is_dir())
            );
            assert_eq!(root_digest(&capture(&*staged, &["."]).await), root);
        }
        let odd = fixture.tree(|dir| fs::write(dir.join("tmp"), "").unwrap()).await;
        let error = fixture.stage_with(odd, options("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_lead_capture_nowhere_outside_the_root() {
    for fixture in Fixture::all().await {
        let root = fixture.stage(fixture.tree(|_| {}).await).await;
        symlink("/etc", root.path().join("to-etc")).unwrap();
        symlink("../../../../../../../../etc/passwd", root.path().join("to-passwd")).unwrap();
        let captured = capture(&*root, &["to-etc/passwd", "to-etc", "to-passwd", "missing"]).await;
        assert!(captured.files.is_empty() && captured.directories.is_empty());
        let links: Vec<_> = captured
            .symlinks
            .iter()
            .map(|link| (link.path.as_str(), link.target.as_str()))
            .collect();
        assert_eq!(
            links,
            [("to-etc", "/etc"), ("to-passwd", "../../../../../../../../etc/passwd")]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_inside_the_root_is_followed_on_the_way_but_not_at_the_end() {
    for fixture in Fixture::all().await {
        let root = fixture.stage(fixture.tree(|_| {}).await).await;
        fs::create_dir(root.path().join("real")).unwrap();
        fs::write(root.path().join("real/file"), "found").unwrap();
        symlink("/real", root.path().join("alias")).unwrap();
        let captured = capture(&*root, &["alias/file", "alias"]).await;
        assert_eq!(captured.files[0].path, "alias/file");
        assert_eq!(fixture.read(captured.files[0].digest.as_ref()).await, "found");
        assert_eq!(captured.symlinks.len(), 1);
        assert_eq!(captured.directory_symlinks.len(), 1, "for clients older than API 2.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn special_files_are_left_out_and_block_nobody() {
    for fixture in Fixture::all().await {
        let digest = fixture.tree(|_| {}).await;
        let root = fixture.stage(digest).await;
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, root.path().join("fifo"), rustix::fs::Mode::RWXU).unwrap();
        let captured = capture(&*root, &[".", "fifo", "socket"]).await;
        assert_eq!(root_digest(&captured), digest);
        assert!(captured.files.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_files_are_captured_and_modes_become_executable_bits() {
    for fixture in Fixture::all().await {
        let root = fixture.stage(fixture.tree(|_| {}).await).await;
        for (name, mode) in [("closed", 0o000), ("program", 0o700), ("grouped", 0o611)] {
            fs::write(root.path().join(name), name).unwrap();
            fs::set_permissions(root.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        let captured = capture(&*root, &["closed", "grouped", "program"]).await;
        let executable: Vec<bool> = captured.files.iter().map(|file| file.is_executable).collect();
        assert_eq!(executable, [false, false, true]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_older_lists_want_what_they_say() {
    for fixture in Fixture::all().await {
        let root = fixture.stage(fixture.tree(|_| {}).await).await;
        fs::create_dir(root.path().join("directory")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        symlink("file", root.path().join("to-file")).unwrap();
        symlink("directory", root.path().join("to-directory")).unwrap();
        symlink("nowhere", root.path().join("dangling")).unwrap();

        let captured = root
            .capture(&older_outputs(
                &["file", "to-file", "missing"],
                &["directory", "to-directory"],
            ))
            .await
            .unwrap();
        assert_eq!((captured.files.len(), captured.directories.len()), (1, 1));
        assert_eq!(
            (captured.file_symlinks.len(), captured.directory_symlinks.len()),
            (1, 1)
        );
        assert!(captured.symlinks.is_empty(), "these are for output_paths alone");
        assert!(captured.directories[0].tree_digest.is_some());

        for wrong in [
            older_outputs(&["directory"], &[]),
            older_outputs(&["to-directory"], &[]),
            older_outputs(&["dangling"], &[]),
            older_outputs(&[], &["file"]),
            older_outputs(&[], &["to-file"]),
        ] {
            let error = root.capture(&wrong).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{wrong:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_directory_format_names_what_it_says() {
    for fixture in Fixture::all().await {
        let digest = fixture.tree(|dir| grow(&mut Seeded::new(3), dir, 4)).await;
        let root = fixture.stage(digest).await;
        for (format, has_tree, has_directory) in
            [(0, true, false), (1, false, true), (2, true, true), (99, true, false)]
        {
            let command = reapi::Command {
                output_paths: vec![String::from(".")],
                output_directory_format: format,
                ..reapi::Command::default()
            };
            let wanted = Outputs::parse(&command, &RelPath::root()).unwrap();
            let captured = root.capture(&wanted).await.unwrap();
            let directory = &captured.directories[0];
            assert_eq!(
                (
                    directory.tree_digest.is_some(),
                    directory.root_directory_digest.is_some()
                ),
                (has_tree, has_directory)
            );
            if has_tree {
                let message = fixture.read(directory.tree_digest.as_ref()).await;
                let decoded = tree::message::decode(FUNCTION, &message, &TreeLimits::default()).unwrap();
                assert_eq!(decoded.tree.root_digest(), digest);
                assert!(decoded.is_topologically_sorted && directory.is_topologically_sorted);
            }
            if has_directory {
                assert_eq!(root_digest(&captured), digest);
                let missing = fixture
                    .store
                    .find_missing(&decoded_closure(&fixture, digest).await)
                    .await
                    .unwrap();
                assert!(missing.is_empty());
            }
        }
    }
}

async fn decoded_closure(fixture: &Fixture, root: Digest) -> Vec<Digest> {
    InputTree::load(&*fixture.store, root, &TreeLimits::default())
        .await
        .unwrap()
        .closure()
}

#[tokio::test(flavor = "multi_thread")]
async fn times_come_back_when_they_were_asked_for() {
    for fixture in Fixture::all().await {
        let digest = fixture.tree(|dir| fs::write(dir.join("file"), "").unwrap()).await;
        let root = fixture.stage(digest).await;
        let command = reapi::Command {
            output_paths: vec![String::from("."), String::from("file")],
            output_directory_format: 1,
            output_node_properties: vec![String::from("mtime")],
            ..reapi::Command::default()
        };
        let wanted = Outputs::parse(&command, &RelPath::root()).unwrap();
        let captured = root.capture(&wanted).await.unwrap();
        let staged = Some(Timestamp {
            seconds: 1_321_009_871,
            nanos: 0,
        });
        assert_eq!(captured.files[0].node_properties.as_ref().unwrap().mtime, staged);
        let tree = InputTree::load(&*fixture.store, root_digest(&captured), &TreeLimits::default())
            .await
            .unwrap();
        assert_eq!(tree.root().properties().mtime, staged);
        assert_eq!(tree.root().files()[0].properties.mtime, staged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_api_cannot_say_is_an_error_that_names_it() {
    use std::os::unix::ffi::OsStrExt as _;

    for fixture in Fixture::all().await {
        let root = fixture.stage(fixture.tree(|_| {}).await).await;
        fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"bad-\xff-name")), "").unwrap();
        let error = root.capture(&outputs(&["."])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert!(error.to_string().contains("bad-"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_deeper_than_a_path_is_long_are_the_action_s_fault() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    for fixture in Fixture::all().await {
        let root = fixture.stage(fixture.tree(|_| {}).await).await;
        let (name, flags) = ("d".repeat(200), OFlags::RDONLY | OFlags::DIRECTORY);
        let mut at = openat(CWD, root.path(), flags, Mode::empty()).unwrap();
        for _ in 0..25 {
            mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        let error = root.capture(&outputs(&["."])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition, "{error}");
        root.remove().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_are_too_many_are_refused() {
    for fixture in Fixture::all().await {
        let limits = CaptureLimits {
            entries_max: 10,
            ..CaptureLimits::default()
        };
        let stager = fixture.kind.stager(
            &fixture.store,
            &fixture.dir.path().join("small"),
            StagerOptions {
                capture: limits,
                ..roots()
            },
        );
        let digest = fixture
            .tree(|dir| (0..11).for_each(|n| fs::write(dir.join(n.to_string()), "").unwrap()))
            .await;
        let root = stager.stage(digest, options("")).await.unwrap();
        let error = root.capture(&outputs(&["."])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_root_is_removed_and_so_are_those_of_an_earlier_process() {
    for fixture in Fixture::all().await {
        let dir = fixture.dir.path().join("other");
        let digest = fixture.tree(|dir| fs::write(dir.join("file"), "").unwrap()).await;
        fs::create_dir_all(dir.join("left-behind/root")).unwrap();
        let stager = fixture.kind.stager(&fixture.store, &dir, roots());
        let root = stager.stage(digest, options("")).await.unwrap();
        drop(root);
        drop(stager);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
}
