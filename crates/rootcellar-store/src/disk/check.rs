//! Whether a file holds what its digest says.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rootcellar_digest::{Digest, Hasher};

use crate::blob::is_damage;

const PIECE_BYTES: usize = 256 * 1024;

/// What hashing a file showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The bytes are the blob's.
    Whole,
    /// They are not, or cannot be read.
    Damaged(String),
}

/// Reads and hashes a blob's file. Blocks.
///
/// # Errors
/// Those that say nothing about the content.
pub(super) fn check(digest: Digest, file: &File) -> io::Result<Check> {
    let found = file.metadata()?.len();
    if found != digest.size_bytes() {
        return Ok(Check::Damaged(format!("the file has {found} bytes")));
    }
    let mut hasher = Hasher::new(digest.function(), digest.size_bytes());
    let mut piece = vec![0; PIECE_BYTES.min(usize::try_from(found).unwrap_or(PIECE_BYTES))];
    let mut at = 0;
    while at < digest.size_bytes() {
        match file.read_at(&mut piece, at) {
            Ok(0) => return Ok(Check::Damaged(format!("the file ends after {at} bytes"))),
            Ok(len) => {
                hasher.update(&piece[..len]);
                at += len as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_damage(&error) => return Ok(Check::Damaged(format!("at byte {at}: {error}"))),
            Err(error) => return Err(error),
        }
    }
    Ok(match hasher.finish() {
        Ok(found) if found == digest => Check::Whole,
        Ok(found) => Check::Damaged(format!("the content has the digest {found}")),
        Err(error) => Check::Damaged(error.to_string()),
    })
}
