//! Bytes that may be a Tree: whatever order it is read from, it is written in the sorted form, and always the same.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use rootcellar_digest::DigestFunction;
use rootcellar_reapi::TreeLimits;
use rootcellar_reapi::tree::message;

fuzz_target!(|encoded: &[u8]| {
    let (function, limits) = (DigestFunction::Md5, TreeLimits::default());
    let encoded = Bytes::copy_from_slice(encoded);
    let Ok(read) = message::decode(function, &encoded, &limits) else { return };

    let written = message::encode(&read.tree);
    let again = message::decode(function, &written, &limits).expect("what is written is a Tree");
    assert!(again.is_topologically_sorted);
    assert_eq!(again.tree.closure(), read.tree.closure());
    assert_eq!(message::encode(&again.tree), written);
});
