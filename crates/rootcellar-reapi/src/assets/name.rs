//! What assets are looked up by: a URI, qualifiers, a digest function, and whether a blob or a directory is meant.
//!
//! Qualifiers match exactly: an asset that was pushed with some is found by these and no others, in any order. (REAPI Remote Asset
//! leaves the choice to the server.)

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::asset;

use crate::quoted::Quoted;
use crate::{Error, Result};

/// Bounds on what one request may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetNameLimits {
    /// URIs in a request. Each is a look-up or a record of its own.
    pub uris_max: usize,
    /// Bytes in a URI.
    pub uri_bytes_max: usize,
    /// Qualifiers in a request.
    pub qualifiers_max: usize,
    /// Bytes in the names and values of all qualifiers together.
    pub qualifier_bytes_max: usize,
}

/// BuildStream sends two URIs and no qualifiers; Bazel sends the mirrors of a download, and its HTTP headers as qualifiers.
impl Default for AssetNameLimits {
    fn default() -> Self {
        Self {
            uris_max: 256,
            uri_bytes_max: 16 * 1024,
            qualifiers_max: 1024,
            qualifier_bytes_max: 64 * 1024,
        }
    }
}

/// The URIs and qualifiers of one request, checked.
#[derive(Debug)]
pub(super) struct AssetNames<'a> {
    uris: &'a [String],
    /// Sorted by name, each name once.
    qualifiers: Vec<&'a asset::Qualifier>,
}

impl<'a> AssetNames<'a> {
    /// Checks the URIs and qualifiers of a request.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if there is no URI, one is empty, a qualifier has no name or the name of another, or if there is more of
    /// anything than `limits` allow.
    pub(super) fn check(
        uris: &'a [String],
        qualifiers: &'a [asset::Qualifier],
        limits: &AssetNameLimits,
    ) -> Result<Self> {
        check_uris(uris, limits)?;
        Ok(Self {
            uris,
            qualifiers: sorted(qualifiers, limits)?,
        })
    }

    /// The URIs in the order of the request, each with the key of its record for digests of `function`.
    pub(super) fn keys(&self, function: DigestFunction) -> impl Iterator<Item = (&'a String, Vec<u8>)> {
        self.uris.iter().map(move |uri| (uri, self.key(function, uri)))
    }

    /// Hashes what an asset is looked up by, each part behind its length. Any text fits into a key this way.
    fn key(&self, function: DigestFunction, uri: &str) -> Vec<u8> {
        let mut name = Vec::new();
        let qualifiers = self
            .qualifiers
            .iter()
            .flat_map(|qualifier| [&qualifier.name, &qualifier.value]);
        for part in [function.name(), uri].into_iter().chain(qualifiers.map(String::as_str)) {
            name.extend_from_slice(&(part.len() as u64).to_le_bytes());
            name.extend_from_slice(part.as_bytes());
        }
        Digest::of(DigestFunction::Sha256, &name).hash().to_vec()
    }
}

fn check_uris(uris: &[String], limits: &AssetNameLimits) -> Result<()> {
    if uris.is_empty() {
        return Err(Error::invalid_argument("uris: at least one is needed"));
    }
    within("uris", uris.len(), "uris", limits.uris_max)?;
    for uri in uris {
        if uri.is_empty() {
            return Err(Error::invalid_argument("uris: one is empty"));
        }
        within("uris: one", uri.len(), "bytes", limits.uri_bytes_max)?;
    }
    Ok(())
}

fn sorted<'a>(qualifiers: &'a [asset::Qualifier], limits: &AssetNameLimits) -> Result<Vec<&'a asset::Qualifier>> {
    within("qualifiers", qualifiers.len(), "qualifiers", limits.qualifiers_max)?;
    let bytes = qualifiers
        .iter()
        .map(|qualifier| qualifier.name.len() + qualifier.value.len())
        .sum();
    within("qualifiers", bytes, "bytes", limits.qualifier_bytes_max)?;
    let mut sorted: Vec<&asset::Qualifier> = qualifiers.iter().collect();
    sorted.sort_by_key(|qualifier| &qualifier.name);
    if sorted.first().is_some_and(|first| first.name.is_empty()) {
        return Err(Error::invalid_argument("qualifiers: one has no name"));
    }
    match sorted.windows(2).find(|pair| pair[0].name == pair[1].name) {
        Some(pair) => Err(Error::invalid_argument(format!(
            "qualifiers: {} comes twice",
            Quoted(&pair[0].name)
        ))),
        None => Ok(sorted),
    }
}

fn within(subject: &str, count: usize, unit: &str, max: usize) -> Result<()> {
    if count <= max {
        return Ok(());
    }
    Err(Error::invalid_argument(format!(
        "{subject}: {count} {unit}; at most {max} are allowed"
    )))
}
