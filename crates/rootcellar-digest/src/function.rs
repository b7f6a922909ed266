//! The digest functions of the API that this project can compute.

use std::fmt;
use std::str::FromStr;

use crate::DigestError;

/// Names a function that maps content to a hash (REAPI `DigestFunction.Value`, without VSO and MURMUR3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DigestFunction {
    /// SHA-256 (FIPS 180-4), the field's default.
    Sha256,
    /// BLAKE3 with 256 bits of output.
    Blake3,
    /// SHA-1. Collisions can be made on purpose.
    Sha1,
    /// MD5. Collisions can be made on purpose.
    Md5,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SHA-256 over 1 KiB leaves, combined in a binary tree (REAPI `SHA256TREE`).
    Sha256Tree,
    /// SHA-1 over git's blob header and the content (REAPI `GITSHA1`). Collisions can be made on purpose.
    GitSha1,
}

impl DigestFunction {
    /// Every function, in the order in which they are announced.
    pub const ALL: [Self; 8] = [
        Self::Sha256,
        Self::Blake3,
        Self::Sha1,
        Self::Md5,
        Self::Sha384,
        Self::Sha512,
        Self::Sha256Tree,
        Self::GitSha1,
    ];

    /// Bytes in a hash.
    pub const fn hash_len(self) -> usize {
        match self {
            Self::Md5 => 16,
            Self::Sha1 | Self::GitSha1 => 20,
            Self::Sha256 | Self::Blake3 | Self::Sha256Tree => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// Hexadecimal digits in a hash.
    pub const fn hex_len(self) -> usize {
        2 * self.hash_len()
    }

    /// The lower-cased name of the API's enum value, as resource names and configuration spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Blake3 => "blake3",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sha256Tree => "sha256tree",
            Self::GitSha1 => "gitsha1",
        }
    }

    /// Whether the API lets a reader tell this function from the length of a hash. The others are always named: by a field
    /// of the request, or by a segment of the resource name.
    pub const fn is_inferable(self) -> bool {
        !matches!(self, Self::Blake3 | Self::Sha256Tree | Self::GitSha1)
    }

    /// The function that an unnamed hash of `hex_len` digits has been made with, if one of the functions `announced` can be.
    pub fn infer(hex_len: usize, announced: &[Self]) -> Option<Self> {
        announced
            .iter()
            .copied()
            .find(|function| function.is_inferable() && function.hex_len() == hex_len)
    }
}

impl fmt::Display for DigestFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for DigestFunction {
    type Err = DigestError;

    fn from_str(name: &str) -> Result<Self, DigestError> {
        Self::ALL
            .into_iter()
            .find(|function| function.name() == name)
            .ok_or_else(|| DigestError::UnknownFunction(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_that_must_be_named_is_never_inferred() {
        assert_eq!(
            DigestFunction::infer(64, &[DigestFunction::Blake3, DigestFunction::Sha256Tree]),
            None
        );
        assert_eq!(
            DigestFunction::infer(64, &DigestFunction::ALL),
            Some(DigestFunction::Sha256)
        );
        assert_eq!(
            DigestFunction::infer(40, &DigestFunction::ALL),
            Some(DigestFunction::Sha1)
        );
        assert_eq!(DigestFunction::infer(40, &[DigestFunction::GitSha1]), None);
        assert_eq!(DigestFunction::infer(63, &DigestFunction::ALL), None);
    }

    #[test]
    fn names_read_back() {
        for function in DigestFunction::ALL {
            assert_eq!(function.name().parse(), Ok(function));
        }
        assert!("SHA256".parse::<DigestFunction>().is_err());
    }
}
