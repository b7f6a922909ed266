//! The names of objects.

use object_store::path::Path;
use rootcellar_digest::{Digest, DigestFunction};

/// Makes names below a prefix.
#[derive(Debug)]
pub(super) struct Names {
    prefix: Path,
}

const BLOBS: &str = "cas";
const RECORDS: &str = "records";
const TOUCHED: &str = "touched";

impl Names {
    pub(super) fn new(prefix: Path) -> Self {
        Self { prefix }
    }

    pub(super) fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// Where blobs are.
    pub(super) fn blobs(&self) -> Path {
        self.prefix.clone().join(BLOBS)
    }

    pub(super) fn blob(&self, digest: &Digest) -> Path {
        self.of_digest(BLOBS, digest)
    }

    /// Where a blob's object is copied to and from.
    pub(super) fn touched(&self, digest: &Digest) -> Path {
        self.of_digest(TOUCHED, digest)
    }

    fn of_digest(&self, below: &'static str, digest: &Digest) -> Path {
        let hash = digest.hash_hex().to_string();
        let below = self.prefix.clone().join(below).join(digest.function().name());
        // A directory on a disk should not have millions of entries, nor one file each.
        below.join(&hash[..2]).join(format!("{hash}-{}", digest.size_bytes()))
    }

    /// The digest of a blob's object; `None` of any other's.
    pub(super) fn digest(&self, name: &Path) -> Option<Digest> {
        let blobs = self.blobs();
        let parts: Vec<_> = name.prefix_match(&blobs)?.collect();
        let [function, _, name_in_it] = parts.as_slice() else {
            return None;
        };
        let (hash, size) = name_in_it.as_ref().split_once('-')?;
        let function: DigestFunction = function.as_ref().parse().ok()?;
        let digest = Digest::from_text(function, hash, size).ok()?;
        (self.blob(&digest) == *name).then_some(digest)
    }

    pub(super) fn record(&self, kind: &str, key: &[u8]) -> Path {
        let name = Digest::of(DigestFunction::Sha256, key).hash_hex().to_string();
        self.prefix
            .clone()
            .join(RECORDS)
            .join(kind)
            .join(&name[..2])
            .join(name.as_str())
    }

    /// No object has this name.
    pub(super) fn probe(&self) -> Path {
        self.prefix.clone().join("probe")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_blob_says_what_it_is() {
        for prefix in ["", "a", "a/b"] {
            let names = Names::new(Path::parse(prefix).unwrap());
            for function in DigestFunction::ALL {
                let digest = Digest::of(function, b"content");
                let name = names.blob(&digest);
                assert_eq!(names.digest(&name), Some(digest));
                assert!(
                    name.as_ref().starts_with(prefix) && name.as_ref().ends_with("-7"),
                    "{name}"
                );
                assert_eq!(names.digest(&name.clone().join("more")), None);
                assert_eq!(names.digest(&names.touched(&digest)), None);
            }
        }
        let names = Names::new(Path::default());
        let digest = Digest::of(DigestFunction::Sha256, b"content");
        let hash = digest.hash_hex().to_string();
        for other in [
            format!("cas/sha256/{}/{hash}-07", &hash[..2]),
            format!("cas/sha256/00/{hash}-7"),
            format!("cas/blake4/{}/{hash}-7", &hash[..2]),
            "cas/sha256".to_owned(),
            "elsewhere".to_owned(),
        ] {
            assert_eq!(names.digest(&Path::parse(&other).unwrap()), None, "{other}");
        }
    }
}
