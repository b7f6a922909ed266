//! A backend of your own: a file for each blob, in as few lines as the contract allows. The conformance suite says whether it keeps it.
//!
//!     cargo run -p rootcellar-store --example custom_backend

#![allow(clippy::print_stdout, reason = "an example says what it does")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use rootcellar_digest::Digest;
use rootcellar_store::{Blob, BlobStore, ByteRange, Checked, Error, ErrorKind, Result, Verified, testing};

#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn path(&self, digest: Digest) -> PathBuf {
        self.0.join(digest.to_string().replace('/', "-"))
    }

    fn read(&self, digest: Digest) -> Result<Bytes> {
        if digest.is_empty_blob() {
            return Ok(Bytes::new());
        }
        match std::fs::read(self.path(digest)) {
            Ok(content) => Ok(content.into()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::not_found("get", digest)),
            Err(error) => Err(Error::io("get", "reading a file", error).on(digest)),
        }
    }
}

#[async_trait]
impl BlobStore for Files {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        let mut missing: Vec<Digest> = Vec::new();
        for digest in digests {
            if !digest.is_empty_blob() && !self.path(*digest).exists() && !missing.contains(digest) {
                missing.push(*digest);
            }
        }
        Ok(missing)
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        let (content, range) = (self.read(digest)?, range.resolve(digest)?);
        let at = |position: u64| usize::try_from(position).expect("it is in memory").min(content.len());
        let part = content.slice(at(range.start)..at(range.end));
        if part.len() as u64 != range.end - range.start {
            return Err(Error::new(ErrorKind::DataLoss, "get", "the file is cut off").on(digest));
        }
        Ok(Blob::from_bytes(digest, range, part))
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let content = blob.open(ByteRange::ALL)?.into_bytes().await?;
        let write = || {
            let new = tempfile::NamedTempFile::new_in(&self.0)?;
            std::fs::write(new.path(), content)?;
            new.persist(self.path(blob.digest()))?;
            Ok(())
        };
        write().map_err(|error| Error::io("put", "writing a file", error).on(blob.digest()))
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        digests.iter().map(|digest| self.read(*digest)).collect()
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let mut outcomes = Vec::new();
        for blob in blobs {
            outcomes.push(self.put(blob).await);
        }
        outcomes
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "files({})", self.0.display())
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let dir = tempfile::tempdir()?;
    testing::check_blob_store(async |_| {
        let below = tempfile::tempdir_in(dir.path()).expect("the directory is there").keep();
        // Files rot, and this backend hashes nothing: around it, `Checked` does.
        Arc::new(Checked::new(Arc::new(Files(below)))) as _
    })
    .await;
    println!("it keeps the contract");
    Ok(())
}

#[test]
fn the_example_runs() {
    main().unwrap();
}
