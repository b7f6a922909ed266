//! The `hybrid` layout: small blobs in packs, larger ones as files of their own.
//!
//! A small blob is cheap in a pack: no inode, no directory entry, one call for a whole batch, and a neighbour that the kernel
//! reads along. A large one is better alone: it can be given a name without being copied, its page cache is shared by all who
//! map it, and its space comes back by itself. Where one ends and the other begins is measured in `docs/design/0005`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_digest::Digest;

use super::loose::Loose;
use super::packed::Packed;
use super::{Extent, Facts, Ground, Layout, LayoutKind, New, Place, Region, RegionSize, Stored};
use crate::Result;

/// The part of the store that one pack is. Small blobs are a tenth of a build's bytes, so there are about a hundred packs of them; with
/// fewer, each image would keep more of what is packed from going (`docs/design/0005`).
const PACK_PART: u64 = 1024;

/// Packs for small blobs, files for large ones.
#[derive(Debug, Clone, Copy)]
pub struct HybridKind {
    /// The largest blob that is packed, in bytes.
    pub packed_max_bytes: u64,
}

impl Default for HybridKind {
    fn default() -> Self {
        Self {
            packed_max_bytes: 16 * 1024,
        }
    }
}

impl LayoutKind for HybridKind {
    fn name(&self) -> &'static str {
        "hybrid"
    }

    fn open(&self, ground: &Ground) -> Result<Box<dyn Layout>> {
        Ok(Box::new(Hybrid {
            packed: Packed::open(ground, PACK_PART)?,
            loose: Loose::open(ground)?,
            packed_max_bytes: self.packed_max_bytes,
        }))
    }
}

#[derive(Debug)]
struct Hybrid {
    packed: Packed,
    loose: Loose,
    packed_max_bytes: u64,
}

impl Hybrid {
    fn of(&self, region: Region) -> &dyn Layout {
        if region == Region::ALONE {
            &self.loose
        } else {
            &self.packed
        }
    }

    fn is_packed(&self, size_bytes: u64) -> bool {
        size_bytes <= self.packed_max_bytes
    }
}

impl Layout for Hybrid {
    fn facts(&self) -> Facts {
        Facts {
            file_above_bytes: self.loose.facts().file_above_bytes.max(self.packed_max_bytes),
            spare_bytes: self.packed.facts().spare_bytes,
        }
    }

    fn replay(&self, region: Region, tell: &mut dyn FnMut(Stored)) -> Result<u64> {
        self.of(region).replay(region, tell)
    }

    fn sizes(&self) -> Vec<RegionSize> {
        let mut sizes = self.loose.sizes();
        sizes.extend(self.packed.sizes());
        sizes
    }

    fn growth(&self, sizes: &mut dyn Iterator<Item = u64>) -> u64 {
        let (packed, loose): (Vec<u64>, Vec<u64>) = sizes.partition(|size| self.is_packed(*size));
        self.packed.growth(&mut packed.into_iter()) + self.loose.growth(&mut loose.into_iter())
    }

    fn footprint(&self, digest: &Digest) -> u64 {
        if self.is_packed(digest.size_bytes()) {
            self.packed.footprint(digest)
        } else {
            self.loose.footprint(digest)
        }
    }

    fn write(&self, blobs: &[New<'_>]) -> Vec<io::Result<Place>> {
        let is_packed = |new: &New<'_>| self.is_packed(new.blob.digest().size_bytes());
        // Most batches are of one sort.
        if blobs.iter().all(is_packed) {
            return self.packed.write(blobs);
        }
        if !blobs.iter().any(is_packed) {
            return self.loose.write(blobs);
        }
        let (packed, loose): (Vec<New<'_>>, Vec<New<'_>>) = blobs.iter().copied().partition(is_packed);
        let (mut packed, mut loose) = (
            self.packed.write(&packed).into_iter(),
            self.loose.write(&loose).into_iter(),
        );
        let outcome = |new| if is_packed(new) { packed.next() } else { loose.next() };
        let outcomes = blobs.iter().map(outcome);
        outcomes
            .map(|outcome| outcome.expect("an outcome for each blob"))
            .collect()
    }

    fn sync(&self) -> io::Result<()> {
        self.packed.sync()?;
        self.loose.sync()
    }

    fn settle(&self, region: Region) {
        self.of(region).settle(region);
    }

    fn open(&self, digest: &Digest, place: Place) -> io::Result<Extent> {
        self.of(place.region()).open(digest, place)
    }

    fn path(&self, digest: &Digest, place: Place) -> Arc<Path> {
        self.of(place.region()).path(digest, place)
    }

    fn first_byte(&self, place: Place) -> u64 {
        self.of(place.region()).first_byte(place)
    }

    fn alone_dir(&self) -> Option<PathBuf> {
        self.loose.alone_dir()
    }

    fn left_bytes(&self) -> u64 {
        self.loose.left_bytes() + self.packed.left_bytes()
    }

    fn remove(&self, blobs: &[(Digest, Place)]) -> io::Result<()> {
        type Blobs = Vec<(Digest, Place)>;
        let (loose, packed): (Blobs, Blobs) = blobs.iter().partition(|(_, place)| place.region() == Region::ALONE);
        if !packed.is_empty() {
            self.packed.remove(&packed)?;
        }
        if !loose.is_empty() {
            self.loose.remove(&loose)?;
        }
        Ok(())
    }

    fn drop_region(&self, region: Region) -> io::Result<()> {
        self.of(region).drop_region(region)
    }

    fn tidy(&self, is_live: &dyn Fn(&Digest, Place) -> bool) -> io::Result<bool> {
        self.loose.tidy(is_live)
    }

    fn end(&self) -> io::Result<()> {
        self.packed.end()?;
        self.loose.end()
    }
}

impl fmt::Display for Hybrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "hybrid({} up to {} KiB, else {})",
            self.packed,
            self.packed_max_bytes >> 10,
            self.loose
        )
    }
}
