//! Any tree becomes an image, and a reader that was written from the format alone finds in it what the tree has.
//!
//! The reader looks names up as the kernel does: it searches the blocks of a directory for the one that can have the name, and in
//! that one for the name.

#![no_main]

use std::cmp::Ordering;
use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rootcellar_stage::erofs::{Attributes, BlockSize, ON_DEVICE_BYTES_MAX, Source, Tree, encode_in};

#[derive(Debug, Arbitrary)]
struct Input {
    has_pages: bool,
    nodes: Vec<Node>,
}

#[derive(Debug, Arbitrary)]
struct Node {
    parent: u16,
    name: String,
    mode: u16,
    mtime: Option<(i64, u32)>,
    kind: Kind,
}

#[derive(Debug, Arbitrary)]
enum Kind {
    Directory,
    Link { target: String, repeat: u8 },
    OnDevice { size: u64, device: u16, sector: u32 },
    Redirected { size: u64, path: String },
}

/// What a node is to be found as.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Directory(usize),
    Link(String),
    Empty,
    OnDevice { size: u64, device: u16, block: u32 },
    Redirected { size: u64, path: String },
}

const TIME: (i64, u32) = (1_321_009_871, 0);
const DEVICES: u16 = 70;

fuzz_target!(|input: Input| {
    let size = if input.has_pages { BlockSize::Page } else { BlockSize::Sector };
    let sectors = if input.has_pages { 8 } else { 1 };
    let nodes: Vec<(Node, String)> = input.nodes.into_iter().filter_map(named).collect();
    let root = attributes(0o755, TIME);
    let mut tree = Tree::new(root);
    let mut expected: Vec<BTreeMap<&str, (Attributes, Found)>> = vec![BTreeMap::new()];
    for (node, text) in &nodes {
        let parent = usize::from(node.parent) % expected.len();
        let name = node.name.as_str();
        if expected[parent].contains_key(name) {
            continue;
        }
        let (seconds, nanos) = node.mtime.unwrap_or(TIME);
        let attributes = attributes(node.mode & 0o7777, (seconds, nanos % 1_000_000_000));
        let found = match node.kind {
            Kind::Directory => {
                let number = tree.add_directory(parent, name, attributes);
                expected.push(BTreeMap::new());
                Found::Directory(number)
            }
            Kind::Link { .. } => {
                tree.add_link(parent, name, attributes, text);
                Found::Link(text.clone())
            }
            Kind::OnDevice { size, device, sector } => {
                // Of all sizes, from one byte to a chunk.
                let size = (size >> 6 >> (size % 64)).min(ON_DEVICE_BYTES_MAX);
                let (device, block) = (1 + device % DEVICES, sector / sectors);
                let source = Source::Device { number: device, sector: block * sectors };
                tree.add_file(parent, name, attributes, size, source);
                if size == 0 { Found::Empty } else { Found::OnDevice { size, device, block } }
            }
            Kind::Redirected { size, .. } => {
                tree.add_file(parent, name, attributes, size >> 1, Source::Redirect(text));
                let path = text.clone();
                if size >> 1 == 0 { Found::Empty } else { Found::Redirected { size: size >> 1, path } }
            }
        };
        expected[parent].insert(name, (attributes, found));
    }
    let bytes = encode_in(tree, size);
    Reader::new(&bytes).check(&expected);
});

fn attributes(mode: u16, (mtime, mtime_nanos): (i64, u32)) -> Attributes {
    Attributes { mode, mtime, mtime_nanos }
}

/// A node whose name a tree can have, and the text that belongs to it.
fn named(node: Node) -> Option<(Node, String)> {
    let name = &node.name;
    let is_name = !name.is_empty() && name.len() <= 255 && !name.contains(['/', '\0']) && name != "." && name != "..";
    let text = match &node.kind {
        Kind::Link { target, repeat } => target.replace('\0', "").repeat(usize::from(*repeat)),
        Kind::Redirected { path, .. } => format!("/{}", path.replace('\0', "")),
        _ => String::new(),
    };
    let is_text = match node.kind {
        Kind::Link { .. } => (1..=4095).contains(&text.len()),
        _ => text.len() < 1000,
    };
    (is_name && is_text).then_some((node, text))
}

struct Reader<'a> {
    bytes: &'a [u8],
    block_bytes: usize,
    inodes_at: usize,
    time: i64,
}

