//! A write whose messages come when a test wants.

use futures_util::stream;
use rootcellar_proto::bytestream::WriteRequest;
use tokio::sync::mpsc;

use crate::server::Server;

/// A write that is fed message by message.
pub(crate) struct Feed {
    messages: mpsc::Sender<WriteRequest>,
    pub(crate) reply: tokio::task::JoinHandle<Result<i64, tonic::Status>>,
}

impl Feed {
    pub(crate) fn open(server: &Server) -> Self {
        let (messages, mut fed) = mpsc::channel(1);
        let mut client = server.bytes();
        let stream = stream::poll_fn(move |cx| fed.poll_recv(cx));
        let reply = tokio::spawn(async move { Ok(client.write(stream).await?.into_inner().committed_size) });
        Self { messages, reply }
    }

    pub(crate) async fn send(&self, message: WriteRequest) {
        self.messages.send(message).await.unwrap();
    }

    pub(crate) async fn close(self) -> Result<i64, tonic::Status> {
        drop(self.messages);
        self.reply.await.unwrap()
    }
}
