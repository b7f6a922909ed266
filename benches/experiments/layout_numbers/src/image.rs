//! Writes the metadata of a tree as an EROFS image: files are chunks of other devices (packs), or empty shells that
//! overlayfs follows to a loose file. Uncompressed, compact inodes, in two passes: places first, then bytes.
//!
//! ```text
//!   0     1024         1152            meta                   data
//!   | ... | superblock | device table  | inodes, xattrs, tails | blocks of directories |
//! ```
//!
//! Source: linux/Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xe0f5_e1e2;
const CHUNKED_FILE: u32 = 4;
const DEVICE_TABLE: u32 = 8;
const FLAT_PLAIN: u16 = 0;
const FLAT_INLINE: u16 = 2;
const CHUNK_BASED: u16 = 4;
const CHUNK_INDEXES: u32 = 0x20;
/// The largest chunk there is: every file has one.
const CHUNK_BITS: u32 = 31;
const NO_BLOCK: u32 = u32::MAX;
const TABLE_AT: usize = 1152;
const DEVICE_BYTES: usize = 128;
const SLOT_BYTES: usize = 32;
const XATTR_TRUSTED: u8 = 4;

/// Where a file's bytes are.
#[derive(Clone)]
pub enum Source {
    /// In a device, counted from 0, at a byte that is a multiple of the block size.
    Device { device: u16, at: u64 },
    /// In the data layer of the overlay, at this path.
    Path(String),
}

pub enum Node {
    Dir(BTreeMap<String, Node>),
    File { size: u64, source: Source },
}

/// A node with its place in the image.
struct Placed<'a> {
    node: &'a Node,
    nid: u64,
    parent: usize,
    /// A directory's entries: names with the index of the node; `.` and `..` among them.
    entries: Vec<(&'a str, usize)>,
    /// The bytes that stand in blocks of their own, and in which.
    blocks: u64,
    first_block: u64,
    tail_bytes: usize,
}

pub struct Writer {
    pub block_bits: u8,
    pub devices: u16,
}

impl Writer {
    fn block(&self) -> usize {
        1 << self.block_bits
    }

    pub fn write(&self, root: &Node) -> Vec<u8> {
        let mut nodes = Vec::new();
        list(root, 0, &mut nodes);
        let meta = (TABLE_AT + DEVICE_BYTES * usize::from(self.devices)).next_multiple_of(self.block());
        let mut at = 0;
        for placed in &mut nodes {
            self.shape(placed);
            at = self.place(placed, at);
        }
        let mut block = (meta + at).div_ceil(self.block()) as u64;
        for placed in nodes.iter_mut().filter(|placed| placed.blocks > 0) {
            placed.first_block = block;
            block += placed.blocks;
        }
        let mut image = vec![0; block as usize * self.block()];
        self.superblock(&mut image, meta, nodes[0].nid, nodes.len(), block);
        for (index, placed) in nodes.iter().enumerate() {
            self.inode(&mut image, meta + placed.nid as usize * SLOT_BYTES, index, &nodes);
        }
        image
    }

    /// How many blocks a directory fills, and what is left over for behind its inode.
    fn shape(&self, placed: &mut Placed<'_>) {
        let groups = self.groups(&placed.entries);
        let Some(last) = groups.last() else { return };
        let last_bytes: usize = last.iter().map(|(name, _)| 12 + name.len()).sum();
        let is_inline = SLOT_BYTES + last_bytes <= self.block();
        placed.blocks = (groups.len() - usize::from(is_inline)) as u64;
        placed.tail_bytes = if is_inline { last_bytes } else { 0 };
    }

    /// Gives a node the next place: returns the end of it.
    fn place(&self, placed: &mut Placed<'_>, at: usize) -> usize {
        let bytes = SLOT_BYTES + placed.tail_bytes + body_bytes(placed.node);
        let room = self.block() - at % self.block();
        let is_split = placed.tail_bytes > 0 && bytes > room;
        let at = if is_split { at + room } else { at };
        placed.nid = (at / SLOT_BYTES) as u64;
        (at + bytes).next_multiple_of(SLOT_BYTES)
    }

