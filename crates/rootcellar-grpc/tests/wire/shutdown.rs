//! How a server ends.

use rootcellar_digest::Digest;

use crate::feed::Feed;
use crate::server::{SHA256, Server, content, piece, write_name};

/// Calls under way are finished; no connection is accepted any more.
#[tokio::test]
async fn what_is_under_way_is_finished_after_the_shutdown() {
    let mut server = Server::start().await;
    let data = content(500_000, 1);
    let digest = Digest::of(SHA256, &data);
    let feed = Feed::open(&server);
    feed.send(piece(&write_name("u", digest), 0, data.slice(..200_000)))
        .await;
    server.until_known(&write_name("u", digest)).await;
    server.stop();
    while tokio::net::TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let mut rest = piece("", 200_000, data.slice(200_000..));
    rest.finish_write = true;
    feed.send(rest).await;
    assert_eq!(feed.close().await.unwrap(), 500_000);
    assert!(server.holds(digest).await);
}
