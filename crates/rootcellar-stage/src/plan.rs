//! What has to be made where: an input tree, path by path.

use rootcellar_digest::Digest;
use rootcellar_reapi::{Directory, DirectoryNode, InputTree};

use crate::attributes::Attributes;
use crate::beneath::join;

/// One thing to make. Directories come before what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) node: Node,
    pub(crate) attributes: Attributes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory,
    File(Digest),
    Link { target: String },
}

/// All entries of `tree`, the root (with the empty path) first. The tree's own limits bound their number.
pub(crate) fn entries(tree: &InputTree) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut pending = vec![(String::new(), tree.root())];
    while let Some((path, directory)) = pending.pop() {
        add_nodes(&path, directory, &mut entries);
        let child = |node: &DirectoryNode| (join(&path, node.name.as_str()), tree.child(&node.digest));
        pending.extend(directory.directories().iter().map(child));
    }
    entries
}

/// Adds a directory, and the files and links in it.
fn add_nodes(path: &str, directory: &Directory, entries: &mut Vec<Entry>) {
    entries.push(Entry {
        path: path.to_owned(),
        node: Node::Directory,
        attributes: Attributes::of_directory(directory.properties()),
    });
    entries.extend(directory.files().iter().map(|file| Entry {
        path: join(path, file.name.as_str()),
        node: Node::File(file.digest),
        attributes: Attributes::of_file(&file.properties, file.is_executable),
    }));
    entries.extend(directory.symlinks().iter().map(|link| Entry {
        path: join(path, link.name.as_str()),
        node: Node::Link {
            target: link.target.clone(),
        },
        attributes: Attributes::of_link(&link.properties),
    }));
}
