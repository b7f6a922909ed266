//! Where bytes lie.
//!
//! A [`Layout`] puts blobs on a disk and finds them again; everything else about a store (who may put what, what is durable when,
//! what has to go, what is checked) is the engine's, and is the same for every layout. There are three here:
//!
//! ```text
//!   loose      a file for each blob
//!   packed     blobs one behind the other in large files, the packs
//!   hybrid     small ones in packs, larger ones loose          the default
//! ```
//!
//! All three keep *logs* of what they did (`log/`), and a start reads those instead of walking the blobs.

mod hybrid;
pub(crate) mod log;
mod loose;
mod packed;
mod place;

use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootcellar_digest::Digest;

pub use self::hybrid::HybridKind;
pub(crate) use self::log::{function_number, function_of};
pub use self::loose::LooseKind;
pub use self::packed::PackedKind;
pub use self::place::{Place, Region};
use crate::io::{BootId, Disk, DiskFile};
use crate::{ByteCounter, Content, Result, Verified};

/// The random name of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StoreId(pub [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// A kind of layout: what a new store is given, and what the `FORMAT` file of a store names.
pub trait LayoutKind: fmt::Debug + Send + Sync + 'static {
    /// Its name in `FORMAT`: lower-case letters.
    fn name(&self) -> &'static str;

    /// Opens the layout of a store, or begins one in a directory that has none. Finds its regions; reads no blob's entry yet.
    ///
    /// # Errors
    /// I/O errors; [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a later version's files.
    fn open(&self, ground: &Ground) -> Result<Box<dyn Layout>>;
}

/// The kind of layout of this crate with a name, with its default settings: what it needs to read any store of that layout.
pub fn kind_named(name: &str) -> Option<Arc<dyn LayoutKind>> {
    let kinds: [Arc<dyn LayoutKind>; 3] = [
        Arc::new(HybridKind::default()),
        Arc::new(LooseKind),
        Arc::new(PackedKind),
    ];
    kinds.into_iter().find(|kind| kind.name() == name)
}

/// What a layout is given to work with.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The store's directory. Everything in it but `FORMAT`, `lock`, `closed`, `failed.*`, `uses`, `tmp/` and what the program adds is the
    /// layout's.
    pub dir: PathBuf,
    /// Which store this is.
    pub store: StoreId,
    /// This boot of the machine.
    pub boot: BootId,
    /// Whether what was written under this boot can be read back, synced or not: so unless a sync has failed.
    pub is_cache_whole: bool,
    /// Whether the process before this one ended in good order.
    pub was_closed: bool,
    /// Whether the store acknowledges only what is durable.
    pub is_synced: bool,
    /// Bytes that the store may take in all.
    pub bytes_max: u64,
    /// Told what the layout takes on the disk, at every moment.
    pub bytes: ByteCounter,
}

/// A blob to be written.
#[derive(Debug, Clone, Copy)]
pub struct New<'a> {
    /// The blob.
    pub blob: &'a Verified,
    /// When it was used last, in ticks of the store.
    pub used: u32,
}

/// What the disk says of a blob when a store starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The blob.
    pub digest: Digest,
    /// Where it lies.
    pub place: Place,
    /// The checksum of its bytes, if the layout remembers it.
    pub checksum: Option<u32>,
    /// When it was used last, as far as was written with it.
    pub used: u32,
    /// Whether its bytes are there.
    pub trust: Trust,
    /// Whether the store that wrote it acknowledged only what was durable.
    pub is_promised: bool,
}

/// How far it can be believed that a blob is there, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It is.
    Certain,
    /// A power cut may have taken some of its bytes. It is read and hashed before it is given to anybody.
    Doubtful,
    /// It was written under this boot of the machine, not synced for sure, and a sync has failed since: what is read of it need not be
    /// on the disk. It is given up unread.
    Lost,
}

/// What is always so about a layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Blobs above this size should come as spool files rather than as bytes in memory: they are given a name then, and not
    /// written again.
    pub file_above_bytes: u64,
    /// Bytes of the disk that have to stay free, so that a region can be emptied into another one.
    pub spare_bytes: u64,
}

/// The bytes of a blob: a part of an open file.
#[derive(Debug, Clone)]
pub struct Extent {
    /// The file.
    pub file: Arc<dyn DiskFile>,
    /// The blob's first byte in it.
    pub at: u64,
}

/// A region, and what it takes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegionSize {
    /// The region.
    pub region: Region,
    /// Bytes that come back when it is dropped.
    pub bytes: u64,
    /// Whether it has to stay: blobs are still being written to it, or its number would be lost with it.
    pub is_open: bool,
}

