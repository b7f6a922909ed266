//! Bytes that may be a Command: what is taken of it stays inside the root, and its outputs keep the strings they came as.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi;
use rootcellar_reapi::{ActionLimits, LoadedAction, RelPath, functions};

fuzz_target!(|encoded: &[u8]| {
    let Ok(command) = reapi::Command::decode(encoded) else { return };
    let digest = Digest::empty(DigestFunction::Md5);
    let action = reapi::Action {
        command_digest: Some(functions::to_proto(digest)),
        input_root_digest: Some(functions::to_proto(digest)),
        ..Default::default()
    };
    let asked = command.clone();
    let Ok(loaded) = LoadedAction::parse(digest, action, command, &ActionLimits::default()) else { return };

    assert_eq!(loaded.arguments, asked.arguments);
    let names: HashSet<_> = loaded.environment.iter().map(|variable| &variable.name).collect();
    assert_eq!(names.len(), loaded.environment.len());
    #[expect(deprecated, reason = "older clients send the older lists")]
    let lists = [&asked.output_paths, &asked.output_files, &asked.output_directories];
    for output in &loaded.outputs.paths {
        assert!(lists.iter().any(|list| list.contains(&output.requested)));
        assert_eq!(RelPath::parse(output.path.as_str()).expect("it is in normal form"), output.path);
    }
    for parent in loaded.outputs.parents() {
        assert!(loaded.outputs.paths.iter().any(|output| output.path.starts_with(&parent)));
    }
});
