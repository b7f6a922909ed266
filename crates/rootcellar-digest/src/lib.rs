//! Digests and digest functions of the Remote Execution API.
//!
//! A [`Digest`] names a blob: the function that hashed it, the hash, and the size. All three are part of the name: SHA-256
//! and BLAKE3 hashes look alike, and a right hash with a wrong size names nothing. Digests are `Copy` and are checked when
//! they are made, so code that holds one never checks it again.
//!
//! ```
//! use rootcellar_digest::{Digest, DigestFunction};
//!
//! let digest = Digest::of(DigestFunction::Sha256, b"hello\n");
//! assert_eq!(digest.size_bytes(), 6);
//! assert_eq!(digest.to_string(), "sha256/5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03/6");
//! assert_eq!(digest, "sha256/5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03/6".parse()?);
//! # Ok::<(), rootcellar_digest::DigestError>(())
//! ```

mod digest;
mod error;
mod function;
mod hasher;
mod map;
mod sha256;
mod sha256tree;

pub use digest::{Digest, HashHex};
pub use error::DigestError;
pub use function::DigestFunction;
pub use hasher::Hasher;
pub use map::{DigestMap, DigestSet, Folded, Secret, fold};
