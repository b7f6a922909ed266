//! A Directory message, read strictly: what holds for a [`Directory`] was checked when it was made.
//!
//! Every child's name is one segment of a path, no name comes twice in files, directories and symlinks together, every digest
//! is well-formed and of the tree's own function, and no symlink is without a target. The canonical order is judged apart:
//! an input root has to have it, while a tree that is only passed on need not.
//!
//! Reading goes record by record and stops at the first that is wrong, so that hostile bytes cost memory in proportion to
//! their own number. A Directory is named by the bytes it was stored as: nothing here writes one that it read.

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;

use crate::quoted::Quoted;
use crate::wire::Fields;
use crate::{Error, NodeName, NodeProperties, PATH_BYTES_MAX, Result, functions};

/// The largest encoded node, in bytes: a name, a target of full length, and properties.
pub const NODE_BYTES_MAX: usize = 64 * 1024;

/// The children of one directory, checked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Directory {
    files: Vec<FileNode>,
    directories: Vec<DirectoryNode>,
    symlinks: Vec<SymlinkNode>,
    properties: NodeProperties,
    is_sorted: bool,
    longest_leaf_name: usize,
    leaf_text_bytes: usize,
}

/// A regular file.
#[derive(Debug, Clone, PartialEq)]
pub struct FileNode {
    /// Its name in the directory.
    pub name: NodeName,
    /// Its content.
    pub digest: Digest,
    /// Whether it may be executed.
    pub is_executable: bool,
    /// What else is said about it.
    pub properties: NodeProperties,
}

/// A directory below this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryNode {
    /// Its name in the directory.
    pub name: NodeName,
    /// Its own Directory message.
    pub digest: Digest,
}

/// A symbolic link.
#[derive(Debug, Clone, PartialEq)]
pub struct SymlinkNode {
    /// Its name in the directory.
    pub name: NodeName,
    /// Where it points, exactly as sent: relative to the directory or absolute, with any `..`, existing or not.
    pub target: String,
    /// What else is said about it.
    pub properties: NodeProperties,
}

impl Directory {
    /// Reads an encoded Directory of a tree whose digests are of `function`. The caller has bounded its size.
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the bytes are no Directory, or one that no filesystem could
    /// hold. A wrong order is no error; [`Self::is_sorted`] tells.
    pub fn parse(function: DigestFunction, encoded: &[u8]) -> Result<Self> {
        let mut directory = Self::default();
        let mut properties = None;
        for field in Fields::of(encoded) {
            let field = field?;
            match field.number {
                1 => directory.files.push(FileNode::parse(function, field.message()?)?),
                2 => directory
                    .directories
                    .push(DirectoryNode::parse(function, field.message()?)?),
                3 => directory.symlinks.push(SymlinkNode::parse(field.message()?)?),
                5 if properties.is_some() => return Err(Error::invalid_argument("node_properties come twice")),
                5 => properties = Some(decode::<reapi::NodeProperties>(field.message()?)?),
                _ => {}
            }
        }
        directory.is_sorted = directory.nodes_are_sorted();
        let leaves = || directory.leaf_names().map(|name| name.as_str().len());
        let targets = directory.symlinks.iter().map(|link| link.target.len());
        let (longest, text_bytes) = (leaves().max().unwrap_or(0), leaves().chain(targets).sum());
        (directory.longest_leaf_name, directory.leaf_text_bytes) = (longest, text_bytes);
        directory.check_unique()?;
        directory.properties = read_properties(properties.as_ref())?;
        Ok(directory)
    }

