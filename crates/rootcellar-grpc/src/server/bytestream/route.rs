//! `ByteStream` as a route, with `Read` answered past the codec.
//!
//! A codec copies each message into a buffer of the connection. A message of `Read` is a few bytes of framing and a piece of a blob, which
//! can be handed to the transport as it is:
//!
//! ```text
//!   0, length of the message: u32, big-endian    gRPC over HTTP/2, Length-Prefixed-Message
//!   key of `data`, length of the piece           protobuf
//!   the piece
//! ```

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use rootcellar_proto::bytestream::byte_stream_server::{self, ByteStreamServer};
use rootcellar_proto::bytestream::{ReadRequest, ReadResponse};
use tonic::body::Body;
use tonic::codec::{Codec as _, Streaming};
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use super::ByteStreamService;

const READ: &str = "/google.bytestream.ByteStream/Read";
/// The number of `ReadResponse.data`.
const DATA_FIELD: u32 = 10;
const NOT_COMPRESSED: u8 = 0;

/// Answers calls of ByteStream.
#[derive(Debug, Clone)]
pub(in crate::server) struct ByteStreamRoute {
    service: ByteStreamService,
    others: ByteStreamServer<ByteStreamService>,
    message_bytes_max: usize,
}

impl ByteStreamRoute {
    /// Takes messages of up to `message_bytes_max`.
    pub(in crate::server) fn new(service: ByteStreamService, message_bytes_max: usize) -> Self {
        Self {
            others: ByteStreamServer::new(service.clone()).max_decoding_message_size(message_bytes_max),
            service,
            message_bytes_max,
        }
    }
}

impl NamedService for ByteStreamRoute {
    const NAME: &'static str = byte_stream_server::SERVICE_NAME;
}

impl Service<Request<Body>> for ByteStreamRoute {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A compressed request is refused by the codec, in the words that clients expect.
        if request.uri().path() != READ || request.headers().contains_key("grpc-encoding") {
            return self.others.call(request);
        }
        let (service, message_bytes_max) = (self.service.clone(), self.message_bytes_max);
        let answer = async move {
            match pieces(&service, request, message_bytes_max).await {
                Ok(pieces) => response(pieces),
                Err(status) => status.into_http(),
            }
        };
        answer.map(Ok).boxed()
    }
}

async fn pieces(
    service: &ByteStreamService,
    request: Request<Body>,
    message_bytes_max: usize,
) -> Result<BoxStream<'static, Result<Bytes, Status>>, Status> {
    let (head, body) = request.into_parts();
    let decoder = ProstCodec::<ReadResponse, ReadRequest>::default().decoder();
    let mut messages = Streaming::new_request(decoder, body, None, Some(message_bytes_max));
    let Some(message) = messages.message().await? else {
        return Err(Status::internal("the call came without its message"));
    };
    service.pieces(&MetadataMap::from_headers(head.headers), &message).await
}

fn response(pieces: BoxStream<'static, Result<Bytes, Status>>) -> Response<Body> {
    let frames = stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        let (frames, left) = match pieces.next().await {
            Some(Ok(piece)) => (message(piece), Some(pieces)),
            Some(Err(status)) => (end(&status), None),
            None => (end(&Status::new(Code::Ok, "")), None),
        };
        Some((
            stream::iter(frames.into_iter().flatten().map(Ok::<_, Infallible>)),
            left,
        ))
    });
    let mut response = Response::new(Body::new(StreamBody::new(frames.flatten())));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A message of one piece, as frames: what comes before the piece, and the piece.
fn message(piece: Bytes) -> [Option<Frame<Bytes>>; 2] {
    let len = piece.len() as u64;
    let message_bytes = key_len(DATA_FIELD) as u64 + encoded_len_varint(len) as u64 + len;
    let mut head = Vec::with_capacity(16);
    head.put_u8(NOT_COMPRESSED);
    head.put_u32(u32::try_from(message_bytes).expect("a piece is small"));
    encode_key(DATA_FIELD, WireType::LengthDelimited, &mut head);
    encode_varint(len, &mut head);
    [Some(Frame::data(head.into())), Some(Frame::data(piece))]
}

/// The end of a call.
fn end(status: &Status) -> [Option<Frame<Bytes>>; 2] {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // Only details that make no header could do that, and they are base64.
        trailers.insert("grpc-status", HeaderValue::from_static("13"));
    }
    [Some(Frame::trailers(trailers)), None]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    proptest! {
        #[test]
        fn a_message_is_what_the_codec_would_make_of_it(data in proptest::collection::vec(any::<u8>(), 1..300)) {
            let data = Bytes::from(data);
            let encoded = ReadResponse { data: data.clone() }.encode_to_vec();
            let mut expected = vec![0];
            expected.put_u32(u32::try_from(encoded.len()).unwrap());
            expected.extend(encoded);
            let frames = message(data).into_iter().flatten();
            let sent: Vec<u8> = frames.flat_map(|frame| frame.into_data().unwrap()).collect();
            prop_assert_eq!(sent, expected);
        }
    }
}
