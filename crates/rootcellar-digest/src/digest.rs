//! The name of a blob.

use std::fmt;
use std::str::FromStr;

use crate::{DigestError, DigestFunction, Hasher, sha256};

const HASH_LEN_MAX: usize = 64;

/// Names a blob by digest function, hash and size.
///
/// Two digests are equal if all three are. Ordering is by function, then hash, then size; it has no meaning but to be stable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    function: DigestFunction,
    /// The first `function.hash_len()` bytes are the hash, the others zero.
    hash: [u8; HASH_LEN_MAX],
    size_bytes: u64,
}

impl Digest {
    /// Makes a digest of a raw hash.
    ///
    /// # Errors
    /// [`DigestError::HashLength`] if `hash` is not `function.hash_len()` bytes long.
    pub fn new(function: DigestFunction, hash: &[u8], size_bytes: u64) -> Result<Self, DigestError> {
        if hash.len() != function.hash_len() {
            return Err(DigestError::HashLength {
                function,
                found: 2 * hash.len(),
            });
        }
        let mut padded = [0; HASH_LEN_MAX];
        padded[..hash.len()].copy_from_slice(hash);
        Ok(Self {
            function,
            hash: padded,
            size_bytes,
        })
    }

    /// Makes a digest of the two fields of a `Digest` message: lower-case hexadecimal digits, and a size that is not negative.
    ///
    /// # Errors
    /// Says what is wrong with the hash or the size.
    pub fn from_hex(function: DigestFunction, hash: &str, size_bytes: i64) -> Result<Self, DigestError> {
        if hash.len() != function.hex_len() {
            return Err(DigestError::HashLength {
                function,
                found: hash.len(),
            });
        }
        let mut raw = [0; HASH_LEN_MAX];
        let mut all = 0;
        for (byte, pair) in raw.iter_mut().zip(hash.as_bytes().as_chunks().0) {
            let [high, low] = pair.map(|digit| NIBBLES[usize::from(digit)]);
            *byte = high << 4 | low & 0xf;
            all |= high | low;
        }
        if all > 0xf {
            return Err(DigestError::HashCharacter);
        }
        let size_bytes = u64::try_from(size_bytes).map_err(|_| DigestError::NegativeSize(size_bytes))?;
        Ok(Self {
            function,
            hash: raw,
            size_bytes,
        })
    }

    /// Makes a digest of two pieces of text, as resource names spell it: the hash, and the size as a plain decimal number.
    ///
    /// # Errors
    /// Says what is wrong with the hash or the size.
    pub fn from_text(function: DigestFunction, hash: &str, size: &str) -> Result<Self, DigestError> {
        Self::from_hex(function, hash, parse_size(size)?)
    }

    /// Hashes `content`.
    pub fn of(function: DigestFunction, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(function, content.len() as u64);
        hasher.update(content);
        hasher.finish().expect("the declared size is the content's own")
    }

    /// Hashes each of these contents. For SHA-256 that can cost less than one after the other.
    pub fn of_each(contents: &[(DigestFunction, &[u8])]) -> Vec<Self> {
        let in_turns = |function| function == DigestFunction::Sha256;
        let together = contents.iter().filter(|(function, _)| in_turns(*function));
        let mut hashes = sha256::each(&together.map(|(_, content)| *content).collect::<Vec<_>>()).into_iter();
        let digest = |(function, content): &(DigestFunction, &[u8])| match in_turns(*function) {
            false => Self::of(*function, content),
            true => {
                let hash = hashes
                    .next()
                    .expect("there is a hash for each content of this function");
                Self::new(*function, &hash, content.len() as u64).expect("it has the length that the function gives")
            }
        };
        contents.iter().map(digest).collect()
    }

    /// The digest of no bytes, which every store holds without being given it.
    pub fn empty(function: DigestFunction) -> Self {
        Self::of(function, b"")
    }

    /// Whether this names the empty blob. A size of zero with another hash names nothing at all.
    pub fn is_empty_blob(&self) -> bool {
        self.size_bytes == 0 && *self == Self::empty(self.function)
    }

    /// The function that made the hash.
    pub const fn function(&self) -> DigestFunction {
        self.function
    }

