//! The way back: what an action left at its output paths becomes blobs, Directories and the lists of an action result.
//!
//! This walks a plain directory and hashes every file in it. Links are never followed at the end of an output path, and lead
//! nowhere but inside the root on the way to it. Sockets, FIFOs and devices are left out: they have no content.

mod directory;
mod ingest;

use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::command::OutputDirectoryFormat;
use rootcellar_proto::reapi::{NodeProperties, OutputDirectory, OutputFile, OutputSymlink};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{Error, ErrorKind, OutputKind, OutputPath, Outputs, TreeLimits};
use rootcellar_store::{BlobStore, LocalStore, Spool};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;
use tokio::runtime::Handle;

use self::directory::Walk;
use self::ingest::Ingestion;
use crate::beneath::{Beneath, file_type};
use crate::write::blocking;

/// What an action left behind, in the words of an action result. All of its blobs are in the store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Captured {
    /// Regular files.
    pub files: Vec<OutputFile>,
    /// Directories.
    pub directories: Vec<OutputDirectory>,
    /// Links at output paths of the new style, whatever they lead to.
    pub symlinks: Vec<OutputSymlink>,
    /// Links to files, as clients of before 2.1 expect them.
    pub file_symlinks: Vec<OutputSymlink>,
    /// Links to directories, as clients of before 2.1 expect them.
    pub directory_symlinks: Vec<OutputSymlink>,
}

/// Bounds on what one action may leave behind.
#[derive(Debug, Clone)]
pub struct CaptureLimits {
    /// Files, directories and links in all outputs together.
    pub entries_max: u64,
    /// Bounds on each output directory that is wanted as a Tree.
    pub tree: TreeLimits,
}

impl Default for CaptureLimits {
    fn default() -> Self {
        Self {
            entries_max: 4_000_000,
            tree: TreeLimits::default(),
        }
    }
}

