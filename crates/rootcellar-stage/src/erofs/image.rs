//! Laying an image out, and writing it: once over the tree for where everything lies, and once for the bytes.

use super::directory::{self, Measure, Named};
use super::format::{
    self, BlockSize, Content, DEVICE_BYTES, INODE_UNIT, Inode, SUPERBLOCK_AT, SUPERBLOCK_BYTES, Superblock, Type,
    chunk_bytes, inode_bytes, is_extended,
};
use super::tree::{Attributes, Directory, Kind, Node, Source, Tree};

/// The image of a tree, with blocks of 512 bytes. Its bytes follow from the tree alone.
pub fn encode(tree: Tree<'_>) -> Vec<u8> {
    encode_in(tree, BlockSize::Sector)
}

/// The image of a tree, with blocks of this size.
///
/// # Panics
/// If a file on a device begins where no block does.
pub fn encode_in(mut tree: Tree<'_>, block_size: BlockSize) -> Vec<u8> {
    let plan = Plan::of(&mut tree, block_size);
    let mut image = Image {
        bytes: vec![0; plan.end()],
        tree: &tree,
        plan: &plan,
        entries: Vec::new(),
        content: Vec::new(),
    };
    image.write();
    image.bytes
}

/// Where everything lies.
#[derive(Debug)]
struct Plan {
    block_size: BlockSize,
    /// The time of inodes that name none.
    time: i64,
    /// Where among the numbers of blocks those of each device begin, if it has some.
    windows: Vec<Option<u32>>,
    /// The first block of inodes.
    inodes_from: usize,
    directories: Vec<PlacedDirectory>,
    /// The files and links of the first directory in the order of their names, then those of the next one.
    nodes: Vec<Place>,
    /// The first block behind the inodes.
    blocks_from: usize,
    /// Blocks from there on.
    blocks: usize,
}

#[derive(Debug, Clone, Copy)]
struct PlacedDirectory {
    place: Place,
    size: usize,
    links: u32,
    /// Where in `Plan::nodes` what is in it begins.
    first_node: usize,
}

/// Where an inode lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Its first byte, counted from the first block of inodes.
    at: usize,
    /// The first block of its content, of those behind the inodes.
    block: usize,
}

/// The next free places.
#[derive(Debug)]
struct Free {
    block_bytes: usize,
    at: usize,
    block: usize,
}

impl Free {
    /// Places an inode with `size` bytes of content, of which what is less than a block comes behind it, and in one block.
    fn with_content(&mut self, head: usize, size: usize) -> Place {
        let (blocks, end) = (size / self.block_bytes, size % self.block_bytes);
        let mut at = self.at.next_multiple_of(INODE_UNIT);
        let crosses = end > 0 && (at + head) / self.block_bytes != (at + head + end - 1) / self.block_bytes;
        if crosses {
            at = (at + head).next_multiple_of(self.block_bytes) - head;
        }
        let place = Place { at, block: self.block };
        self.at = at + head + end;
        self.block += blocks;
        place
    }

    /// Places an inode of a file that lies elsewhere.
    fn with_chunk(&mut self, head: usize, chunk_bytes: usize) -> Place {
        let at = self.at.next_multiple_of(INODE_UNIT);
        self.at = (at + head).next_multiple_of(chunk_bytes) + chunk_bytes;
        Place { at, block: self.block }
    }
}

impl Plan {
    /// Also puts what is in each directory in its order.
    fn of(tree: &mut Tree<'_>, block_size: BlockSize) -> Self {
        let slots_end = SUPERBLOCK_AT + SUPERBLOCK_BYTES + tree.devices.len() * DEVICE_BYTES;
        let mut plan = Self {
            block_size,
            time: tree.directories[Tree::ROOT].attributes.mtime,
            windows: windows(&tree.devices, block_size),
            inodes_from: slots_end.div_ceil(block_size.bytes()),
            directories: Vec::with_capacity(tree.directories.len()),
            nodes: Vec::with_capacity(tree.directories.iter().map(|directory| directory.nodes.len()).sum()),
            blocks_from: 0,
            blocks: 0,
        };
        // No inode has the number zero: readers of directories take it for one that is gone.
        let mut free = Free {
            block_bytes: block_size.bytes(),
            at: INODE_UNIT,
            block: 0,
        };
        for (number, directory) in tree.directories.iter_mut().enumerate() {
            directory.complete(number);
            plan.add(directory, &mut free);
        }
        plan.blocks_from = plan.inodes_from + free.at.div_ceil(block_size.bytes());
        plan.blocks = free.block;
        plan
    }

    fn window(&self, device: u16) -> Option<u32> {
        self.windows[usize::from(device) - 1]
    }

