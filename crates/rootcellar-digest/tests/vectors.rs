//! Published test vectors, in one piece and in pieces of every awkward size.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use rootcellar_digest::{Digest, DigestError, DigestFunction, Hasher};

/// (function, content, hash). SHA-2: FIPS 180-4 examples; SHA-1: RFC 3174; MD5: RFC 1321; BLAKE3: its `test_vectors.json`;
/// GITSHA1: `git hash-object`.
const SHORT: &[(DigestFunction, &[u8], &str)] = &[
    (
        DigestFunction::Sha256,
        b"",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    (
        DigestFunction::Sha256,
        b"abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
    (
        DigestFunction::Sha256,
        b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
    ),
    (
        DigestFunction::Blake3,
        b"",
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ),
    (
        DigestFunction::Blake3,
        &[0],
        "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    ),
    (DigestFunction::Sha1, b"", "da39a3ee5e6b4b0d3255bfef95601890afd80709"),
    (DigestFunction::Sha1, b"abc", "a9993e364706816aba3e25717850c26c9cd0d89d"),
    (DigestFunction::Md5, b"", "d41d8cd98f00b204e9800998ecf8427e"),
    (
        DigestFunction::Md5,
        b"message digest",
        "f96b697d7cb7938d525a2f31aaf161d0",
    ),
    (
        DigestFunction::Sha384,
        b"",
        "38b060a751ac96384cd9327eb1b1e36a21fdb71114be07434c0cc7bf63f6e1da274edebfe76f65fbd51ad2f14898b95b",
    ),
    (
        DigestFunction::Sha384,
        b"abc",
        "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
    ),
    (
        DigestFunction::Sha512,
        b"",
        "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e",
    ),
    (
        DigestFunction::Sha512,
        b"abc",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
    ),
    (
        DigestFunction::Sha256Tree,
        b"",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ),
    (
        DigestFunction::Sha256Tree,
        b"abc",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    ),
    (DigestFunction::GitSha1, b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
    (
        DigestFunction::GitSha1,
        b"hello\n",
        "ce013625030ba8dba906f756967f9e9ca394464a",
    ),
];

/// The API's own vectors for SHA256TREE: byte `i` of the content is `i mod 251`.
const TREE: &[(usize, &str)] = &[
    (1025, "36c0998b21839ef74300b9de47d96d1f62323dc81f2b4231e98ce70cd6ffe750"),
    (2048, "b584996386f01793751c5cf0c39561f51b7e9924b818943b3cb2f6928cea0fa9"),
    (2049, "7318d2029b0392edf4cf109edb5a086b4bdadbb7950f710a1483eb881d9e5d44"),
    (4097, "c3ec942c1b8f4580320d3a06bcf4f8fe1f5db2be797ab67061ea4c2a95f208f2"),
    (
        16384,
        "a7a10149a8cb00be537000560edb83b196306b780b72fad8af218f369f75fc19",
    ),
    (
        102_400,
        "0668d69e5331840d2f1823d717b7b3f5d1fdc8a09504cddb692b87ff83d50e5f",
    ),
];

/// The same content pattern in BLAKE3's published vectors.
const BLAKE3: &[(usize, &str)] = &[
    (1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11"),
    (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"),
    (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"),
];

fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn streamed(function: DigestFunction, content: &[u8], piece_len: usize) -> Digest {
    let mut hasher = Hasher::new(function, content.len() as u64);
    for piece in content.chunks(piece_len) {
        hasher.update(piece);
    }
    hasher.finish().unwrap()
}

fn check(function: DigestFunction, content: &[u8], hash: &str) {
    let expected = Digest::from_hex(function, hash, i64::try_from(content.len()).unwrap()).unwrap();
    assert_eq!(Digest::of(function, content), expected);
    for piece_len in [1, 7, 63, 64, 1023, 1024, 1025, 4096] {
        assert_eq!(
            streamed(function, content, piece_len),
            expected,
            "in pieces of {piece_len} bytes"
        );
    }
}

#[test]
fn published_vectors() {
    for (function, content, hash) in SHORT {
        check(*function, content, hash);
    }
}

#[test]
fn sha256tree_vectors() {
    for (len, hash) in TREE {
        check(DigestFunction::Sha256Tree, &pattern(*len), hash);
    }
}

#[test]
fn blake3_vectors() {
    for (len, hash) in BLAKE3 {
        check(DigestFunction::Blake3, &pattern(*len), hash);
    }
}

#[test]
fn gitsha1_refuses_another_length_than_declared() {
    let mut hasher = Hasher::new(DigestFunction::GitSha1, 3);
    hasher.update(b"four");
    assert_eq!(
        hasher.finish(),
        Err(DigestError::DeclaredSize { declared: 3, found: 4 })
    );
}
