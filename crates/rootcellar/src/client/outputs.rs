//! What an action left, as one tree.
//!
//! Outputs come from a server as a list of paths. Made a tree of Directories first, they are written by the code that writes
//! all trees: no path leads out of it, and no link of one output is followed on the way to another.

use std::collections::{BTreeMap, HashMap};

use anyhow::Context as _;
use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::{
    ActionResult, Directory, DirectoryNode, FileNode, OutputDirectory, OutputSymlink, SymlinkNode,
};
use rootcellar_reapi::functions::{from_proto, to_proto};
use rootcellar_reapi::tree::message;
use rootcellar_reapi::{InputTree, RelPath, TreeLimits, encode_directory};
use rootcellar_store::{BlobStore, BlobStoreExt as _};

/// Bytes of a Tree message that are read into memory: a tree of a million files has about a hundred million.
const TREE_MESSAGE_BYTES_MAX: u64 = 512 << 20;

/// Where outputs go: relative to the working directory, below which all of them have to be.
#[derive(Debug, Clone)]
pub(super) struct Places {
    working_directory: RelPath,
}

impl Places {
    pub(super) fn new(working_directory: &str) -> anyhow::Result<Self> {
        let working_directory = RelPath::root().join_lexically(working_directory);
        Ok(Self {
            working_directory: working_directory.context("--working-directory")?,
        })
    }

    /// The names on the way from the working directory to an output; none for the directory itself.
    pub(super) fn of(&self, output: &str) -> anyhow::Result<Vec<String>> {
        let path = self.working_directory.join_lexically(output)?;
        if !path.starts_with(&self.working_directory) {
            anyhow::bail!(
                "the output {output:?} is outside of the working directory, so there is no place for it here"
            );
        }
        let above = self.working_directory.components().count();
        Ok(path.components().skip(above).map(ToOwned::to_owned).collect())
    }
}

/// The links among outputs, as servers of any age tell them.
pub(super) fn links(result: &ActionResult) -> Vec<&OutputSymlink> {
    if !result.output_symlinks.is_empty() {
        return result.output_symlinks.iter().collect();
    }
    #[expect(deprecated, reason = "what servers of before 2.1 fill")]
    let (files, directories) = (&result.output_file_symlinks, &result.output_directory_symlinks);
    files.iter().chain(directories).collect()
}

/// Makes one tree of all outputs. Output directories are read from `store` as far as their Directory messages go.
pub(super) async fn tree(
    store: &dyn BlobStore,
    function: DigestFunction,
    places: &Places,
    result: &ActionResult,
) -> anyhow::Result<InputTree> {
    let mut root = Spot::Branch(BTreeMap::new());
    let mut encoded = HashMap::new();
    for (place, directory) in from_the_top(places, &result.output_directories)? {
        let tree = directory_tree(store, function, directory)
            .await
            .with_context(|| format!("the output {:?}", directory.path))?;
        let messages = tree.directories().iter();
        encoded.extend(messages.map(|message| (message.digest, message.encoded.clone())));
        root.put(&place, Spot::Directory(tree.root_digest()))?;
    }
    for file in &result.output_files {
        let node = FileNode {
            digest: file.digest.clone(),
            is_executable: file.is_executable,
            node_properties: file.node_properties.clone(),
            ..Default::default()
        };
        root.put(&places.of(&file.path)?, Spot::File(node))?;
    }
    for link in links(result) {
        let node = SymlinkNode {
            target: link.target.clone(),
            node_properties: link.node_properties.clone(),
            ..Default::default()
        };
        root.put(&places.of(&link.path)?, Spot::Link(node))?;
    }
    let root = root.root_digest(function, &mut encoded)?;
    Ok(InputTree::from_encoded(root, encoded, &TreeLimits::default())?)
}

