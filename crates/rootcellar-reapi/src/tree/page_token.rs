//! Page tokens of GetTree: the directory that was sent last, and a checksum that binds it to the tree.
//!
//! A token keeps no state on the server, so it outlives the call, the connection and the process. The checksum is there to
//! tell a garbled token or one of another tree at once; it keeps no secret.

use rootcellar_digest::{Digest, DigestFunction};

use crate::{Error, Result};

/// Bytes in the longest token: a SHA-512 digest with its function and size, and the checksum.
pub(super) const TOKEN_BYTES_MAX: usize = 10 + 1 + 128 + 1 + 20 + 1 + CHECK_DIGITS;

/// Digits of the checksum.
const CHECK_DIGITS: usize = 16;

/// The token of what follows `last` in the tree of `root`.
pub(super) fn encode(root: &Digest, last: &Digest) -> String {
    format!("{last}/{}", check(root, last))
}

/// The directory that was sent last.
///
/// # Errors
/// `INVALID_ARGUMENT` if `token` was not made for this tree.
pub(super) fn decode(root: &Digest, token: &str) -> Result<Digest> {
    let read = |token: &str| {
        let (last, found) = token.rsplit_once('/')?;
        let last = last.parse().ok()?;
        (found == check(root, &last)).then_some(last)
    };
    let garbled = || {
        Error::invalid_argument(format!(
            "the page token is not one of the tree {root}: begin without one"
        ))
    };
    if token.len() > TOKEN_BYTES_MAX {
        return Err(garbled());
    }
    read(token).ok_or_else(garbled)
}

fn check(root: &Digest, last: &Digest) -> String {
    let hash = Digest::of(DigestFunction::Sha256, format!("GetTree {root} {last}").as_bytes());
    let mut digits = hash.hash_hex().to_string();
    digits.truncate(CHECK_DIGITS);
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_belongs_to_one_tree() {
        for function in DigestFunction::ALL {
            let [root, other, last] = [b"r", b"o", b"l"].map(|content| Digest::of(function, content));
            let token = encode(&root, &last);
            assert!(token.len() <= TOKEN_BYTES_MAX);
            assert_eq!(decode(&root, &token).unwrap(), last);
            assert!(decode(&other, &token).is_err());
            for end in 0..token.len() {
                assert!(decode(&root, &token[..end]).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_token(token in "\\PC{0,200}") {
            prop_assert!(decode(&Digest::of(DigestFunction::Sha256, b"r"), &token).is_err());
        }
    }
}
