//! Text that may be a resource name: what is read is written and read back the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rootcellar_digest::DigestFunction;
use rootcellar_reapi::{Functions, ReadName, WriteName};

fuzz_target!(|name: &str| {
    let all = Functions::new(DigestFunction::ALL.to_vec()).expect("no function comes twice");
    if let Ok(read) = ReadName::parse(name, &all) {
        let again = ReadName::parse(&read.to_string(), &all).expect("what is written is a name");
        assert_eq!(again, read);
    }
    if let Ok(write) = WriteName::parse(name, &all) {
        assert!(ReadName::parse(name, &all).is_err(), "no name is both");
        let again = WriteName::parse(&write.to_string(), &all).expect("what is written is a name");
        assert_eq!(again, write);
    }
});