/// Output directories with their places, a directory before those in it.
fn from_the_top<'a>(
    places: &Places,
    directories: &'a [OutputDirectory],
) -> anyhow::Result<Vec<(Vec<String>, &'a OutputDirectory)>> {
    let placed = directories
        .iter()
        .map(|directory| Ok((places.of(&directory.path)?, directory)));
    let mut placed: Vec<_> = placed.collect::<anyhow::Result<_>>()?;
    placed.sort_by_key(|(place, _)| place.len());
    Ok(placed)
}

async fn directory_tree(
    store: &dyn BlobStore,
    function: DigestFunction,
    directory: &OutputDirectory,
) -> anyhow::Result<InputTree> {
    let limits = TreeLimits::default();
    if let Some(root) = &directory.root_directory_digest {
        let root = from_proto(function, root)?;
        return Ok(InputTree::load_directories(store, root, &limits).await?);
    }
    let digest = directory.tree_digest.as_ref().context("it has no digest")?;
    let message = store
        .read(from_proto(function, digest)?, TREE_MESSAGE_BYTES_MAX)
        .await?;
    Ok(message::decode(function, &message, &limits)?.tree)
}

/// What is at a path of the tree that is being made.
#[derive(Debug)]
enum Spot {
    /// A directory that is made because something is in it.
    Branch(BTreeMap<String, Self>),
    /// An output directory. Other outputs in it are part of it.
    Directory(Digest),
    File(FileNode),
    Link(SymlinkNode),
}

impl Spot {
    /// Puts `leaf` at `path` below this. As deep as a path is long, which is bounded.
    fn put(&mut self, path: &[String], leaf: Self) -> anyhow::Result<()> {
        match (&mut *self, path) {
            (Self::Directory(_), _) | (Self::File(_) | Self::Link(_), []) => Ok(()),
            (Self::Branch(children), []) if children.is_empty() => {
                *self = leaf;
                Ok(())
            }
            (Self::Branch(children), [name, rest @ ..]) => {
                let child = children.entry(name.clone());
                child.or_insert_with(|| Self::Branch(BTreeMap::new())).put(rest, leaf)
            }
            _ => anyhow::bail!("the server tells of an output below another one that is no directory"),
        }
    }

    fn root_digest(self, function: DigestFunction, encoded: &mut HashMap<Digest, Bytes>) -> anyhow::Result<Digest> {
        match self {
            Self::Branch(children) => Ok(encode(children, function, encoded)),
            Self::Directory(digest) => Ok(digest),
            Self::File(_) | Self::Link(_) => {
                anyhow::bail!("the server tells of a file in place of the working directory")
            }
        }
    }
}

/// Adds the Directory with these children, and those below it, to `encoded`.
fn encode(children: BTreeMap<String, Spot>, function: DigestFunction, encoded: &mut HashMap<Digest, Bytes>) -> Digest {
    let mut directory = Directory::default();
    for (name, child) in children {
        let below = match child {
            Spot::File(node) => {
                directory.files.push(FileNode { name, ..node });
                continue;
            }
            Spot::Link(node) => {
                directory.symlinks.push(SymlinkNode { name, ..node });
                continue;
            }
            Spot::Directory(digest) => digest,
            Spot::Branch(children) => encode(children, function, encoded),
        };
        directory.directories.push(DirectoryNode {
            name,
            digest: Some(to_proto(below)),
        });
    }
    let bytes = encode_directory(directory);
    let digest = Digest::of(function, &bytes);
    encoded.insert(digest, bytes);
    digest
}

#[cfg(test)]
mod tests {
    use rootcellar_proto::reapi::OutputFile;
    use rootcellar_store::MemoryStore;

    use super::*;

    const SHA256: DigestFunction = DigestFunction::Sha256;

    fn file(path: &str) -> OutputFile {
        OutputFile {
            path: path.to_owned(),
            digest: Some(to_proto(Digest::of(SHA256, path.as_bytes()))),
            ..Default::default()
        }
    }

    fn link(path: &str) -> OutputSymlink {
        OutputSymlink {
            path: path.to_owned(),
            target: "/etc".to_owned(),
            ..Default::default()
        }
    }

