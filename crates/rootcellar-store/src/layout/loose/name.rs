//! The names of loose blobs' files.
//!
//! ```text
//! loose/sha256/ab/abcdef...        the blob with this hash; its size is the file's
//! loose/sha256/ab/abcdef....1      the same, put again while the first file was still there
//! ```

use std::path::{Path, PathBuf};

use rootcellar_digest::{Digest, DigestFunction};

/// The directory that a blob's file lies in.
pub(super) fn dir_of(root: &Path, digest: &Digest) -> PathBuf {
    let fan = format!("{:02x}", digest.hash()[0]);
    root.join(digest.function().name()).join(fan)
}

/// The file of a blob: the `number`th of this name.
pub(super) fn path_of(root: &Path, digest: &Digest, number: u32) -> PathBuf {
    let name = match number {
        0 => digest.hash_hex().to_string(),
        number => format!("{}.{number}", digest.hash_hex()),
    };
    dir_of(root, digest).join(name)
}

/// The blob of `size` that a file of this name in the directory `fan` of `function` holds, and its number. `None` for names
/// that are not ours.
pub(super) fn parse(function: DigestFunction, fan: &str, name: &str, size: u64) -> Option<(Digest, u32)> {
    let (hash, number) = match name.split_once('.') {
        Some((hash, number)) => (hash, number.parse().ok()?),
        None => (name, 0),
    };
    let digest = Digest::from_hex(function, hash, size.try_into().ok()?).ok()?;
    // A number has one spelling, and a blob has one directory.
    let path = path_of(Path::new(""), &digest, number);
    let is_spelled_so = path.file_name().is_some_and(|spelled| spelled == name);
    (is_spelled_so && hash.starts_with(fan)).then_some((digest, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_of_a_name_is_a_blob() {
        let digest = Digest::of(DigestFunction::Sha256, b"hello");
        let hash = digest.hash_hex().to_string();
        let parse = |fan: &str, name: &str| parse(DigestFunction::Sha256, fan, name, 5);
        assert_eq!(parse(&hash[..2], &hash), Some((digest, 0)));
        assert_eq!(parse(&hash[..2], &format!("{hash}.17")), Some((digest, 17)));
        for bad in [
            format!("{hash}."),
            format!("{hash}.0"),
            format!("{hash}.01"),
            format!("{hash}.+1"),
            format!("{hash}.1.1"),
            format!("{hash}.tmp"),
            hash.to_uppercase(),
            hash[1..].to_owned(),
        ] {
            assert_eq!(parse(&hash[..2], &bad), None, "{bad}");
        }
        assert_eq!(parse("zz", &hash), None);
    }
}