    fn add(&mut self, directory: &Directory<'_>, free: &mut Free) {
        let size = directory_bytes(directory, self.block_size);
        let is_directory = |node: &&Node<'_>| matches!(node.kind, Kind::Directory(_));
        let directories = directory.nodes.iter().filter(is_directory).count();
        let links = u32::try_from(directories).expect("a tree has a bound");
        let head = inode_bytes(is_extended(&directory.attributes, links, size as u64, self.time));
        self.directories.push(PlacedDirectory {
            place: free.with_content(head, size),
            size,
            links,
            first_node: self.nodes.len(),
        });
        for node in &directory.nodes {
            match &node.kind {
                Kind::Directory(_) => {}
                Kind::File {
                    attributes,
                    size,
                    source,
                } => {
                    let head = inode_bytes(is_extended(attributes, 1, *size, self.time));
                    self.nodes.push(match source {
                        None => free.with_content(head, 0),
                        Some(Source::Device { number, .. }) => match self.window(*number) {
                            Some(_) => free.with_content(head, 0),
                            None => free.with_chunk(head, chunk_bytes(true)),
                        },
                        Some(Source::Redirect(path)) => {
                            free.with_chunk(head + format::redirect_bytes(path), chunk_bytes(false))
                        }
                    });
                }
                Kind::Link { attributes, target } => {
                    let head = inode_bytes(is_extended(attributes, 1, target.len() as u64, self.time));
                    self.nodes.push(free.with_content(head, target.len()));
                }
            }
        }
    }

    /// Bytes of the image.
    fn end(&self) -> usize {
        (self.blocks_from + self.blocks) * self.block_size.bytes()
    }

    /// By what the kernel finds the inode.
    fn number(place: Place) -> u64 {
        (place.at / INODE_UNIT) as u64
    }

    fn content(&self, place: Place, size: usize) -> Content {
        let first = match size / self.block_size.bytes() {
            0 => 0,
            _ => block_number(self.blocks_from + place.block),
        };
        Content::Blocks {
            first,
            has_end: !size.is_multiple_of(self.block_size.bytes()),
        }
    }
}

/// Gives numbers to the blocks of devices, behind those that are the image's own, as long as there are any. A file whose blocks have
/// numbers needs no chunk, which would be half of its inode, and one more read for the kernel.
fn windows(devices: &[u64], block_size: BlockSize) -> Vec<Option<u32>> {
    let devices_max = match block_size {
        // The kernel looks through all of them for each read.
        BlockSize::Sector => 64,
        // The tools of erofs-utils 1.5 take such a device for an empty one.
        BlockSize::Page => 0,
    };
    let (mut next, mut count) = (u64::from(OWN_BLOCKS), 0);
    let window = |sectors: &u64| {
        let first = u32::try_from(next).ok()?;
        let end = next + block_size.holding(*sectors);
        if end > u64::from(u32::MAX) || count == devices_max {
            return None;
        }
        (next, count) = (end, count + 1);
        Some(first)
    };
    devices.iter().map(window).collect()
}

/// So many blocks an image has at the most: half of the numbers.
const OWN_BLOCKS: u32 = 1 << 31;

fn block_number(block: usize) -> u32 {
    let number = u32::try_from(block).ok();
    number
        .filter(|number| *number < OWN_BLOCKS)
        .expect("an image is smaller than 1 TiB")
}

fn directory_bytes(directory: &Directory<'_>, block_size: BlockSize) -> usize {
    let mut measure = Measure::new(block_size.bytes());
    directory.nodes.iter().for_each(|node| measure.add(node.name));
    measure.bytes()
}

/// An image that is being written.
struct Image<'a, 't> {
    bytes: Vec<u8>,
    tree: &'a Tree<'t>,
    plan: &'a Plan,
    /// Of one directory, used again for the next: what is in it, and that in bytes.
    entries: Vec<Named<'t>>,
    content: Vec<u8>,
}

