//! Trees that somebody made to hurt: each is refused in words, or works.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{ErrorKind, RelPath};
use rootcellar_stage::StageOptions;
use rootcellar_store::layout::kind_named;
use rootcellar_store::{BlobStoreExt as _, DiskOptions};

use super::{FUNCTION, Fixture, Kind, capture, options, outputs, root_digest};

/// Whatever it is, it is over soon: on a machine that does something else too.
const SOON: Duration = Duration::from_secs(30);

fn directory_node(name: &str, digest: Digest) -> reapi::DirectoryNode {
    reapi::DirectoryNode {
        name: name.to_owned(),
        digest: Some(to_proto(digest)),
    }
}

fn parent_of(children: Vec<reapi::DirectoryNode>) -> reapi::Directory {
    reapi::Directory {
        directories: children,
        ..reapi::Directory::default()
    }
}

impl Fixture {
    /// Stores a Directory as it is, whatever the order of its nodes.
    async fn raw_directory(&self, directory: &reapi::Directory) -> Digest {
        let encoded = directory.encode_to_vec().into();
        self.store.put_bytes(FUNCTION, encoded).await.unwrap()
    }

    async fn is_refused(&self, root: Digest, words: &str) {
        let begin = Instant::now();
        let error = self.stage_with(root, options("")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(begin.elapsed() < SOON, "{:?}: {error}", begin.elapsed());
    }
}

/// A few megabytes of links' targets, so often that they would be gigabytes of memory or disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_long_links_at_many_paths() {
    for fixture in Fixture::all().await {
        let links = (0..1000).map(|number| reapi::SymlinkNode {
            name: format!("link-{number:04}"),
            // As long as every filesystem takes.
            target: "x/".repeat(500),
            ..reapi::SymlinkNode::default()
        });
        let links = reapi::Directory {
            symlinks: links.collect(),
            ..reapi::Directory::default()
        };
        let links = fixture.raw_directory(&links).await;
        let often = |times| (0..times).map(|number| directory_node(&format!("d-{number:03}"), links));
        let root = fixture.raw_directory(&parent_of(often(300).collect())).await;
        fixture.is_refused(root, "text_bytes_max").await;
        let few = fixture.raw_directory(&parent_of(often(2).collect())).await;
        let root = fixture.stage(few).await;
        let target = fs::read_link(root.path().join("d-001/link-0999")).unwrap();
        assert_eq!(target.as_os_str().len(), 1000);
    }
}

