//! Files, directories and messages on their way to a server, of which only what the server lacks is sent.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;
use bytes::Bytes;
use rootcellar_digest::{Digest, DigestFunction, Hasher};
use rootcellar_stage::read_tree;
use rootcellar_store::{Blob, BlobStore, BlobStoreExt as _, ByteRange, Result, Spool, Verified};

/// Files up to this size are read into memory.
const SMALL_FILE_BYTES: u64 = 128 * 1024;

const PIECE_BYTES: usize = 256 * 1024;

/// Uploads things, and tells their digests.
#[derive(Debug)]
pub(crate) struct Upload {
    store: Arc<dyn BlobStore>,
    function: DigestFunction,
    spool: Spool,
    /// Goes with the spool's files.
    _spool_dir: tempfile::TempDir,
}

impl Upload {
    /// Prepares to upload to `store`. Large files are copied below the directory for temporary files (`$TMPDIR`) while they
    /// are uploaded, so that what is sent is what was hashed.
    pub(crate) fn new(store: impl BlobStore, function: DigestFunction) -> anyhow::Result<Self> {
        let spool_dir = tempfile::tempdir().context("making a directory for temporary files")?;
        Ok(Self {
            store: Arc::new(Sparing(store)),
            function,
            spool: Spool::new(spool_dir.path()),
            _spool_dir: spool_dir,
        })
    }

    /// Uploads a file, or a directory with all below it.
    pub(super) async fn path(&self, path: &Path) -> anyhow::Result<Digest> {
        let uploaded = async {
            match std::fs::metadata(path)? {
                metadata if metadata.is_dir() => self.directory(path).await,
                metadata if metadata.is_file() => self.file(path).await,
                _ => anyhow::bail!("it is neither a file nor a directory"),
            }
        };
        uploaded.await.with_context(|| path.display().to_string())
    }

    /// Uploads a directory with all below it; the digest is that of its Directory message.
    pub(crate) async fn directory(&self, path: &Path) -> anyhow::Result<Digest> {
        let root = read_tree(self.store.clone(), self.spool.clone(), self.function, path).await?;
        Ok(root)
    }

    /// Uploads bytes.
    pub(crate) async fn bytes(&self, content: Bytes) -> anyhow::Result<Digest> {
        Ok(self.store.put_bytes(self.function, content).await?)
    }

    async fn file(&self, path: &Path) -> anyhow::Result<Digest> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        if size <= SMALL_FILE_BYTES {
            let mut content = Vec::new();
            file.read_to_end(&mut content)?;
            return self.bytes(content.into()).await;
        }
        let digest = hash(self.function, &mut file, size)?;
        if self.store.contains(digest).await? {
            return Ok(digest);
        }
        file.rewind()?;
        let blob = self.spool.copy_file(self.function, &mut file)?;
        let digest = blob.digest();
        self.store.put(blob).await?;
        Ok(digest)
    }
}

fn hash(function: DigestFunction, file: &mut File, size: u64) -> anyhow::Result<Digest> {
    let mut hasher = Hasher::new(function, size);
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return hasher.finish().context("the file changed while it was read"),
            Ok(len) => hasher.update(&piece[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A store that is asked what it lacks before a batch is sent: of a tree, most is usually there.
#[derive(Debug)]
struct Sparing<S>(S);

#[async_trait]
impl<S: BlobStore> BlobStore for Sparing<S> {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
        self.0.find_missing(digests).await
    }

    async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
        self.0.get(digest, range).await
    }

    async fn put(&self, blob: Verified) -> Result<()> {
        let outcome = self.put_many(vec![blob]).await.pop();
        outcome.expect("one outcome for one blob")
    }

    async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
        self.0.get_many(digests).await
    }

    async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
        let digests: Vec<Digest> = blobs.iter().map(Verified::digest).collect();
        let mut lacking: HashSet<Digest> = match self.0.find_missing(&digests).await {
            Ok(missing) => missing.into_iter().collect(),
            // What cannot be asked is sent, and the outcomes say what is wrong.
            Err(_) => digests.iter().copied().collect(),
        };
        // The first of each that is lacking is sent, and its other mentions share the outcome of success.
        let is_sent: Vec<bool> = digests.iter().map(|digest| lacking.remove(digest)).collect();
        let sent = blobs.into_iter().zip(&is_sent).filter(|(_, is_sent)| **is_sent);
        let mut outcomes = self.0.put_many(sent.map(|(blob, _)| blob).collect()).await.into_iter();
        let mut next = || outcomes.next().expect("one outcome for each blob that was sent");
        is_sent
            .into_iter()
            .map(|is_sent| if is_sent { next() } else { Ok(()) })
            .collect()
    }
}

