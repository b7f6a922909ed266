//! What capture takes for an output, and how it describes it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use prost_types::Timestamp;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::{ErrorKind, InputTree, Outputs, RelPath, TreeLimits, tree};
use rootcellar_stage::{CaptureLimits, StagerOptions};
use rootcellar_store::BlobStore as _;
use rootcellar_store::testing::Seeded;

use super::{FUNCTION, Fixture, capture, grow, older_outputs, options, outputs, root_digest, roots};

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
