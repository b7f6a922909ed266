//! Two paths of a client, joined: the outcome is in normal form and inside the root.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rootcellar_reapi::RelPath;

fuzz_target!(|paths: (&str, &str)| {
    let here = RelPath::root().join_lexically(paths.0);
    let Ok(joined) = here.and_then(|here| here.join_lexically(paths.1)) else { return };
    assert_eq!(RelPath::parse(joined.as_str()).expect("joining makes the normal form"), joined);
    assert!(joined.components().all(|segment| segment != ".." && segment != "."));
});
