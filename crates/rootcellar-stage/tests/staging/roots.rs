//! What a staged root is: the tree, whole, with the attributes that were asked for, and of nobody else.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use prost_types::Timestamp;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{ErrorKind, InputTree, RelPath, TreeLimits};
use rootcellar_stage::{Owner, StageOptions, read_tree, write_tree};
use rootcellar_store::LocalStore as _;
use rootcellar_store::testing::Seeded;

use super::{FUNCTION, Fixture, Kind, capture, grow, options, outputs, root_digest, roots};

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
