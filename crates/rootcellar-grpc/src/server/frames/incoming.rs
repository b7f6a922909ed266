//! What a client sends: messages out of frames.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;
use futures_util::stream::{Stream, StreamExt as _};
use http_body::Body as _;
use prost::{DecodeError, Message};
use tonic::body::Body;
use tonic::{Code, Status};

use super::{Chunks, PREFIX_BYTES};

/// The messages of a call, one after the other.
pub(crate) struct Messages<T> {
    body: Body,
    received: Chunks,
    /// The length of the message whose prefix was read.
    awaited: Option<usize>,
    message_bytes_max: usize,
    decode: fn(Chunks) -> Result<T, Status>,
    has_ended: bool,
}

/// The message of a call that has one.
pub(crate) async fn one<T: Message + Default>(body: Body, message_bytes_max: usize) -> Result<T, Status> {
    one_as(body, message_bytes_max, decoded::<T>).await
}

/// The same, decoded in another way.
pub(crate) async fn one_as<T>(
    body: Body,
    message_bytes_max: usize,
    decode: fn(Chunks) -> Result<T, Status>,
) -> Result<T, Status> {
    let mut messages = Messages::new(body, message_bytes_max, decode);
    let Some(message) = messages.next().await else {
        return Err(Status::internal("the call came without its message"));
    };
    let message = message?;
    // A client that has not ended its side when it is answered takes that for a broken stream.
    while let Some(further) = messages.next().await {
        drop(further?);
    }
    Ok(message)
}

fn decoded<T: Message + Default>(message: Chunks) -> Result<T, Status> {
    T::decode(message).map_err(|error| undecodable(&error))
}

/// The status of a call with a message that is none.
pub(crate) fn undecodable(error: &DecodeError) -> Status {
    Status::internal(format!("a message cannot be decoded: {error}"))
}

impl<T> Messages<T> {
    /// Takes messages of up to `message_bytes_max`.
    pub(crate) fn new(body: Body, message_bytes_max: usize, decode: fn(Chunks) -> Result<T, Status>) -> Self {
        Self {
            body,
            received: Chunks::default(),
            awaited: None,
            message_bytes_max,
            decode,
            has_ended: false,
        }
    }