struct Inode {
    at: usize,
    layout: u16,
    mode: u16,
    size: u64,
    place: u32,
    mtime: (i64, u32),
    links: u32,
    xattrs_at: usize,
    xattr_bytes: usize,
}

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        let mut reader = Self { bytes, block_bytes: 0, inodes_at: 0, time: 0 };
        assert_eq!(reader.u32(1024), 0xe0f5_e1e2);
        reader.block_bytes = 1 << bytes[1024 + 12];
        reader.inodes_at = reader.u32(1024 + 40) as usize * reader.block_bytes;
        reader.time = reader.u64(1024 + 24).cast_signed();
        assert_eq!(reader.u32(1024 + 36) as usize * reader.block_bytes, bytes.len());
        reader
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes[at..at + 2].try_into().unwrap())
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap())
    }

    fn inode(&self, number: u64) -> Inode {
        let at = self.inodes_at + usize::try_from(number).unwrap() * 32;
        let format = self.u16(at);
        let is_long = format & 1 == 1;
        let head = if is_long { 64 } else { 32 };
        let xattr_bytes = match self.u16(at + 2) {
            0 => 0,
            count => 12 + 4 * (usize::from(count) - 1),
        };
        Inode {
            at,
            layout: format >> 1,
            mode: self.u16(at + 4),
            size: if is_long { self.u64(at + 8) } else { self.u32(at + 8).into() },
            place: self.u32(at + 16),
            mtime: if is_long { (self.u64(at + 32).cast_signed(), self.u32(at + 40)) } else { (self.time, 0) },
            links: if is_long { self.u32(at + 44) } else { self.u16(at + 6).into() },
            xattrs_at: at + head,
            xattr_bytes,
        }
    }

    /// What lies in blocks, and behind the inode.
    fn content(&self, inode: &Inode) -> Vec<u8> {
        let size = usize::try_from(inode.size).unwrap();
        let whole = size / self.block_bytes * self.block_bytes;
        let from = inode.place as usize * self.block_bytes;
        let mut content = self.bytes[from..][..whole].to_vec();
        if whole < size {
            assert_eq!(inode.layout, 2);
            let end = inode.xattrs_at + inode.xattr_bytes;
            // The kernel wants it in one block.
            assert_eq!(end / self.block_bytes, (end + size - whole - 1) / self.block_bytes);
            content.extend_from_slice(&self.bytes[end..][..size - whole]);
        } else {
            assert_eq!(inode.layout, 0);
        }
        content
    }

    /// The entries of one block of a directory: number, type and name of each.
    fn entries<'c>(&self, block: &'c [u8]) -> Vec<(u64, u8, &'c [u8])> {
        let start = |at: usize| usize::from(u16::from_le_bytes([block[at + 8], block[at + 9]]));
        let count = start(0) / 12;
        let entry = |index: usize| {
            let at = index * 12;
            let end = if index + 1 < count { start(at + 12) } else { block.len() };
            let name = &block[start(at)..end];
            let name = &name[..name.iter().position(|byte| *byte == 0).unwrap_or(name.len())];
            (u64::from_le_bytes(block[at..at + 8].try_into().unwrap()), block[at + 10], name)
        };
        (0..count).map(entry).collect()
    }

    fn look_up(&self, content: &[u8], name: &str) -> Option<(u64, u8)> {
        let blocks: Vec<_> = content.chunks(self.block_bytes).map(|block| self.entries(block)).collect();
        let at = blocks.partition_point(|block| block[0].2 <= name.as_bytes()).checked_sub(1)?;
        let found = blocks[at].binary_search_by(|(_, _, other)| match other.cmp(&name.as_bytes()) {
            Ordering::Equal => Ordering::Equal,
            other => other,
        });
        found.ok().map(|index| (blocks[at][index].0, blocks[at][index].1))
    }

    fn check(&self, expected: &[BTreeMap<&str, (Attributes, Found)>]) {
        let root = u64::from(self.u16(1024 + 14));
        let mut numbers = vec![0; expected.len()];
        numbers[0] = root;
        let mut parents = vec![0; expected.len()];
        let mut pending = vec![0];
        let mut inodes = 1;
        while let Some(directory) = pending.pop() {
            let inode = self.inode(numbers[directory]);
            assert_eq!(inode.mode & 0o170_000, 0o040_000);
            let content = self.content(&inode);
            let blocks = content.chunks(self.block_bytes);
            let listed: usize = blocks.map(|block| self.entries(block).len()).sum();
            assert_eq!(listed, expected[directory].len() + 2);
            assert_eq!(self.look_up(&content, "."), Some((numbers[directory], 2)));
            assert_eq!(self.look_up(&content, ".."), Some((numbers[parents[directory]], 2)));
            let mut links = 2;
            for (name, (attributes, found)) in &expected[directory] {
                let (number, kind) = self.look_up(&content, name).expect("a name of the tree is found");
                let inode = self.inode(number);
                let (mtime, nanos) = inode.mtime;
                assert_eq!((inode.mode & 0o7777, mtime, nanos), (attributes.mode, attributes.mtime, attributes.mtime_nanos));
                inodes += 1;
                self.check_node(&inode, kind, found);
                if let Found::Directory(child) = found {
                    (numbers[*child], parents[*child]) = (number, directory);
                    pending.push(*child);
                    links += 1;
                }
            }
            assert_eq!(inode.links, links);
        }
        assert_eq!(self.u64(1024 + 16), inodes);
    }

    fn check_node(&self, inode: &Inode, kind: u8, found: &Found) {
        let (mode, wanted_kind) = match found {
            Found::Directory(_) => (0o040_000, 2),
            Found::Link(_) => (0o120_000, 7),
            _ => (0o100_000, 1),
        };
        assert_eq!((inode.mode & 0o170_000, kind), (mode, wanted_kind));
        match found {
            Found::Directory(_) => {}
            Found::Link(target) => assert_eq!(self.content(inode), target.as_bytes()),
            Found::Empty => assert_eq!((inode.size, inode.layout), (0, 0)),
            Found::OnDevice { size, device, block } => {
                assert_eq!(inode.size, *size);
                assert_eq!(self.on_device(inode), (*device, *block));
                assert!(*device <= self.u16(1024 + 86), "the image has that device");
            }
            Found::Redirected { size, path } => {
                assert_eq!((inode.size, inode.layout, inode.place), (*size, 4, 31));
                let chunk = (inode.xattrs_at + inode.xattr_bytes).next_multiple_of(4);
                assert_eq!(self.u32(chunk), u32::MAX);
                let xattrs = self.xattrs(inode);
                assert_eq!(xattrs["overlay.metacopy"], "");
                assert_eq!(xattrs["overlay.redirect"], *path);
                assert_eq!(xattrs.len(), 2);
            }
        }
        assert!(inode.at >= self.inodes_at);
    }

    /// In which device a file lies, and the block where it begins.
    fn on_device(&self, inode: &Inode) -> (u16, u32) {
        if inode.layout == 4 {
            assert_eq!(inode.place, 31 | 0x20);
            let chunk = (inode.xattrs_at + inode.xattr_bytes).next_multiple_of(8);
            return (self.u16(chunk + 2), self.u32(chunk + 4));
        }
        assert_eq!(inode.layout, 0);
        let blocks = inode.size.div_ceil(self.block_bytes as u64);
        for number in 1..=self.u16(1024 + 86) {
            let slot = 128 * (usize::from(self.u16(1024 + 88)) + usize::from(number) - 1);
            let (count, first) = (self.u32(slot + 64), self.u32(slot + 68));
            if first > 0 && (first..first + count).contains(&inode.place) {
                let block = inode.place - first;
                assert!(u64::from(block) + blocks <= count.into(), "the device has all of its blocks");
                assert!(first as usize * self.block_bytes >= self.bytes.len(), "the image has no such block");
                return (number, block);
            }
        }
        panic!("no device has block {}", inode.place);
    }

    fn xattrs(&self, inode: &Inode) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let (mut at, end) = (inode.xattrs_at + 12, inode.xattrs_at + inode.xattr_bytes);
        while at < end {
            let (name_len, prefix) = (usize::from(self.bytes[at]), self.bytes[at + 1]);
            let value_len = usize::from(self.u16(at + 2));
            assert_eq!(prefix, 4, "trusted.");
            let text = |at: usize, len: usize| String::from_utf8(self.bytes[at..at + len].to_vec()).unwrap();
            found.insert(text(at + 4, name_len), text(at + 4 + name_len, value_len));
            at = (at + 4 + name_len + value_len).next_multiple_of(4);
        }
        found
    }
}
