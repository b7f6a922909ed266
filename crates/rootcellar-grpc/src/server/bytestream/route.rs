//! `ByteStream` as a route, with content that goes past the codec: see [`frames`](crate::server::frames).

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::{Request, Response};
use prost::DecodeError;
use prost::encoding::{
    DecodeContext, WireType, bool, check_wire_type, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint, int64, key_len, skip_field, string,
};
use rootcellar_proto::bytestream::byte_stream_server::{self, ByteStreamServer};
use rootcellar_proto::bytestream::{ReadRequest, WriteRequest};
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::Service;

use super::ByteStreamService;
use crate::server::frames::{self, Chunks, Messages};

const READ: &str = "/google.bytestream.ByteStream/Read";
const WRITE: &str = "/google.bytestream.ByteStream/Write";
/// The number of `ReadResponse.data`.
const DATA_FIELD: u32 = 10;

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

    async fn read(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let message = frames::one::<ReadRequest>(body, self.message_bytes_max).await?;
        let pieces = self
            .service
            .pieces(&MetadataMap::from_headers(head.headers), &message)
            .await?;
        Ok(answer(pieces))
    }

    async fn write(self, request: Request<Body>) -> Result<Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let messages = Messages::new(body, self.message_bytes_max, WriteMessage::decode);
        let metadata = MetadataMap::from_headers(head.headers);
        let response = self.service.write_messages(metadata, messages).await?;
        Ok(frames::answer_one(frames::encode(&response, self.message_bytes_max)?))
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
        let route = self.clone();
        let answer = match request.uri().path() {
            READ if frames::are_plain(&request) => route.read(request).boxed(),
            WRITE if frames::are_plain(&request) => route.write(request).boxed(),
            _ => return self.others.call(request),
        };
        answer
            .map(|answer| Ok(answer.unwrap_or_else(Status::into_http)))
            .boxed()
    }
}

fn answer(pieces: BoxStream<'static, Result<Bytes, Status>>) -> Response<Body> {
    let frames = pieces.flat_map(|piece| match piece {
        Ok(piece) => stream::iter([Ok(head(piece.len())), Ok(piece)]).left_stream(),
        Err(status) => stream::iter([Err(status)]).right_stream(),
    });
    frames::answer(frames)
}

/// What comes before a piece of `len` bytes that is a message.
fn head(len: usize) -> Bytes {
    let message_bytes = key_len(DATA_FIELD) + encoded_len_varint(len as u64) + len;
    let mut head = Vec::with_capacity(16);
    head.extend(frames::prefix(message_bytes).expect("a piece is small"));
    encode_key(DATA_FIELD, WireType::LengthDelimited, &mut head);
    encode_varint(len as u64, &mut head);
    head.into()
}

/// A `WriteRequest` whose data is as it came.
#[derive(Debug, Default)]
pub(super) struct WriteMessage {
    pub(super) resource_name: String,
    pub(super) write_offset: i64,
    pub(super) finish_write: bool,
    pub(super) data: Chunks,
}

impl WriteMessage {
    fn decode(message: Chunks) -> Result<Self, Status> {
        Self::read(message).map_err(|error| frames::undecodable(&error))
    }

    fn read(mut message: Chunks) -> Result<Self, DecodeError> {
        let (mut decoded, context) = (Self::default(), DecodeContext::default());
        while message.has_remaining() {
            let (field, wire_type) = decode_key(&mut message)?;
            match field {
                1 => string::merge(wire_type, &mut decoded.resource_name, &mut message, context.clone())?,
                2 => int64::merge(wire_type, &mut decoded.write_offset, &mut message, context.clone())?,
                3 => bool::merge(wire_type, &mut decoded.finish_write, &mut message, context.clone())?,
                DATA_FIELD => decoded.data = data(wire_type, &mut message)?,
                _ => skip_field(wire_type, field, &mut message, context.clone())?,
            }
        }
        Ok(decoded)
    }
}

fn data(wire_type: WireType, message: &mut Chunks) -> Result<Chunks, DecodeError> {
    check_wire_type(WireType::LengthDelimited, wire_type)?;
    let len = decode_varint(message)?;
    match usize::try_from(len) {
        Ok(len) if len <= message.remaining() => Ok(message.split_to(len)),
        _ => Err(ends_early()),
    }
}

/// The error that the codec has for a field that ends beyond its message.
fn ends_early() -> DecodeError {
    let mut length_without_its_byte: &[u8] = &[1];
    let context = DecodeContext::default();
    skip_field(
        WireType::LengthDelimited,
        DATA_FIELD,
        &mut length_without_its_byte,
        context,
    )
    .expect_err("there is no byte to skip")
}

impl From<WriteRequest> for WriteMessage {
    fn from(request: WriteRequest) -> Self {
        Self {
            resource_name: request.resource_name,
            write_offset: request.write_offset,
            finish_write: request.finish_write,
            data: request.data.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use rootcellar_proto::bytestream::ReadResponse;

    use super::*;

    fn chunks(bytes: &[u8], len: usize) -> Chunks {
        let mut chunks = Chunks::default();
        for piece in bytes.chunks(len) {
            chunks.push(Bytes::copy_from_slice(piece));
        }
        chunks
    }

    fn parts(message: WriteMessage) -> (String, i64, bool, Vec<u8>) {
        let data = message.data.into_pieces().collect::<Vec<_>>().concat();
        (message.resource_name, message.write_offset, message.finish_write, data)
    }

    proptest! {
        #[test]
        fn a_piece_is_what_the_codec_would_make_of_it(data in proptest::collection::vec(any::<u8>(), 1..300)) {
            let encoded = ReadResponse { data: data.clone().into() }.encode_to_vec();
            let mut expected = frames::prefix(encoded.len()).unwrap().to_vec();
            expected.extend(encoded);
            prop_assert_eq!([head(data.len()), data.into()].concat(), expected);
        }

        #[test]
        fn a_write_is_read_as_the_codec_would(
            name in ".{0,50}",
            offset in any::<i64>(),
            is_last in any::<bool>(),
            data in proptest::collection::vec(any::<u8>(), 0..4000),
            behind in proptest::collection::vec(any::<u8>(), 0..20),
            change in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
            len in 1..3000_usize,
        ) {
            let request = WriteRequest { resource_name: name, write_offset: offset, finish_write: is_last, data: data.into() };
            let mut bytes = request.encode_to_vec();
            bytes.extend(behind);
            if let Some((at, byte)) = change.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let theirs = WriteRequest::decode(&bytes[..]).map(|request| parts(request.into()));
            let ours = WriteMessage::decode(chunks(&bytes, len)).map(parts);
            prop_assert_eq!(ours.ok(), theirs.ok());
        }
    }
}