impl<S: BlobStore> fmt::Display for Sparing<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sparing {}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use rootcellar_store::MemoryStore;

    use super::*;

    /// Notes what is sent.
    #[derive(Debug)]
    struct Noting {
        store: MemoryStore,
        sent: Arc<Mutex<Vec<Digest>>>,
    }

    impl fmt::Display for Noting {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.store.fmt(f)
        }
    }

    #[async_trait]
    impl BlobStore for Noting {
        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>> {
            self.store.find_missing(digests).await
        }
        async fn get(&self, digest: Digest, range: ByteRange) -> Result<Blob> {
            self.store.get(digest, range).await
        }
        async fn put(&self, blob: Verified) -> Result<()> {
            self.sent.lock().unwrap().push(blob.digest());
            self.store.put(blob).await
        }
        async fn get_many(&self, digests: &[Digest]) -> Vec<Result<Bytes>> {
            self.store.get_many(digests).await
        }
        async fn put_many(&self, blobs: Vec<Verified>) -> Vec<Result<()>> {
            self.sent.lock().unwrap().extend(blobs.iter().map(Verified::digest));
            self.store.put_many(blobs).await
        }
    }

    #[tokio::test]
    async fn only_what_is_lacking_is_sent_and_sent_once() {
        const FUNCTION: DigestFunction = DigestFunction::Blake3;
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let large = vec![7; 300_000];
        let (small, twin, large_path) = (
            write("small", b"small"),
            write("twin", b"small"),
            write("large", &large),
        );

        let sent = Arc::new(Mutex::default());
        let store = Noting {
            store: MemoryStore::new(1 << 30),
            sent: Arc::clone(&sent),
        };
        let upload = Upload::new(store, FUNCTION).unwrap();
        assert_eq!(upload.path(&small).await.unwrap(), Digest::of(FUNCTION, b"small"));
        assert_eq!(upload.path(&twin).await.unwrap(), Digest::of(FUNCTION, b"small"));
        assert_eq!(upload.path(&large_path).await.unwrap(), Digest::of(FUNCTION, &large));
        assert_eq!(
            *sent.lock().unwrap(),
            [Digest::of(FUNCTION, b"small"), Digest::of(FUNCTION, &large)]
        );

        // Of the directory only its message is new, however often it is uploaded.
        let root = upload.path(dir.path()).await.unwrap();
        assert_eq!(upload.path(dir.path()).await.unwrap(), root);
        assert_eq!(sent.lock().unwrap()[2..], [root]);
        assert!(
            upload
                .path(&dir.path().join("absent"))
                .await
                .unwrap_err()
                .to_string()
                .contains("absent")
        );
    }

    #[tokio::test]
    async fn twins_in_one_batch_are_sent_once() {
        let sent = Arc::new(Mutex::default());
        let store = Sparing(Noting {
            store: MemoryStore::new(1 << 30),
            sent: Arc::clone(&sent),
        });
        let blob = |content: &'static [u8]| Verified::of(DigestFunction::Sha256, Bytes::from_static(content));
        let outcomes = store
            .put_many(vec![blob(b"a"), blob(b"b"), blob(b"a"), blob(b"")])
            .await;
        assert!(outcomes.len() == 4 && outcomes.iter().all(Result::is_ok));
        assert_eq!(*sent.lock().unwrap(), [blob(b"a").digest(), blob(b"b").digest()]);
    }
}
