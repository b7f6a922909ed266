//! Logs are read back as they were written, and damage costs what it hit.

use proptest::prelude::*;
use rootcellar_digest::{Digest, DigestFunction};

use super::slot::{HEADER_BYTES, Header, HeaderFault, seed};
use super::{BlobEntry, Entry, LogKind};
use crate::io::BootId;
use crate::layout::StoreId;

const STORE: StoreId = StoreId([7; 16]);

fn entry() -> impl Strategy<Value = Entry> {
    let content = proptest::collection::vec(any::<u8>(), 0..20);
    let blob =
        (0..8usize, content, any::<[u32; 3]>()).prop_map(|(function, content, [offset, checksum, used])| BlobEntry {
            digest: Digest::of(DigestFunction::ALL[function], &content),
            offset,
            checksum,
            used,
        });
    prop_oneof![
        4 => blob.clone().prop_map(Entry::Stored),
        1 => blob.prop_map(Entry::Gone),
        1 => any::<u64>().prop_map(|position| Entry::Mark { position }),
    ]
}

/// Writes entries one behind the other, and tells where each begins.
fn written(entries: &[Entry], seed: u64) -> (Vec<u8>, Vec<u64>) {
    let (mut bytes, mut positions) = (Vec::new(), Vec::new());
    for entry in entries {
        positions.push(bytes.len() as u64);
        entry.encode(seed, bytes.len() as u64, &mut bytes);
    }
    (bytes, positions)
}

proptest! {
    #[test]
    fn entries_read_back_where_they_were_written_and_nowhere_else(
        entries in proptest::collection::vec(entry(), 1..20),
        seed in any::<u64>(),
    ) {
        let (bytes, positions) = written(&entries, seed);
        for (entry, at) in entries.iter().zip(&positions) {
            let rest = &bytes[usize::try_from(*at).unwrap()..];
            let (read, len) = Entry::decode(seed, *at, rest).unwrap();
            prop_assert_eq!(read, *entry);
            prop_assert_eq!(len % 32, 0);
            prop_assert!(len <= 96);
            prop_assert_eq!(Entry::decode(seed, at + 32, rest), None, "in another place");
            prop_assert_eq!(Entry::decode(seed ^ 1, *at, rest), None, "in another log");
            prop_assert_eq!(Entry::decode(seed, *at, &rest[..len - 1]), None, "cut off");
        }
    }

    #[test]
    fn a_flipped_bit_is_found(entry in entry(), bit in 0..96 * 8usize) {
        let (mut bytes, _) = written(&[entry], 3);
        let bit = bit % (8 * bytes.len());
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Entry::decode(3, 0, &bytes), None);
    }

    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _outcome = Entry::decode(0, 0, &bytes);
    }
}

fn header() -> Header {
    Header {
        kind: LogKind::Pack,
        is_synced: true,
        number: 0x0102_0304,
        store: STORE,
        boot: BootId([9; 16]),
    }
}

#[test]
fn a_header_reads_back_in_its_place_only() {
    let bytes = header().encode();
    let decode = |bytes: &[u8; HEADER_BYTES], number| Header::decode(bytes, LogKind::Pack, number, STORE);
    assert_eq!(decode(&bytes, 0x0102_0304), Ok(header()));
    assert_eq!(decode(&bytes, 1), Err(HeaderFault::Foreign));
    let other = StoreId([8; 16]);
    assert_eq!(
        Header::decode(&bytes, LogKind::Pack, 0x0102_0304, other),
        Err(HeaderFault::Foreign)
    );
    assert_eq!(
        Header::decode(&bytes, LogKind::Loose, 0x0102_0304, STORE),
        Err(HeaderFault::Unreadable)
    );
    let mut newer = bytes;
    newer[8] = 2;
    assert_eq!(
        decode(&newer, 0x0102_0304),
        Err(HeaderFault::Unreadable),
        "one damaged byte"
    );
    newer[12..16].fill(0);
    let check = crate::checksum::checksum(&newer);
    newer[12..16].copy_from_slice(&check.to_le_bytes());
    assert_eq!(decode(&newer, 0x0102_0304), Err(HeaderFault::Version(2)));
    for bit in 0..8 * HEADER_BYTES {
        let mut damaged = bytes;
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged, 0x0102_0304).is_err(), "bit {bit}");
    }
}

/// The bytes that stores of today hold: a change here is a change of the format.
#[test]
fn the_bytes_are_those_of_the_format_document() {
    let digest = Digest::of(DigestFunction::Sha256, b"hello\n");
    let blob = BlobEntry {
        digest,
        offset: 0x0001_0203,
        checksum: 0x1122_3344,
        used: 0x5566_7788,
    };
    let seed = seed(LogKind::Pack, 7, STORE);
    let mut bytes = Vec::new();
    Entry::Stored(blob).encode(seed, 64, &mut bytes);
    assert_eq!(bytes.len(), 64);
    assert_eq!(bytes[..4], [1, 1, 0, 0]);
    assert_eq!(bytes[8..16], 6_u64.to_le_bytes());
    assert_eq!(
        bytes[16..32],
        [3, 2, 1, 0, 0x44, 0x33, 0x22, 0x11, 0x88, 0x77, 0x66, 0x55, 0, 0, 0, 0]
    );
    assert_eq!(&bytes[32..], digest.hash());
    assert_eq!(seed, 0x3ece_a4a1_6699_1792);
    // As computed by another implementation of XXH3.
    assert_eq!(bytes[4..8], [249, 144, 68, 135]);
}
