use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use prost::Message as _;
use rootcellar_proto::reapi;
use rootcellar_proto::reapi::digest_function::Value;
use rootcellar_store::MemoryRecords;
use rootcellar_store::testing::ManualClock;

use super::*;
use crate::ErrorKind;
use crate::forgetful_store::ForgetfulStore;

const FUNCTION: DigestFunction = DigestFunction::Sha256;
const STRONG: &str = "urn:fdc:buildstream.build:2020:artifact:project/element/strong";
const WEAK: &str = "urn:fdc:buildstream.build:2020:artifact:project/element/weak";

struct Setup {
    index: AssetIndex,
    store: Arc<ForgetfulStore>,
    clock: Arc<ManualClock>,
}

fn setup() -> Setup {
    let store = Arc::new(ForgetfulStore::new());
    let clock = Arc::new(ManualClock::default());
    let records = Arc::new(MemoryRecords::new(64 << 20, clock.clone()));
    let index = AssetIndex::new(records, store.clone(), clock.clone(), AssetOptions::default());
    Setup { index, store, clock }
}

fn proto(digest: Digest) -> Option<reapi::Digest> {
    Some(functions::to_proto(digest))
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn qualifiers(pairs: &[(&str, &str)]) -> Vec<asset::Qualifier> {
    let qualifier = |(name, value): &(&str, &str)| asset::Qualifier {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    pairs.iter().map(qualifier).collect()
}

fn push_of(uris: &[&str], blob: Digest) -> asset::PushBlobRequest {
    asset::PushBlobRequest {
        uris: strings(uris),
        blob_digest: proto(blob),
        ..Default::default()
    }
}

fn fetch_of(uris: &[&str]) -> asset::FetchBlobRequest {
    asset::FetchBlobRequest {
        uris: strings(uris),
        ..Default::default()
    }
}

fn directory_push_of(uris: &[&str], root: Digest) -> asset::PushDirectoryRequest {
    asset::PushDirectoryRequest {
        uris: strings(uris),
        root_directory_digest: proto(root),
        ..Default::default()
    }
}

fn directory_fetch_of(uris: &[&str]) -> asset::FetchDirectoryRequest {
    asset::FetchDirectoryRequest {
        uris: strings(uris),
        ..Default::default()
    }
}

/// What a blob is fetched as, and under which URI; `None` if it is not found.
async fn fetch(index: &AssetIndex, request: &asset::FetchBlobRequest) -> Option<(String, reapi::Digest)> {
    match index.fetch_blob(request).await {
        Ok(response) => Some((response.uri, response.blob_digest.unwrap())),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            None
        }
    }
}

async fn is_found(index: &AssetIndex, uri: &str) -> bool {
    fetch(index, &fetch_of(&[uri])).await.is_some()
}

async fn is_directory_found(index: &AssetIndex, uri: &str) -> bool {
    index.fetch_directory(&directory_fetch_of(&[uri])).await.is_ok()
}

/// A directory with one file in a directory in it: the digests of root, subdirectory and file.
async fn keep_directory(store: &ForgetfulStore, content: &'static str) -> [Digest; 3] {
    let file = store.keep(FUNCTION, content).await;
    let sub = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "file".to_owned(),
            digest: proto(file),
            ..Default::default()
        }],
        ..Default::default()
    };
    let sub = store.keep_message(FUNCTION, &sub).await;
    let root = reapi::Directory {
        directories: vec![reapi::DirectoryNode {
            name: "sub".to_owned(),
            digest: proto(sub),
        }],
        ..Default::default()
    };
    [store.keep_message(FUNCTION, &root).await, sub, file]
}

#[tokio::test]
async fn a_probe_without_uris_is_an_invalid_argument() {
    let Setup { index, .. } = setup();
    let outcomes = [
        index.fetch_blob(&asset::FetchBlobRequest::default()).await.map(drop),
        index
            .fetch_directory(&asset::FetchDirectoryRequest::default())
            .await
            .map(drop),
        index.push_blob(&asset::PushBlobRequest::default()).await,
        index.push_directory(&asset::PushDirectoryRequest::default()).await,
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("uris"), "{error}");
    }
}

#[tokio::test]
async fn what_was_never_pushed_is_not_found() {
    let Setup { index, .. } = setup();
    let error = index.fetch_blob(&fetch_of(&[STRONG])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(STRONG), "{error}");
}

