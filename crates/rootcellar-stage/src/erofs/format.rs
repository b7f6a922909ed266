//! The bytes of an image, as the kernel draws them in `fs/erofs/erofs_fs.h`. Numbers are little-endian.
//!
//! ```text
//! superblock     0  4  0xe0f5e1e2                      40  4  block where inodes are counted from
//!                8  4  compatible features: 2          80  4  incompatible features: 4, and 8 with devices
//!               12  1  block size, as a power of 2     86  2  number of devices
//!               14  2  number of the root              88  2  where the device slots are, in units of 128
//!               16  8  number of inodes               all else zero
//!               24  8  the time of those with 32 bytes
//!               36  4  number of blocks
//!
//! device slot   64  4  number of blocks              68  4  the number of its first one among those of the image; or 0, for none
//!
//! inode          0  2  1 if it has 64 bytes; and how its content lies, times 2: 0 in blocks, 2 with its end in here, 4 in chunks
//!                2  2  length of the attributes, in units of 4 from 12 on, plus 1; or 0
//!                4  2  type and mode
//!   of 32        6  2  links       8  4  size         16  4  place      20  4  number
//!   of 64        8  8  size       16  4  place        20  4  number     32  8  seconds   40  4  nanoseconds   44  4  links
//!
//! attribute      0  1  length of the name after its prefix
//!                1  1  prefix: 4 is `trusted.`
//!                2  2  length of the value; then name and value, zeros up to a multiple of 4
//! ```

use super::tree::Attributes;

/// How long the blocks of an image are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BlockSize {
    /// 512 bytes: files on devices begin at any sector.
    #[default]
    Sector,
    /// 4096 bytes, for tools such as those of erofs-utils 1.5, which read no others: files on devices begin at every eighth sector.
    Page,
}

impl BlockSize {
    const fn bits(self) -> u8 {
        match self {
            Self::Sector => 9,
            Self::Page => 12,
        }
    }

    pub(super) const fn bytes(self) -> usize {
        1 << self.bits()
    }

    const fn sectors(self) -> u32 {
        1 << (self.bits() - Self::Sector.bits())
    }

    /// The block that begins where a sector does.
    pub(super) fn of_sector(self, sector: u32) -> u32 {
        assert!(
            sector.is_multiple_of(self.sectors()),
            "a file begins where a block does"
        );
        sector / self.sectors()
    }

    /// The blocks that hold so many sectors.
    pub(super) fn holding(self, sectors: u64) -> u64 {
        sectors.div_ceil(self.sectors().into())
    }
}

/// Inodes begin at multiples of this, and are numbered in it.
pub(super) const INODE_UNIT: usize = 32;
pub(super) const SUPERBLOCK_AT: usize = 1024;
pub(super) const SUPERBLOCK_BYTES: usize = 128;
pub(super) const DEVICE_BYTES: usize = 128;

/// One chunk is the whole file: 2^31 blocks.
const ONE_CHUNK: u32 = 31;
/// Chunks have the number of a device.
const ON_DEVICES: u32 = 0x20;
/// A chunk that is nowhere.
const NOWHERE: u32 = u32::MAX;

/// The type of a file, in its mode and in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    File,
    Directory,
    Link,
}

impl Type {
    const fn mode(self) -> u16 {
        match self {
            Self::File => 0o100_000,
            Self::Directory => 0o040_000,
            Self::Link => 0o120_000,
        }
    }

    pub(super) const fn in_directory(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::Link => 7,
        }
    }
}

/// How the content of an inode lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// In whole blocks from this one on, and what is left of it behind the inode.
    Blocks { first: u32, has_end: bool },
    /// In one chunk, of a device whose blocks have no numbers in the image, or of none: its place is behind the inode.
    Chunk { is_on_device: bool },
}

impl Content {
    const fn layout(self) -> u16 {
        match self {
            Self::Blocks { has_end: false, .. } => 0,
            Self::Blocks { has_end: true, .. } => 2,
            Self::Chunk { .. } => 4,
        }
    }

    const fn place(self) -> u32 {
        match self {
            Self::Blocks { first, .. } => first,
            Self::Chunk { is_on_device: false } => ONE_CHUNK,
            Self::Chunk { is_on_device: true } => ONE_CHUNK | ON_DEVICES,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Inode {
    pub(super) kind: Type,
    pub(super) attributes: Attributes,
    pub(super) links: u32,
    pub(super) size: u64,
    pub(super) xattr_bytes: usize,
    pub(super) content: Content,
}

/// Whether an inode needs 64 bytes in an image with this time.
pub(super) fn is_extended(attributes: &Attributes, links: u32, size: u64, time: i64) -> bool {
    let is_small = u16::try_from(links).is_ok() && u32::try_from(size).is_ok();
    !is_small || (attributes.mtime, attributes.mtime_nanos) != (time, 0)
}

/// Bytes of an inode.
pub(super) const fn inode_bytes(is_extended: bool) -> usize {
    if is_extended { 64 } else { 32 }
}

/// Writes numbers at offsets.
pub(super) struct Field<'a>(pub(super) &'a mut [u8]);

impl Field<'_> {
    fn put<const N: usize>(&mut self, at: usize, bytes: [u8; N]) -> &mut Self {
        self.0[at..at + N].copy_from_slice(&bytes);
        self
    }

    pub(super) fn u8(&mut self, at: usize, number: u8) -> &mut Self {
        self.put(at, [number])
    }

    pub(super) fn u16(&mut self, at: usize, number: u16) -> &mut Self {
        self.put(at, number.to_le_bytes())
    }

    pub(super) fn u32(&mut self, at: usize, number: u32) -> &mut Self {
        self.put(at, number.to_le_bytes())
    }

    pub(super) fn u64(&mut self, at: usize, number: u64) -> &mut Self {
        self.put(at, number.to_le_bytes())
    }
}

impl Inode {
    fn is_extended(&self, time: i64) -> bool {
        is_extended(&self.attributes, self.links, self.size, time)
    }

