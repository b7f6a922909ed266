//! Compressed blobs: the seekable format of Zstandard (contrib/seekable_format of its distribution).
//!
//! ```text
//!   frame, frame, ...    each holds a mebibyte of the blob, the last one what is left: what `zstd -d` reads
//!   seek table           a skippable frame:
//!     0   magic          0x184D2A5E
//!     4   size           of what follows
//!     8   of each frame: its length here, u32, and its length when decompressed, u32
//!         frames         u32
//!         descriptor     u8, 0: no checksums, since blobs are hashed
//!         magic          0x8F92EAB1
//! ```
//!
//! All numbers are little-endian.

use std::io;
use std::ops::Range;

use bytes::{Buf as _, BufMut as _, Bytes};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation as _, OutBuffer};

/// Bytes of a blob in one frame.
pub(super) const FRAME_BYTES: u64 = 1 << 20;

const SKIPPABLE_MAGIC: u32 = 0x184D_2A5E;
const SEEKABLE_MAGIC: u32 = 0x8F92_EAB1;
const HEADER_BYTES: u64 = 8;
const ENTRY_BYTES: u64 = 8;
const FOOTER_BYTES: u64 = 9;
/// A frame of ours needs no more memory than this to be decompressed, nor does anybody else's get more: `1 << 21` bytes.
const WINDOW_LOG_MAX: u32 = 21;
/// Bytes that are decompressed at once.
const PIECE_BYTES: usize = 256 * 1024;

/// Compresses one frame's worth of a blob.
pub(super) fn compress(content: &[u8], level: i32) -> io::Result<Vec<u8>> {
    assert!(content.len() as u64 <= FRAME_BYTES, "a frame holds a mebibyte");
    zstd::bulk::compress(content, level)
}

/// How many frames a blob has.
pub(super) fn frames(blob_bytes: u64) -> u64 {
    blob_bytes.div_ceil(FRAME_BYTES)
}

/// Where the frames of a blob are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeekTable {
    blob_bytes: u64,
    /// Where each frame ends.
    ends: Vec<u64>,
}

impl SeekTable {
    pub(super) fn new(blob_bytes: u64) -> Self {
        Self {
            blob_bytes,
            ends: Vec::new(),
        }
    }

    /// Adds the next frame.
    pub(super) fn push(&mut self, frame_bytes: usize) {
        let begin = self.ends.last().copied().unwrap_or(0);
        self.ends.push(begin + frame_bytes as u64);
    }

    /// The length of a blob's table.
    pub(super) fn encoded_bytes(blob_bytes: u64) -> u64 {
        HEADER_BYTES + frames(blob_bytes) * ENTRY_BYTES + FOOTER_BYTES
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        assert_eq!(self.ends.len() as u64, frames(self.blob_bytes), "all frames are there");
        let len = Self::encoded_bytes(self.blob_bytes);
        let small =
            |number: u64| u32::try_from(number).expect("a table has few gigabytes, and a frame about a megabyte");
        let mut encoded = Vec::new();
        encoded.put_u32_le(SKIPPABLE_MAGIC);
        encoded.put_u32_le(small(len - HEADER_BYTES));
        let mut begin = 0;
        for (frame, end) in (0..).zip(&self.ends) {
            encoded.put_u32_le(small(end - begin));
            encoded.put_u32_le(small(content_bytes(self.blob_bytes, frame)));
            begin = *end;
        }
        encoded.put_u32_le(small(self.ends.len() as u64));
        encoded.put_u8(0);
        encoded.put_u32_le(SEEKABLE_MAGIC);
        encoded
    }

    /// Reads the table at the end of an object; `None` if it is not the table of this blob in this object.
    pub(super) fn decode(mut encoded: &[u8], blob_bytes: u64, object_bytes: u64) -> Option<Self> {
        let table_bytes = Self::encoded_bytes(blob_bytes);
        if encoded.len() as u64 != table_bytes || encoded.get_u32_le() != SKIPPABLE_MAGIC {
            return None;
        }
        let mut table = Self::new(blob_bytes);
        if u64::from(encoded.get_u32_le()) != table_bytes - HEADER_BYTES {
            return None;
        }
        for frame in 0..frames(blob_bytes) {
            let (stored, content) = (encoded.get_u32_le(), encoded.get_u32_le());
            if u64::from(content) != content_bytes(blob_bytes, frame) {
                return None;
            }
            table.push(usize::try_from(stored).ok()?);
        }
        let is_end = u64::from(encoded.get_u32_le()) == frames(blob_bytes)
            && encoded.get_u8() == 0
            && encoded.get_u32_le() == SEEKABLE_MAGIC;
        let fills_the_object = table.ends.last().copied().unwrap_or(0) + table_bytes == object_bytes;
        (is_end && fills_the_object).then_some(table)
    }