#[tokio::test]
async fn a_blob_is_found_under_each_of_its_uris() {
    let Setup { index, store, .. } = setup();
    let blob = store.keep(FUNCTION, "artifact").await;
    index.push_blob(&push_of(&[STRONG, WEAK], blob)).await.unwrap();
    for uri in [STRONG, WEAK] {
        let response = index.fetch_blob(&fetch_of(&["urn:other", uri])).await.unwrap();
        assert_eq!(response.uri, uri, "the URI that matched");
        assert_eq!(response.blob_digest, proto(blob));
        assert_eq!(response.digest_function, Value::Sha256 as i32);
        assert_eq!(response.status.unwrap().code, 0);
    }
}

#[tokio::test]
async fn the_first_uri_that_leads_anywhere_wins() {
    let Setup { index, store, .. } = setup();
    let (one, two) = (store.keep(FUNCTION, "one").await, store.keep(FUNCTION, "two").await);
    index.push_blob(&push_of(&[STRONG], one)).await.unwrap();
    index.push_blob(&push_of(&[WEAK], two)).await.unwrap();
    let (uri, digest) = fetch(&index, &fetch_of(&[WEAK, STRONG])).await.unwrap();
    assert_eq!((uri.as_str(), Some(digest)), (WEAK, proto(two)));
    store.forget(two);
    let (uri, digest) = fetch(&index, &fetch_of(&[WEAK, STRONG])).await.unwrap();
    assert_eq!((uri.as_str(), Some(digest)), (STRONG, proto(one)));
}

#[tokio::test]
async fn a_later_push_replaces_an_earlier_one() {
    let Setup { index, store, .. } = setup();
    for content in ["one", "two"] {
        let blob = store.keep(FUNCTION, content).await;
        index.push_blob(&push_of(&[WEAK], blob)).await.unwrap();
        assert_eq!(
            fetch(&index, &fetch_of(&[WEAK])).await.unwrap().1,
            functions::to_proto(blob)
        );
    }
}

#[tokio::test]
async fn blobs_and_directories_are_name_spaces_of_their_own() {
    let Setup { index, store, .. } = setup();
    let blob = store.keep(FUNCTION, "artifact").await;
    index.push_blob(&push_of(&["urn:a"], blob)).await.unwrap();
    assert!(!is_directory_found(&index, "urn:a").await);
    let [root, ..] = keep_directory(&store, "source").await;
    index
        .push_directory(&directory_push_of(&["urn:b"], root))
        .await
        .unwrap();
    assert!(!is_found(&index, "urn:b").await);
    let response = index.fetch_directory(&directory_fetch_of(&["urn:b"])).await.unwrap();
    assert_eq!(response.root_directory_digest, proto(root));
}

#[tokio::test]
async fn qualifiers_match_exactly_and_in_any_order() {
    let Setup { index, store, .. } = setup();
    let blob = store.keep(FUNCTION, "artifact").await;
    let pushed = asset::PushBlobRequest {
        qualifiers: qualifiers(&[("vcs.branch", "main"), ("resource_type", "application/x-git")]),
        ..push_of(&["urn:a"], blob)
    };
    index.push_blob(&pushed).await.unwrap();
    let mut request = fetch_of(&["urn:a"]);
    assert!(fetch(&index, &request).await.is_none());
    request.qualifiers = qualifiers(&[("vcs.branch", "main")]);
    assert!(fetch(&index, &request).await.is_none());
    request.qualifiers = qualifiers(&[("vcs.branch", "x"), ("resource_type", "application/x-git")]);
    assert!(fetch(&index, &request).await.is_none());
    request.qualifiers = qualifiers(&[("resource_type", "application/x-git"), ("vcs.branch", "main")]);
    assert!(fetch(&index, &request).await.is_some());
}

