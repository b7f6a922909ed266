//! What GetTree sends.

use proptest::prelude::*;
use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi;

use super::*;
use crate::tree::{PageLimits, TreePages};
use crate::{ErrorKind, Result};

fn pages_of(directories_max: usize) -> PageLimits {
    PageLimits {
        directories_max,
        ..PageLimits::default()
    }
}

/// All pages from `token` on.
async fn collect(
    store: Arc<CountingStore>,
    root: Digest,
    pages: PageLimits,
    token: &str,
) -> Result<Vec<reapi::GetTreeResponse>> {
    let mut walk = TreePages::new(store, root, TreeLimits::default(), pages).resume(token)?;
    let mut collected = Vec::new();
    while let Some(page) = walk.next_page().await? {
        let mut encoded = Vec::new();
        page.encode(&mut encoded);
        assert_eq!(encoded.len(), page.encoded_len());
        assert!(encoded.len() <= pages.bytes_max);
        let message = reapi::GetTreeResponse::decode(&encoded[..]).unwrap();
        assert_eq!(message.next_page_token, page.next_page_token);
        collected.push(message);
    }
    Ok(collected)
}

fn digests(pages: &[reapi::GetTreeResponse]) -> Vec<Digest> {
    let directories = pages.iter().flat_map(|page| &page.directories);
    directories
        .map(|directory| Digest::of(FUNCTION, &directory.encode_to_vec()))
        .collect()
}

proptest! {
    #[test]
    fn every_distinct_directory_is_sent_once_and_a_token_goes_on_from_anywhere(model in models(), page_size in 1..5usize) {
        let mut blobs = Blobs::default();
        let root = blobs.add(&model);
        run(async {
            let store = blobs.all_stored().await;
            let pages = collect(store.clone(), root, pages_of(page_size), "").await.unwrap();
            let sent = digests(&pages);
            assert_eq!(sent[0], root);
            assert_eq!(sent.len(), blobs.directories.len());
            assert!(sent.iter().all(|digest| blobs.directories.contains_key(digest)));
            for (index, page) in pages.iter().enumerate() {
                let is_last = index + 1 == pages.len();
                assert_eq!(page.next_page_token.is_empty(), is_last);
                if !is_last {
                    assert_eq!(page.directories.len(), page_size);
                    let rest = collect(store.clone(), root, pages_of(1000), &page.next_page_token).await.unwrap();
                    assert_eq!(digests(&rest), sent[(index + 1) * page_size..]);
                }
            }
        });
    }

    #[test]
    fn what_is_missing_is_left_out(model in models(), lost in any::<u64>()) {
        let mut blobs = Blobs::default();
        let root = blobs.add(&model);
        let is_lost = |digest: &Digest| !digest.is_empty_blob() && (lost >> (digest.hash()[0] % 64)) & 1 == 1;
        run(async {
            let outcome = collect(blobs.stored(is_lost).await, root, pages_of(2), "").await;
            match outcome {
                Ok(pages) => assert!(digests(&pages).iter().all(|digest| !is_lost(digest))),
                Err(error) => assert!(error.kind() == ErrorKind::NotFound && is_lost(&root)),
            }
        });
    }
}

#[test]
fn pages_stay_within_their_bytes() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(500, &["a", "b", "c"]);
    let bytes_max = 2000;
    let limits = PageLimits {
        bytes_max,
        ..PageLimits::default()
    };
    let pages = run(async { collect(blobs.all_stored().await, root, limits, "").await.unwrap() });
    assert_eq!(digests(&pages).len(), 500);
    assert!(pages.len() > 50);
    assert!(pages.iter().all(|page| page.encoded_len() <= bytes_max));
}

#[test]
fn a_directory_that_fits_no_page_is_an_error() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(2, &["a", "b", "c"]);
    let limits = PageLimits {
        bytes_max: 100,
        ..PageLimits::default()
    };
    let error = run(async { collect(blobs.all_stored().await, root, limits, "").await.unwrap_err() });
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
}

