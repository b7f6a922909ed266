//! Hashing content.

use rootcellar_digest::{Digest, DigestFunction, Hasher};

use crate::checksum::Checksummer;
use crate::verified::mismatch;
use crate::{Error, ErrorKind, Result};

/// Both ways by which content is known again, in one pass.
#[derive(Debug)]
pub(super) struct Hashing {
    hasher: Hasher,
    checksummer: Checksummer,
}

impl Hashing {
    pub(super) fn new(function: DigestFunction, declared: u64) -> Self {
        Self {
            hasher: Hasher::new(function, declared),
            checksummer: Checksummer::default(),
        }
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.checksummer.update(piece);
    }

    pub(super) fn finish(self) -> Result<(Digest, u32)> {
        let checksum = self.checksummer.finish();
        match self.hasher.finish() {
            Ok(digest) => Ok((digest, checksum)),
            Err(error) => Err(Error::new(ErrorKind::InvalidArgument, "ingest", error.to_string())),
        }
    }

    /// The checksum, if the content is what `digest` says.
    pub(super) fn check(self, digest: Digest) -> Result<u32> {
        match self.finish()? {
            (found, checksum) if found == digest => Ok(checksum),
            (found, _) => Err(mismatch(digest, found)),
        }
    }
}
