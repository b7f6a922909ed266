//! What an input root has to be, and what is said about one that is not.

use std::collections::HashSet;

use proptest::prelude::*;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;

use super::*;
use crate::tree::InputTree;
use crate::{ErrorKind, Node, RelPath, Result};

/// Calls `visit` with every path of a model and what is there.
fn walk<'a>(model: &'a Model, path: &str, visit: &mut impl FnMut(String, &'a Child)) {
    for (name, child) in model {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}/{name}")
        };
        if let Child::Directory(below) = child {
            walk(below, &path, visit);
        }
        visit(path, child);
    }
}

fn agrees(node: Option<Node<'_>>, child: &Child) -> bool {
    match (node, child) {
        (Some(Node::File(node)), Child::File(content)) => node.digest == Digest::of(FUNCTION, content),
        (Some(Node::Directory(node)), Child::Directory(model)) => node.digest == Blobs::default().add(model),
        (Some(Node::Symlink(node)), Child::Symlink(target)) => node.target == *target,
        _ => false,
    }
}

proptest! {
    #[test]
    fn a_loaded_tree_holds_what_its_model_holds(model in models()) {
        let mut blobs = Blobs::default();
        let root = blobs.add(&model);
        let tree = run(async { InputTree::load(&*blobs.all_stored().await, root, &TreeLimits::default()).await.unwrap() });

        let (mut entries, mut depth, mut path_bytes) = (0, 0, 0);
        walk(&model, "", &mut |path, child| {
            entries += 1;
            path_bytes = path_bytes.max(path.len() as u64);
            if matches!(child, Child::Directory(_)) {
                depth = depth.max(path.split('/').count() as u64);
            }
            assert!(agrees(tree.node_at(&RelPath::parse(&path).unwrap()), child), "{path}");
        });
        let extent = tree.extent();
        prop_assert_eq!((extent.entries, extent.depth, extent.path_bytes), (entries, depth, path_bytes));

        let closure = tree.closure();
        let expected: HashSet<Digest> = blobs.directories.keys().chain(blobs.files.keys()).copied().collect();
        prop_assert_eq!(closure.len(), expected.len());
        prop_assert_eq!(closure.into_iter().collect::<HashSet<_>>(), expected);
    }

    #[test]
    fn all_that_is_missing_is_told_at_once(model in models(), lost in any::<u64>()) {
        let mut blobs = Blobs::default();
        let root = blobs.add(&model);
        let is_lost = |digest: &Digest| !digest.is_empty_blob() && (lost >> (digest.hash()[0] % 64)) & 1 == 1;
        let outcome = run(async {
            InputTree::load(&*blobs.stored(is_lost).await, root, &TreeLimits::default()).await
        });
        let told: HashSet<Digest> = outcome.as_ref().map_or_else(|error| error.missing().iter().copied().collect(), |_| HashSet::new());
        prop_assert_eq!(told, visible_and_lost(&model, &is_lost));
        prop_assert!(outcome.is_ok() || outcome.is_err_and(|error| error.kind() == ErrorKind::FailedPrecondition));
    }
}

/// What a reader can know to be missing: a lost directory hides what is below it.
fn visible_and_lost(model: &Model, is_lost: &impl Fn(&Digest) -> bool) -> HashSet<Digest> {
    let digest = Blobs::default().add(model);
    if is_lost(&digest) {
        return HashSet::from([digest]);
    }
    let below = model.values().flat_map(|child| match child {
        Child::Directory(model) => visible_and_lost(model, is_lost),
        Child::File(content) => Some(Digest::of(FUNCTION, content))
            .into_iter()
            .filter(is_lost)
            .collect(),
        Child::Symlink(_) => HashSet::new(),
    });
    below.collect()
}

/// Loads a tree and says how many directories were fetched for it.
fn load(blobs: &Blobs, root: Digest, limits: &TreeLimits) -> (Result<InputTree>, usize) {
    run(async {
        let store = blobs.all_stored().await;
        (InputTree::load(&*store, root, limits).await, store.fetched())
    })
}

