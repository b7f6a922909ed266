//! Text that may be a page token: none is taken that this server did not make.

#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_reapi::tree::PageLimits;
use rootcellar_reapi::{TreeLimits, TreePages};
use rootcellar_store::MemoryStore;

fuzz_target!(|token: &str| {
    let root = Digest::empty(DigestFunction::Sha256);
    let store = Arc::new(MemoryStore::new(0));
    let pages = TreePages::new(store, root, TreeLimits::default(), PageLimits::default());
    assert!(token.is_empty() || pages.resume(token).is_err(), "{token:?} was taken for a page token");
});
