use proptest::prelude::*;
use prost::Message as _;
use tokio::runtime;

use super::*;
use crate::ErrorKind;
use crate::forgetful_store::ForgetfulStore;

const FUNCTION: DigestFunction = DigestFunction::Blake3;

fn proto(digest: Digest) -> Option<reapi::Digest> {
    Some(functions::to_proto(digest))
}

fn output_file(path: &str, digest: Digest) -> reapi::OutputFile {
    reapi::OutputFile {
        path: path.to_owned(),
        digest: proto(digest),
        ..Default::default()
    }
}

/// `root/sub/file`, with `file` beside it once more.
fn directories(file: Digest) -> (reapi::Directory, reapi::Directory) {
    let node = reapi::FileNode {
        name: "file".to_owned(),
        digest: proto(file),
        ..Default::default()
    };
    let sub = reapi::Directory {
        files: vec![node.clone()],
        ..Default::default()
    };
    let root = reapi::Directory {
        files: vec![node],
        directories: vec![reapi::DirectoryNode {
            name: "sub".to_owned(),
            digest: proto(Digest::of(FUNCTION, &sub.encode_to_vec())),
        }],
        ..Default::default()
    };
    (root, sub)
}

fn with_directory(tree: Option<Digest>, root: Option<Digest>) -> reapi::ActionResult {
    let directory = reapi::OutputDirectory {
        path: "../../install".to_owned(),
        tree_digest: tree.and_then(proto),
        root_directory_digest: root.and_then(proto),
        ..Default::default()
    };
    reapi::ActionResult {
        output_directories: vec![directory],
        ..Default::default()
    }
}

async fn gather(store: &ForgetfulStore, result: &reapi::ActionResult) -> Result<Vec<Digest>> {
    let mut result = result.clone();
    closure(store, FUNCTION, &mut result, &ClosureLimits::default()).await
}

async fn assert_invalid(store: &ForgetfulStore, result: &reapi::ActionResult) {
    let error = gather(store, result).await.expect_err("a wrong result was taken");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}

fn sorted(mut digests: Vec<Digest>) -> Vec<Digest> {
    digests.sort_unstable();
    digests
}

#[tokio::test]
async fn a_result_of_directories_alone_is_complete_with_all_below_them() {
    let store = ForgetfulStore::new();
    let file = store.keep(FUNCTION, "content").await;
    let (root, sub) = directories(file);
    let sub = store.keep_message(FUNCTION, &sub).await;
    let root = store.keep_message(FUNCTION, &root).await;
    let result = with_directory(None, Some(root));
    assert_eq!(gather(&store, &result).await.unwrap(), sorted(vec![root, sub, file]));
    for blob in [root, sub, file] {
        store.forget(blob);
        let error = gather(&store, &result).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::FailedPrecondition);
        assert_eq!(error.missing(), [blob]);
        store
            .keep(
                FUNCTION,
                match blob {
                    _ if blob == file => bytes::Bytes::from_static(b"content"),
                    _ if blob == sub => directories(file).1.encode_to_vec().into(),
                    _ => directories(file).0.encode_to_vec().into(),
                },
            )
            .await;
    }
}

#[tokio::test]
async fn a_tree_needs_its_files_and_no_directory_blobs() {
    let store = ForgetfulStore::new();
    let file = store.keep(FUNCTION, "content").await;
    let (root, sub) = directories(file);
    let tree = reapi::Tree {
        root: Some(root.clone()),
        children: vec![sub.clone()],
    };
    let tree = store.keep_message(FUNCTION, &tree).await;
    assert_eq!(
        gather(&store, &with_directory(Some(tree), None)).await.unwrap(),
        sorted(vec![tree, file])
    );

    let root_digest = Digest::of(FUNCTION, &root.encode_to_vec());
    let both = with_directory(Some(tree), Some(root_digest));
    let error = gather(&store, &both).await.unwrap_err();
    assert_eq!(error.missing(), [root_digest]);
    store.keep_message(FUNCTION, &root).await;
    let sub = store.keep_message(FUNCTION, &sub).await;
    assert_eq!(
        gather(&store, &both).await.unwrap(),
        sorted(vec![tree, file, root_digest, sub])
    );
}

#[tokio::test]
async fn all_that_is_missing_is_told_at_once() {
    let store = ForgetfulStore::new();
    let absent = |content: &str| Digest::of(FUNCTION, content.as_bytes());
    let result = reapi::ActionResult {
        stdout_digest: proto(absent("out")),
        stderr_digest: proto(absent("err")),
        output_files: vec![output_file("f", absent("file"))],
        ..with_directory(Some(absent("tree")), Some(absent("root")))
    };
    let error = gather(&store, &result).await.unwrap_err();
    let all = ["out", "err", "file", "tree", "root"].map(absent).to_vec();
    assert_eq!(error.missing(), sorted(all));
}