    fn check_unique(&self) -> Result<()> {
        let mut names: Vec<&NodeName> = self.names().collect();
        // The lists of most directories are sorted, and this sort is quick with sorted runs.
        names.sort();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(Error::invalid_argument(format!("the name {:?} comes twice", pair[0]))),
            None => Ok(()),
        }
    }

    fn nodes_are_sorted(&self) -> bool {
        self.files.is_sorted_by_key(|node| &node.name)
            && self.directories.is_sorted_by_key(|node| &node.name)
            && self.symlinks.is_sorted_by_key(|node| &node.name)
    }

    /// The names of all children.
    pub fn names(&self) -> impl Iterator<Item = &NodeName> {
        self.leaf_names().chain(self.directories.iter().map(|node| &node.name))
    }

    fn leaf_names(&self) -> impl Iterator<Item = &NodeName> {
        let files = self.files.iter().map(|node| &node.name);
        files.chain(self.symlinks.iter().map(|node| &node.name))
    }

    /// Bytes of the longest name of a child that is no directory.
    pub(crate) fn longest_leaf_name(&self) -> usize {
        self.longest_leaf_name
    }

    /// Bytes in the names of these children, and in the targets of links.
    pub(crate) fn leaf_text_bytes(&self) -> usize {
        self.leaf_text_bytes
    }

    /// Whether each list is in the canonical order, by the bytes of the names. The order of properties is not judged: they are
    /// found by name.
    pub fn is_sorted(&self) -> bool {
        self.is_sorted
    }

    /// The files.
    pub fn files(&self) -> &[FileNode] {
        &self.files
    }

    /// The directories directly below.
    pub fn directories(&self) -> &[DirectoryNode] {
        &self.directories
    }

    /// The symbolic links.
    pub fn symlinks(&self) -> &[SymlinkNode] {
        &self.symlinks
    }

    /// What is said about the directory itself.
    pub fn properties(&self) -> &NodeProperties {
        &self.properties
    }

    /// How many children there are.
    pub fn len(&self) -> usize {
        self.files.len() + self.directories.len() + self.symlinks.len()
    }

    /// Whether there are no children.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Finds a child by name.
    pub fn child(&self, name: &str) -> Option<Node<'_>> {
        let file = self.find(&self.files, name, |node| &node.name).map(Node::File);
        let directory = || {
            self.find(&self.directories, name, |node| &node.name)
                .map(Node::Directory)
        };
        let symlink = || self.find(&self.symlinks, name, |node| &node.name).map(Node::Symlink);
        file.or_else(directory).or_else(symlink)
    }

    /// Finds a node by halving where the order allows it: a directory can have a million.
    fn find<'a, T>(&self, nodes: &'a [T], name: &str, name_of: impl Fn(&T) -> &NodeName) -> Option<&'a T> {
        if self.is_sorted {
            let found = nodes.binary_search_by(|node| name_of(node).as_str().cmp(name));
            return found.ok().map(|index| &nodes[index]);
        }
        nodes.iter().find(|node| name_of(node).as_str() == name)
    }
}

