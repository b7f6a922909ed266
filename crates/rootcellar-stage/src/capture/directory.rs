//! A directory of the root as Directory messages.

use std::collections::HashSet;

use bytes::Bytes;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::{Directory, DirectoryNode, FileNode, NodeProperties, SymlinkNode};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{Error, InputTree, TreeLimits, encode_directory, tree};
use rustix::fs::{FileType, Stat};

use super::ingest::Ingestion;
use super::{is_executable, reading, utf8};
use crate::beneath::{Beneath, file_type, join};

/// Walks a directory without recursion: an action can nest as deep as a path is long.
pub(super) struct Walk<'a> {
    pub(super) root: &'a Beneath,
    /// Top-level directories that are no outputs.
    pub(super) hidden: &'a [&'static str],
    pub(super) properties: &'a dyn Fn(&Stat) -> Option<NodeProperties>,
}

/// A directory whose children are being walked.
struct Open {
    path: String,
    message: Directory,
    /// Names of child directories still to walk.
    pending: Vec<String>,
}

/// A captured directory: every distinct Directory message in it, children before parents, the root last.
///
/// Equal Directories are kept where the walk met the first of them. Each parent of one was finished later, so this stays an
/// order in which children come before all of their parents.
pub(super) struct CapturedDirectory(Vec<(Digest, Bytes)>);

impl Walk<'_> {
    pub(super) fn run(
        &self,
        path: &str,
        ingestion: &mut Ingestion,
        entries_left: &mut u64,
    ) -> Result<CapturedDirectory, Error> {
        let mut finished = Vec::new();
        let mut known = HashSet::new();
        let mut open = vec![self.open(path.to_owned(), ingestion, entries_left)?];
        while let Some(innermost) = open.last_mut() {
            if let Some(name) = innermost.pending.pop() {
                let path = join(&innermost.path, &name);
                open.push(self.open(path, ingestion, entries_left)?);
                continue;
            }
            let done = open.pop().expect("the loop saw it");
            let encoded = encode_directory(done.message);
            let digest = ingestion.digest(&encoded);
            if known.insert(digest) {
                finished.push((digest, encoded));
            }
            if let Some(parent) = open.last_mut() {
                let name = done
                    .path
                    .rsplit('/')
                    .next()
                    .expect("splitting yields something")
                    .to_owned();
                parent.message.directories.push(DirectoryNode {
                    name,
                    digest: Some(to_proto(digest)),
                });
            }
        }
        Ok(CapturedDirectory(finished))
    }

    /// Reads one directory: its files and links at once, its directories as work to do.
    fn open(&self, path: String, ingestion: &mut Ingestion, entries_left: &mut u64) -> Result<Open, Error> {
        let failed = |error| reading(&path, error);
        let stat = self.root.stat(&path).map_err(failed)?;
        let names = self.root.names(&path).map_err(failed)?;
        *entries_left = entries_left.checked_sub(names.len() as u64).ok_or_else(|| {
            Error::resource_exhausted(format!(
                "the outputs have too many entries, the last of them in {path:?}"
            ))
        })?;
        let mut open = Open {
            message: Directory::default(),
            pending: Vec::new(),
            path,
        };
        open.message.node_properties = (self.properties)(&stat);
        for name in names {
            let name = utf8(&open.path, name)?;
            if open.path.is_empty() && self.hidden.contains(&name.as_str()) {
                continue;
            }
            self.add(&mut open, name, ingestion)?;
        }
        Ok(open)
    }

    fn add(&self, open: &mut Open, name: String, ingestion: &mut Ingestion) -> Result<(), Error> {
        let path = join(&open.path, &name);
        let failed = |error| reading(&path, error);
        let stat = self.root.stat(&path).map_err(failed)?;
        let node_properties = (self.properties)(&stat);
        match file_type(&stat) {
            FileType::Directory => open.pending.push(name),
            FileType::RegularFile => {
                let digest = ingestion.file(&path, self.root.open_file(&path).map_err(failed)?)?;
                let is_executable = is_executable(&stat);
                open.message.files.push(FileNode {
                    name,
                    digest: Some(to_proto(digest)),
                    is_executable,
                    node_properties,
                });
            }
            FileType::Symlink => {
                let target = utf8(&path, self.root.read_link(&path).map_err(failed)?)?;
                open.message.symlinks.push(SymlinkNode {
                    name,
                    target,
                    node_properties,
                });
            }
            _ => tracing::debug!(path, "a special file is no output"),
        }
        Ok(())
    }
}

impl CapturedDirectory {
    pub(super) fn root_digest(&self) -> Digest {
        self.0.last().expect("a walk ends with the root").0
    }

    pub(super) fn store_directories(&self, ingestion: &mut Ingestion) -> Result<(), Error> {
        for (_, encoded) in &self.0 {
            ingestion.bytes(encoded.clone())?;
        }
        Ok(())
    }

    /// Stores the Tree message of the whole.
    pub(super) fn store_tree(self, ingestion: &mut Ingestion, limits: &TreeLimits) -> Result<Digest, Error> {
        let root = self.root_digest();
        let tree = InputTree::from_encoded(root, self.0.into_iter().collect(), limits)?;
        ingestion.bytes(tree::message::encode(&tree))
    }
}