#[test]
fn a_hostile_dag_is_sent_in_as_many_directories_as_it_has() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(30, &["a", "b"]);
    run(async {
        let store = blobs.all_stored().await;
        let pages = collect(store.clone(), root, PageLimits::default(), "").await.unwrap();
        assert_eq!((pages.len(), digests(&pages).len()), (1, 30));
        assert_eq!(store.fetched(), 30);
    });
}

#[test]
fn ten_thousand_levels_are_sent() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(10_000, &["d"]);
    let pages = run(async {
        collect(blobs.all_stored().await, root, PageLimits::default(), "")
            .await
            .unwrap()
    });
    assert_eq!(digests(&pages).len(), 10_000);
}

#[test]
fn the_empty_blob_is_one_empty_directory() {
    let root = Digest::empty(FUNCTION);
    let pages = run(async {
        collect(Blobs::default().all_stored().await, root, PageLimits::default(), "")
            .await
            .unwrap()
    });
    let expected = reapi::GetTreeResponse {
        directories: vec![reapi::Directory::default()],
        ..Default::default()
    };
    assert_eq!(pages, [expected]);
}

#[test]
fn a_root_that_is_not_there_or_no_directory_is_told_apart() {
    let mut blobs = Blobs::default();
    let text = blobs.add_file(b"not a directory\n");
    let absent = Digest::of(FUNCTION, b"absent");
    for (root, kind) in [(text, ErrorKind::InvalidArgument), (absent, ErrorKind::NotFound)] {
        let error = run(async {
            collect(blobs.all_stored().await, root, PageLimits::default(), "")
                .await
                .unwrap_err()
        });
        assert_eq!(error.kind(), kind);
    }
}

#[test]
fn a_directory_of_another_order_is_passed_on() {
    let mut blobs = Blobs::default();
    let content = blobs.add_file(b"content");
    let unsorted = reapi::Directory {
        files: vec![file("b", content), file("a", content)],
        ..Default::default()
    };
    let root = blobs.add_encoded(unsorted.encode_to_vec().into());
    let pages = run(async {
        collect(blobs.all_stored().await, root, PageLimits::default(), "")
            .await
            .unwrap()
    });
    assert_eq!(pages[0].directories, [unsorted]);
}

#[test]
fn a_directory_is_passed_on_with_what_is_not_known_of_it() {
    const UNKNOWN_FIELD: [u8; 3] = [0x7a, 1, b'?'];
    let mut blobs = Blobs::default();
    let encoded = [&reapi::Directory::default().encode_to_vec()[..], &UNKNOWN_FIELD].concat();
    let root = blobs.add_encoded(encoded.clone().into());
    let page = run(async {
        let store = blobs.all_stored().await;
        let mut walk = TreePages::new(store, root, TreeLimits::default(), PageLimits::default());
        walk.next_page().await.unwrap().unwrap()
    });
    assert_eq!(page.directories, [encoded]);
}

#[test]
fn a_token_that_is_garbled_or_of_another_tree_is_refused() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(5, &["a"]);
    let other = blobs.add_levels(6, &["a"]);
    run(async {
        let store = blobs.all_stored().await;
        let pages = collect(store.clone(), root, pages_of(2), "").await.unwrap();
        let token = pages[0].next_page_token.as_str();
        for (root, token) in [(other, token), (root, &token[1..]), (root, "2"), (root, "../..")] {
            let error = collect(store.clone(), root, pages_of(2), token).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{token}");
        }
    });
}

#[test]
fn a_token_whose_directory_has_gone_is_refused() {
    let mut blobs = Blobs::default();
    let root = blobs.add_levels(5, &["a"]);
    run(async {
        let pages = collect(blobs.all_stored().await, root, pages_of(2), "").await.unwrap();
        let gone = digests(&pages)[1];
        let store = blobs.stored(|digest| *digest == gone).await;
        let error = collect(store, root, pages_of(2), &pages[0].next_page_token)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    });
}

#[test]
fn a_page_size_only_makes_pages_smaller() {
    let limits = pages_of(10);
    assert_eq!(limits.requested(0).unwrap(), limits);
    assert_eq!(limits.requested(3).unwrap(), pages_of(3));
    assert_eq!(limits.requested(11).unwrap(), limits);
    assert_eq!(limits.requested(-1).unwrap_err().kind(), ErrorKind::InvalidArgument);
}
