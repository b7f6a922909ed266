//! A root of many files, as a store holds it.

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_reapi::functions::to_proto;
use rootcellar_store::Verified;

use crate::random::Random;

/// One directory below the root holds so many directories with files.
const DIRECTORIES_IN_ONE: usize = 100;
/// One file in so many is a large one.
const LARGE_PART: usize = 50;
const LARGE_BYTES: u64 = 100_000;
const SMALL_BYTES_MAX: u64 = 8000;
pub(super) const VARIANTS: usize = 25;

/// Everything that has to be stored for a root, and its shape.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) digest: Digest,
    /// Roots that differ from it in one link at the top.
    pub(super) variants: Vec<Digest>,
    pub(super) blobs: Vec<Verified>,
    /// Paths of directories, parents first.
    pub(super) directories: Vec<String>,
    /// Paths of files, and what they hold.
    pub(super) files: Vec<(String, Digest)>,
}

impl Root {
    /// A root of `files` files, ten in a directory, most of them of some kilobytes.
    pub(super) fn new(files: usize, directories: usize) -> Self {
        let mut random = Random::new(11);
        let mut root = Self {
            digest: Digest::empty(DigestFunction::Sha256),
            variants: Vec::new(),
            blobs: Vec::new(),
            directories: Vec::new(),
            files: Vec::new(),
        };
        let (mut groups, mut number) = (Vec::new(), 0);
        for group in 0..directories.div_ceil(DIRECTORIES_IN_ONE) {
            let path = format!("group-{group}");
            root.directories.push(path.clone());
            let mut packages = Vec::new();
            for package in 0..DIRECTORIES_IN_ONE.min(directories - group * DIRECTORIES_IN_ONE) {
                let name = format!("package-{package}");
                let path = format!("{path}/{name}");
                root.directories.push(path.clone());
                let nodes = (0..files / directories)
                    .map(|index| {
                        number += 1;
                        root.file(&mut random, &path, index, number)
                    })
                    .collect();
                packages.push(root.directory(name, nodes, Vec::new()));
            }
            groups.push(root.directory(path, Vec::new(), packages));
        }
        root.digest = root.top(groups.clone(), Vec::new());
        for variant in 0..VARIANTS {
            let link = reapi::SymlinkNode {
                name: "variant".to_owned(),
                target: variant.to_string(),
                ..reapi::SymlinkNode::default()
            };
            let digest = root.top(groups.clone(), vec![link]);
            root.variants.push(digest);
        }
        root
    }

    fn file(&mut self, random: &mut Random, path: &str, index: usize, number: usize) -> reapi::FileNode {
        let size = match number % LARGE_PART {
            0 => LARGE_BYTES,
            _ => 1 + random.below(SMALL_BYTES_MAX),
        };
        let blob = Verified::of(DigestFunction::Sha256, random.bytes(size));
        let name = format!("some-module-{index:02}.so");
        self.files.push((format!("{path}/{name}"), blob.digest()));
        let node = reapi::FileNode {
            name,
            digest: Some(to_proto(blob.digest())),
            is_executable: number.is_multiple_of(10),
            ..reapi::FileNode::default()
        };
        self.blobs.push(blob);
        node
    }

    fn top(&mut self, directories: Vec<reapi::DirectoryNode>, symlinks: Vec<reapi::SymlinkNode>) -> Digest {
        let encoded = rootcellar_reapi::encode_directory(reapi::Directory {
            directories,
            symlinks,
            ..reapi::Directory::default()
        });
        let blob = Verified::of(DigestFunction::Sha256, encoded);
        let digest = blob.digest();
        self.blobs.push(blob);
        digest
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
        let blob = Verified::of(DigestFunction::Sha256, encoded);
        let digest = Some(to_proto(blob.digest()));
        self.blobs.push(blob);
        reapi::DirectoryNode { name, digest }
    }
}
