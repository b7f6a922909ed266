//! Where a blob lies, in the few bytes that an index can afford.

use std::fmt;

/// A group of blobs whose disk space comes back together: a pack, in the layouts of this crate.
///
/// Numbers are never used again. There are 2^24 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(u32);

impl Region {
    /// What is no group: blobs that lie alone, and whose space comes back one by one.
    pub const ALONE: Self = Self(0);
    /// The largest number.
    pub const MAX: Self = Self((1 << 24) - 1);

    /// The region with a number; `None` if the number is too large.
    pub const fn new(number: u32) -> Option<Self> {
        if number > Self::MAX.0 { None } else { Some(Self(number)) }
    }

    /// The region's number.
    pub const fn number(self) -> u32 {
        self.0
    }
}

/// A region, and a number of 24 bits that means something to the layout: which of the blobs in that region it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    region: Region,
    offset: u32,
}

impl Place {
    /// The most that `offset` can be.
    pub const OFFSET_MAX: u32 = (1 << 24) - 1;

    /// Names a place; `None` if `offset` is too large.
    pub const fn new(region: Region, offset: u32) -> Option<Self> {
        if offset > Self::OFFSET_MAX {
            return None;
        }
        Some(Self { region, offset })
    }

    /// The region that the blob lies in.
    pub const fn region(self) -> Region {
        self.region
    }

    /// The layout's number.
    pub const fn offset(self) -> u32 {
        self.offset
    }

    /// The place as 6 bytes, for the index.
    pub(crate) fn encode(self) -> [u8; 6] {
        let (region, offset) = (self.region.0.to_le_bytes(), self.offset.to_le_bytes());
        [region[0], region[1], region[2], offset[0], offset[1], offset[2]]
    }

    /// The place that 6 bytes encode.
    pub(crate) fn decode(bytes: [u8; 6]) -> Self {
        let number = |low: u8, middle: u8, high: u8| u32::from_le_bytes([low, middle, high, 0]);
        Self {
            region: Region(number(bytes[0], bytes[1], bytes[2])),
            offset: number(bytes[3], bytes[4], bytes[5]),
        }
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.region.0, self.offset)
    }
}
