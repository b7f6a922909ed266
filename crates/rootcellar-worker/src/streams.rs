//! What a command writes to its standard output and standard error.
//!
//! Both go to files without a name on the staging disk, never to memory: a command can write for hours. They end up in the
//! store like outputs.

use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_reapi::Error;
use rootcellar_store::LocalStore;

/// The two files.
#[derive(Debug)]
pub(crate) struct Streams {
    stdout: File,
    stderr: File,
}

impl Streams {
    /// Makes the files on the filesystem of `dir`.
    pub(crate) fn create(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            stdout: tempfile::tempfile_in(dir)?,
            stderr: tempfile::tempfile_in(dir)?,
        })
    }

    /// Second descriptors of the files, for the command: standard output, standard error.
    pub(crate) fn for_command(&self) -> io::Result<(File, File)> {
        Ok((self.stdout.try_clone()?, self.stderr.try_clone()?))
    }

    /// Stores what was written. An empty stream has no digest, which keeps results small.
    pub(crate) async fn store(
        self,
        store: &Arc<dyn LocalStore>,
        function: DigestFunction,
    ) -> Result<(Option<Digest>, Option<Digest>), Error> {
        let stdout = store_stream(store, function, self.stdout).await?;
        let stderr = store_stream(store, function, self.stderr).await?;
        Ok((stdout, stderr))
    }
}

async fn store_stream(
    store: &Arc<dyn LocalStore>,
    function: DigestFunction,
    mut stream: File,
) -> Result<Option<Digest>, Error> {
    let spool = store.spool().clone();
    let ingest = move || {
        stream
            .rewind()
            .map_err(|error| rootcellar_store::Error::io("ingest", "rewinding an output stream", error))?;
        spool.copy_file(function, &mut stream)
    };
    let blob = tokio::task::spawn_blocking(ingest)
        .await
        .expect("ingestion does not panic, and the runtime outlives its tasks")?;
    let digest = blob.digest();
    if digest.is_empty_blob() {
        return Ok(None);
    }
    store.put(blob).await?;
    Ok(Some(digest))
}