/// Where bytes lie. A layout is tested by the suites of `testing` (a feature) over a store that has it, and what is promised here
/// about crashes by `testing::check_power_cuts`.
///
/// 1. **Written means readable**: from the moment that `write` returns, `open` finds the bytes at the place it told.
/// 2. **A place is never given twice** while a file or a reader may still mean the blob that had it.
/// 3. **`sync` covers all before it**: after a power cut, what was written, and what was said to be gone, before a `sync` that
///    succeeded is replayed as it was, and is certain.
/// 4. **Certain is whole**: what is replayed as certain can be read, byte for byte. What is doubtful may be anything, and stays
///    doubtful until its region was settled and synced.
/// 5. **Gone is gone first**: a blob's bytes are given up only after that it is gone is durable, or cannot be forgotten.
/// 6. **An error is one blob's**, and leaves what was written before as it was.
///
/// Writes do not run at once with each other; everything else may. All calls may block but
/// [`growth`](Self::growth), [`footprint`](Self::footprint), [`sizes`](Self::sizes), [`path`](Self::path),
/// [`first_byte`](Self::first_byte), [`left_bytes`](Self::left_bytes) and [`alone_dir`](Self::alone_dir), and [`open`](Self::open) in a
/// region that is not [`Region::ALONE`].
pub trait Layout: fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// What is always so.
    fn facts(&self) -> Facts;

    /// Tells what is stored in a region, each place once. Called once for each region, at the start. The outcome is the number of
    /// units of the layout's own files that are not what was written: what they spoke of is not told.
    fn replay(&self, region: Region, tell: &mut dyn FnMut(Stored)) -> Result<u64>;

    /// The regions there are, [`Region::ALONE`] among them if blobs lie there.
    fn sizes(&self) -> Vec<RegionSize>;

    /// Bytes of disk that writing blobs of these sizes would take, at the most.
    fn growth(&self, sizes: &mut dyn Iterator<Item = u64>) -> u64;

    /// Bytes that a stored blob takes of its region's, padding and what speaks of it included.
    fn footprint(&self, digest: &Digest) -> u64;

    /// Writes blobs, and tells where each lies. They are replayed after a crash of the process; after one of the machine, if
    /// they were synced.
    fn write(&self, blobs: &[New<'_>]) -> Vec<io::Result<Place>>;

    /// Makes everything before this call durable. If the disk is full or too many files are open
    /// ([`ErrorKind::of_io`](crate::ErrorKind::of_io) tells), nothing is lost, and the next call makes all of it durable; after any
    /// other error nobody knows.
    fn sync(&self) -> io::Result<()>;

    /// Says that nothing in a region is doubtful any more: each doubtful blob was found to be whole, or was removed.
    fn settle(&self, region: Region);

    /// Opens the bytes of a blob: `NotFound` if its region was dropped meanwhile, `UnexpectedEof` if they are not all there.
    fn open(&self, digest: &Digest, place: Place) -> io::Result<Extent>;

    /// The name of the file that holds a blob, the same for all that lie in one region other than [`Region::ALONE`]. It stays so
    /// while the blob has this place.
    fn path(&self, digest: &Digest, place: Place) -> Arc<Path>;

    /// The first byte in that file of a blob that does not lie alone.
    fn first_byte(&self, place: Place) -> u64;

    /// Bytes that are counted for what was removed before a crash, and may be there again until [`tidy`](Self::tidy) has looked.
    fn left_bytes(&self) -> u64 {
        0
    }

    /// The directory that holds all files of blobs that lie alone, and nothing that is not the layout's; `None` if none lies alone.
    fn alone_dir(&self) -> Option<PathBuf>;

    /// Gives up single blobs. Space comes back if they lie alone.
    fn remove(&self, blobs: &[(Digest, Place)]) -> io::Result<()>;

    /// Gives up a region and everything in it. What was needed of it was written elsewhere and synced before.
    fn drop_region(&self, region: Region) -> io::Result<()>;

    /// Puts the layout's own files in order, a step at a time: `true` if there is more to do. Before each step everything was
    /// synced, what the step before it wrote included. `is_live` says whether the store knows a blob at a place.
    fn tidy(&self, is_live: &dyn Fn(&Digest, Place) -> bool) -> io::Result<bool>;

    /// Gives back what was reserved for blobs to come: nothing is written any more. A sync follows.
    fn end(&self) -> io::Result<()>;
}

/// Bytes of the disk that a file of so many bytes takes.
fn whole_blocks(bytes: u64) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    bytes.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES)
}

/// The same error, for each blob that it is about.
fn copy_of(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

/// Copies content that is in a file to another one. Blocks.
fn copy_content(blob: &Verified, to: &dyn DiskFile, to_at: u64) -> io::Result<()> {
    const PIECE_BYTES: usize = 256 * 1024;
    let (file, from) = match blob.content() {
        Content::Bytes(bytes) => return to.write_at(&[IoSlice::new(bytes)], to_at),
        Content::Spooled(file) => (file.file(), 0),
        Content::Part(file, from) => (file.clone(), *from),
    };
    let size = blob.digest().size_bytes();
    let mut piece = vec![0; usize::try_from(size).map_or(PIECE_BYTES, |size| size.min(PIECE_BYTES))];
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).map_or(piece.len(), |left| left.min(piece.len()));
        file.read_at(&mut piece[..len], from + at)?;
        to.write_at(&[IoSlice::new(&piece[..len])], to_at + at)?;
        at += len as u64;
    }
    Ok(())
}
