//! What has to be made where: an input tree, path by path.

use rootcellar_digest::Digest;
use rootcellar_reapi::{Directory, DirectoryNode, InputTree, NodeProperties};
use rustix::fs::Timespec;

use crate::beneath::join;

/// The modification time of everything that has none of its own: 2011-11-11T11:11:11Z, as BuildStream's workers set it. Tools
/// that compare times must find the same ones in every run.
pub(crate) const MTIME: Timespec = Timespec {
    tv_sec: 1_321_009_871,
    tv_nsec: 0,
};

/// One thing to make. Directories come before what they hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) node: Node,
    pub(crate) mtime: Timespec,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Directory { mode: u32 },
    File { digest: Digest, mode: u32 },
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
    let entry = |path, node, properties: &NodeProperties| Entry {
        path,
        node,
        mtime: mtime(properties),
    };
    let properties = directory.properties();
    entries.push(entry(
        path.to_owned(),
        Node::Directory {
            mode: mode(properties, 0o755),
        },
        properties,
    ));
    for file in directory.files() {
        let default = if file.is_executable { 0o755 } else { 0o644 };
        let node = Node::File {
            digest: file.digest,
            mode: mode(&file.properties, default),
        };
        entries.push(entry(join(path, file.name.as_str()), node, &file.properties));
    }
    for link in directory.symlinks() {
        let node = Node::Link {
            target: link.target.clone(),
        };
        entries.push(entry(join(path, link.name.as_str()), node, &link.properties));
    }
}

/// Permission bits only: what comes from outside makes no set-user-id programs.
fn mode(properties: &NodeProperties, default: u32) -> u32 {
    properties.unix_mode.map_or(default, |mode| mode & 0o777)
}

fn mtime(properties: &NodeProperties) -> Timespec {
    properties.mtime.map_or(MTIME, |mtime| Timespec {
        tv_sec: mtime.seconds,
        tv_nsec: mtime.nanos.into(),
    })
}
