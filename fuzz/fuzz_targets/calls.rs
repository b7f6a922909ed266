//! Bodies of calls whose messages go past the codec: whatever comes, in whatever pieces, is answered as it is through the codec.

#![no_main]

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_grpc::server::Services;
use rootcellar_proto::bytestream::WriteRequest;
use prost::Message as _;
use rootcellar_proto::reapi::{
    self, BatchReadBlobsRequest, BatchUpdateBlobsRequest, batch_update_blobs_request::Request as Item,
};
use rootcellar_reapi::Functions;
use rootcellar_store::{MemoryStore, Spool};
use tokio::runtime::Runtime;
use tonic::body::Body;
use tower::ServiceExt as _;

#[derive(Debug, Arbitrary)]
struct Call {
    method: Method,
    /// Lengths of the pieces in which the body comes, over and over.
    pieces: Vec<u16>,
    /// A byte of the body that is another one.
    change: Option<(u16, u8)>,
    /// How much of the body comes.
    cut: Option<u16>,
    behind: Vec<u8>,
}

#[derive(Debug, Arbitrary)]
enum Method {
    Update(Vec<(Vec<u8>, bool)>),
    Read(Vec<(Vec<u8>, bool)>),
    Write { pieces: Vec<Vec<u8>>, is_named_again: bool },
    Raw { method: u8, body: Vec<u8> },
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
});
static SPOOL_DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = std::env::temp_dir().join(format!("rootcellar-fuzz-calls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
});
const STORED: &[u8] = b"a blob that is stored";

fn prefixed(message: &impl prost::Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    bytes.extend(message);
    bytes
}

fn digest(content: &[u8], is_right: bool) -> Option<reapi::Digest> {
    let digest = Digest::of(DigestFunction::Sha256, content);
    Some(reapi::Digest {
        hash: digest.hash_hex().to_string(),
        size_bytes: content.len() as i64 + i64::from(!is_right),
    })
}

impl Method {
    fn path(&self) -> &'static str {
        const CAS: [&str; 2] = [
            "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
            "/build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs",
        ];
        match self {
            Self::Update(_) | Self::Raw { method: 0, .. } => CAS[0],
            Self::Read(_) | Self::Raw { method: 1, .. } => CAS[1],
            Self::Write { .. } | Self::Raw { .. } => "/google.bytestream.ByteStream/Write",
        }
    }

    fn body(&self) -> Vec<u8> {
        match self {
            Self::Update(blobs) => {
                let item = |(content, is_right): &(Vec<u8>, bool)| Item {
                    digest: digest(content, *is_right),
                    data: content.clone().into(),
                    ..Item::default()
                };
                prefixed(&BatchUpdateBlobsRequest {
                    requests: blobs.iter().map(item).collect(),
                    ..BatchUpdateBlobsRequest::default()
                })
            }
            Self::Read(blobs) => {
                let wanted = |(content, is_stored): &(Vec<u8>, bool)| match is_stored {
                    true => digest(STORED, true),
                    false => digest(content, content.len() % 2 == 0),
                };
                prefixed(&BatchReadBlobsRequest {
                    digests: blobs.iter().filter_map(wanted).collect(),
                    ..BatchReadBlobsRequest::default()
                })
            }
            Self::Write { pieces, is_named_again } => {
                let content = pieces.concat();
                let digest = digest(&content, true).unwrap();
                let name = format!("uploads/u/blobs/{}/{}", digest.hash, digest.size_bytes);
                let (mut body, mut at) = (Vec::new(), 0);
                for (nth, piece) in pieces.iter().enumerate() {
                    let is_named = nth == 0 || *is_named_again;
                    body.extend(prefixed(&WriteRequest {
                        resource_name: if is_named { name.clone() } else { String::new() },
                        write_offset: at,
                        finish_write: nth + 1 == pieces.len(),
                        data: piece.clone().into(),
                    }));
                    at += piece.len() as i64;
                }
                body
            }
            Self::Raw { body, .. } => body.clone(),
        }
    }
}

/// The code that a call ended with, and the bytes of its answer.
async fn answer(call: &Call, body: &[u8], is_plain: bool) -> (i32, String, Bytes) {
    use rootcellar_store::BlobStoreExt as _;

    let store = Arc::new(MemoryStore::new(1 << 20));
    store.put_bytes(DigestFunction::Sha256, Bytes::from_static(STORED)).await.unwrap();
    let services = Services::new(store, Spool::new(&**SPOOL_DIR).with_memory_max_bytes(64), Functions::default());
    let (mut rest, mut frames) = (Bytes::copy_from_slice(body), Vec::new());
    let mut lens = call.pieces.iter().map(|len| usize::from(*len).max(1)).cycle();
    while !rest.is_empty() {
        let len = lens.next().unwrap_or(usize::MAX).min(rest.len());
        frames.push(Ok::<_, Infallible>(http_body::Frame::data(rest.split_to(len))));
    }
    let mut request = http::Request::post(call.method.path()).header("content-type", "application/grpc");
    if !is_plain {
        request = request.header("grpc-encoding", "identity");
    }
    let request = request.body(Body::new(StreamBody::new(stream::iter(frames)))).unwrap();
    let response = services.build().routes.prepare().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let collected = body.collect().await.unwrap();
    let trailers = collected.trailers().cloned().unwrap_or_default();
    let field = |name: &str| {
        let value = trailers.get(name).or_else(|| head.headers.get(name));
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    (field("grpc-status").parse().unwrap(), field("grpc-message"), collected.to_bytes())
}

fuzz_target!(|call: Call| {
    let mut body = call.method.body();
    body.extend(&call.behind);
    if let Some((at, byte)) = call.change.filter(|_| !body.is_empty()) {
        let at = usize::from(at) % body.len();
        body[at] = byte;
    }
    if let Some(cut) = call.cut {
        body.truncate(usize::from(cut));
    }
    RUNTIME.block_on(async {
        let (code, message, bytes) = answer(&call, &body, true).await;
        // The codec takes a call that ends behind the prefix of a message for one that ends well.
        if message.contains("in%20the%20middle") || message.contains("in the middle") {
            return;
        }
        let (codec_code, _, codec_bytes) = answer(&call, &body, false).await;
        assert_eq!((code, bytes), (codec_code, codec_bytes), "{message}");
    });
});
