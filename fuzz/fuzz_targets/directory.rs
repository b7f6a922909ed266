//! Bytes that may be a Directory: what is read strictly is what any other reader sees, and safe to put on a filesystem.

#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use rootcellar_digest::DigestFunction;
use rootcellar_proto::reapi;
use rootcellar_reapi::{Directory, RelPath};

fuzz_target!(|encoded: &[u8]| {
    let Ok(directory) = Directory::parse(DigestFunction::Md5, encoded) else { return };
    let message = reapi::Directory::decode(encoded).expect("what is read strictly is a message");
    assert_eq!(directory.files().len(), message.files.len());
    assert_eq!(directory.directories().len(), message.directories.len());
    assert_eq!(directory.symlinks().len(), message.symlinks.len());
    for name in message.files.iter().map(|node| &node.name) {
        let path = RelPath::parse(name).expect("a name is a path");
        assert_eq!(path.components().count(), 1);
        assert!(directory.child(name).is_some());
    }
});
