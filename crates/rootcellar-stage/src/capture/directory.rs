//! A directory of the root as Directory messages.

use std::collections::{HashMap, HashSet};

use rootcellar_digest::Digest;
use rootcellar_proto::reapi::{Directory, DirectoryNode, FileNode, NodeProperties, SymlinkNode};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::tree::TreeDirectory;
use rootcellar_reapi::{Error, InputTree, TreeLimits, encode_directory, tree};

use super::ingest::Ingestion;
use super::layers::{Content, Found, Layers, Place};
use super::lower::{Lower, Message};
use super::{reading, utf8};
use crate::attributes::Attributes;
use crate::beneath::join;

/// Walks a directory without recursion: an action can nest as deep as a path is long.
pub(super) struct Walk<'a> {
    pub(super) layers: Layers<'a>,
    /// Top-level directories that are no outputs.
    pub(super) hidden: &'a [&'static str],
    pub(super) properties: &'a dyn Fn(Attributes) -> Option<NodeProperties>,
    /// Whether the messages of directories that nobody touched are wanted too, and not their digests alone.
    pub(super) wants_untouched: bool,
}

/// A directory whose children are being walked.
struct Open<'a> {
    name: String,
    path: String,
    message: Directory,
    /// Child directories still to walk, with their names.
    pending: Vec<(String, Place<'a>)>,
}

/// A captured directory: distinct Directory messages in it, children before parents, the root last.
///
/// Equal Directories are kept where the walk met the first of them. Each parent of one was finished later, so this stays an
/// order in which children come before all of their parents.
#[derive(Default)]
pub(super) struct CapturedDirectory {
    messages: Vec<Message>,
    known: HashSet<Digest>,
    root: Option<Digest>,
}

impl<'a> Walk<'a> {
    pub(super) fn run(
        &self,
        place: &Place<'a>,
        ingestion: &mut Ingestion,
        entries_left: &mut u64,
    ) -> Result<CapturedDirectory, Error> {
        let mut captured = CapturedDirectory::default();
        if let Some(digest) = self.untouched(place, &mut captured) {
            captured.root = Some(digest);
            return Ok(captured);
        }
        let mut open = vec![self.open(String::new(), place, ingestion, entries_left)?];
        while let Some(innermost) = open.last_mut() {
            if let Some((name, place)) = innermost.pending.pop() {
                match self.untouched(&place, &mut captured) {
                    Some(digest) => innermost.message.directories.push(node(name, digest)),
                    None => open.push(self.open(name, &place, ingestion, entries_left)?),
                }
                continue;
            }
            let done = open.pop().expect("the loop saw it");
            let encoded = encode_directory(done.message);
            let digest = ingestion.digest(&encoded);
            captured.push(Message { digest, encoded });
            match open.last_mut() {
                Some(parent) => parent.message.directories.push(node(done.name, digest)),
                None => captured.root = Some(digest),
            }
        }
        Ok(captured)
    }

    /// What a directory comes back as if it can be told without a look at any file.
    fn untouched(&self, place: &Place<'_>, captured: &mut CapturedDirectory) -> Option<Digest> {
        let (false, Some(lower), Some(directory)) = (place.is_upper, self.layers.lower, place.lower) else {
            return None;
        };
        if (self.properties)(place.attributes).is_some() {
            return None;
        }
        let retold = lower.retold(directory);
        if retold.is_some() || self.wants_untouched {
            captured.push_untouched(lower, directory);
        }
        Some(retold.map_or(directory.digest, |message| message.digest))
    }