    /// Bytes of it in an image with this time, without what belongs to it.
    pub(super) fn bytes(&self, time: i64) -> usize {
        inode_bytes(self.is_extended(time))
    }

    /// Writes it, in an image with this time, into the zeros where it lies.
    pub(super) fn encode(&self, number: u32, time: i64, zeros: &mut [u8]) {
        let is_extended = self.is_extended(time);
        let xattr_units = match self.xattr_bytes {
            0 => 0,
            bytes => (bytes - XATTRS_HEADER_BYTES) / 4 + 1,
        };
        let mut fields = Field(zeros);
        fields
            .u16(0, self.content.layout() << 1 | u16::from(is_extended))
            .u16(2, u16::try_from(xattr_units).expect("attributes are short"))
            .u16(4, self.kind.mode() | (self.attributes.mode & 0o7777))
            .u32(16, self.content.place())
            .u32(20, number);
        if is_extended {
            fields
                .u64(8, self.size)
                .u64(32, self.attributes.mtime.cast_unsigned())
                .u32(40, self.attributes.mtime_nanos)
                .u32(44, self.links);
        } else {
            fields
                .u16(6, u16::try_from(self.links).expect("else it is extended"))
                .u32(8, u32::try_from(self.size).expect("else it is extended"));
        }
    }
}

/// What is the same for the whole image.
#[derive(Debug)]
pub(super) struct Superblock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) time: i64,
    pub(super) blocks: u32,
    pub(super) inodes_from: u32,
    pub(super) devices: u16,
    pub(super) block_size: BlockSize,
}

impl Superblock {
    pub(super) fn encode(&self, zeros: &mut [u8]) {
        const MAGIC: u32 = 0xe0f5_e1e2;
        // Times are those of modification.
        const HAS_MTIME: u32 = 2;
        const HAS_CHUNKS: u32 = 4;
        const HAS_DEVICES: u32 = 8;
        let devices = if self.devices > 0 { HAS_DEVICES } else { 0 };
        let slots_at = (SUPERBLOCK_AT + SUPERBLOCK_BYTES) / DEVICE_BYTES;
        Field(zeros)
            .u32(0, MAGIC)
            .u32(8, HAS_MTIME)
            .u8(12, self.block_size.bits())
            .u16(14, self.root)
            .u64(16, self.inodes)
            .u64(24, self.time.cast_unsigned())
            .u32(36, self.blocks)
            .u32(40, self.inodes_from)
            .u32(80, HAS_CHUNKS | devices)
            .u16(86, self.devices)
            .u16(88, u16::try_from(slots_at).expect("just behind the superblock"));
    }
}

/// Writes how many blocks of a device there are, and the number that the first of them has in the image; or 0, for none.
pub(super) fn encode_device(blocks: u32, first: u32, zeros: &mut [u8]) {
    Field(zeros).u32(64, blocks).u32(68, first);
}

/// Bytes of the place of a file, which begins at a multiple of so many.
pub(super) const fn chunk_bytes(is_on_device: bool) -> usize {
    if is_on_device { 8 } else { 4 }
}

/// Writes where a file lies in a device.
pub(super) fn encode_chunk(number: u16, block: u32, zeros: &mut [u8]) {
    Field(zeros).u16(2, number).u32(4, block);
}

/// Writes that a file lies nowhere here.
pub(super) fn encode_no_chunk(zeros: &mut [u8]) {
    Field(zeros).u32(0, NOWHERE);
}

const XATTRS_HEADER_BYTES: usize = 12;
const XATTR_BYTES: usize = 4;
/// The prefix `trusted.`.
const TRUSTED: u8 = 4;
const METACOPY: &str = "overlay.metacopy";
const REDIRECT: &str = "overlay.redirect";

/// Bytes of the attributes that send overlayfs to `path`.
pub(super) const fn redirect_bytes(path: &str) -> usize {
    let metacopy = XATTR_BYTES + METACOPY.len();
    let redirect = (XATTR_BYTES + REDIRECT.len() + path.len()).next_multiple_of(4);
    XATTRS_HEADER_BYTES + metacopy + redirect
}

/// Writes these attributes.
pub(super) fn encode_redirect(path: &str, zeros: &mut [u8]) {
    let metacopy = &mut zeros[XATTRS_HEADER_BYTES..];
    encode_xattr(METACOPY, "", metacopy);
    encode_xattr(REDIRECT, path, &mut metacopy[XATTR_BYTES + METACOPY.len()..]);
}

fn encode_xattr(name: &str, value: &str, zeros: &mut [u8]) {
    Field(zeros)
        .u8(0, u8::try_from(name.len()).expect("a short name"))
        .u8(1, TRUSTED)
        .u16(2, u16::try_from(value.len()).expect("a path of a store is short"));
    let (names, values) = zeros[XATTR_BYTES..].split_at_mut(name.len());
    names.copy_from_slice(name.as_bytes());
    values[..value.len()].copy_from_slice(value.as_bytes());
}