#[tokio::test]
async fn empty_outputs_are_always_there() {
    let store = ForgetfulStore::new();
    let empty = Digest::empty(FUNCTION);
    let result = reapi::ActionResult {
        stdout_digest: proto(empty),
        output_files: vec![output_file("f", empty)],
        ..with_directory(Some(empty), Some(empty))
    };
    assert_eq!(gather(&store, &result).await.unwrap(), []);
}

#[tokio::test]
async fn a_result_that_contradicts_itself_is_refused() {
    let store = ForgetfulStore::new();
    let file = store.keep(FUNCTION, "content").await;
    let (root, sub) = directories(file);
    let incomplete = reapi::Tree {
        root: Some(root),
        children: Vec::new(),
    };
    let incomplete = store.keep_message(FUNCTION, &incomplete).await;
    let sub = store.keep_message(FUNCTION, &sub).await;
    let no_tree = store.keep(FUNCTION, "no tree").await;
    for (tree, root) in [
        (None, None),
        (Some(incomplete), None),
        (Some(no_tree), None),
        (None, Some(no_tree)),
        (Some(Digest::empty(FUNCTION)), Some(sub)),
    ] {
        assert_invalid(&store, &with_directory(tree, root)).await;
    }
    let no_digest = reapi::OutputFile {
        path: "f".to_owned(),
        ..Default::default()
    };
    let other_function = output_file("f", Digest::of(DigestFunction::Sha512, b"content"));
    for file in [no_digest, other_function] {
        let output_files = vec![file];
        assert_invalid(
            &store,
            &reapi::ActionResult {
                output_files,
                ..Default::default()
            },
        )
        .await;
    }
}

#[tokio::test]
async fn a_false_claim_of_order_is_taken_back() {
    let store = ForgetfulStore::new();
    let file = store.keep(FUNCTION, "content").await;
    let (root, sub) = directories(file);
    let sorted = reapi::Tree {
        root: Some(root.clone()),
        children: vec![sub.clone()],
    };
    let doubled = reapi::Tree {
        root: Some(root),
        children: vec![sub.clone(), sub],
    };
    for (tree, holds) in [(sorted, true), (doubled, false)] {
        let tree = store.keep_message(FUNCTION, &tree).await;
        let mut result = with_directory(Some(tree), None);
        result.output_directories[0].is_topologically_sorted = true;
        closure(&store, FUNCTION, &mut result, &ClosureLimits::default())
            .await
            .unwrap();
        assert_eq!(result.output_directories[0].is_topologically_sorted, holds);
    }
}

#[tokio::test]
async fn a_small_result_cannot_name_any_number_of_blobs() {
    let store = ForgetfulStore::new();
    let file = store.keep(FUNCTION, "content").await;
    let limits = ClosureLimits {
        digests_max: 10,
        ..Default::default()
    };
    let mut result = reapi::ActionResult {
        output_files: vec![output_file("f", file); 11],
        ..Default::default()
    };
    let error = closure(&store, FUNCTION, &mut result, &limits).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
    result.output_files.pop();
    assert_eq!(closure(&store, FUNCTION, &mut result, &limits).await.unwrap(), [file]);
}

proptest! {
    #[test]
    fn a_result_is_complete_exactly_with_all_its_blobs(gone in proptest::collection::btree_set(0..7usize, 0..3)) {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = ForgetfulStore::new();
            let file = store.keep(FUNCTION, "content").await;
            let (root, sub) = directories(file);
            let tree = reapi::Tree { root: Some(root.clone()), children: vec![sub.clone()] };
            let blobs = vec![
                file,
                store.keep_message(FUNCTION, &root).await,
                store.keep_message(FUNCTION, &sub).await,
                store.keep_message(FUNCTION, &tree).await,
                store.keep(FUNCTION, "stdout").await,
                store.keep(FUNCTION, "stderr").await,
                store.keep(FUNCTION, "another file").await,
            ];
            let result = reapi::ActionResult {
                stdout_digest: proto(blobs[4]),
                stderr_digest: proto(blobs[5]),
                output_files: vec![output_file("f", blobs[6])],
                ..with_directory(Some(blobs[3]), Some(blobs[1]))
            };
            let gone: Vec<Digest> = gone.into_iter().map(|index| blobs[index]).collect();
            gone.iter().for_each(|digest| store.forget(*digest));
            match gather(&store, &result).await {
                Ok(found) => assert!(gone.is_empty() && found == sorted(blobs)),
                Err(error) => assert!(error.missing().iter().all(|digest| gone.contains(digest)) && !gone.is_empty()),
            }
        });
    }
}