    /// Where in the object the frames are that hold `part` of the blob, and how many bytes before it they begin.
    pub(super) fn locate(&self, part: &Range<u64>) -> (Range<u64>, u64) {
        let first = part.start / FRAME_BYTES;
        let last = part.end.saturating_sub(1).max(part.start) / FRAME_BYTES;
        let end_of = |frame: u64| self.ends[usize::try_from(frame).expect("a frame of the table")];
        let begin = if first == 0 { 0 } else { end_of(first - 1) };
        (begin..end_of(last), part.start - first * FRAME_BYTES)
    }
}

fn content_bytes(blob_bytes: u64, frame: u64) -> u64 {
    FRAME_BYTES.min(blob_bytes - frame * FRAME_BYTES)
}

/// Decompresses frames, a piece at a time, in bounded memory whatever comes.
pub(super) struct Inflate {
    decoder: Decoder<'static>,
    input: Bytes,
}

impl Inflate {
    pub(super) fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Self {
            decoder,
            input: Bytes::new(),
        })
    }

    /// Whether it needs more of the object before there can be another piece.
    pub(super) fn is_hungry(&self) -> bool {
        self.input.is_empty()
    }

    /// Takes the next bytes of the object.
    pub(super) fn feed(&mut self, input: Bytes) {
        assert!(self.is_hungry(), "what came before is used up");
        self.input = input;
    }

    /// The next piece, which is empty if more input is needed for it.
    pub(super) fn piece(&mut self) -> io::Result<Bytes> {
        let mut piece = vec![0; PIECE_BYTES];
        let mut written = 0;
        while written < piece.len() {
            let mut input = InBuffer::around(&self.input);
            let mut output = OutBuffer::around(&mut piece[written..]);
            self.decoder.run(&mut input, &mut output)?;
            let (read, made) = (input.pos(), output.pos());
            self.input.advance(read);
            written += made;
            match made {
                0 if self.input.is_empty() => break,
                0 if read == 0 => return Err(io::Error::new(io::ErrorKind::InvalidData, "the frames make no sense")),
                _ => {}
            }
        }
        piece.truncate(written);
        Ok(piece.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compressed(content: &[u8]) -> (Vec<u8>, SeekTable) {
        let (mut object, mut table) = (Vec::new(), SeekTable::new(content.len() as u64));
        for chunk in content.chunks(usize::try_from(FRAME_BYTES).unwrap()) {
            let frame = compress(chunk, 3).unwrap();
            table.push(frame.len());
            object.extend(frame);
        }
        object.extend(table.encode());
        (object, table)
    }

    fn inflate(object: &[u8], step: usize) -> io::Result<Vec<u8>> {
        let (mut inflate, mut content) = (Inflate::new()?, Vec::new());
        for input in object.chunks(step) {
            inflate.feed(Bytes::copy_from_slice(input));
            loop {
                let piece = inflate.piece()?;
                content.extend_from_slice(&piece);
                if inflate.is_hungry() && piece.len() < PIECE_BYTES {
                    break;
                }
            }
        }
        Ok(content)
    }

    fn text(len: usize) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at * at % 251 % 64).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_was_compressed_reads_back_whole_and_in_parts(len in 1..3_500_000_usize, step in 1000..2_000_000_usize, at in any::<prop::sample::Index>(), part in 1..1_500_000_u64) {
            let content = text(len);
            let (object, table) = compressed(&content);
            prop_assert_eq!(&inflate(&object, step).unwrap(), &content);
            let tail = usize::try_from(SeekTable::encoded_bytes(len as u64)).unwrap();
            let read = SeekTable::decode(&object[object.len() - tail..], len as u64, object.len() as u64);
            prop_assert_eq!(read.as_ref(), Some(&table));
            let start = at.index(len) as u64;
            let part = start..(start + part).min(len as u64);
            let (frames, before) = table.locate(&part);
            let frames = &object[usize::try_from(frames.start).unwrap()..usize::try_from(frames.end).unwrap()];
            let inflated = inflate(frames, step).unwrap();
            let before = usize::try_from(before).unwrap();
            let len = usize::try_from(part.end - part.start).unwrap();
            prop_assert_eq!(&inflated[before..before + len], &content[usize::try_from(part.start).unwrap()..][..len]);
        }

        #[test]
        fn no_bytes_make_reading_panic(object in proptest::collection::vec(any::<u8>(), 1..300), blob_bytes in any::<u64>()) {
            let _outcome = inflate(&object, 100);
            let _outcome = SeekTable::decode(&object, blob_bytes >> 20, object.len() as u64);
        }
    }

    #[test]
    fn a_table_of_another_blob_is_none() {
        let content = text(2_000_000);
        let (object, _) = compressed(&content);
        let tail = usize::try_from(SeekTable::encoded_bytes(2_000_000)).unwrap();
        let encoded = &object[object.len() - tail..];
        let len = object.len() as u64;
        assert!(SeekTable::decode(encoded, 2_000_000, len).is_some());
        for (blob_bytes, object_bytes) in [(2_000_001, len), (1_999_999, len), (2_000_000, len + 1), (100, len)] {
            assert!(SeekTable::decode(encoded, blob_bytes, object_bytes).is_none());
        }
    }
}
