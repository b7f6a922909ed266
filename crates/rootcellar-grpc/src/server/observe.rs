//! What surrounds every call: a span in the log, and a net for panics.
//!
//! Clients say who they are in a binary header (`RequestMetadata`, API v2). It is read for the log and for nothing else: a call
//! without it, or with garbage in it, is served all the same. A handler that panics fails its own call and no other.

use std::any::Any;
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use prost::Message as _;
use rootcellar_proto::reapi::RequestMetadata;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tower::{Layer, Service};
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span};

use crate::status::BUG;

const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";

/// Characters of a client's own words that go into a log line.
const LOGGED_CHARS_MAX: usize = 100;

/// Wraps a gRPC service so that each call has a span and a panic becomes INTERNAL.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observed;

impl<S> Layer<S> for Observed {
    type Service = ObservedService<S>;

    fn layer(&self, inner: S) -> ObservedService<S> {
        ObservedService { inner }
    }
}

/// A service wrapped by [`Observed`].
#[derive(Debug, Clone)]
pub struct ObservedService<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for ObservedService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = span(&request);
        let call = span.in_scope(|| self.inner.call(request));
        let guarded = AssertUnwindSafe(call).catch_unwind().map(|outcome| {
            outcome.unwrap_or_else(|panic| {
                tracing::error!(panic = text_of(&*panic), "a handler panicked");
                Ok(Status::internal(BUG).into_http())
            })
        });
        guarded.instrument(span).boxed()
    }
}

fn span(request: &Request<Body>) -> Span {
    let span = tracing::info_span!(
        "rpc",
        method = clipped(request.uri().path().trim_start_matches('/')),
        tool = Empty,
        invocation = Empty,
        action = Empty,
    );
    if span.is_disabled() {
        return span;
    }
    if let Some(metadata) = request_metadata(request.headers()) {
        let tool = metadata.tool_details.unwrap_or_default();
        span.record("tool", display(clipped(&tool.tool_name)));
        span.record("invocation", display(clipped(&metadata.tool_invocation_id)));
        span.record("action", display(clipped(&metadata.action_id)));
    }
    span
}

/// Reads the header in which a client tells of itself (MD-1), if there is one that can be read.
fn request_metadata(headers: &HeaderMap) -> Option<RequestMetadata> {
    let mut alone = HeaderMap::with_capacity(1);
    alone.insert(REQUEST_METADATA, headers.get(REQUEST_METADATA)?.clone());
    let alone = MetadataMap::from_headers(alone);
    let encoded = alone.get_bin(REQUEST_METADATA)?.to_bytes().ok()?;
    RequestMetadata::decode(encoded).ok()
}

fn clipped(text: &str) -> &str {
    match text.char_indices().nth(LOGGED_CHARS_MAX) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
