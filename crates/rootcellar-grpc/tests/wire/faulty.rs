//! What a client sees when the store below fails: a clear error for the one call, and nothing for the others.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use rootcellar_digest::Digest;
use rootcellar_proto::reapi::FindMissingBlobsRequest;
use rootcellar_store::{Blob, BlobStore, ByteRange, Error, ErrorKind, MemoryStore, Result, Verified};
use tonic::Code;

use crate::server::{SHA256, Server, Setup, content, pieces, proto, read_name, refused, write_name};

/// A store that fails in the way that the first byte of a blob's hash chooses.
#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    fault: Fault,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    /// The code of the store has a bug.
    Panic,
    /// It has the bug in the middle of a blob.
    PanicMidway,
    /// The blob is found to be damaged in its middle.
    DamageMidway,
    /// The blob's bytes end early, without an error.
    Short,
    /// The blob's bytes do not end where they should.
    Long,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "faulty({})", self.inner)
    }
}

#[async_trait]
impl BlobStore for Faulty {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        assert!(!matches!(self.fault, Fault::Panic), "a bug in find_missing");
        self.inner.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let range = range.resolve(digest)?;
        let piece = || Ok(Bytes::from_static(&[0; 100]));
        let pieces = match self.fault {
            Fault::Panic => panic!("a bug in get"),
            Fault::PanicMidway => stream::iter([piece()])
                .chain(stream::poll_fn(|_| panic!("a bug in a stream")))
                .boxed(),
            Fault::DamageMidway => {
                let damage = Error::new(ErrorKind::DataLoss, "get", "a sector went bad").on(digest);
                stream::iter([piece(), Err(damage)]).boxed()
            }
            Fault::Short => stream::iter([piece()]).boxed(),
            Fault::Long => stream::iter([piece(), piece(), piece()]).boxed(),
        };
        Ok(Blob::from_stream(digest, range, pieces))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        self.inner.put(blob).await
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        self.inner.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        self.inner.put_many(blobs).await
    }
}

async fn server(fault: Fault) -> Server {
    let inner = MemoryStore::new(64 << 20);
    let setup = Setup {
        store: Arc::new(Faulty { inner, fault }),
        ..Setup::default()
    };
    setup.start().await
}

/// RD-10: never an OK status behind wrong or short data.
#[tokio::test]
async fn damage_in_the_middle_of_a_read_is_data_loss() {
    let digest = Digest::of(SHA256, &[0; 250]);
    for fault in [Fault::DamageMidway, Fault::Short, Fault::Long] {
        let server = server(fault).await;
        refused(server.read(read_name(digest)).await, Code::DataLoss);
    }
}

/// A panic fails its own call and no other.
#[tokio::test]
async fn a_panic_is_internal_and_the_connection_goes_on() {
    let server = server(Fault::Panic).await;
    let data = content(1000, 1);
    let digest = Digest::of(SHA256, &data);
    for _ in 0..3 {
        let status = refused(server.read(read_name(digest)).await, Code::Internal);
        assert!(
            !status.message().contains("a bug in get"),
            "what panics say is for the log"
        );
        let request = FindMissingBlobsRequest {
            blob_digests: vec![proto(digest)],
            ..Default::default()
        };
        refused(server.cas().find_missing_blobs(request).await, Code::Internal);
        let write = server.write(pieces(&write_name("u", digest), &data, 100)).await;
        refused(write, Code::Internal);
    }
}

/// A panic in the middle of a stream ends that stream with an error.
#[tokio::test]
async fn a_panic_in_the_middle_of_a_read_ends_that_read_alone() {
    let server = server(Fault::PanicMidway).await;
    let digest = Digest::of(SHA256, &[0; 250]);
    for _ in 0..3 {
        assert!(server.read(read_name(digest)).await.is_err());
        assert!(
            server
                .write(pieces(&write_name("u", digest), &vec![0; 250].into(), 100))
                .await
                .is_ok()
        );
    }
}