/// Captures `outputs` from `root`. `hidden` are top-level directories that are there for the sandbox only.
pub(crate) async fn capture(
    root: &Arc<Beneath>,
    store: Arc<dyn LocalStore>,
    function: DigestFunction,
    outputs: &Outputs,
    hidden: &[&'static str],
    limits: CaptureLimits,
) -> Result<Captured, Error> {
    let capture = Capture {
        root: root.clone(),
        outputs: outputs.clone(),
        hidden: hidden.to_vec(),
        limits,
    };
    let spool = store.spool().clone();
    let ingestion = Ingestion::new(store, spool, function, Handle::current());
    blocking(move || capture.run(ingestion)).await
}

/// Stores the directory at `path`, with all below it, and tells the digest of its Directory. Files are read as they are now:
/// nothing else should write to them.
///
/// # Errors
/// Whatever the store or the filesystem met; names that are not UTF-8.
pub async fn read_tree(
    store: Arc<dyn BlobStore>,
    spool: Spool,
    function: DigestFunction,
    path: &Path,
) -> Result<Digest, Error> {
    let root = Beneath::open(path).map_err(|error| reading(&path.display().to_string(), error))?;
    let mut ingestion = Ingestion::new(store, spool, function, Handle::current());
    blocking(move || {
        let mut entries_left = CaptureLimits::default().entries_max;
        let walk = Walk {
            root: &root,
            hidden: &[],
            properties: &|_| None,
        };
        let captured = walk.run("", &mut ingestion, &mut entries_left)?;
        captured.store_directories(&mut ingestion)?;
        ingestion.finish()?;
        Ok(captured.root_digest())
    })
    .await
}

/// One capture, on a thread that may block.
struct Capture {
    root: Arc<Beneath>,
    outputs: Outputs,
    hidden: Vec<&'static str>,
    limits: CaptureLimits,
}

impl Capture {
    fn run(&self, mut ingestion: Ingestion) -> Result<Captured, Error> {
        let mut captured = Captured::default();
        let mut entries_left = self.limits.entries_max;
        for output in &self.outputs.paths {
            let path = output.path.as_str();
            let stat = match self.root.stat(path) {
                Ok(stat) => stat,
                // A missing output is the client's to notice.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                Err(error) => return Err(reading(path, error)),
            };
            match file_type(&stat) {
                FileType::RegularFile => captured.files.push(self.file(output, path, &stat, &mut ingestion)?),
                FileType::Directory => {
                    captured
                        .directories
                        .push(self.directory(output, path, &mut ingestion, &mut entries_left)?);
                }
                FileType::Symlink => self.link(output, path, &stat, &mut captured)?,
                _ => tracing::debug!(path, "a special file is no output"),
            }
        }
        ingestion.finish()?;
        Ok(captured)
    }

    fn file(
        &self,
        output: &OutputPath,
        path: &str,
        stat: &Stat,
        ingestion: &mut Ingestion,
    ) -> Result<OutputFile, Error> {
        if output.expected == OutputKind::Directory {
            return Err(unexpected(output, "a directory", "a file"));
        }
        let digest = ingestion.file(path, self.root.open_file(path).map_err(|error| reading(path, error))?)?;
        Ok(OutputFile {
            path: output.requested.clone(),
            digest: Some(to_proto(digest)),
            is_executable: is_executable(stat),
            node_properties: self.properties(stat),
            ..OutputFile::default()
        })
    }

    fn directory(
        &self,
        output: &OutputPath,
        path: &str,
        ingestion: &mut Ingestion,
        entries_left: &mut u64,
    ) -> Result<OutputDirectory, Error> {
        if output.expected == OutputKind::File {
            return Err(unexpected(output, "a file", "a directory"));
        }
        let walk = Walk {
            root: &self.root,
            hidden: &self.hidden,
            properties: &|stat| self.properties(stat),
        };
        let captured = walk.run(path, ingestion, entries_left)?;
        let mut directory = OutputDirectory {
            path: output.requested.clone(),
            ..OutputDirectory::default()
        };
        let format = self.outputs.directory_format;
        if format != OutputDirectoryFormat::TreeOnly {
            directory.root_directory_digest = Some(to_proto(captured.root_digest()));
            captured.store_directories(ingestion)?;
        }
        if format != OutputDirectoryFormat::DirectoryOnly {
            directory.tree_digest = Some(to_proto(captured.store_tree(ingestion, &self.limits.tree)?));
            directory.is_topologically_sorted = true;
        }
        Ok(directory)
    }

    fn link(&self, output: &OutputPath, path: &str, stat: &Stat, captured: &mut Captured) -> Result<(), Error> {
        let target = self.root.read_link(path).map_err(|error| reading(path, error))?;
        let link = OutputSymlink {
            path: output.requested.clone(),
            target: utf8(path, target)?,
            node_properties: self.properties(stat),
        };
        let leads_to = self.root.stat_followed(path).ok().map(|stat| file_type(&stat));
        match (output.expected, leads_to) {
            (OutputKind::File | OutputKind::Any, Some(FileType::RegularFile)) => {
                captured.file_symlinks.push(link.clone());
            }
            (OutputKind::Directory | OutputKind::Any, Some(FileType::Directory)) => {
                captured.directory_symlinks.push(link.clone());
            }
            (OutputKind::Any, _) => {}
            (OutputKind::File, _) => return Err(unexpected(output, "a file", "a link that leads to none")),
            (OutputKind::Directory, _) => return Err(unexpected(output, "a directory", "a link that leads to none")),
        }
        if output.expected == OutputKind::Any {
            captured.symlinks.push(link);
        }
        Ok(())
    }

    /// The properties that the command asked for, or nothing.
    fn properties(&self, stat: &Stat) -> Option<NodeProperties> {
        let wanted = self.outputs.properties;
        (wanted.mtime || wanted.unix_mode).then(|| NodeProperties {
            properties: Vec::new(),
            mtime: wanted.mtime.then(|| prost_types::Timestamp {
                seconds: stat.st_mtime,
                nanos: i32::try_from(stat.st_mtime_nsec).expect("less than a second"),
            }),
            unix_mode: wanted.unix_mode.then_some(stat.st_mode & 0o7777),
        })
    }
}

fn is_executable(stat: &Stat) -> bool {
    stat.st_mode & 0o100 != 0
}

fn utf8(path: &str, name: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(name).map_err(|error| {
        let name = String::from_utf8_lossy(error.as_bytes()).into_owned();
        let reason = format!("an output has a name or link target that is not UTF-8: {name:?} at {path:?}");
        Error::new(ErrorKind::FailedPrecondition, reason)
    })
}

fn unexpected(output: &OutputPath, wanted: &str, found: &str) -> Error {
    let reason = format!(
        "the output {:?} was to be {wanted}, and the action left {found} there",
        output.requested
    );
    Error::new(ErrorKind::FailedPrecondition, reason)
}

fn reading(path: &str, error: impl Into<std::io::Error>) -> Error {
    let error = error.into();
    if error.raw_os_error() == Some(Errno::NAMETOOLONG.raw_os_error()) {
        let reason = format!("the outputs nest deeper than a path is long, below {path:.100}");
        return Error::new(ErrorKind::FailedPrecondition, reason);
    }
    rootcellar_store::Error::io("capture", format!("{path:?}"), error).into()
}
