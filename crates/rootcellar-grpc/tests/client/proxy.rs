//! A way to a server that breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Passes bytes on to a server. Each of the first connections is cut once so many bytes went through it in either direction.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr, cut_after: &'static [usize]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let which = count.fetch_add(1, Ordering::SeqCst);
                let left = cut_after.get(which).copied().unwrap_or(usize::MAX);
                let server = TcpStream::connect(server).await.unwrap();
                tokio::spawn(pass(client, server, left));
            }
        });
        Self { address, connections }
    }

    /// Connections that were made so far.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Passes bytes on in both directions until one of them ends; both sockets are dropped then.
async fn pass(client: TcpStream, server: TcpStream, cut_after: usize) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, cut_after) => {}
        () = copy(from_server, to_client, cut_after) => {}
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut left: usize) {
    let mut piece = vec![0; 16 * 1024];
    while left > 0 {
        let Ok(len @ 1..) = from.read(&mut piece).await else {
            return;
        };
        left = left.saturating_sub(len);
        if to.write_all(&piece[..len]).await.is_err() {
            return;
        }
    }
}