/// A file that has to be copied into memory, at two million paths.
#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_would_take_all_memory() {
    let options_of_store = DiskOptions {
        layout: kind_named("packed").unwrap(),
        ..DiskOptions::default()
    };
    let fixture = Fixture::with(Kind::OverlayTmpfs, options_of_store).await;
    let digest = fixture
        .store
        .put_bytes(FUNCTION, vec![7; 100_000].into())
        .await
        .unwrap();
    let files = (0..1000).map(|number| reapi::FileNode {
        name: format!("file-{number:04}"),
        digest: Some(to_proto(digest)),
        ..reapi::FileNode::default()
    });
    let files = reapi::Directory {
        files: files.collect(),
        ..reapi::Directory::default()
    };
    let files = fixture.raw_directory(&files).await;
    let often = (0..2000).map(|number| directory_node(&format!("d-{number:04}"), files));
    let root = fixture.raw_directory(&parent_of(often.collect())).await;
    let begin = Instant::now();
    let Err(error) = fixture.stage_with(root, options("")).await else {
        panic!("a root of 200 GB in memory is staged")
    };
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("memory"), "{error}");
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_few_directories_that_name_a_billion_paths() {
    for fixture in Fixture::all().await {
        let mut below = fixture.raw_directory(&reapi::Directory::default()).await;
        for _ in 0..30 {
            let both = vec![directory_node("a", below), directory_node("b", below)];
            below = fixture.raw_directory(&parent_of(both)).await;
        }
        fixture.is_refused(below, "entries_max").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_million_entries() {
    for fixture in Fixture::all().await {
        let content = fixture.file(b"one of many").await;
        let files = (0..10_000).map(|number| reapi::FileNode {
            name: format!("file-{number:05}"),
            digest: content.clone(),
            ..reapi::FileNode::default()
        });
        let many = reapi::Directory {
            files: files.collect(),
            ..reapi::Directory::default()
        };
        let many = fixture.raw_directory(&many).await;
        let thousand = (0..1000).map(|number| directory_node(&format!("directory-{number:03}"), many));
        let root = fixture.raw_directory(&parent_of(thousand.collect())).await;
        fixture.is_refused(root, "entries_max").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_directories_in_one_another() {
    for fixture in Fixture::all().await {
        let mut below = fixture.raw_directory(&reapi::Directory::default()).await;
        for _ in 0..10_000 {
            below = fixture
                .raw_directory(&parent_of(vec![directory_node("d", below)]))
                .await;
        }
        fixture.is_refused(below, "depth_max").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_names() {
    for fixture in Fixture::all().await {
        let long = "x".repeat(256);
        for name in ["..", ".", "/", "a/b", "", "nul\0", &long] {
            let file = reapi::FileNode {
                name: name.to_owned(),
                digest: fixture.file(b"content").await,
                ..reapi::FileNode::default()
            };
            let root = reapi::Directory {
                files: vec![file],
                ..reapi::Directory::default()
            };
            let root = fixture.raw_directory(&root).await;
            fixture.is_refused(root, "").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_come_twice_or_in_another_order() {
    for fixture in Fixture::all().await {
        let content = fixture.file(b"content").await;
        let file = |name: &str| reapi::FileNode {
            name: name.to_owned(),
            digest: content.clone(),
            ..reapi::FileNode::default()
        };
        let twice = reapi::Directory {
            files: vec![file("a"), file("a")],
            ..reapi::Directory::default()
        };
        let of_two_sorts = reapi::Directory {
            files: vec![file("a")],
            symlinks: vec![reapi::SymlinkNode {
                name: "a".to_owned(),
                target: "b".to_owned(),
                ..reapi::SymlinkNode::default()
            }],
            ..reapi::Directory::default()
        };
        let unsorted = reapi::Directory {
            files: vec![file("b"), file("a")],
            ..reapi::Directory::default()
        };
        for (root, words) in [
            (twice, "comes twice"),
            (of_two_sorts, "comes twice"),
            (unsorted, "sorted"),
        ] {
            let root = fixture.raw_directory(&root).await;
            fixture.is_refused(root, words).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_lead_in_circles_or_out_of_the_root() {
    for fixture in Fixture::all().await {
        let link = |name: &str, target: &str| reapi::SymlinkNode {
            name: name.to_owned(),
            target: target.to_owned(),
            ..reapi::SymlinkNode::default()
        };
        let root = reapi::Directory {
            symlinks: vec![
                link("around", "there"),
                link("out", "../../../../../../etc"),
                link("self", "self"),
                link("there", "around"),
            ],
            ..reapi::Directory::default()
        };
        let root = fixture.raw_directory(&root).await;
        let staged = fixture.stage(root).await;
        let captured = capture(
            &*staged,
            &[".", "around", "around/below", "out/passwd", "self/self", "self"],
        )
        .await;
        assert_eq!(root_digest(&captured), root);
        assert_eq!((captured.files.len(), captured.directories.len()), (0, 1));
        assert_eq!(captured.symlinks.len(), 2, "the links themselves");
        for path in ["around", "self/below", "out"] {
            let error = fixture.stage_with(root, options(path)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path}: {error}");
        }
        // A parent of an output that leads in a circle, and one that leads out.
        for path in ["self/output", "out/output"] {
            let wanted = StageOptions {
                directories: BTreeSet::from([RelPath::parse(path).unwrap()]),
                ..options("")
            };
            let error = fixture.stage_with(root, wanted).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_blob_in_seventy_thousand_places() {
    for fixture in Fixture::all().await {
        let small = fixture.file(b"the same everywhere").await;
        let large = fixture.file(&[7; 20_000]).await;
        let mut directories = Vec::new();
        for number in 0..70 {
            let files = (0..1000).map(|file| reapi::FileNode {
                name: format!("file-{file:03}"),
                digest: if number == 0 { large.clone() } else { small.clone() },
                is_executable: file % 2 == 0,
                ..reapi::FileNode::default()
            });
            let directory = reapi::Directory {
                files: files.collect(),
                ..reapi::Directory::default()
            };
            directories.push(directory_node(
                &format!("directory-{number:02}"),
                fixture.raw_directory(&directory).await,
            ));
        }
        let root = fixture.raw_directory(&parent_of(directories)).await;
        let staged = fixture.stage(root).await;
        for (path, content, mode) in [
            ("directory-00/file-998", &[7; 20_000][..], 0o755),
            ("directory-00/file-999", &[7; 20_000], 0o644),
            ("directory-69/file-000", b"the same everywhere", 0o755),
            ("directory-69/file-001", b"the same everywhere", 0o644),
        ] {
            let path = staged.path().join(path);
            assert_eq!(fs::read(&path).unwrap(), content);
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        }
        fs::set_permissions(
            staged.path().join("directory-69/file-001"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        assert_eq!(
            fs::metadata(staged.path().join("directory-69/file-003"))
                .unwrap()
                .mode()
                & 0o7777,
            0o644
        );
        staged.remove().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_no_directory() {
    for fixture in Fixture::all().await {
        let noise = Bytes::from_static(b"\x0a\xff\xff\xff\xff\x0fno message");
        let digest = fixture.store.put_bytes(FUNCTION, noise).await.unwrap();
        fixture.is_refused(digest, "").await;
        let error = fixture
            .stage_with(Digest::of(FUNCTION, b"nowhere"), options(""))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_nests_deeper_than_any_path() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    for fixture in Fixture::all().await {
        let staged = fixture.stage(fixture.tree(|_| {}).await).await;
        let (name, flags) = ("d".repeat(250), OFlags::RDONLY | OFlags::DIRECTORY);
        let mut at = openat(CWD, staged.path(), flags, Mode::empty()).unwrap();
        for _ in 0..50 {
            mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = openat(&at, &name, flags, Mode::empty()).unwrap();
        }
        drop(at);
        let error = staged.written_bytes(u64::MAX).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        let error = staged.capture(&outputs(&["."])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        staged.remove().await.unwrap();
    }
}
