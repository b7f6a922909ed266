//! `GetTree` of a tree of a thousand directories.

use bytes::Bytes;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;

use super::contents::FUNCTION;
use super::drive::{Done, Load};
use super::failure::Failure;
use super::lookups::random_digest;
use super::peer::Peer;
use super::settings::Settings;
use crate::random::Random;

/// Directories below each of [`GROUPS`].
const DIRECTORIES: usize = 100;
const GROUPS: usize = 10;
const FILES_A_DIRECTORY: usize = 10;
const FILE_BYTES_MAX: u64 = 10_000;

/// Asks for a tree again and again.
pub(super) struct GetTree {
    request: reapi::GetTreeRequest,
    directories: u64,
}

/// The messages of a tree, children first. The files that they name are nowhere: nobody asks for them.
struct Tree {
    messages: Vec<(Digest, Bytes)>,
}

impl Load for GetTree {
    type Call = (reapi::GetTreeRequest, u64);

    /// Uploads the tree.
    async fn ready(peer: &Peer, settings: &Settings, mut random: Random) -> Result<Self, Failure> {
        let tree = Tree::new(settings.shrunk(DIRECTORIES), &mut random);
        let (root, directories) = (tree.root(), tree.messages.len() as u64);
        peer.upload(tree.messages).await?;
        Ok(Self {
            request: reapi::GetTreeRequest {
                instance_name: peer.instance_name(),
                root_digest: Some(to_proto(root)),
                ..reapi::GetTreeRequest::default()
            },
            directories,
        })
    }

    fn call_bytes(&self) -> u64 {
        512
    }

    fn round(&mut self, most: usize) -> Vec<Self::Call> {
        vec![(self.request.clone(), self.directories); most]
    }

    async fn make(peer: &Peer, (mut request, expected): Self::Call) -> Result<Done, Failure> {
        let mut found = 0;
        loop {
            let mut messages = peer.cas().get_tree(request.clone()).await?.into_inner();
            let mut next_page = String::new();
            while let Some(message) = messages.message().await? {
                found += message.directories.len() as u64;
                next_page = message.next_page_token;
            }
            if next_page.is_empty() || found > expected {
                break;
            }
            request.page_token = next_page;
        }
        match found == expected {
            true => Ok(Done { items: found, bytes: 0 }),
            false => Err(Failure::wrong(format!("{found} directories came of {expected}"))),
        }
    }
}

impl Tree {
    fn new(directories_a_group: usize, random: &mut Random) -> Self {
        let mut tree = Self { messages: Vec::new() };
        let groups = (0..GROUPS).map(|group| {
            let packages = (0..directories_a_group)
                .map(|package| {
                    let files = (0..FILES_A_DIRECTORY).map(|file| file_node(file, random)).collect();
                    tree.directory(format!("package-{package}"), files, Vec::new())
                })
                .collect();
            tree.directory(format!("group-{group}"), Vec::new(), packages)
        });
        let groups = groups.collect();
        tree.directory(String::new(), Vec::new(), groups);
        tree
    }

    fn root(&self) -> Digest {
        self.messages.last().expect("a tree has a root").0
    }

    fn directory(
        &mut self,
        name: String,
        files: Vec<reapi::FileNode>,
        directories: Vec<reapi::DirectoryNode>,
    ) -> reapi::DirectoryNode {
        let encoded = rootcellar_reapi::encode_directory(reapi::Directory {
            files,
            directories,
            ..reapi::Directory::default()
        });
        let digest = Digest::of(FUNCTION, &encoded);
        self.messages.push((digest, encoded));
        reapi::DirectoryNode {
            name,
            digest: Some(to_proto(digest)),
        }
    }
}

fn file_node(number: usize, random: &mut Random) -> reapi::FileNode {
    let size = 1 + random.below(FILE_BYTES_MAX);
    reapi::FileNode {
        name: format!("some-module-{number:02}.so"),
        digest: Some(to_proto(random_digest(random, size))),
        ..reapi::FileNode::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_a_thousand_directories_and_no_two_alike() {
        let tree = Tree::new(DIRECTORIES, &mut Random::new(1));
        let mut digests: Vec<_> = tree.messages.iter().map(|(digest, _)| *digest).collect();
        assert_eq!(digests.len(), 1 + GROUPS + GROUPS * DIRECTORIES);
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), tree.messages.len());
    }
}