    /// Entries by the block that they stand in.
    fn groups<'a, 'b>(&self, entries: &'b [(&'a str, usize)]) -> Vec<&'b [(&'a str, usize)]> {
        let (mut groups, mut start, mut bytes) = (Vec::new(), 0, 0);
        for (at, (name, _)) in entries.iter().enumerate() {
            if bytes + 12 + name.len() > self.block() {
                groups.push(&entries[start..at]);
                (start, bytes) = (at, 0);
            }
            bytes += 12 + name.len();
        }
        if start < entries.len() {
            groups.push(&entries[start..]);
        }
        groups
    }

    fn superblock(&self, image: &mut [u8], meta: usize, root: u64, inodes: usize, blocks: u64) {
        let sb = &mut image[1024..];
        put32(sb, 0, MAGIC);
        sb[12] = self.block_bits;
        put16(sb, 14, root as u16);
        put64(sb, 16, inodes as u64);
        put32(sb, 36, blocks as u32);
        put32(sb, 40, (meta / self.block()) as u32);
        put32(sb, 80, CHUNKED_FILE | if self.devices > 0 { DEVICE_TABLE } else { 0 });
        put16(sb, 86, self.devices);
        put16(sb, 88, (TABLE_AT / DEVICE_BYTES) as u16);
        for device in 0..usize::from(self.devices) {
            // How many blocks it has. Packs grow, and reads do not ask.
            put32(image, TABLE_AT + device * DEVICE_BYTES + 64, NO_BLOCK);
        }
    }

    fn inode(&self, image: &mut [u8], at: usize, index: usize, nodes: &[Placed<'_>]) {
        let placed = &nodes[index];
        put32(image, at + 12, 1_321_009_871);
        put32(image, at + 20, index as u32 + 1);
        match placed.node {
            Node::Dir(_) => self.dir(image, at, placed, nodes),
            Node::File { size, source } => {
                put16(image, at, CHUNK_BASED << 1);
                put16(image, at + 4, 0o100_644);
                put16(image, at + 6, 1);
                put32(image, at + 8, *size as u32);
                self.file(image, at, source);
            }
        }
    }

    fn file(&self, image: &mut [u8], at: usize, source: &Source) {
        match source {
            Source::Device { device, at: byte } => {
                put32(image, at + 16, CHUNK_BITS | CHUNK_INDEXES);
                put16(image, at + SLOT_BYTES + 2, device + 1);
                put32(image, at + SLOT_BYTES + 4, (byte >> self.block_bits) as u32);
            }
            Source::Path(path) => {
                put32(image, at + 16, CHUNK_BITS);
                let xattrs = xattrs(path);
                put16(image, at + 2, ((xattrs.len() - 12) / 4 + 1) as u16);
                image[at + SLOT_BYTES..][..xattrs.len()].copy_from_slice(&xattrs);
                put32(image, at + SLOT_BYTES + xattrs.len(), NO_BLOCK);
            }
        }
    }

    fn dir(&self, image: &mut [u8], at: usize, placed: &Placed<'_>, nodes: &[Placed<'_>]) {
        let layout = if placed.tail_bytes > 0 { FLAT_INLINE } else { FLAT_PLAIN };
        let dirs = placed
            .entries
            .iter()
            .filter(|(_, node)| matches!(nodes[*node].node, Node::Dir(_)));
        put16(image, at, layout << 1);
        put16(image, at + 4, 0o040_755);
        put16(image, at + 6, dirs.count() as u16);
        put32(
            image,
            at + 8,
            (placed.blocks as usize * self.block() + placed.tail_bytes) as u32,
        );
        put32(image, at + 16, placed.first_block as u32);
        let groups = self.groups(&placed.entries);
        for (number, group) in groups.iter().enumerate() {
            let is_tail = number as u64 == placed.blocks;
            let start = if is_tail {
                at + SLOT_BYTES
            } else {
                (placed.first_block as usize + number) * self.block()
            };
            entries(&mut image[start..], group, nodes);
        }
        // In a full block the last name ends at the first zero byte or at the block's end; an inline tail ends at the
        // size. If nothing is inline, the size is that of whole blocks.
    }
}

fn entries(out: &mut [u8], group: &[(&str, usize)], nodes: &[Placed<'_>]) {
    let mut name_at = group.len() * 12;
    for (at, (name, node)) in group.iter().enumerate() {
        put64(out, at * 12, nodes[*node].nid);
        put16(out, at * 12 + 8, name_at as u16);
        out[at * 12 + 10] = if matches!(nodes[*node].node, Node::Dir(_)) {
            2
        } else {
            1
        };
        out[name_at..][..name.len()].copy_from_slice(name.as_bytes());
        name_at += name.len();
    }
}

/// Lists a tree, each directory before what is in it.
fn list<'a>(node: &'a Node, parent: usize, nodes: &mut Vec<Placed<'a>>) -> usize {
    let index = nodes.len();
    let placed = Placed {
        node,
        nid: 0,
        parent,
        entries: Vec::new(),
        blocks: 0,
        first_block: 0,
        tail_bytes: 0,
    };
    nodes.push(placed);
    if let Node::Dir(children) = node {
        let mut entries = vec![(".", index), ("..", nodes[index].parent)];
        for (name, child) in children {
            entries.push((name, list(child, index, nodes)));
        }
        entries.sort_unstable_by_key(|(name, _)| *name);
        nodes[index].entries = entries;
    }
    index
}

/// What follows a file's inode.
fn body_bytes(node: &Node) -> usize {
    match node {
        Node::Dir(_) => 0,
        Node::File {
            source: Source::Device { .. },
            ..
        } => 8,
        Node::File {
            source: Source::Path(path),
            ..
        } => xattrs(path).len() + 4,
    }
}

fn xattrs(path: &str) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    for (name, value) in [("overlay.metacopy", ""), ("overlay.redirect", path)] {
        bytes.extend([name.len() as u8, XATTR_TRUSTED, value.len() as u8, 0]);
        bytes.extend(name.bytes().chain(value.bytes()));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn put16(out: &mut [u8], at: usize, value: u16) {
    out[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn put32(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn put64(out: &mut [u8], at: usize, value: u64) {
    out[at..at + 8].copy_from_slice(&value.to_le_bytes());
}
