//! What comes from a server, in files and directories that have their names only once they are whole.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use rootcellar_digest::Digest;
use rootcellar_reapi::InputTree;
use rootcellar_stage::write_tree;
use rootcellar_store::{BlobStore, ByteRange};

/// Why a blob was not written.
pub(super) enum Failure {
    /// The blob could not be read.
    Read(rootcellar_store::Error),
    /// The writer took no more.
    Write(io::Error),
}

/// Writes a blob. If it turns out not to be what its digest says, a part of it is written by then, and never all of it.
pub(super) async fn write_blob(store: &dyn BlobStore, digest: Digest, to: &mut impl Write) -> Result<(), Failure> {
    let blob = store.get(digest, ByteRange::ALL).await.map_err(Failure::Read)?;
    let mut pieces = blob.into_stream();
    while let Some(piece) = pieces.try_next().await.map_err(Failure::Read)? {
        to.write_all(&piece).map_err(Failure::Write)?;
    }
    to.flush().map_err(Failure::Write)
}

/// Writes a blob to a file, which is replaced if it is there.
pub(super) async fn write_file(store: &dyn BlobStore, digest: Digest, path: &Path) -> anyhow::Result<()> {
    let writing = || format!("writing {}", path.display());
    // A device or a pipe is written to; putting a file in its place would do harm.
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let mut file = File::options().write(true).open(path).with_context(writing)?;
        return whole(write_blob(store, digest, &mut file).await, path);
    }
    let mut file = tempfile::Builder::new()
        .prefix(".rootcellar-")
        // As for every new file: what the user's mask leaves of it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(parent(path))
        .with_context(writing)?;
    whole(write_blob(store, digest, &mut file).await, path)?;
    file.persist(path).with_context(writing)?;
    Ok(())
}

fn whole(outcome: Result<(), Failure>, path: &Path) -> anyhow::Result<()> {
    match outcome {
        Ok(()) => Ok(()),
        Err(Failure::Read(error)) => Err(error.into()),
        Err(Failure::Write(error)) => Err(error).with_context(|| format!("writing {}", path.display())),
    }
}

/// Makes sure that a directory of this name can be made.
pub(super) fn check_is_new(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => anyhow::bail!("{} exists already: name a directory that does not", path.display()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| path.display().to_string()),
    }
}

/// Writes a tree into a new directory.
pub(super) async fn write_directory(store: Arc<dyn BlobStore>, tree: &InputTree, path: &Path) -> anyhow::Result<()> {
    check_is_new(path)?;
    let writing = || format!("writing {}", path.display());
    let partial = tempfile::Builder::new()
        .prefix(".rootcellar-")
        .tempdir_in(parent(path))
        .with_context(writing)?;
    write_tree(store, tree, partial.path()).await?;
    std::fs::rename(partial.path(), path).with_context(writing)?;
    // There is nothing of that name any more to remove.
    let _renamed = partial.keep();
    Ok(())
}

/// The directory that holds `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rootcellar_digest::DigestFunction;
    use rootcellar_reapi::TreeLimits;
    use rootcellar_store::{BlobStoreExt as _, MemoryStore};

    use super::*;

    const SHA256: DigestFunction = DigestFunction::Sha256;

    fn entries(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_file_has_its_name_only_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let store = MemoryStore::new(1 << 20);
        let absent = Digest::of(SHA256, b"absent");
        write_file(&store, absent, &path).await.unwrap_err();
        assert_eq!(entries(dir.path()), [""; 0]);

        let digest = store.put_bytes(SHA256, Bytes::from_static(b"content")).await.unwrap();
        write_file(&store, digest, &path).await.unwrap();
        write_file(&store, absent, &path).await.unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
        assert_eq!(entries(dir.path()), ["file"]);
    }

    #[tokio::test]
    async fn what_is_no_file_is_not_replaced_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let store = MemoryStore::new(1 << 20);
        let digest = store.put_bytes(SHA256, Bytes::from_static(b"content")).await.unwrap();
        write_file(&store, digest, &path).await.unwrap();
        assert!(std::fs::symlink_metadata(&path).unwrap().is_symlink());
        write_file(&store, digest, dir.path()).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_directory_has_its_name_only_once_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        let store = Arc::new(MemoryStore::new(1 << 20));
        let file = Digest::of(SHA256, b"content");
        let root = rootcellar_reapi::encode_directory(rootcellar_proto::reapi::Directory {
            files: vec![rootcellar_proto::reapi::FileNode {
                name: "file".to_owned(),
                digest: Some(rootcellar_reapi::functions::to_proto(file)),
                ..Default::default()
            }],
            ..Default::default()
        });
        let digest = Digest::of(SHA256, &root);
        let tree = InputTree::from_encoded(digest, [(digest, root)].into(), &TreeLimits::default()).unwrap();
        write_directory(store.clone(), &tree, &path).await.unwrap_err();
        assert_eq!(entries(dir.path()), [""; 0]);

        store.put_bytes(SHA256, Bytes::from_static(b"content")).await.unwrap();
        write_directory(store.clone(), &tree, &path).await.unwrap();
        assert_eq!(std::fs::read(path.join("file")).unwrap(), b"content");
        assert_eq!(entries(dir.path()), ["tree"]);
        let error = write_directory(store, &tree, &path).await.unwrap_err();
        assert!(error.to_string().contains("exists already"), "{error}");
    }
}
