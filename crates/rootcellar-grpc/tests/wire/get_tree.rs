//! Trees of directories.

use prost::Message as _;
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::{Directory, DirectoryNode, FileNode, GetTreeRequest, GetTreeResponse};
use tonic::{Code, Status};

use crate::server::{SHA256, Server, proto, refused};

async fn get_tree(server: &Server, root: Digest, page_size: i32, token: &str) -> Result<Vec<GetTreeResponse>, Status> {
    let request = GetTreeRequest {
        root_digest: Some(proto(root)),
        page_size,
        page_token: token.to_owned(),
        ..Default::default()
    };
    let mut stream = server.cas().get_tree(request).await?.into_inner();
    let mut pages = Vec::new();
    while let Some(page) = stream.message().await? {
        pages.push(page);
    }
    Ok(pages)
}

fn directories(pages: Vec<GetTreeResponse>) -> Vec<Directory> {
    pages.into_iter().flat_map(|page| page.directories).collect()
}

fn file(name: &str) -> FileNode {
    FileNode {
        name: name.to_owned(),
        digest: Some(proto(Digest::of(SHA256, name.as_bytes()))),
        ..Default::default()
    }
}

fn of(files: &[&str], children: &[(&str, Digest)]) -> Directory {
    Directory {
        files: files.iter().map(|name| file(name)).collect(),
        directories: children
            .iter()
            .map(|(name, digest)| DirectoryNode {
                name: (*name).to_owned(),
                digest: Some(proto(*digest)),
            })
            .collect(),
        ..Default::default()
    }
}

async fn hold(server: &Server, directory: &Directory) -> Digest {
    server.hold(SHA256, directory.encode_to_vec()).await
}

/// A root with `n` children that differ.
async fn wide(server: &Server, n: usize) -> (Digest, Vec<Directory>) {
    let mut names = Vec::new();
    let mut expected = Vec::new();
    for index in 0..n {
        let name = format!("d{index:05}");
        let child = of(&[&name], &[]);
        names.push((name, hold(server, &child).await));
        expected.push(child);
    }
    let children: Vec<_> = names.iter().map(|(name, digest)| (name.as_str(), *digest)).collect();
    let root = of(&[], &children);
    expected.insert(0, root.clone());
    (hold(server, &root).await, expected)
}

/// GT-3: the root first, everything reachable, a shared directory once.
#[tokio::test]
async fn a_tree_comes_whole_with_its_root_first() {
    let server = Server::start().await;
    let leaf = of(&["file"], &[]);
    let leaf_digest = hold(&server, &leaf).await;
    let middle = of(&[], &[("a", leaf_digest), ("b", leaf_digest)]);
    let root = of(
        &["top"],
        &[("leaf", leaf_digest), ("middle", hold(&server, &middle).await)],
    );
    let digest = hold(&server, &root).await;
    let got = directories(get_tree(&server, digest, 0, "").await.unwrap());
    assert_eq!(got, [root, leaf, middle]);
}

/// GT-7, DIG-14: the empty directory is the empty blob.
#[tokio::test]
async fn the_tree_of_the_empty_blob_is_one_empty_directory() {
    let server = Server::start().await;
    let got = directories(get_tree(&server, Digest::empty(SHA256), 0, "").await.unwrap());
    assert_eq!(got, [Directory::default()]);
}

/// GT-1.
#[tokio::test]
async fn a_missing_root_is_not_found_and_one_that_is_no_directory_invalid() {
    let server = Server::start().await;
    let missing = Digest::of(SHA256, b"missing");
    refused(get_tree(&server, missing, 0, "").await, Code::NotFound);
    let garbage = server.hold(SHA256, vec![0xff; 100]).await;
    refused(get_tree(&server, garbage, 0, "").await, Code::InvalidArgument);
    let unnamed = server.cas().get_tree(GetTreeRequest::default()).await;
    refused(unnamed, Code::InvalidArgument);
}

/// GT-2.
#[tokio::test]
async fn missing_directories_are_left_out() {
    let server = Server::start().await;
    let held = of(&["held"], &[]);
    let held_digest = hold(&server, &held).await;
    let gone = Digest::of(SHA256, &of(&["gone"], &[]).encode_to_vec());
    let root = of(&[], &[("gone", gone), ("held", held_digest)]);
    let digest = hold(&server, &root).await;
    let got = directories(get_tree(&server, digest, 0, "").await.unwrap());
    assert_eq!(got, [root, held]);
}

/// GT-4, GT-5: each token goes on where its page ended.
#[tokio::test]
async fn pages_are_as_small_as_asked_and_each_can_be_gone_on_from() {
    let server = Server::start().await;
    let (root, expected) = wide(&server, 25).await;
    let pages = get_tree(&server, root, 10, "").await.unwrap();
    let sizes: Vec<_> = pages.iter().map(|page| page.directories.len()).collect();
    assert_eq!(sizes, [10, 10, 6]);
    assert_eq!(pages.last().unwrap().next_page_token, "");
    for (index, page) in pages[..2].iter().enumerate() {
        let rest = get_tree(&server, root, 0, &page.next_page_token).await.unwrap();
        assert_eq!(directories(rest), expected[10 * (index + 1)..]);
    }
    assert_eq!(directories(pages), expected);
}

/// GT-4, GT-5.
#[tokio::test]
async fn a_negative_page_size_or_a_garbled_token_is_an_invalid_argument() {
    let server = Server::start().await;
    let (root, _) = wide(&server, 3).await;
    refused(get_tree(&server, root, -1, "").await, Code::InvalidArgument);
    for token in ["x", "AAAA", "\u{1F980}", &"9".repeat(5000)] {
        refused(get_tree(&server, root, 0, token).await, Code::InvalidArgument);
    }
}

/// GT-6.
#[tokio::test]
async fn no_page_is_larger_than_a_message() {
    let server = Server::start().await;
    let (root, expected) = wide(&server, 40_000).await;
    let pages = get_tree(&server, root, 0, "").await.unwrap();
    assert!(pages.iter().all(|page| page.encoded_len() < 4 << 20));
    assert_eq!(directories(pages).len(), expected.len());
}