#[tokio::test]
async fn wrong_names_are_refused() {
    let Setup { index, .. } = setup();
    let limits = AssetNameLimits::default();
    let named = |pairs: &[(&str, &str)]| asset::FetchBlobRequest {
        qualifiers: qualifiers(pairs),
        ..fetch_of(&["urn:a"])
    };
    let negative = prost_types::Duration { seconds: -1, nanos: 0 };
    let no_time = prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: 0,
    };
    for request in [
        fetch_of(&["urn:a", ""]),
        fetch_of(&[&"x".repeat(limits.uri_bytes_max + 1)]),
        fetch_of(&vec!["urn:a"; limits.uris_max + 1]),
        named(&[("a", "1"), ("b", ""), ("a", "2")]),
        named(&[("", "1")]),
        named(&vec![("a", ""); limits.qualifiers_max + 1]),
        named(&[("a", &"x".repeat(limits.qualifier_bytes_max))]),
        asset::FetchBlobRequest {
            timeout: Some(negative),
            ..fetch_of(&["urn:a"])
        },
        asset::FetchBlobRequest {
            oldest_content_accepted: Some(no_time),
            ..fetch_of(&["urn:a"])
        },
        asset::FetchBlobRequest {
            digest_function: Value::Md5.into(),
            ..fetch_of(&["urn:a"])
        },
    ] {
        let error = index.fetch_blob(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}

#[tokio::test]
async fn a_wrong_push_is_refused() {
    let Setup { index, store, .. } = setup();
    let blob = store.keep(FUNCTION, "artifact").await;
    let of_another_function = Digest::of(DigestFunction::Sha512, b"artifact");
    for request in [
        asset::PushBlobRequest {
            blob_digest: None,
            ..push_of(&["urn:a"], blob)
        },
        push_of(&["urn:a"], of_another_function),
        asset::PushBlobRequest {
            references_blobs: proto(of_another_function).into_iter().collect(),
            ..push_of(&["urn:a"], blob)
        },
        asset::PushBlobRequest {
            references_directories: proto(blob).into_iter().collect(),
            ..push_of(&["urn:a"], blob)
        },
    ] {
        let error = index.push_blob(&request).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    assert!(!is_found(&index, "urn:a").await);
}

#[tokio::test]
async fn content_is_uploaded_before_it_is_pushed() {
    let Setup { index, store, .. } = setup();
    let absent = Digest::of(FUNCTION, b"absent");
    let error = index.push_blob(&push_of(&["urn:a"], absent)).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.missing()),
        (ErrorKind::FailedPrecondition, [absent].as_slice())
    );

    let [root, sub, file] = keep_directory(&store, "source").await;
    for blob in [file, sub] {
        store.forget(blob);
        let error = index
            .push_directory(&directory_push_of(&["urn:a"], root))
            .await
            .unwrap_err();
        assert_eq!(error.missing(), [blob]);
    }
    assert!(!is_directory_found(&index, "urn:a").await);
}

#[tokio::test]
async fn a_directory_is_found_only_while_all_below_it_is_there() {
    let Setup { index, store, .. } = setup();
    for number in 0..3 {
        let blobs = keep_directory(&store, "source").await;
        index
            .push_directory(&directory_push_of(&["urn:a"], blobs[0]))
            .await
            .unwrap();
        assert!(is_directory_found(&index, "urn:a").await);
        store.forget(blobs[number]);
        assert!(!is_directory_found(&index, "urn:a").await);
    }
}

#[tokio::test]
async fn an_artifact_is_found_only_while_what_it_refers_to_is_there() {
    let Setup { index, store, .. } = setup();
    let artifact = store.keep(FUNCTION, "artifact").await;
    let log = store.keep(FUNCTION, "log").await;
    let files = keep_directory(&store, "files").await;
    let push = asset::PushBlobRequest {
        references_blobs: proto(log).into_iter().collect(),
        references_directories: proto(files[0]).into_iter().collect(),
        ..push_of(&[STRONG, WEAK], artifact)
    };
    for gone in [artifact, log, files[0], files[1], files[2]] {
        index.push_blob(&push).await.unwrap();
        assert!(is_found(&index, WEAK).await);
        store.forget(gone);
        assert!(!is_found(&index, WEAK).await, "without {gone}");
        store.keep(FUNCTION, "artifact").await;
        store.keep(FUNCTION, "log").await;
        keep_directory(&store, "files").await;
        assert!(is_found(&index, WEAK).await);
    }
}

#[tokio::test]
async fn a_fetch_uses_all_that_an_artifact_refers_to() {
    let Setup { index, store, .. } = setup();
    let artifact = store.keep(FUNCTION, "artifact").await;
    let files = keep_directory(&store, "files").await;
    let push = asset::PushBlobRequest {
        references_directories: proto(files[0]).into_iter().collect(),
        ..push_of(&[STRONG], artifact)
    };
    index.push_blob(&push).await.unwrap();
    store.take_asked();
    assert!(is_found(&index, STRONG).await);
    let asked = store.take_asked();
    assert_eq!(asked.len(), 1, "one question tells all");
    for blob in files.into_iter().chain([artifact]) {
        assert!(asked[0].contains(&blob));
    }
}

/// BuildStream names the build tree of an artifact that it pulled without it.
#[tokio::test]
async fn a_reference_that_was_never_uploaded_is_no_condition() {
    let Setup { index, store, .. } = setup();
    let artifact = store.keep(FUNCTION, "artifact").await;
    let [partly, _, gone] = keep_directory(&store, "build tree").await;
    store.forget(gone);
    let absent = Digest::of(FUNCTION, b"never uploaded");
    let push = asset::PushBlobRequest {
        references_blobs: proto(absent).into_iter().collect(),
        references_directories: [partly, absent].into_iter().filter_map(proto).collect(),
        ..push_of(&[STRONG], artifact)
    };
    index.push_blob(&push).await.unwrap();
    assert!(is_found(&index, STRONG).await);
}

