//! Serving routes on a listener, with HTTP/2 set up for blobs.
//!
//! The defaults of HTTP/2 are made for pages. Here some thousand calls share a connection, most of them tiny and some of them
//! gigabytes long, and clients stay for days.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;

use super::connections::accept_all;
use super::{Health, Observed};

/// How connections are set up. Each value has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transport {
    /// Bytes that a client may send on one stream before they are read, 2 MiB: on a fast link with a millisecond of delay an
    /// upload needs that to fill it.
    pub stream_window_bytes: u32,
    /// Bytes that a client may send on all streams before they are read, 16 MiB. It is the bound of what one connection keeps
    /// in memory, and larger than a stream's, so that one slow upload does not stop the others.
    pub connection_window_bytes: u32,
    /// Bytes of an HTTP/2 frame from a client, 264 KiB: what is received at a time, and acknowledged. It holds a message with 256 KiB of
    /// content and what is around that. Small calls do not wait for it: where a link is full, they wait for what the client's socket has
    /// taken, which is a multiple (0009).
    pub frame_bytes_max: u32,
    /// Connections at once, 4,096: a process has so many file descriptors, and blobs need some, too.
    pub connections_max: usize,
    /// Calls at once on a connection, 4,096: each queued action holds one, and a client's builds fan out to thousands.
    pub concurrent_streams_max: u32,
    /// Bytes of the headers of a call, 32 KiB.
    pub header_list_bytes_max: u32,
    /// How often a silent connection is asked whether it lives, 60 s: less than the idle time of common firewalls.
    pub keepalive_interval: Duration,
    /// How long the answer to that may take, 20 s.
    pub keepalive_timeout: Duration,
    /// Streams of one connection that may end in a protocol error, 65,536. An upload that ends early, because the blob
    /// exists, can count as one: its client still sends. The usual bound of 1,024 would cut long-lived clients off.
    pub stream_errors_max: usize,
    /// Calls of one connection that were opened and given up before they were looked at, 1,024. Builds that end early give
    /// up hundreds at once; the usual bound of 20 would cut them off.
    pub unseen_aborts_max: usize,
    /// How long calls under way may take after shutdown was asked for, 30 s.
    pub drain_max: Duration,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 16 << 20,
            frame_bytes_max: 264 << 10,
            connections_max: 4096,
            concurrent_streams_max: 4096,
            header_list_bytes_max: 32 << 10,
            keepalive_interval: Duration::from_secs(60),
            keepalive_timeout: Duration::from_secs(20),
            stream_errors_max: 65_536,
            unseen_aborts_max: 1024,
            drain_max: Duration::from_secs(30),
        }
    }
}

impl Transport {
    fn builder(&self) -> Server {
        Server::builder()
            .initial_stream_window_size(self.stream_window_bytes)
            .initial_connection_window_size(self.connection_window_bytes)
            .max_frame_size(self.frame_bytes_max)
            .max_concurrent_streams(self.concurrent_streams_max)
            .http2_max_header_list_size(self.header_list_bytes_max)
            .http2_keepalive_interval(Some(self.keepalive_interval))
            .http2_keepalive_timeout(Some(self.keepalive_timeout))
            .http2_max_local_error_reset_streams(Some(self.stream_errors_max))
            .http2_max_pending_accept_reset_streams(Some(self.unseen_aborts_max))
    }
}

/// Serves `routes` on `listener` until `shutdown` is done, then drains.
///
/// Draining: health checks say "not serving", no connection is accepted any more, and the calls under way have
/// [`Transport::drain_max`] to end. Those that have not, end with the runtime.
///
/// # Errors
/// What the transport could not do.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    health: Health,
    transport: Transport,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let (draining, mut is_draining) = tokio::sync::watch::channel(());
    let shutdown = async move {
        shutdown.await;
        health.drain();
        drop(draining);
    };
    let overdue = async move {
        // Resolves with an error once the sender is dropped, which is what is waited for.
        let _closed = is_draining.changed().await.is_err();
        tokio::time::sleep(transport.drain_max).await;
    };
    let serving = transport.builder().layer(Observed).serve_with_incoming_shutdown(
        routes.prepare(),
        accept_all(listener, transport.connections_max),
        shutdown,
    );
    tokio::select! {
        outcome = serving => outcome.map_err(io::Error::other),
        () = overdue => {
            tracing::warn!("calls still run after the time to drain; they are cut off");
            Ok(())
        }
    }
}