fn assert_refused(blobs: &Blobs, root: Digest, limits: &TreeLimits, words: &str) {
    let error = load(blobs, root, limits)
        .0
        .expect_err("a tree that is not valid was loaded");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn a_dag_of_thirty_levels_costs_thirty_fetches() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(30, &["a", "b"]);
    let (tree, fetched) = load(&blobs, root, &unlimited());
    assert_eq!(fetched, 30);
    assert_eq!(tree.unwrap().extent().entries, (1 << 30) - 2);
    assert_refused(&blobs, root, &TreeLimits::default(), "entries_max = 4000000");
}

#[test]
fn more_paths_than_can_be_counted_are_too_many() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(100, &["a", "b"]);
    assert_eq!(load(&blobs, root, &unlimited()).0.unwrap().extent().entries, u64::MAX);
}

#[test]
fn ten_thousand_levels_overflow_no_stack() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(10_000, &["d"]);
    let (tree, fetched) = load(&blobs, root, &unlimited());
    assert_eq!(fetched, 10_000);
    let extent = tree.unwrap().extent();
    assert_eq!((extent.depth, extent.path_bytes), (9_999, 2 * 9_999 - 1));
    assert_refused(&blobs, root, &TreeLimits::default(), "depth_max");
}

#[test]
fn a_path_longer_than_a_system_call_takes_is_refused() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(30, &["d".repeat(200).as_str()]);
    assert_refused(&blobs, root, &TreeLimits::default(), "path_bytes_max = 4095");
}

#[test]
fn every_limit_is_told_by_name() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(5, &["a", "b"]);
    let limits = TreeLimits::default;
    let few_entries = TreeLimits {
        entries_max: 29,
        ..limits()
    };
    assert_refused(&blobs, root, &few_entries, "30 is past the limit entries_max = 29");
    let few_directories = TreeLimits {
        directories_max: 4,
        ..limits()
    };
    assert_refused(
        &blobs,
        root,
        &few_directories,
        "5 is past the limit directories_max = 4",
    );
    let small = TreeLimits {
        directory_bytes_max: 10,
        ..limits()
    };
    assert_refused(&blobs, root, &small, "directory_bytes_max = 10");
    let shallow = TreeLimits {
        depth_max: 3,
        ..limits()
    };
    assert_refused(&blobs, root, &shallow, "4 is past the limit depth_max = 3");
}

#[test]
fn a_wrong_directory_anywhere_is_told_by_its_digest() {
    let mut blobs = Blobs::default();
    let content = blobs.add_file(b"content");
    for files in [vec!["b", "a"], vec!["a", "a"], vec![".."], vec!["a/b"]] {
        let unsorted = prost::Message::encode_to_vec(&reapi::Directory {
            files: files.iter().map(|name| file(name, content)).collect(),
            ..Default::default()
        });
        let wrong = blobs.add_encoded(unsorted.into());
        let root = blobs.add_directory(reapi::Directory {
            directories: vec![subdirectory("d", wrong)],
            ..Default::default()
        });
        assert_refused(&blobs, root, &TreeLimits::default(), &wrong.to_string());
    }
}

#[test]
fn the_empty_blob_is_an_empty_root() {
    let root = Digest::empty(FUNCTION);
    let tree = load(&Blobs::default(), root, &TreeLimits::default()).0.unwrap();
    assert!(tree.root().is_empty());
    assert_eq!(tree.closure(), [root]);
    assert_eq!(
        tree.directory_at(&RelPath::root()).map(|directory| directory.digest),
        Some(root)
    );
}

#[test]
fn a_tree_needs_all_its_directories() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(3, &["a"]);
    let mut directories = blobs.directories.clone();
    directories.remove(&Digest::empty(FUNCTION));
    let error = InputTree::from_encoded(root, directories, &TreeLimits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let tree = InputTree::from_encoded(root, blobs.directories, &TreeLimits::default()).unwrap();
    assert_eq!(tree.directories().len(), 3);
}