    /// Stores a directory that holds the file `inside`.
    async fn directory(store: &MemoryStore, path: &str) -> OutputDirectory {
        let encoded = encode_directory(Directory {
            files: vec![FileNode {
                name: "inside".to_owned(),
                digest: Some(to_proto(Digest::of(SHA256, b"inside"))),
                ..Default::default()
            }],
            ..Default::default()
        });
        OutputDirectory {
            path: path.to_owned(),
            root_directory_digest: Some(to_proto(store.put_bytes(SHA256, encoded).await.unwrap())),
            ..Default::default()
        }
    }

    async fn paths(store: &MemoryStore, working_directory: &str, result: &ActionResult) -> anyhow::Result<Vec<String>> {
        let tree = tree(store, SHA256, &Places::new(working_directory)?, result).await?;
        let mut pending = vec![(String::new(), tree.root())];
        let mut paths = Vec::new();
        while let Some((path, directory)) = pending.pop() {
            paths.extend(directory.files().iter().map(|node| format!("{path}{}", node.name)));
            paths.extend(
                directory
                    .symlinks()
                    .iter()
                    .map(|node| format!("{path}{} ->", node.name)),
            );
            let below = directory.directories().iter();
            pending.extend(below.map(|node| (format!("{path}{}/", node.name), tree.child(&node.digest))));
        }
        paths.sort_unstable();
        Ok(paths)
    }

    #[tokio::test]
    async fn outputs_become_one_tree_relative_to_the_working_directory() {
        let store = MemoryStore::new(1 << 20);
        let result = ActionResult {
            output_files: vec![file("a"), file("./deep/down/b"), file("../work/c"), file("out/inside")],
            output_directories: vec![directory(&store, "out/again").await, directory(&store, "out").await],
            output_symlinks: vec![link("link")],
            ..Default::default()
        };
        let found = paths(&store, "work", &result).await.unwrap();
        assert_eq!(found, ["a", "c", "deep/down/b", "link ->", "out/inside"]);
    }

    #[tokio::test]
    async fn the_working_directory_itself_can_be_an_output() {
        let store = MemoryStore::new(1 << 20);
        for (working_directory, path) in [("", "."), ("", ""), ("a/b", "."), ("a/b", "../b")] {
            let result = ActionResult {
                output_directories: vec![directory(&store, path).await],
                ..Default::default()
            };
            assert_eq!(paths(&store, working_directory, &result).await.unwrap(), ["inside"]);
        }
        assert!(paths(&store, "", &ActionResult::default()).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_tree_message_serves_where_a_directory_is_not_told() {
        let store = MemoryStore::new(1 << 20);
        let mut output = directory(&store, "out").await;
        let root = from_proto(SHA256, &output.root_directory_digest.take().unwrap()).unwrap();
        let tree = InputTree::load_directories(&store, root, &TreeLimits::default())
            .await
            .unwrap();
        let message = store.put_bytes(SHA256, message::encode(&tree)).await.unwrap();
        output.tree_digest = Some(to_proto(message));
        let result = ActionResult {
            output_directories: vec![output],
            ..Default::default()
        };
        assert_eq!(paths(&store, "", &result).await.unwrap(), ["out/inside"]);
    }

    #[tokio::test]
    async fn no_output_leads_out_or_through_a_link() {
        let store = MemoryStore::new(1 << 20);
        for (files, links) in [
            (vec![file("../passwd")], vec![]),
            (vec![file("/etc/passwd")], vec![]),
            (vec![file("etc/passwd")], vec![link("etc")]),
            (vec![file("."), file("a")], vec![]),
            (vec![file("a"), file("a/b")], vec![]),
        ] {
            let result = ActionResult {
                output_files: files,
                output_symlinks: links,
                ..Default::default()
            };
            assert!(paths(&store, "work", &result).await.is_err(), "{result:?}");
        }
    }
}
