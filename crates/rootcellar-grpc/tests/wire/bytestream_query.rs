//! Asking how far a write got, and continuing it.

use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::Digest;
use rootcellar_proto::bytestream::byte_stream_client::ByteStreamClient;
use rootcellar_proto::bytestream::{QueryWriteStatusRequest, QueryWriteStatusResponse};
use tonic::{Code, Status};

use crate::server::{SHA256, Server, Setup, connect, content, piece, pieces, read_name, refused, write_name};

async fn query(server: &Server, name: &str) -> Result<(i64, bool), Status> {
    let request = QueryWriteStatusRequest {
        resource_name: name.to_owned(),
    };
    let QueryWriteStatusResponse {
        committed_size,
        complete,
    } = server.bytes().query_write_status(request).await?.into_inner();
    Ok((committed_size, complete))
}

/// QW-2.
#[tokio::test]
async fn an_unknown_write_is_not_found_and_a_blob_that_exists_is_complete() {
    let server = Server::start().await;
    let held = server.hold(SHA256, "held").await;
    let missing = Digest::of(SHA256, b"missing");
    refused(query(&server, &write_name("u", missing)).await, Code::NotFound);
    assert_eq!(
        query(&server, &write_name("never-seen", held)).await.unwrap(),
        (4, true)
    );
    let empty = write_name("u", Digest::empty(SHA256));
    assert_eq!(query(&server, &empty).await.unwrap(), (0, true));
}

/// RN-9.
#[tokio::test]
async fn a_query_for_garbage_is_an_invalid_argument() {
    let server = Server::start().await;
    let read = read_name(Digest::of(SHA256, b"x"));
    let zstd = format!("uploads/u/compressed-{}", read.replace("blobs/", "blobs/zstd/"));
    for name in ["", "uploads", &read, &zstd] {
        refused(query(&server, name).await, Code::InvalidArgument);
    }
}

/// WR-13, WR-4, QW-1, QW-3: what came before the break is not sent again.
#[tokio::test]
async fn a_write_that_closed_early_is_continued_where_it_ended() {
    let server = Server::start().await;
    for len in [1000, 1_000_000] {
        let data = content(len, 1);
        let digest = Digest::of(SHA256, &data);
        let name = write_name("u", digest);
        let half = len / 2;
        server.write(vec![piece(&name, 0, data.slice(..half))]).await.unwrap();
        let committed = i64::try_from(half).unwrap();
        assert_eq!(query(&server, &name).await.unwrap(), (committed, false));
        assert!(!server.holds(digest).await);

        for wrong in [half - 1, half + 1] {
            let rest = vec![piece(&name, wrong, data.slice(wrong..))];
            refused(server.write(rest).await, Code::InvalidArgument);
        }
        let mut rest = piece(&name, half, data.slice(half..));
        rest.finish_write = true;
        assert_eq!(server.write(vec![rest]).await.unwrap(), i64::try_from(len).unwrap());
        assert_eq!(
            query(&server, &name).await.unwrap(),
            (i64::try_from(len).unwrap(), true)
        );
        assert!(server.read(read_name(digest)).await.unwrap() == data);
    }
    assert_eq!(server.spooled_files(), 0);
}

/// WR-13, QW-1: the connection breaks in the middle of the stream. While the server still takes what was under way, its
/// answer to the query is good enough to continue from.
#[tokio::test]
async fn a_write_whose_connection_broke_is_continued_from_what_the_query_told() {
    let server = Server::start().await;
    for seed in 0..10 {
        let data = content(4 << 20, seed);
        let name = write_name("u", Digest::of(SHA256, &data));
        let mut messages = pieces(&name, &data, 100_000);
        messages.last_mut().unwrap().finish_write = false;
        let mut client = ByteStreamClient::new(connect(server.address).await);
        let call = tokio::spawn(async move { client.write(stream::iter(messages).chain(stream::pending())).await });
        let told = loop {
            match query(&server, &name).await {
                Ok((told @ 1.., false)) => break told,
                _ => tokio::task::yield_now().await,
            }
        };
        call.abort();
        let offset = usize::try_from(told).unwrap();
        let mut rest = piece(&name, offset, data.slice(offset..));
        rest.finish_write = true;
        assert_eq!(server.write(vec![rest]).await.unwrap(), 4 << 20);
    }
}

/// RN-7: the state of an upload belongs to its whole name.
#[tokio::test]
async fn uploads_that_share_a_uuid_do_not_share_their_state() {
    let server = Server::start().await;
    let (one, two) = (content(100, 1), content(100, 2));
    let name_one = write_name("u", Digest::of(SHA256, &one));
    let name_two = write_name("u", Digest::of(SHA256, &two));
    server.write(vec![piece(&name_one, 0, one.slice(..60))]).await.unwrap();
    refused(query(&server, &name_two).await, Code::NotFound);
    refused(query(&server, &format!("main/{name_one}")).await, Code::NotFound);
    assert_eq!(query(&server, &name_one).await.unwrap(), (60, false));
}

/// QW-1: starting again does not take back what was committed.
#[tokio::test]
async fn the_committed_size_never_shrinks() {
    let server = Server::start().await;
    let data = content(100, 1);
    let name = write_name("u", Digest::of(SHA256, &data));
    server.write(vec![piece(&name, 0, data.slice(..60))]).await.unwrap();
    server.write(vec![piece(&name, 0, data.slice(..30))]).await.unwrap();
    assert_eq!(query(&server, &name).await.unwrap(), (60, false));
    server.write(vec![piece(&name, 60, data.slice(60..70))]).await.unwrap();
    assert_eq!(query(&server, &name).await.unwrap(), (70, false));
    server.write(pieces(&name, &data, 100)).await.unwrap();
    assert_eq!(query(&server, &name).await.unwrap(), (100, true));
}

/// A client whose old connection hangs continues on a new one.
#[tokio::test]
async fn a_write_is_taken_over_from_a_connection_that_hangs() {
    let server = Server::start().await;
    let data = content(400_000, 1);
    let name = write_name("u", Digest::of(SHA256, &data));
    let messages = stream::iter([piece(&name, 0, data.slice(..300_000))]).chain(stream::pending());
    let mut client = server.bytes();
    let hanging = tokio::spawn(async move { client.write(messages).await });
    while query(&server, &name).await.ok() != Some((300_000, false)) {
        tokio::task::yield_now().await;
    }
    let mut rest = piece(&name, 300_000, data.slice(300_000..));
    rest.finish_write = true;
    assert_eq!(server.write(vec![rest]).await.unwrap(), 400_000);
    refused(hanging.await.unwrap(), Code::Aborted);
}

/// The table of broken uploads is bounded: the oldest is forgotten first.
#[tokio::test]
async fn only_so_many_broken_uploads_are_kept() {
    let mut setup = Setup::default();
    setup.limits.uploads.parked_max = 2;
    let server = setup.start().await;
    let names: Vec<_> = (1..=3)
        .map(|seed| write_name("u", Digest::of(SHA256, &content(200_000, seed))))
        .collect();
    for (seed, name) in (1..).zip(&names) {
        server
            .write(vec![piece(name, 0, content(200_000, seed).slice(..150_000))])
            .await
            .unwrap();
    }
    refused(query(&server, &names[0]).await, Code::NotFound);
    assert_eq!(query(&server, &names[1]).await.unwrap(), (150_000, false));
    assert_eq!(query(&server, &names[2]).await.unwrap(), (150_000, false));
    assert_eq!(server.spooled_files(), 2);
}