#[tokio::test]
async fn an_association_ends_when_it_should() {
    let Setup { index, store, clock } = setup();
    let blob = store.keep(FUNCTION, "artifact").await;
    let ending_at = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        asset::PushBlobRequest {
            expire_at: Some(prost_types::Timestamp {
                seconds: since.as_secs().try_into().unwrap(),
                nanos: 0,
            }),
            ..push_of(&["urn:a"], blob)
        }
    };
    let hour = Duration::from_secs(3600);
    index.push_blob(&ending_at(clock.now() + hour)).await.unwrap();
    clock.advance(hour / 2);
    assert!(is_found(&index, "urn:a").await);
    clock.advance(hour / 2);
    assert!(!is_found(&index, "urn:a").await);

    index.push_blob(&push_of(&["urn:a"], blob)).await.unwrap();
    assert!(is_found(&index, "urn:a").await);
    index.push_blob(&ending_at(clock.now() - hour)).await.unwrap();
    assert!(!is_found(&index, "urn:a").await, "a later push may end it at once");
}

#[tokio::test]
async fn content_older_than_what_is_accepted_is_not_found() {
    let Setup { index, store, clock } = setup();
    let blob = store.keep(FUNCTION, "artifact").await;
    index.push_blob(&push_of(&["urn:a"], blob)).await.unwrap();
    let pushed = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    clock.advance(Duration::from_secs(60));
    for (seconds, found) in [
        (pushed - 1, true),
        (pushed, true),
        (pushed + 1, false),
        (pushed + 3600, false),
    ] {
        let request = asset::FetchBlobRequest {
            oldest_content_accepted: Some(prost_types::Timestamp {
                seconds: seconds.try_into().unwrap(),
                nanos: 0,
            }),
            ..fetch_of(&["urn:a"])
        };
        assert_eq!(fetch(&index, &request).await.is_some(), found);
    }
}

#[tokio::test]
async fn each_digest_function_has_assets_of_its_own() {
    let Setup { index, store, .. } = setup();
    let blob = store.keep(DigestFunction::Blake3, "artifact").await;
    let push = asset::PushBlobRequest {
        digest_function: Value::Blake3.into(),
        ..push_of(&["urn:a"], blob)
    };
    index.push_blob(&push).await.unwrap();
    assert!(
        !is_found(&index, "urn:a").await,
        "SHA256 is meant where nothing is said"
    );
    let request = asset::FetchBlobRequest {
        digest_function: Value::Blake3.into(),
        ..fetch_of(&["urn:a"])
    };
    let response = index.fetch_blob(&request).await.unwrap();
    assert_eq!(response.digest_function, Value::Blake3 as i32);
    assert_eq!(response.blob_digest, proto(blob));
}

#[tokio::test]
async fn a_large_closure_is_kept_with_its_asset() {
    let Setup { index, store, .. } = setup();
    let mut root = reapi::Directory::default();
    for number in 0..2000 {
        let file = store.keep(FUNCTION, number.to_string()).await;
        root.files.push(reapi::FileNode {
            name: format!("{number:04}"),
            digest: proto(file),
            ..Default::default()
        });
    }
    let root = store.keep(FUNCTION, root.encode_to_vec()).await;
    index
        .push_directory(&directory_push_of(&["urn:a"], root))
        .await
        .unwrap();
    assert!(is_directory_found(&index, "urn:a").await);
    store.forget(Digest::of(FUNCTION, b"1999"));
    assert!(!is_directory_found(&index, "urn:a").await);
}

fn key_of((uri, pairs): &(String, BTreeMap<String, String>)) -> Vec<u8> {
    let named = |(name, value): (&String, &String)| asset::Qualifier {
        name: name.clone(),
        value: value.clone(),
    };
    let qualifiers: Vec<_> = pairs.iter().map(named).collect();
    let uris = [uri.clone()];
    let names = AssetNames::check(&uris, &qualifiers, &AssetNameLimits::default()).unwrap();
    let (_, key) = names.keys(FUNCTION).next().unwrap();
    key
}

fn names() -> impl Strategy<Value = (String, BTreeMap<String, String>)> {
    (
        "[ab]{1,2}",
        proptest::collection::btree_map("[ab]{1,2}", "[ab]{0,2}", 0..3),
    )
}

proptest! {
    #[test]
    fn no_two_names_share_a_key(one in names(), other in names()) {
        prop_assert_eq!(key_of(&one) == key_of(&other), one == other);
    }
}