    /// The next message if all of it came.
    fn take(&mut self) -> Result<Option<T>, Status> {
        if self.awaited.is_none() && self.received.remaining() >= PREFIX_BYTES {
            self.awaited = Some(self.take_prefix()?);
        }
        match self.awaited {
            Some(len) if self.received.remaining() >= len => {
                self.awaited = None;
                (self.decode)(self.received.split_to(len)).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// The length of the message that follows.
    fn take_prefix(&mut self) -> Result<usize, Status> {
        match self.received.get_u8() {
            0 => {}
            1 => {
                return Err(Status::internal(
                    "a message is compressed, and its call does not say how",
                ));
            }
            flag => return Err(Status::internal(format!("{flag} is no flag of a message"))),
        }
        let len = self.received.get_u32();
        match usize::try_from(len) {
            Ok(len) if len <= self.message_bytes_max => Ok(len),
            _ => Err(Status::out_of_range(format!(
                "a message has {len} bytes; at most {} are taken",
                self.message_bytes_max
            ))),
        }
    }

    fn end(&mut self, last: Option<Status>) -> Poll<Option<Result<T, Status>>> {
        self.has_ended = true;
        Poll::Ready(last.map(Err))
    }
}

impl<T> Stream for Messages<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.has_ended {
                return Poll::Ready(None);
            }
            match this.take() {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(message))),
                Ok(None) => {}
                Err(status) => return this.end(Some(status)),
            }
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                // What is no data are trailers, of which requests have none that mean anything.
                Some(Ok(frame)) => this.received.push(frame.into_data().unwrap_or_default()),
                // The client went away.
                Some(Err(status)) if status.code() == Code::Cancelled => return this.end(None),
                Some(Err(status)) => return this.end(Some(status)),
                None if this.awaited.is_some() || this.received.has_remaining() => {
                    return this.end(Some(Status::internal("the call ended in the middle of a message")));
                }
                None => return this.end(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use bytes::{BufMut as _, Bytes};
    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::StreamBody;
    use proptest::prelude::*;
    use rootcellar_proto::reapi::BatchUpdateBlobsRequest;
    use rootcellar_proto::reapi::batch_update_blobs_request::Request as Item;
    use tonic::codec::{Codec as _, Streaming};
    use tonic_prost::ProstCodec;

    use super::*;

    const BYTES_MAX: usize = 100_000;

    /// A body in pieces of these lengths, over and over.
    fn body(bytes: &[u8], lens: &[usize]) -> Body {
        let (mut rest, mut frames) = (Bytes::copy_from_slice(bytes), Vec::new());
        let mut lens = lens.iter().cycle();
        while !rest.is_empty() {
            let len = rest.len().min(*lens.next().unwrap());
            frames.push(Ok::<_, Infallible>(Frame::data(rest.split_to(len))));
        }
        Body::new(StreamBody::new(stream::iter(frames)))
    }

    async fn messages(body: Body) -> (Vec<BatchUpdateBlobsRequest>, Option<Code>) {
        told(Messages::new(body, BYTES_MAX, decoded)).await
    }

    async fn messages_of_the_codec(body: Body) -> (Vec<BatchUpdateBlobsRequest>, Option<Code>) {
        let decoder = ProstCodec::<(), BatchUpdateBlobsRequest>::default().decoder();
        told(Streaming::new_request(decoder, body, None, Some(BYTES_MAX))).await
    }

    async fn told(
        mut stream: impl Stream<Item = Result<BatchUpdateBlobsRequest, Status>> + Unpin,
    ) -> (Vec<BatchUpdateBlobsRequest>, Option<Code>) {
        let mut messages = Vec::new();
        while let Some(message) = stream.next().await {
            match message {
                Ok(message) => messages.push(message),
                Err(status) => return (messages, Some(status.code())),
            }
        }
        (messages, None)
    }

    fn encoded(message: &BatchUpdateBlobsRequest) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut bytes).unwrap();
        bytes
    }

    fn request() -> impl Strategy<Value = BatchUpdateBlobsRequest> {
        let item = proptest::collection::vec(any::<u8>(), 0..30_000).prop_map(|data| Item {
            data: data.into(),
            ..Item::default()
        });
        (".*", proptest::collection::vec(item, 0..4)).prop_map(|(instance_name, requests)| BatchUpdateBlobsRequest {
            instance_name,
            requests,
            ..BatchUpdateBlobsRequest::default()
        })
    }

    fn lens() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(prop_oneof![1..9_usize, 8000..8400_usize, 1..50_000_usize], 1..5)
    }

    proptest! {
        #[test]
        fn messages_are_those_of_the_codec(
            requests in proptest::collection::vec(request(), 0..4),
            lens in lens(),
            change in proptest::option::of((any::<proptest::sample::Index>(), any::<u8>())),
            cut in proptest::option::of(any::<proptest::sample::Index>()),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut bytes: Vec<u8> = requests.iter().flat_map(encoded).collect();
            if let Some((at, byte)) = change.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len() + 1));
            }
            let ours = runtime.block_on(messages(body(&bytes, &lens)));
            let theirs = runtime.block_on(messages_of_the_codec(body(&bytes, &lens)));
            prop_assert_eq!(&ours.0, &theirs.0);
            // The codec takes a call that ends behind a prefix for one that ends well.
            if theirs.1.is_some() {
                prop_assert_eq!(ours.1, theirs.1);
            }
        }
    }

    #[tokio::test]
    async fn a_call_that_ends_early_fails() {
        let whole = encoded(&BatchUpdateBlobsRequest {
            instance_name: "name".to_owned(),
            ..BatchUpdateBlobsRequest::default()
        });
        for len in 1..whole.len() {
            let (messages, code) = messages(body(&whole[..len], &[3])).await;
            assert_eq!((messages.len(), code), (0, Some(Code::Internal)), "{len}");
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_long_fails_by_its_prefix() {
        let prefix = [0, 0, 1, 0x86, 0xa1];
        assert_eq!(messages(body(&prefix, &[5])).await.1, Some(Code::OutOfRange));
    }

    #[tokio::test]
    async fn a_call_without_its_message_fails() {
        let outcome = one::<BatchUpdateBlobsRequest>(Body::empty(), BYTES_MAX).await;
        assert_eq!(outcome.unwrap_err().code(), Code::Internal);
    }
}