/// A child of a directory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Node<'a> {
    /// A regular file.
    File(&'a FileNode),
    /// A directory.
    Directory(&'a DirectoryNode),
    /// A symbolic link.
    Symlink(&'a SymlinkNode),
}

impl FileNode {
    fn parse(function: DigestFunction, encoded: &[u8]) -> Result<Self> {
        let node: reapi::FileNode = decode(encoded)?;
        Ok(Self {
            digest: child_digest(function, &node.name, node.digest.as_ref())?,
            is_executable: node.is_executable,
            properties: read_properties(node.node_properties.as_ref())?,
            name: node.name.try_into()?,
        })
    }
}

impl DirectoryNode {
    fn parse(function: DigestFunction, encoded: &[u8]) -> Result<Self> {
        let node: reapi::DirectoryNode = decode(encoded)?;
        Ok(Self {
            digest: child_digest(function, &node.name, node.digest.as_ref())?,
            name: node.name.try_into()?,
        })
    }
}

impl SymlinkNode {
    fn parse(encoded: &[u8]) -> Result<Self> {
        let node: reapi::SymlinkNode = decode(encoded)?;
        check_target(&node.target).map_err(|error| error.about(format_args!("symlink {}", Quoted(&node.name))))?;
        Ok(Self {
            properties: read_properties(node.node_properties.as_ref())?,
            name: node.name.try_into()?,
            target: node.target,
        })
    }
}

fn decode<M: prost::Message + Default>(encoded: &[u8]) -> Result<M> {
    let len = encoded.len();
    if len > NODE_BYTES_MAX {
        return Err(Error::invalid_argument(format!(
            "a node has {len} bytes; at most {NODE_BYTES_MAX} are allowed"
        )));
    }
    M::decode(encoded).map_err(|error| Error::invalid_argument("not a Directory message").caused_by(error))
}

fn child_digest(function: DigestFunction, name: &str, digest: Option<&reapi::Digest>) -> Result<Digest> {
    digest
        .ok_or_else(|| Error::invalid_argument("it has no digest"))
        .and_then(|digest| functions::from_proto(function, digest))
        .map_err(|error| error.about(format_args!("node {}", Quoted(name))))
}

fn check_target(target: &str) -> Result<()> {
    let reason = match target {
        "" => "is empty",
        _ if target.contains('\0') => "holds a NUL",
        _ if target.len() > PATH_BYTES_MAX => "is longer than any path",
        _ => return Ok(()),
    };
    Err(Error::invalid_argument(format!("the target {reason}")))
}

fn read_properties(properties: Option<&reapi::NodeProperties>) -> Result<NodeProperties> {
    properties.map_or_else(|| Ok(NodeProperties::default()), NodeProperties::from_proto)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::ErrorKind;

    const FUNCTION: DigestFunction = DigestFunction::Sha256;

    fn digest() -> Option<reapi::Digest> {
        Some(functions::to_proto(Digest::of(FUNCTION, b"content")))
    }

    fn file(name: &str) -> reapi::FileNode {
        reapi::FileNode {
            name: name.to_owned(),
            digest: digest(),
            ..Default::default()
        }
    }

    fn subdirectory(name: &str) -> reapi::DirectoryNode {
        reapi::DirectoryNode {
            name: name.to_owned(),
            digest: digest(),
        }
    }

    fn symlink(name: &str, target: &str) -> reapi::SymlinkNode {
        reapi::SymlinkNode {
            name: name.to_owned(),
            target: target.to_owned(),
            ..Default::default()
        }
    }

    fn files(names: &[&str]) -> reapi::Directory {
        reapi::Directory {
            files: names.iter().map(|name| file(name)).collect(),
            ..Default::default()
        }
    }

    fn parse(message: &reapi::Directory) -> Result<Directory> {
        Directory::parse(FUNCTION, &message.encode_to_vec())
    }

    fn assert_invalid(message: &reapi::Directory) {
        let error = parse(message).expect_err("an invalid directory was taken");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    }

    #[test]
    fn no_bytes_are_the_empty_directory() {
        let directory = Directory::parse(FUNCTION, b"").unwrap();
        assert!(directory.is_empty() && directory.is_sorted());
    }

    #[test]
    fn a_name_that_is_not_one_segment_is_refused() {
        let long = "x".repeat(256);
        for name in ["", ".", "..", "/", "a/b", "../x", "a\0", &long] {
            assert_invalid(&files(&[name]));
            assert_invalid(&reapi::Directory {
                directories: vec![subdirectory(name)],
                ..Default::default()
            });
            assert_invalid(&reapi::Directory {
                symlinks: vec![symlink(name, "x")],
                ..Default::default()
            });
        }
        parse(&files(&["...", "a b", "ünï", &long[1..]])).unwrap();
    }

    #[test]
    fn a_name_comes_once_in_all_three_lists() {
        assert_invalid(&files(&["a", "a"]));
        assert_invalid(&files(&["a", "b", "a"]));
        assert_invalid(&reapi::Directory {
            symlinks: vec![symlink("a", "x")],
            ..files(&["a"])
        });
        assert_invalid(&reapi::Directory {
            directories: vec![subdirectory("a")],
            symlinks: vec![symlink("a", "x")],
            ..Default::default()
        });
        parse(&files(&["Foo", "foo"])).unwrap();
    }

    #[test]
    fn the_order_is_that_of_the_bytes() {
        assert!(parse(&files(&["B", "a", "ü"])).unwrap().is_sorted());
        assert!(!parse(&files(&["a", "B"])).unwrap().is_sorted());
        let lists = reapi::Directory {
            directories: vec![subdirectory("a")],
            ..files(&["b"])
        };
        assert!(parse(&lists).unwrap().is_sorted(), "each list has its own order");
    }

    #[test]
    fn a_digest_has_to_be_there_and_of_the_tree_s_own_function() {
        let mut message = files(&["a"]);
        message.files[0].digest = None;
        assert_invalid(&message);
        message.files[0].digest = Some(functions::to_proto(Digest::of(DigestFunction::Md5, b"")));
        assert_invalid(&message);
        message.files[0].digest = Some(reapi::Digest {
            size_bytes: -1,
            ..digest().unwrap()
        });
        assert_invalid(&message);
    }

    #[test]
    fn a_symlink_has_a_target_and_keeps_it_as_it_is() {
        assert_invalid(&reapi::Directory {
            symlinks: vec![symlink("a", "")],
            ..Default::default()
        });
        let message = reapi::Directory {
            symlinks: vec![symlink("a", "../x/../y//"), symlink("b", "/dev/null")],
            ..Default::default()
        };
        let directory = parse(&message).unwrap();
        assert_eq!(directory.symlinks()[0].target, "../x/../y//");
        assert!(matches!(directory.child("b"), Some(Node::Symlink(_))));
    }

    #[test]
    fn fields_of_a_newer_api_are_passed_over() {
        let mut encoded = files(&["a"]).encode_to_vec();
        encoded.extend([0x7a, 0x01, b'x', 0x38, 0x05]);
        assert_eq!(Directory::parse(FUNCTION, &encoded).unwrap().len(), 1);
    }

    #[test]
    fn other_messages_are_not_taken_for_directories() {
        let action = reapi::Action {
            command_digest: digest(),
            input_root_digest: digest(),
            ..Default::default()
        };
        let command = reapi::Command {
            arguments: vec!["/bin/sh".to_owned()],
            ..Default::default()
        };
        for encoded in [action.encode_to_vec(), command.encode_to_vec(), b"#!/bin/sh\n".to_vec()] {
            assert!(Directory::parse(FUNCTION, &encoded).is_err());
        }
    }

    #[test]
    fn a_small_blob_cannot_name_many_nodes() {
        let many_empty_nodes = [0x0a, 0x00].repeat(1 << 20);
        assert!(Directory::parse(FUNCTION, &many_empty_nodes).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_parsing_panic(encoded in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _outcome = Directory::parse(FUNCTION, &encoded);
        }

        #[test]
        fn what_is_parsed_is_what_was_sent(names in proptest::collection::btree_set("[a-z]{1,3}", 0..20)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let directory = parse(&files(&names)).unwrap();
            let read: Vec<&str> = directory.files().iter().map(|node| node.name.as_str()).collect();
            prop_assert_eq!(read, names);
            prop_assert!(directory.is_sorted());
        }
    }
}
