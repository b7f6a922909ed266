//! Writing Directories: the one encoding that every client and server agrees on.

use bytes::Bytes;
use prost::Message as _;
use rootcellar_proto::reapi;

/// Encodes a Directory in canonical form: nodes sorted by the bytes of their names, properties too (REAPI, `Directory`).
///
/// Only for directories made here. One that came from elsewhere keeps the bytes that it came as, since they may hold fields
/// that are not known here, and its digest names them.
pub fn encode_directory(mut directory: reapi::Directory) -> Bytes {
    directory.files.sort_by(|a, b| a.name.cmp(&b.name));
    directory.directories.sort_by(|a, b| a.name.cmp(&b.name));
    directory.symlinks.sort_by(|a, b| a.name.cmp(&b.name));
    let of_files = directory.files.iter_mut().map(|node| &mut node.node_properties);
    let of_symlinks = directory.symlinks.iter_mut().map(|node| &mut node.node_properties);
    let all = of_files.chain(of_symlinks).chain([&mut directory.node_properties]);
    for properties in all.flatten() {
        properties.properties.sort_by(|a, b| a.name.cmp(&b.name));
    }
    directory.encode_to_vec().into()
}

#[cfg(test)]
mod tests {
    use rootcellar_digest::{Digest, DigestFunction};

    use super::*;
    use crate::{Directory, functions};

    #[test]
    fn any_order_becomes_the_canonical_one() {
        let property = |name: &str| reapi::NodeProperty {
            name: name.to_owned(),
            value: String::new(),
        };
        let file = |name: &str| reapi::FileNode {
            name: name.to_owned(),
            digest: Some(functions::to_proto(Digest::empty(DigestFunction::Sha256))),
            ..Default::default()
        };
        let directory = reapi::Directory {
            files: ["b", "ü", "a", "B"].map(file).into(),
            node_properties: Some(reapi::NodeProperties {
                properties: ["y", "x"].map(property).into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let parsed = Directory::parse(DigestFunction::Sha256, &encode_directory(directory)).unwrap();
        assert!(parsed.is_sorted());
        let names: Vec<&str> = parsed.files().iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["B", "a", "b", "ü"]);
    }
}
