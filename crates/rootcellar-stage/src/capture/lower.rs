//! The tree that an action was given, as a capture of it would say it.

use std::sync::OnceLock;

use bytes::Bytes;
use rootcellar_digest::{Digest, DigestMap};
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::tree::TreeDirectory;
use rootcellar_reapi::{Directory, InputTree, encode_directory};

use crate::attributes::Attributes;

/// An input tree below a root.
///
/// A directory that nobody touched comes back as what it was, unless its message holds what a capture does not say: node
/// properties that the command did not ask for, fields that are not known here.
#[derive(Debug)]
pub(crate) struct Lower {
    tree: InputTree,
    /// The directories that come back as others, found out when it is first asked.
    retold: OnceLock<DigestMap<Message>>,
}

/// A Directory message, and its name.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) digest: Digest,
    pub(super) encoded: Bytes,
}

impl Lower {
    pub(crate) fn new(tree: InputTree) -> Self {
        Self {
            tree,
            retold: OnceLock::new(),
        }
    }

    pub(crate) fn tree(&self) -> &InputTree {
        &self.tree
    }

    pub(super) fn root(&self) -> &TreeDirectory {
        &self.tree.directories()[0]
    }

    /// A directory of the tree.
    pub(super) fn directory(&self, digest: &Digest) -> &TreeDirectory {
        self.tree
            .directory(digest)
            .expect("a tree holds every directory that it refers to")
    }

    /// What a directory and all below it come back as; `None` if as itself.
    pub(super) fn retold(&self, directory: &TreeDirectory) -> Option<&Message> {
        self.retold.get_or_init(|| retell(&self.tree)).get(&directory.digest)
    }
}

/// The directories that come back as others.
fn retell(tree: &InputTree) -> DigestMap<Message> {
    let mut retold: DigestMap<Message> = DigestMap::default();
    // Children come behind their parents: from the end on, each is known before it is needed.
    for directory in tree.directories().iter().rev() {
        let child = |digest: &Digest| retold.get(digest).map_or(*digest, |message| message.digest);
        let encoded = encode_directory(tell(&directory.directory, child));
        if encoded != directory.encoded {
            let digest = Digest::of(directory.digest.function(), &encoded);
            retold.insert(directory.digest, Message { digest, encoded });
        }
    }
    retold
}

fn tell(directory: &Directory, child: impl Fn(&Digest) -> Digest) -> reapi::Directory {
    reapi::Directory {
        files: directory.files().iter().map(tell_file).collect(),
        directories: directory
            .directories()
            .iter()
            .map(|node| reapi::DirectoryNode {
                name: node.name.as_str().to_owned(),
                digest: Some(to_proto(child(&node.digest))),
            })
            .collect(),
        symlinks: directory.symlinks().iter().map(tell_link).collect(),
        ..reapi::Directory::default()
    }
}

fn tell_file(node: &rootcellar_reapi::FileNode) -> reapi::FileNode {
    reapi::FileNode {
        name: node.name.as_str().to_owned(),
        digest: Some(to_proto(node.digest)),
        is_executable: Attributes::of_file(&node.properties, node.is_executable).is_executable(),
        ..reapi::FileNode::default()
    }
}

fn tell_link(node: &rootcellar_reapi::SymlinkNode) -> reapi::SymlinkNode {
    reapi::SymlinkNode {
        name: node.name.as_str().to_owned(),
        target: node.target.clone(),
        ..reapi::SymlinkNode::default()
    }
}
