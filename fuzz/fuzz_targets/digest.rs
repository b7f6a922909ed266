//! Text that may be a digest: it has one spelling, and the message made of it reads back.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_reapi::{Functions, functions};

fuzz_target!(|text: &str| {
    let Ok(digest) = text.parse::<Digest>() else { return };
    let spelled = digest.to_string();
    assert!(spelled == text || spelled == format!("{}/{text}", digest.function()));

    let all = Functions::new(DigestFunction::ALL.to_vec()).expect("no function comes twice");
    let requested = functions::value(digest.function()).into();
    let message = functions::to_proto(digest);
    assert_eq!(all.digest(requested, "digest", Some(&message)).expect("it was made of a digest"), digest);
});
