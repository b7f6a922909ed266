//! Checks that messages are encoded canonically: two encoders that agree on a message agree on its digest.

use prost::Message;
use rootcellar_proto::reapi::{Command, Directory, Platform};

#[test]
fn fields_are_encoded_in_the_order_of_their_numbers() {
    #[allow(deprecated)]
    let command = Command {
        arguments: vec!["a".into()],
        output_paths: vec!["o".into()],
        platform: Some(Platform::default()),
        working_directory: "w".into(),
        ..Default::default()
    };
    assert_eq!(command.encode_to_vec(), b"\x0a\x01a\x2a\x00\x32\x01w\x3a\x01o");
}

#[test]
fn an_empty_directory_is_the_empty_blob() {
    assert_eq!(Directory::default().encode_to_vec(), b"");
}
