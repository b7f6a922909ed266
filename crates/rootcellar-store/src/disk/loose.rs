//! The `loose` layout: a file for each blob.
//!
//! ```text
//! <dir>/loose/<function>/<first two digits of the hash>/<hash>-<size>      mode 0444, published by link(2)
//! <dir>/tmp/put-<random>                                                   until then
//! ```
//!
//! The size in the name lets a file that was cut off be told from a blob of that size. `link` never replaces what is there.

use std::collections::HashSet;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rootcellar_digest::{Digest, DigestFunction};
use tempfile::TempPath;

use super::mark::KernelTime;
use crate::{Content, SpoolFile, Verified};

const FILE_MODE: u32 = 0o444;
const COPY_PIECE_BYTES: usize = 256 * 1024;

/// Where loose blobs lie, and how they get there.
#[derive(Debug)]
pub(super) struct Loose {
    root: PathBuf,
    tmp: PathBuf,
    /// Guards the set of directories whose own names are known to be durable: 256 for each function at the most.
    durable_dirs: Mutex<HashSet<PathBuf>>,
}

impl Loose {
    pub(super) fn new(root: PathBuf, tmp: PathBuf) -> Self {
        Self {
            root,
            tmp,
            durable_dirs: Mutex::default(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn dir(&self, digest: Digest) -> PathBuf {
        let fan = format!("{:02x}", digest.hash()[0]);
        self.root.join(digest.function().name()).join(fan)
    }

    pub(super) fn path(&self, digest: Digest) -> PathBuf {
        self.dir(digest).join(file_name(digest))
    }

    pub(super) fn open(&self, digest: Digest) -> io::Result<File> {
        File::open(self.path(digest))
    }

    /// Removes a blob's file; that there is none is as good.
    pub(super) fn remove(&self, digest: Digest) -> io::Result<()> {
        match fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// Sets the time of a blob's last use.
    pub(super) fn touch(&self, digest: Digest, used: SystemTime) -> io::Result<()> {
        self.open(digest)?.set_modified(used)
    }

    /// Writes a blob's content beside the published ones.
    pub(super) fn stage(&self, blob: &Verified, now: SystemTime) -> io::Result<Staged> {
        let (file, path) = match blob.content() {
            Content::Bytes(bytes) => {
                let (mut file, path) = self.temporary()?;
                file.write_all(bytes)?;
                (Arc::new(file), StagedPath::Own(path))
            }
            Content::Spooled(spooled) => (spooled.file(), StagedPath::Spooled(spooled.clone())),
        };
        let staged = Staged {
            digest: blob.digest(),
            file,
            path,
        };
        staged.finish(now)?;
        Ok(staged)
    }

    /// Publishes staged content under its name.
    pub(super) fn publish(&self, staged: &Staged) -> io::Result<()> {
        let path = self.path(staged.digest);
        match fs::hard_link(staged.path(), &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The first blob in its directory.
                fs::create_dir_all(self.dir(staged.digest))?;
                fs::hard_link(staged.path(), path)
            }
            done => done,
        }
    }

    /// Makes the names in a blobs' directory durable, and its own name, whoever made it.
    pub(super) fn sync_dir(&self, dir: PathBuf) -> io::Result<()> {
        File::open(&dir)?.sync_all()?;
        if self.durable_dirs().contains(&dir) {
            return Ok(());
        }
        for parent in dir.ancestors().skip(1).take(2) {
            File::open(parent)?.sync_all()?;
        }
        self.durable_dirs().insert(dir);
        Ok(())
    }

    fn durable_dirs(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.durable_dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies staged content that lies on another filesystem to this one.
    pub(super) fn copy_here(&self, staged: &Staged, now: SystemTime) -> io::Result<Staged> {
        let (mut file, path) = self.temporary()?;
        let mut piece = vec![0; COPY_PIECE_BYTES];
        let (mut at, size) = (0, staged.digest.size_bytes());
        while at < size {
            let len = usize::try_from(size - at).map_or(piece.len(), |left| left.min(piece.len()));
            staged.file.read_exact_at(&mut piece[..len], at)?;
            file.write_all(&piece[..len])?;
            at += len as u64;
        }
        let copy = Staged {
            digest: staged.digest,
            file: Arc::new(file),
            path: StagedPath::Own(path),
        };
        copy.finish(now)?;
        Ok(copy)
    }

    fn temporary(&self) -> io::Result<(File, TempPath)> {
        let named = tempfile::Builder::new().prefix("put-").tempfile_in(&self.tmp)?;
        Ok(named.into_parts())
    }
}

/// The name of a blob's file within its directory.
pub(super) fn file_name(digest: Digest) -> String {
    format!("{}-{}", digest.hash_hex(), digest.size_bytes())
}

/// The blob that a file of this name in the directory `fan` of `function` holds; `None` for names that are not ours.
pub(super) fn parse_file_name(function: DigestFunction, fan: &str, name: &str) -> Option<Digest> {
    let (hash, size) = name.split_once('-')?;
    let digest = Digest::from_hex(function, hash, size.parse().ok()?).ok()?;
    // Sizes have one spelling, and a blob has one directory.
    (file_name(digest) == name && hash.starts_with(fan)).then_some(digest)
}

/// Content that is complete, has its final mode, and waits for its name.
#[derive(Debug)]
pub(super) struct Staged {
    digest: Digest,
    file: Arc<File>,
    path: StagedPath,
}

#[derive(Debug)]
enum StagedPath {
    Own(TempPath),
    Spooled(SpoolFile),
}

impl Staged {
    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    fn path(&self) -> &Path {
        match &self.path {
            StagedPath::Own(path) => path,
            StagedPath::Spooled(file) => file.path(),
        }
    }

    fn finish(&self, now: SystemTime) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        self.file.set_modified(now)
    }

    /// Makes the content durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// When the kernel last changed the file's inode: at the publication, once published.
    pub(super) fn changed(&self) -> io::Result<KernelTime> {
        Ok(KernelTime::of(&self.file.metadata()?))
    }

    /// Stops the spool from counting bytes that are a stored blob's now.
    pub(super) fn hand_over(&self) {
        if let StagedPath::Spooled(file) = &self.path {
            file.hand_over();
        }
    }
}

/// Bytes of the disk that a blob is counted with: whole blocks, an inode and a directory entry.
pub(super) fn charge(digest: Digest) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    const INODE_BYTES: u64 = 512;
    let blocks = digest.size_bytes().div_ceil(BLOCK_BYTES);
    blocks.saturating_mul(BLOCK_BYTES).saturating_add(INODE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_spelling_of_a_name_is_a_blob() {
        let digest = Digest::of(DigestFunction::Sha256, b"hello");
        let name = file_name(digest);
        let fan = &name[..2];
        assert_eq!(parse_file_name(DigestFunction::Sha256, fan, &name), Some(digest));
        let hash = &name[..64];
        for bad in [
            hash.to_owned(),
            format!("{hash}-"),
            format!("{hash}-05"),
            format!("{hash}-+5"),
            format!("{hash}-5-5"),
            format!("{hash}-5.tmp"),
            format!("{}-5", hash.to_uppercase()),
        ] {
            assert_eq!(parse_file_name(DigestFunction::Sha256, fan, &bad), None, "{bad}");
        }
        assert_eq!(parse_file_name(DigestFunction::Sha256, "zz", &name), None);
        assert_eq!(parse_file_name(DigestFunction::Sha1, fan, &name), None);
    }
}
