//! Bytes that lie in several pieces.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};

/// Smaller pieces are copied together: each has bookkeeping of its own and may keep the buffer into which it was received, and a client may
/// send a byte at a time.
const SMALL_BYTES: usize = 8 * 1024;

/// Bytes in the pieces in which they came.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    pieces: VecDeque<Bytes>,
    /// What comes behind the pieces.
    small: BytesMut,
    len: usize,
}

impl Chunks {
    /// Adds bytes at the end.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len();
        if piece.len() < SMALL_BYTES {
            self.small.extend_from_slice(&piece);
            return;
        }
        self.seal();
        self.pieces.push_back(piece);
    }

    /// Takes bytes from the beginning. There are as many.
    pub(crate) fn split_to(&mut self, len: usize) -> Self {
        let mut taken = Self::default();
        while taken.len < len {
            let piece = self.next_piece(len - taken.len);
            taken.len += piece.len();
            taken.pieces.push_back(piece);
        }
        taken
    }

    /// Takes all bytes, piece by piece.
    pub(crate) fn into_pieces(mut self) -> impl Iterator<Item = Bytes> + Send {
        self.seal();
        self.pieces.into_iter()
    }

    /// Takes at most `len` bytes, of which there is one.
    fn next_piece(&mut self, len: usize) -> Bytes {
        if self.pieces.is_empty() {
            self.seal();
        }
        let first = self.pieces.front_mut().expect("what is counted is there");
        let piece = first.split_to(len.min(first.len()));
        if first.is_empty() {
            self.pieces.pop_front();
        }
        self.len -= piece.len();
        piece
    }

    fn seal(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
    }
}

impl From<Bytes> for Chunks {
    fn from(bytes: Bytes) -> Self {
        let mut chunks = Self::default();
        chunks.push(bytes);
        chunks
    }
}

impl Buf for Chunks {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.pieces.front().map_or(&self.small, |first| first)
    }

    fn advance(&mut self, mut len: usize) {
        assert!(len <= self.len, "only what is there can be skipped");
        self.len -= len;
        while let Some(first) = self.pieces.front_mut() {
            if len < first.len() {
                first.advance(len);
                return;
            }
            len -= first.len();
            self.pieces.pop_front();
        }
        self.small.advance(len);
    }

    /// Copies only what lies in several pieces.
    fn copy_to_bytes(&mut self, len: usize) -> Bytes {
        assert!(len <= self.len, "only what is there can be taken");
        if len == 0 {
            return Bytes::new();
        }
        let first = self.next_piece(len);
        if first.len() == len {
            return first;
        }
        let mut all = BytesMut::with_capacity(len);
        all.extend_from_slice(&first);
        while all.len() < len {
            let piece = self.next_piece(len - all.len());
            all.extend_from_slice(&piece);
        }
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let len = prop_oneof![0..8_usize, SMALL_BYTES - 2..SMALL_BYTES + 3];
        let piece = len.prop_flat_map(|len| proptest::collection::vec(any::<u8>(), len));
        proptest::collection::vec(piece, 0..12)
    }

    proptest! {
        #[test]
        fn what_is_taken_is_what_came(pieces in pieces(), cuts in proptest::collection::vec((0..20_000_usize, 0..4_u8), 0..20)) {
            let mut chunks = Chunks::default();
            for piece in &pieces {
                chunks.push(Bytes::copy_from_slice(piece));
            }
            let whole = pieces.concat();
            let mut rest = &whole[..];
            for (len, how) in cuts {
                let (taken, behind) = rest.split_at(len.min(rest.len()));
                match how {
                    0 => chunks.advance(taken.len()),
                    1 => prop_assert_eq!(chunks.copy_to_bytes(taken.len()), taken),
                    2 => prop_assert_eq!(chunks.split_to(taken.len()).into_pieces().collect::<Vec<_>>().concat(), taken),
                    _ => {
                        let mut copy = vec![0; taken.len()];
                        chunks.copy_to_slice(&mut copy);
                        prop_assert_eq!(copy, taken);
                    }
                }
                rest = behind;
                prop_assert_eq!(chunks.remaining(), rest.len());
                prop_assert_eq!(chunks.chunk().is_empty(), rest.is_empty());
            }
            prop_assert_eq!(chunks.into_pieces().collect::<Vec<_>>().concat(), rest);
        }
    }

    #[test]
    fn what_lies_in_one_piece_is_not_copied() {
        let (first, second) = (Bytes::from(vec![1; 10_000]), Bytes::from(vec![2; 10_000]));
        let mut chunks = Chunks::from(first.clone());
        chunks.push(second.clone());
        assert_eq!(chunks.copy_to_bytes(100).as_ptr(), first.as_ptr());
        assert_eq!(chunks.copy_to_bytes(10_000), [&[1; 9900][..], &[2; 100]].concat());
        let rest = chunks.split_to(9900).into_pieces().next().unwrap();
        assert_eq!(rest.as_ptr(), second[100..].as_ptr());
    }

    #[test]
    fn many_small_pieces_take_little_more_than_their_bytes() {
        let mut chunks = Chunks::default();
        let received = Bytes::from(vec![7; 1 << 20]);
        for at in 0..received.len() {
            chunks.push(received.slice(at..=at));
        }
        assert!(chunks.pieces.is_empty());
        assert!(chunks.small.capacity() <= 2 << 20);
        assert!(chunks.into_pieces().eq([received]));
    }
}