impl<'t> Image<'_, 't> {
    fn write(&mut self) {
        let plan = self.plan;
        let superblock = Superblock {
            root: u16::try_from(Plan::number(plan.directories[Tree::ROOT].place)).expect("the root comes first"),
            inodes: (plan.directories.len() + plan.nodes.len()) as u64,
            time: plan.time,
            blocks: block_number(plan.blocks_from + plan.blocks),
            inodes_from: block_number(plan.inodes_from),
            devices: u16::try_from(self.tree.devices.len()).expect("they have such numbers"),
            block_size: plan.block_size,
        };
        superblock.encode(&mut self.bytes[SUPERBLOCK_AT..][..SUPERBLOCK_BYTES]);
        let slots = &mut self.bytes[SUPERBLOCK_AT + SUPERBLOCK_BYTES..];
        let devices = self.tree.devices.iter().zip(&plan.windows);
        for (slot, (sectors, window)) in slots.chunks_exact_mut(DEVICE_BYTES).zip(devices) {
            let blocks = u32::try_from(plan.block_size.holding(*sectors)).unwrap_or(u32::MAX);
            format::encode_device(blocks, window.unwrap_or(0), slot);
        }
        for number in 0..self.tree.directories.len() {
            self.write_directory(number);
            self.write_nodes(number);
        }
    }

    fn write_directory(&mut self, number: usize) {
        let (directory, plan) = (&self.tree.directories[number], self.plan);
        let placed = plan.directories[number];
        let mut next_node = placed.first_node;
        let named = |node: &Node<'t>| {
            let place = match node.kind {
                Kind::Directory(number) => plan.directories[number].place,
                Kind::File { .. } | Kind::Link { .. } => {
                    next_node += 1;
                    plan.nodes[next_node - 1]
                }
            };
            Named {
                name: node.name,
                inode: Plan::number(place),
                kind: type_of(&node.kind),
            }
        };
        let mut entries = std::mem::take(&mut self.entries);
        entries.clear();
        entries.extend(directory.nodes.iter().map(named));
        let mut content = std::mem::take(&mut self.content);
        content.clear();
        directory::encode(&entries, self.plan.block_size.bytes(), &mut content);
        assert_eq!(content.len(), placed.size, "a directory is as long as was planned");
        let behind = self.write_inode(
            placed.place,
            &Inode {
                kind: Type::Directory,
                attributes: directory.attributes,
                links: placed.links,
                size: placed.size as u64,
                xattr_bytes: 0,
                content: self.plan.content(placed.place, placed.size),
            },
        );
        self.write_content(placed.place, behind, &content);
        self.content = content;
        self.entries = entries;
    }

    fn write_nodes(&mut self, number: usize) {
        let mut next_node = self.plan.directories[number].first_node;
        for node in &self.tree.directories[number].nodes {
            match node.kind {
                Kind::Directory(_) => continue,
                Kind::File {
                    attributes,
                    size,
                    source,
                } => self.write_file(self.plan.nodes[next_node], attributes, size, source),
                Kind::Link { attributes, target } => self.write_link(self.plan.nodes[next_node], attributes, target),
            }
            next_node += 1;
        }
    }

    fn write_file(&mut self, place: Place, attributes: Attributes, size: u64, source: Option<Source<'_>>) {
        let inode = |content, xattr_bytes| Inode {
            kind: Type::File,
            attributes,
            links: 1,
            size,
            xattr_bytes,
            content,
        };
        match source {
            None => {
                self.write_inode(place, &inode(self.plan.content(place, 0), 0));
            }
            Some(Source::Device { number, sector }) => {
                let block = self.plan.block_size.of_sector(sector);
                if let Some(window) = self.plan.window(number) {
                    let (first, has_end) = (window + block, false);
                    self.write_inode(place, &inode(Content::Blocks { first, has_end }, 0));
                } else {
                    let is_on_device = true;
                    let behind = self.write_inode(place, &inode(Content::Chunk { is_on_device }, 0));
                    let chunk_at = behind.next_multiple_of(chunk_bytes(is_on_device));
                    format::encode_chunk(number, block, &mut self.bytes[chunk_at..]);
                }
            }
            Some(Source::Redirect(path)) => {
                let (is_on_device, xattr_bytes) = (false, format::redirect_bytes(path));
                let xattrs_at = self.write_inode(place, &inode(Content::Chunk { is_on_device }, xattr_bytes));
                format::encode_redirect(path, &mut self.bytes[xattrs_at..][..xattr_bytes]);
                let chunk_at = (xattrs_at + xattr_bytes).next_multiple_of(chunk_bytes(is_on_device));
                format::encode_no_chunk(&mut self.bytes[chunk_at..]);
            }
        }
    }

    fn write_link(&mut self, place: Place, attributes: Attributes, target: &str) {
        let behind = self.write_inode(
            place,
            &Inode {
                kind: Type::Link,
                attributes,
                links: 1,
                size: target.len() as u64,
                xattr_bytes: 0,
                content: self.plan.content(place, target.len()),
            },
        );
        self.write_content(place, behind, target.as_bytes());
    }

    /// Writes an inode, and tells where what belongs to it begins behind it.
    fn write_inode(&mut self, place: Place, inode: &Inode) -> usize {
        let at = self.plan.inodes_from * self.plan.block_size.bytes() + place.at;
        let number = u32::try_from(Plan::number(place)).expect("an image is smaller than 128 GiB");
        inode.encode(number, self.plan.time, &mut self.bytes[at..]);
        at + inode.bytes(self.plan.time)
    }

    /// Writes whole blocks where they belong, and the rest behind the inode.
    fn write_content(&mut self, place: Place, behind: usize, content: &[u8]) {
        let block_bytes = self.plan.block_size.bytes();
        let (blocks, end) = content.split_at(content.len() / block_bytes * block_bytes);
        let blocks_at = (self.plan.blocks_from + place.block) * block_bytes;
        self.bytes[blocks_at..][..blocks.len()].copy_from_slice(blocks);
        self.bytes[behind..][..end.len()].copy_from_slice(end);
    }
}

fn type_of(kind: &Kind<'_>) -> Type {
    match kind {
        Kind::Directory(_) => Type::Directory,
        Kind::File { .. } => Type::File,
        Kind::Link { .. } => Type::Link,
    }
}
