//! Which parts of its root an action may write to.
//!
//! BuildStream marks Directories with the property `SubtreeReadOnly`: "true" on a root of sources and tools, "false" on the build
//! directory below it. What a Directory says holds for all below it, up to one that says otherwise.

use std::path::PathBuf;

use rootcellar_reapi::{Error, InputTree};

/// Each is a mount of the sandbox. BuildStream marks about ten.
const SUBTREES_MAX: usize = 1000;

/// Where a root is read-only and where it is writable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Whether the root is read-only, where no part says otherwise.
    pub root_read_only: bool,
    /// Parts that differ from what is around them, parents before children.
    pub subtrees: Vec<Subtree>,
}

/// A part of a root that is read-only or writable, unlike what is around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subtree {
    /// An absolute path inside the root, without symbolic links.
    pub path: PathBuf,
    /// Whether the part is read-only.
    pub read_only: bool,
}

impl Access {
    /// Reads the marks of `tree`. Top-level directories that the sandbox mounts its own over are passed by.
    pub(crate) fn of(tree: &InputTree, mount_points: &[&str]) -> Result<Self, Error> {
        let root_read_only = tree.root().properties().subtree_read_only.unwrap_or(false);
        let mut access = Self {
            root_read_only,
            subtrees: Vec::new(),
        };
        let marked = marked(tree);
        let mut pending = vec![(PathBuf::from("/"), 0, root_read_only)];
        while let Some((path, position, around)) = pending.pop() {
            let directory = &tree.directories()[position].directory;
            let read_only = directory.properties().subtree_read_only.unwrap_or(around);
            if read_only != around {
                access.add(Subtree {
                    path: path.clone(),
                    read_only,
                })?;
            }
            let is_covered = |name: &str| path.parent().is_none() && mount_points.contains(&name);
            for (node, child) in directory.directories().iter().zip(tree.children(position)) {
                if marked[*child] && !is_covered(node.name.as_str()) {
                    pending.push((path.join(node.name.as_str()), *child, read_only));
                }
            }
        }
        Ok(access)
    }

    fn add(&mut self, subtree: Subtree) -> Result<(), Error> {
        if self.subtrees.len() == SUBTREES_MAX {
            let reason = format!("the input root marks more than {SUBTREES_MAX} directories with SubtreeReadOnly");
            return Err(Error::invalid_argument(reason));
        }
        self.subtrees.push(subtree);
        Ok(())
    }
}

/// Whether each directory has a mark, or has one below it: the others need not be walked.
fn marked(tree: &InputTree) -> Vec<bool> {
    let mut marked = vec![false; tree.directories().len()];
    // Parents come before children, so from behind every child is known before its parents.
    for (position, directory) in tree.directories().iter().enumerate().rev() {
        let is_marked = directory.directory.properties().subtree_read_only.is_some();
        marked[position] = is_marked || tree.children(position).iter().any(|child| marked[*child]);
    }
    marked
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use bytes::Bytes;
    use rootcellar_digest::{Digest, DigestFunction};
    use rootcellar_proto::reapi;
    use rootcellar_reapi::functions::to_proto;
    use rootcellar_reapi::{TreeLimits, encode_directory};

    use super::*;

    /// Directories in the making.
    #[derive(Default)]
    struct Trees(HashMap<Digest, Bytes>);

    impl Trees {
        fn directory(&mut self, mark: Option<&str>, children: &[(&str, Digest)]) -> Digest {
            let property = |value: &str| reapi::NodeProperty {
                name: "SubtreeReadOnly".into(),
                value: value.into(),
            };
            let node = |(name, digest): &(&str, Digest)| reapi::DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(to_proto(*digest)),
            };
            let encoded = encode_directory(reapi::Directory {
                directories: children.iter().map(node).collect(),
                node_properties: mark.map(|mark| reapi::NodeProperties {
                    properties: vec![property(mark)],
                    ..Default::default()
                }),
                ..Default::default()
            });
            let digest = Digest::of(DigestFunction::Sha256, &encoded);
            self.0.insert(digest, encoded);
            digest
        }

        fn access(self, root: Digest) -> Result<Access, Error> {
            Access::of(
                &InputTree::from_encoded(root, self.0, &TreeLimits::default()).unwrap(),
                &["tmp"],
            )
        }
    }

    fn subtree(path: &str, read_only: bool) -> Subtree {
        Subtree {
            path: path.into(),
            read_only,
        }
    }

    #[test]
    fn a_tree_without_marks_is_writable() {
        let mut trees = Trees::default();
        let leaf = trees.directory(None, &[]);
        let root = trees.directory(None, &[("a", leaf), ("b", leaf)]);
        assert_eq!(trees.access(root).unwrap(), Access::default());
    }

    #[test]
    fn marks_hold_until_another_one_below() {
        let mut trees = Trees::default();
        let leaf = trees.directory(None, &[]);
        let inner = trees.directory(Some("true"), &[("leaf", leaf)]);
        let same = trees.directory(Some("true"), &[]);
        let build = trees.directory(Some("false"), &[("keep", inner)]);
        let usr = trees.directory(None, &[("src", build), ("lib", same)]);
        let root = trees.directory(Some("true"), &[("tmp", build), ("usr", usr)]);
        let access = trees.access(root).unwrap();
        assert!(access.root_read_only);
        assert_eq!(
            access.subtrees,
            [subtree("/usr/src", false), subtree("/usr/src/keep", true)]
        );
    }

    #[test]
    fn marks_without_end_are_refused() {
        let mut trees = Trees::default();
        let mut below = trees.directory(Some("true"), &[]);
        for level in 0..=SUBTREES_MAX {
            below = trees.directory(Some(if level % 2 == 0 { "false" } else { "true" }), &[("d", below)]);
        }
        assert!(trees.access(below).is_err());
    }
}
