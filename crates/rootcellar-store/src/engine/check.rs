//! Whether an extent holds what a digest says.

use std::io;

use rootcellar_digest::{Digest, Hasher};

use crate::blob::is_damage;
use crate::checksum::Checksummer;
use crate::io::DiskFile;
use crate::layout::Extent;

const PIECE_BYTES: usize = 256 * 1024;

/// What reading a blob showed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Check {
    /// The bytes are the blob's. This is their checksum, by which they are known again from now on.
    Whole(u32),
    /// They are not, or cannot be read.
    Damaged(String),
}

/// Reads and hashes all of a blob. Blocks.
///
/// # Errors
/// Those that say nothing about the content.
pub(crate) fn check(digest: Digest, extent: &Extent) -> io::Result<Check> {
    let mut hasher = Hasher::new(digest.function(), digest.size_bytes());
    let mut checksummer = Checksummer::default();
    let damage = read_all(&*extent.file, extent.at, digest.size_bytes(), |piece| {
        hasher.update(piece);
        checksummer.update(piece);
    })?;
    Ok(damage.unwrap_or_else(|| match hasher.finish() {
        Ok(found) if found == digest => Check::Whole(checksummer.finish()),
        Ok(found) => Check::Damaged(format!("the content has the digest {found}")),
        Err(error) => Check::Damaged(error.to_string()),
    }))
}

/// Shows all bytes to `see`, or tells why they cannot be read.
fn read_all(file: &dyn DiskFile, start: u64, size: u64, mut see: impl FnMut(&[u8])) -> io::Result<Option<Check>> {
    let mut piece = vec![0; usize::try_from(size).map_or(PIECE_BYTES, |size| size.min(PIECE_BYTES))];
    let mut at = 0;
    while at < size {
        let len = usize::try_from(size - at).map_or(piece.len(), |left| left.min(piece.len()));
        match file.read_at(&mut piece[..len], start + at) {
            Ok(()) => see(&piece[..len]),
            Err(error) if is_damage(&error) => return Ok(Some(Check::Damaged(format!("at byte {at}: {error}")))),
            Err(error) => return Err(error),
        }
        at += len as u64;
    }
    Ok(None)
}