    /// The raw hash, [`DigestFunction::hash_len`] bytes.
    pub fn hash(&self) -> &[u8] {
        &self.hash[..self.function.hash_len()]
    }

    /// The hash as lower-case hexadecimal digits, for formatting.
    pub const fn hash_hex(&self) -> HashHex<'_> {
        HashHex(self)
    }

    /// Bytes in the blob.
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// A digest's hash, displayed as lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy)]
pub struct HashHex<'a>(&'a Digest);

impl fmt::Display for HashHex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 2 * HASH_LEN_MAX];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0.hash()) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        let digits = &text[..self.0.function.hex_len()];
        f.write_str(str::from_utf8(digits).expect("hexadecimal digits are ASCII"))
    }
}

/// Writes `function/hash/size`, which [`FromStr`] reads.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.function, self.hash_hex(), self.size_bytes)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Reads `function/hash/size`, or `hash/size` for a function that the length of the hash tells.
impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let mut parts = text.rsplitn(3, '/');
        let (Some(size), Some(hash)) = (parts.next(), parts.next()) else {
            return Err(DigestError::Shape);
        };
        let function = match parts.next() {
            Some(name) => name.parse()?,
            None => DigestFunction::infer(hash.len(), &DigestFunction::ALL).ok_or(DigestError::Shape)?,
        };
        Self::from_text(function, hash, size)
    }
}

/// Reads a size strictly: `str::parse` would take `+1` and `007`, and a resource name has one spelling.
fn parse_size(text: &str) -> Result<i64, DigestError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if !is_plain {
        return Err(DigestError::SizeText);
    }
    text.parse().map_err(|_| DigestError::SizeText)
}

/// The value of each lower-case hexadecimal digit; more than any has for everything else.
const NIBBLES: [u8; 256] = {
    let mut nibbles = [0xff; 256];
    let digits = b"0123456789abcdef";
    let mut value = 0;
    while value < 16 {
        nibbles[digits[value as usize] as usize] = value;
        value += 1;
    }
    nibbles
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn only_strict_text_is_a_digest() {
        for bad in [
            String::new(),
            HELLO.to_owned(),
            format!("{HELLO}/+6"),
            format!("{HELLO}/-6"),
            format!("{HELLO}/06"),
            format!("{HELLO}/ 6"),
            format!("{HELLO}/"),
            format!("{HELLO}/9223372036854775808"),
            format!("{}/6", HELLO.to_uppercase()),
            format!("{}/6", &HELLO[1..]),
            format!("blake2/{HELLO}/6"),
            format!("x/sha256/{HELLO}/6"),
            format!("../../../{}/6", &HELLO[9..]),
            format!("{}é/6", &HELLO[2..]),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad:?} was taken for a digest");
        }
        assert_eq!(
            Digest::from_hex(DigestFunction::Sha256, HELLO, -1),
            Err(DigestError::NegativeSize(-1))
        );
    }

    #[test]
    fn size_and_function_are_part_of_the_name() {
        let sha256 = Digest::from_hex(DigestFunction::Sha256, HELLO, 6).unwrap();
        assert_ne!(sha256, Digest::from_hex(DigestFunction::Sha256, HELLO, 7).unwrap());
        assert_ne!(sha256, Digest::from_hex(DigestFunction::Blake3, HELLO, 6).unwrap());
        assert!(
            !Digest::from_hex(DigestFunction::Sha256, HELLO, 0)
                .unwrap()
                .is_empty_blob()
        );
    }

    #[test]
    fn the_empty_blob_is_known_in_every_function() {
        for function in DigestFunction::ALL {
            assert!(Digest::of(function, b"").is_empty_blob());
            assert!(!Digest::of(function, b"x").is_empty_blob());
        }
    }

    proptest! {
        #[test]
        fn a_digest_reads_back_from_its_text(content in proptest::collection::vec(any::<u8>(), 0..5000), which in 0..8usize) {
            let digest = Digest::of(DigestFunction::ALL[which], &content);
            prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        }

        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC{0,90}") {
            let _outcome: Result<Digest, _> = text.parse();
        }
    }
}