    /// Reads one directory: its files and links at once, its directories as work to do.
    fn open(
        &self,
        name: String,
        place: &Place<'a>,
        ingestion: &mut Ingestion,
        entries_left: &mut u64,
    ) -> Result<Open<'a>, Error> {
        let mut open = Open {
            message: Directory {
                node_properties: (self.properties)(place.attributes),
                ..Directory::default()
            },
            pending: Vec::new(),
            path: place.path.clone(),
            name,
        };
        for (name, found) in self.children(place, entries_left)? {
            self.add(&mut open, name, found, ingestion)?;
        }
        Ok(open)
    }

    /// All that is in a directory, of both layers.
    fn children(&self, place: &Place<'a>, entries_left: &mut u64) -> Result<Vec<(String, Found<'a>)>, Error> {
        let names = match place.is_upper {
            true => self
                .layers
                .upper
                .names(&place.path)
                .map_err(|error| reading(&place.path, error))?,
            false => Vec::new(),
        };
        let below = place.lower.map_or(0, |directory| directory.directory.len());
        *entries_left = entries_left.checked_sub((names.len() + below) as u64).ok_or_else(|| {
            Error::resource_exhausted(format!(
                "the outputs have too many entries, the last of them in {:?}",
                place.path
            ))
        })?;
        let mut upper = HashMap::with_capacity(names.len());
        for name in names {
            let name = utf8(&place.path, name)?;
            let found = self.layers.look_up(place, &name)?;
            upper.insert(name, found);
        }
        let lower = place
            .lower
            .into_iter()
            .flat_map(|directory| directory.directory.names());
        let untouched: Vec<_> = lower
            .filter(|name| !upper.contains_key(name.as_str()))
            .filter_map(|name| Some((name.as_str().to_owned(), self.layers.look_below(place, name.as_str())?)))
            .collect();
        let is_hidden = |name: &str| place.path.is_empty() && self.hidden.contains(&name);
        let changed = upper.into_iter().filter_map(|(name, found)| Some((name, found?)));
        Ok(changed.chain(untouched).filter(|(name, _)| !is_hidden(name)).collect())
    }

    fn add(&self, open: &mut Open<'a>, name: String, found: Found<'a>, ingestion: &mut Ingestion) -> Result<(), Error> {
        match found {
            Found::Directory(place) => open.pending.push((name, place)),
            Found::File(content, attributes) => {
                let digest = match content {
                    Content::Upper(path) => ingestion.file(&path)?,
                    Content::Staged(digest) => digest,
                };
                open.message.files.push(FileNode {
                    name,
                    digest: Some(to_proto(digest)),
                    is_executable: attributes.is_executable(),
                    node_properties: (self.properties)(attributes),
                });
            }
            Found::Link(target, attributes) => {
                open.message.symlinks.push(SymlinkNode {
                    name,
                    target,
                    node_properties: (self.properties)(attributes),
                });
            }
            Found::Special => tracing::debug!(path = join(&open.path, &name), "a special file is no output"),
        }
        Ok(())
    }
}

fn node(name: String, digest: Digest) -> DirectoryNode {
    DirectoryNode {
        name,
        digest: Some(to_proto(digest)),
    }
}

impl CapturedDirectory {
    fn push(&mut self, message: Message) {
        if self.known.insert(message.digest) {
            self.messages.push(message);
        }
    }

    /// Adds the messages of a directory that nobody touched, and of all below it.
    fn push_untouched(&mut self, lower: &Lower, directory: &TreeDirectory) {
        let told = |directory: &TreeDirectory| {
            lower.retold(directory).cloned().unwrap_or_else(|| Message {
                digest: directory.digest,
                encoded: directory.encoded.clone(),
            })
        };
        // Each directory is met twice: on the way down, and when all below it was added.
        let mut pending = vec![(directory, false)];
        let mut entered = HashSet::new();
        while let Some((directory, is_done)) = pending.pop() {
            if is_done {
                self.push(told(directory));
                continue;
            }
            if !entered.insert(directory.digest) {
                continue;
            }
            pending.push((directory, true));
            let children = directory.directory.directories().iter();
            pending.extend(children.map(|node| (lower.directory(&node.digest), false)));
        }
    }

    pub(super) fn root_digest(&self) -> Digest {
        self.root.expect("a walk ends with the root")
    }

    pub(super) fn store_directories(&self, ingestion: &mut Ingestion) -> Result<(), Error> {
        for message in &self.messages {
            ingestion.bytes(message.encoded.clone())?;
        }
        Ok(())
    }

    /// Stores the Tree message of the whole. All messages have to be here.
    pub(super) fn store_tree(self, ingestion: &mut Ingestion, limits: &TreeLimits) -> Result<Digest, Error> {
        let root = self.root_digest();
        let messages = self
            .messages
            .into_iter()
            .map(|message| (message.digest, message.encoded));
        let tree = InputTree::from_encoded(root, messages.collect(), limits)?;
        ingestion.bytes(tree::message::encode(&tree))
    }
}
