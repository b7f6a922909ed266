//! Hashing content.

use bytes::Bytes;
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

    /// Whether [`update_both`](Self::update_both) takes less time than one after the other.
    pub(super) fn gains_in_turns(&self) -> bool {
        self.hasher.gains_in_turns()
    }

    pub(super) fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        self.checksummer.update(piece);
    }

    /// Adds pieces to each of two contents, in turns as long as both have some.
    pub(super) fn update_both([one, other]: [&mut Self; 2], pieces: [&[Bytes]; 2]) {
        let [mut mine, mut others] = pieces.map(|pieces| pieces.iter().map(|piece| &**piece));
        let mut heads: [&[u8]; 2] = [&[], &[]];
        while let Some(piece) = left_or_next(heads[0], &mut mine) {
            heads[0] = piece;
            let Some(piece) = left_or_next(heads[1], &mut others) else {
                break;
            };
            heads[1] = piece;
            let len = heads[0].len().min(heads[1].len());
            let in_turns = heads.map(|head| &head[..len]);
            Hasher::update_both([&mut one.hasher, &mut other.hasher], in_turns);
            one.checksummer.update(in_turns[0]);
            other.checksummer.update(in_turns[1]);
            heads = heads.map(|head| &head[len..]);
        }
        std::iter::once(heads[0])
            .chain(mine)
            .for_each(|piece| one.update(piece));
        std::iter::once(heads[1])
            .chain(others)
            .for_each(|piece| other.update(piece));
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

/// What is left of a piece, or the next one.
fn left_or_next<'a>(left: &'a [u8], pieces: &mut impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    match left.is_empty() {
        true => pieces.find(|piece| !piece.is_empty()),
        false => Some(left),
    }
}
