//! Blobs that a server does not have, for a person to read.

use std::fmt;

use rootcellar_digest::Digest;
use rootcellar_grpc::client::Remote;
use rootcellar_reapi::{InputTree, TreeLimits};

/// Blobs that are listed one by one.
const LISTED_MAX: usize = 20;

/// Lists blobs, each on a line of its own, within reason.
pub(super) struct Missing<'a>(pub(super) &'a [Digest]);

impl fmt::Display for Missing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for digest in self.0.iter().take(LISTED_MAX) {
            write!(f, "\n  missing: {digest}")?;
        }
        match self.0.len().saturating_sub(LISTED_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

/// Reads the directories of a tree; its files may be missing.
pub(super) async fn load_tree(remote: &Remote, root: Digest) -> anyhow::Result<InputTree> {
    let loaded = InputTree::load_directories(remote, root, &TreeLimits::default()).await;
    loaded.map_err(|error| match error.missing() {
        [] => error.into(),
        missing if missing.contains(&root) => anyhow::anyhow!("{remote} does not have {root}"),
        missing => anyhow::anyhow!("{remote} does not have all of {root}{}", Missing(missing)),
    })
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::DigestFunction;

    use super::*;

    #[test]
    fn what_is_missing_is_listed_within_reason() {
        let digests: Vec<_> = (0..50_u8).map(|n| Digest::of(DigestFunction::Sha256, &[n])).collect();
        let text = Missing(&digests).to_string();
        assert_eq!(text.matches("\n  missing: sha256/").count(), LISTED_MAX);
        assert!(text.ends_with("and 30 more"), "{text}");
        assert_eq!(
            Missing(&digests[..1]).to_string(),
            format!("\n  missing: {}", digests[0])
        );
    }
}
