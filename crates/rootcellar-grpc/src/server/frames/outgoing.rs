//! What a client gets: frames as they are sent.

use std::convert::Infallible;

use bytes::{BufMut as _, Bytes};
use futures_util::stream::{self, Stream, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message;
use tonic::body::Body;
use tonic::{Code, Status};

/// Bytes in front of a message.
pub(crate) const PREFIX_BYTES: usize = 5;
const NOT_COMPRESSED: u8 = 0;

/// What comes in front of a message of `len` bytes; `None` if no message has so many.
pub(crate) fn prefix(len: usize) -> Option<[u8; PREFIX_BYTES]> {
    let mut prefix = [NOT_COMPRESSED; PREFIX_BYTES];
    prefix[1..].copy_from_slice(&u32::try_from(len).ok()?.to_be_bytes());
    Some(prefix)
}

/// Answers a call with messages, prefixes included, in pieces of whatever size; an error ends them.
pub(crate) fn answer<S>(pieces: S) -> Response<Body>
where
    S: Stream<Item = Result<Bytes, Status>> + Send + Unpin + 'static,
{
    let frames = stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        Some(match pieces.next().await {
            Some(Ok(piece)) => (Ok::<_, Infallible>(Frame::data(piece)), Some(pieces)),
            Some(Err(status)) => (Ok(end(&status)), None),
            None => (Ok(end(&Status::new(Code::Ok, ""))), None),
        })
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames)));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// Answers a call with one message, its prefix included.
pub(crate) fn answer_one(message: Bytes) -> Response<Body> {
    answer(stream::iter([Ok(message)]))
}

/// Encodes a message of at most `bytes_max`, with its prefix.
pub(crate) fn encode(message: &impl Message, bytes_max: usize) -> Result<Bytes, Status> {
    let len = message.encoded_len();
    let Some(prefix) = prefix(len).filter(|_| len <= bytes_max) else {
        let reason = format!("the answer has {len} bytes; at most {bytes_max} are sent");
        return Err(Status::out_of_range(reason));
    };
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + len);
    bytes.put_slice(&prefix);
    message.encode(&mut bytes).expect("memory grows to hold any message");
    Ok(bytes.into())
}

/// The end of a call.
fn end(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Only details that make no header could do that, and they are base64.
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    Frame::trailers(trailers)
}
