use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;
use rootcellar_store::{BlobStoreExt as _, MemoryStore};

use super::*;
use crate::ErrorKind;

const FUNCTION: DigestFunction = DigestFunction::Sha256;

fn command() -> reapi::Command {
    reapi::Command {
        arguments: vec!["sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        ..Default::default()
    }
}

fn action_of(command: &reapi::Command) -> reapi::Action {
    let digest = Digest::of(FUNCTION, &command.encode_to_vec());
    reapi::Action {
        command_digest: Some(functions::to_proto(digest)),
        input_root_digest: Some(functions::to_proto(Digest::empty(FUNCTION))),
        ..Default::default()
    }
}

fn parse(action: reapi::Action, command: reapi::Command) -> Result<LoadedAction> {
    let digest = Digest::of(FUNCTION, &action.encode_to_vec());
    LoadedAction::parse(digest, action, command, &ActionLimits::default())
}

fn parse_command(command: reapi::Command) -> Result<LoadedAction> {
    parse(action_of(&command), command)
}

fn assert_invalid(command: reapi::Command, about: &str) {
    let error = parse_command(command).expect_err("a wrong command was taken");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains(about), "{error} does not name {about}");
}

fn with_timeout(seconds: i64, nanos: i32) -> reapi::Action {
    reapi::Action {
        timeout: Some(prost_types::Duration { seconds, nanos }),
        ..action_of(&command())
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<reapi::command::EnvironmentVariable> {
    let variable = |(name, value): &(&str, &str)| reapi::command::EnvironmentVariable {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    pairs.iter().map(variable).collect()
}

fn platform(pairs: &[(&str, &str)]) -> Option<reapi::Platform> {
    let property = |(name, value): &(&str, &str)| reapi::platform::Property {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    Some(reapi::Platform {
        properties: pairs.iter().map(property).collect(),
    })
}

async fn put(store: &MemoryStore, message: &impl prost::Message) -> Digest {
    store.put_bytes(FUNCTION, message.encode_to_vec().into()).await.unwrap()
}

async fn load(store: &MemoryStore, digest: Digest) -> Result<LoadedAction> {
    LoadedAction::load(store, digest, &ActionLimits::default()).await
}

#[tokio::test]
async fn an_action_is_read_with_its_command() {
    let store = MemoryStore::new(1 << 20);
    put(&store, &command()).await;
    let digest = put(&store, &action_of(&command())).await;
    let loaded = load(&store, digest).await.unwrap();
    assert_eq!(loaded.arguments, ["sh", "-c", "true"]);
    assert_eq!((loaded.digest, loaded.function()), (digest, FUNCTION));
    assert!(loaded.input_root.is_empty_blob());
    assert!(!loaded.do_not_cache);
    assert_eq!(loaded.timeout, None);
}

#[tokio::test]
async fn all_that_is_missing_is_told_at_once() {
    let store = MemoryStore::new(1 << 20);
    let file = Digest::of(FUNCTION, b"not there");
    let root = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "file".to_owned(),
            digest: Some(functions::to_proto(file)),
            ..Default::default()
        }],
        ..Default::default()
    };
    let root = put(&store, &root).await;
    let action = reapi::Action {
        input_root_digest: Some(functions::to_proto(root)),
        ..action_of(&command())
    };
    let digest = Digest::of(FUNCTION, &action.encode_to_vec());
    let error = load(&store, digest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    assert_eq!(error.missing(), [digest]);

    put(&store, &action).await;
    let error = load(&store, digest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
    let command = Digest::of(FUNCTION, &command().encode_to_vec());
    assert_eq!(error.missing(), [command, file]);
}

#[tokio::test]
async fn a_blob_of_another_kind_is_no_action() {
    let store = MemoryStore::new(1 << 20);
    for content in [
        Bytes::new(),
        Bytes::from_static(b"#!/bin/sh\n"),
        command().encode_to_vec().into(),
    ] {
        let digest = store.put_bytes(FUNCTION, content).await.unwrap();
        assert_eq!(
            load(&store, digest).await.unwrap_err().kind(),
            ErrorKind::InvalidArgument
        );
    }
}

#[tokio::test]
async fn what_is_too_large_is_not_read_at_all() {
    let store = MemoryStore::new(1 << 20);
    let size = i64::try_from(ActionLimits::default().action_bytes_max).unwrap() + 1;
    let absent = Digest::of(FUNCTION, b"not there").hash_hex().to_string();
    let digest = Digest::from_hex(FUNCTION, &absent, size).unwrap();
    assert_eq!(
        load(&store, digest).await.unwrap_err().kind(),
        ErrorKind::InvalidArgument
    );
}

#[tokio::test]
async fn a_small_blob_cannot_unfold_to_a_large_command() {
    let store = MemoryStore::new(16 << 20);
    let arguments = reapi::Command {
        arguments: vec![String::new(); 300_000],
        ..Default::default()
    };
    let properties = reapi::Platform {
        properties: vec![reapi::platform::Property::default(); 40_000],
    };
    #[expect(deprecated, reason = "older clients put the platform into the command")]
    let platform = reapi::Command {
        platform: Some(properties),
        ..command()
    };
    for command in [arguments, platform] {
        put(&store, &command).await;
        let digest = put(&store, &action_of(&command)).await;
        let error = load(&store, digest).await.unwrap_err();
        assert!(error.to_string().contains("at most"), "{error}");
    }
}

#[test]
fn a_command_names_a_program() {
    assert_invalid(reapi::Command::default(), "arguments");
    for arguments in [vec![""], vec!["a\0b"], vec!["sh", "\0"]] {
        let arguments = arguments.into_iter().map(str::to_owned).collect();
        assert_invalid(reapi::Command { arguments, ..command() }, "arguments");
    }
}

#[test]
fn the_working_directory_stays_inside_the_root() {
    for working_directory in ["..", "/", "/tmp", "a/", "a/../.."] {
        let working_directory = working_directory.to_owned();
        assert_invalid(
            reapi::Command {
                working_directory,
                ..command()
            },
            "working_directory",
        );
    }
    let inside = reapi::Command {
        working_directory: "buildstream/probe/hello.bst".to_owned(),
        ..command()
    };
    let loaded = parse_command(inside).unwrap();
    assert_eq!(loaded.working_directory.as_str(), "buildstream/probe/hello.bst");
}

#[test]
fn an_environment_needs_no_order() {
    let unsorted = reapi::Command {
        environment_variables: variables(&[("TERM", "dumb"), ("PATH", "/bin"), ("EMPTY", ""), ("TERM", "last")]),
        ..command()
    };
    let loaded = parse_command(unsorted).unwrap();
    let names: Vec<_> = loaded
        .environment
        .iter()
        .map(|variable| variable.name.as_str())
        .collect();
    assert_eq!(names, ["TERM", "PATH", "EMPTY"]);
    assert_eq!(loaded.variable("TERM"), Some("last"));
    assert_eq!(loaded.variable("HOME"), None);
}

#[test]
fn a_variable_that_no_process_can_have_is_refused() {
    for pair in [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "x\0y")] {
        let environment_variables = variables(&[pair]);
        assert_invalid(
            reapi::Command {
                environment_variables,
                ..command()
            },
            "environment_variables",
        );
    }
}

#[test]
fn the_action_s_platform_goes_before_the_command_s() {
    #[expect(deprecated, reason = "older clients put the platform into the command")]
    let command = reapi::Command {
        platform: platform(&[("OSFamily", "linux")]),
        ..command()
    };
    let values = |action: reapi::Action| -> Vec<String> {
        let loaded = parse(action, command.clone()).unwrap();
        loaded.platform.into_iter().map(|property| property.value).collect()
    };
    assert_eq!(values(action_of(&command)), ["linux"]);
    let both = reapi::Action {
        platform: platform(&[("OSFamily", "sunos"), ("ISA", "x86-64"), ("ISA", "x86-32")]),
        ..action_of(&command)
    };
    assert_eq!(
        values(both),
        ["x86-32", "x86-64", "sunos"],
        "sorted by name, then value"
    );
    let empty = reapi::Action {
        platform: platform(&[]),
        ..action_of(&command)
    };
    assert!(values(empty).is_empty(), "an empty platform asks for nothing");
}

#[test]
fn a_timeout_is_taken_within_the_server_s_bounds() {
    let limits = ActionLimits {
        timeout_default: Some(Duration::from_secs(3600)),
        timeout_max: Some(Duration::from_secs(7200)),
        ..Default::default()
    };
    let timeout = |action: reapi::Action| {
        let digest = Digest::of(FUNCTION, &action.encode_to_vec());
        LoadedAction::parse(digest, action, command(), &limits).map(|loaded| loaded.timeout)
    };
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(timeout(action_of(&command())).unwrap(), seconds(3600));
    assert_eq!(timeout(with_timeout(0, 0)).unwrap(), seconds(3600));
    assert_eq!(timeout(with_timeout(7200, 0)).unwrap(), seconds(7200));
    assert_eq!(timeout(with_timeout(0, 1)).unwrap(), Some(Duration::from_nanos(1)));
    for (seconds, nanos) in [
        (-1, 0),
        (0, -1),
        (7200, 1),
        (i64::MAX, 0),
        (i64::MIN, 0),
        (i64::MAX, i32::MAX),
    ] {
        let error = timeout(with_timeout(seconds, nanos)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{seconds} s {nanos} ns");
    }
}

#[test]
fn no_timeout_is_longer_than_clocks_can_count() {
    assert!(parse(with_timeout(i64::MAX, 0), command()).is_err());
    assert!(parse(with_timeout(315_576_000_000, 0), command()).is_ok());
}

#[test]
fn an_action_s_digests_are_there_and_of_its_own_function() {
    for digest in [None, Some(functions::to_proto(Digest::of(DigestFunction::Sha1, b"")))] {
        let action = reapi::Action {
            input_root_digest: digest,
            ..action_of(&command())
        };
        let error = parse(action, command()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("input_root_digest"), "{error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_loading_panic(action in proptest::collection::vec(any::<u8>(), 0..200)) {
        let encoded = action.as_slice();
        let _outcome = (
            check_records(encoded, ACTION_PLATFORM, 100),
            message_blob::decode::<reapi::Action>(encoded, Digest::of(FUNCTION, encoded), "action"),
        );
    }
}
