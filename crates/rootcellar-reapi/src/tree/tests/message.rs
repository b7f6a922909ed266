//! The Tree message, both ways.

use proptest::prelude::*;
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;

use super::*;
use crate::tree::message::{decode, encode};
use crate::tree::{DecodedTree, InputTree};
use crate::{ErrorKind, Result};

fn tree(blobs: &Blobs, root: Digest) -> InputTree {
    InputTree::from_encoded(root, blobs.directories.clone(), &unlimited()).unwrap()
}

fn read(message: impl Into<Bytes>) -> Result<DecodedTree> {
    decode(FUNCTION, &message.into(), &TreeLimits::default())
}

fn assert_refused(message: impl Into<Bytes>) {
    let error = read(message).expect_err("what is no Tree was read as one");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

/// Records of a Tree in any order: field number and content.
fn records(records: &[(u8, &Bytes)]) -> Vec<u8> {
    let mut message = Vec::new();
    for (number, content) in records {
        message.push(number << 3 | 2);
        prost::encode_length_delimiter(content.len(), &mut message).unwrap();
        message.extend_from_slice(content);
    }
    message
}

/// A root that holds one directory, which holds the empty one: their encodings from the root down.
fn three_levels() -> [Bytes; 3] {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(3, &["a"]);
    let tree = tree(&blobs, root);
    [0, 1, 2].map(|level: usize| tree.directories()[level].encoded.clone())
}

proptest! {
    #[test]
    fn a_tree_reads_back_from_its_message(model in models()) {
        let mut blobs = Blobs::default();
        let root = blobs.add(&model);
        let tree = tree(&blobs, root);
        let message = encode(&tree);
        let decoded = read(message.clone()).unwrap();
        prop_assert!(decoded.is_topologically_sorted);
        prop_assert_eq!(decoded.tree.closure(), tree.closure());
        prop_assert_eq!(encode(&decoded.tree), message.clone());

        let generic = reapi::Tree::decode(message.clone()).unwrap();
        prop_assert_eq!(generic.children.len() + 1, blobs.directories.len());
        prop_assert_eq!(generic.encode_to_vec(), message);
    }

    #[test]
    fn no_bytes_make_reading_panic(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _outcome = read(message);
    }
}

#[test]
fn any_order_is_read_and_told_apart() {
    let [root, middle, leaf] = &three_levels();
    let is_sorted = |message: Vec<u8>| read(message).unwrap().is_topologically_sorted;
    assert!(is_sorted(records(&[(1, root), (2, middle), (2, leaf)])));
    assert!(!is_sorted(records(&[(1, root), (2, leaf), (2, middle)])));
    assert!(!is_sorted(records(&[(2, middle), (1, root), (2, leaf)])));
    assert!(!is_sorted(records(&[(1, root), (2, middle), (2, leaf), (2, leaf)])));
}

#[test]
fn a_parent_behind_its_child_is_no_topological_order_even_if_another_is_before_it() {
    let mut blobs = Blobs::default();
    let leaf = blobs.add_directory(reapi::Directory::default());
    let parent = blobs.add_directory(reapi::Directory {
        directories: vec![subdirectory("leaf", leaf)],
        ..Default::default()
    });
    let root = blobs.add_directory(reapi::Directory {
        directories: vec![subdirectory("leaf", leaf), subdirectory("parent", parent)],
        ..Default::default()
    });
    let [root, parent, leaf] = [root, parent, leaf].map(|digest| blobs.directories[&digest].clone());
    let is_sorted = |message: Vec<u8>| read(message).unwrap().is_topologically_sorted;
    assert!(is_sorted(records(&[(1, &root), (2, &parent), (2, &leaf)])));
    assert!(!is_sorted(records(&[(1, &root), (2, &leaf), (2, &parent)])));
}

#[test]
fn what_nothing_refers_to_is_dropped() {
    let [root, middle, leaf] = &three_levels();
    let decoded = read(records(&[(1, middle), (2, leaf), (2, root)])).unwrap();
    assert!(!decoded.is_topologically_sorted);
    assert_eq!(decoded.tree.directories().len(), 2);
}

#[test]
fn only_plain_records_are_the_sorted_form() {
    let [root, middle, leaf] = &three_levels();
    let mut unknown_field = records(&[(1, root), (2, middle), (2, leaf)]);
    let mut long_length = unknown_field.clone();
    unknown_field.extend([0x18, 0x01]);
    assert!(!read(unknown_field).unwrap().is_topologically_sorted);
    long_length.truncate(long_length.len() - 1);
    long_length.extend([0x80, 0x00]);
    assert!(!read(long_length).unwrap().is_topologically_sorted);
}

#[test]
fn what_is_no_tree_is_refused() {
    let [root, middle, leaf] = &three_levels();
    assert_refused(records(&[(2, leaf)]));
    assert_refused(records(&[(1, root), (1, root), (2, middle), (2, leaf)]));
    assert_refused(records(&[(1, root), (2, leaf)]));
    assert_refused(records(&[(1, &Bytes::from_static(b"text")), (2, leaf)]));
    assert_refused(b"text".to_vec());
    assert_refused(vec![0x08, 0x01]);
    assert_refused(vec![0x0a]);
}

#[test]
fn the_empty_message_is_the_empty_directory() {
    let decoded = read(Bytes::new()).unwrap();
    assert_eq!(decoded.tree.root_digest(), Digest::empty(FUNCTION));
    assert!(read(records(&[(1, &Bytes::new())])).unwrap().is_topologically_sorted);
}

#[test]
fn many_records_without_content_are_refused() {
    let mut message = records(&[(1, &Bytes::new())]);
    message.extend([0x12, 0x00].repeat(1_000_000));
    assert_refused(message);
}

#[test]
fn ten_thousand_levels_are_written_and_read() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(10_000, &["d"]);
    let message = encode(&tree(&blobs, root));
    assert!(
        decode(FUNCTION, &message, &unlimited())
            .unwrap()
            .is_topologically_sorted
    );
    assert_refused(message);
}
