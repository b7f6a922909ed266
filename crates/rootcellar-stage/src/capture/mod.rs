//! The way back: what an action left at its output paths becomes blobs, Directories and the lists of an action result.
//!
//! ```text
//!   output path ──> layers ──┬──> a file ──────────────────────────> ingest ──> store
//!    what is there?          └──> a directory ──> directory.rs ────> ingest
//! ```
//!
//! A root is one directory of the host, or one over the tree that was staged ([`layers`]): then only what the action brought up into the
//! upper one is looked at, and what it left alone keeps its digests. The result is the same. Links are never followed at the end
//! of an output path, and lead nowhere but inside the root on the way to it. Sockets, FIFOs and devices are left out: they have no
//! content.

mod directory;
mod ingest;
mod layers;
mod lower;

use std::path::Path;
use std::sync::Arc;

use rootcellar_digest::{Digest, DigestFunction};
use rootcellar_proto::reapi::command::OutputDirectoryFormat;
use rootcellar_proto::reapi::{NodeProperties, OutputDirectory, OutputFile, OutputSymlink};
use rootcellar_reapi::functions::to_proto;
use rootcellar_reapi::{Error, ErrorKind, OutputKind, OutputPath, Outputs, TreeLimits};
use rootcellar_store::{BlobStore, LocalStore, Spool};
use rustix::io::Errno;

use self::directory::Walk;
use self::ingest::Ingestion;
use self::layers::{Content, Found, Layers, Place};
pub(crate) use self::lower::Lower;
use crate::attributes::Attributes;
use crate::beneath::Beneath;
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

/// What is captured from where.
#[derive(Debug)]
pub(crate) struct Capture {
    /// The directory that has what the action left.
    pub(crate) upper: Arc<Beneath>,
    /// The tree below it, if it does not have everything.
    pub(crate) lower: Option<Arc<Lower>>,
    /// The attribute of directories that hide what is below them.
    pub(crate) opaque: &'static str,
    /// Whether nobody can write to a file of the upper directory any more, so that it can become a blob as it is.
    pub(crate) is_final: bool,
    /// Top-level directories that are there for the sandbox only.
    pub(crate) hidden: Vec<&'static str>,
    pub(crate) limits: CaptureLimits,
}

impl Capture {
    /// Captures `outputs` into `store`.
    pub(crate) async fn run(
        self,
        store: Arc<dyn LocalStore>,
        function: DigestFunction,
        outputs: &Outputs,
    ) -> Result<Captured, Error> {
        let spool = store.spool().clone();
        let ingestion = Ingestion::new(self.upper.clone(), store, spool, function, self.is_final);
        let outputs = outputs.clone();
        blocking(move || {
            let layers = Layers {
                upper: &self.upper,
                lower: self.lower.as_deref(),
                opaque: self.opaque,
            };
            let run = Run {
                layers,
                outputs: &outputs,
                hidden: &self.hidden,
                limits: &self.limits,
            };
            run.all(ingestion)
        })
        .await
    }
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
    let root = Arc::new(root);
    let mut ingestion = Ingestion::new(root.clone(), store, spool, function, false);
    blocking(move || {
        let mut entries_left = CaptureLimits::default().entries_max;
        let layers = Layers {
            upper: &root,
            lower: None,
            opaque: "",
        };
        let walk = Walk {
            layers,
            hidden: &[],
            properties: &|_| None,
            wants_untouched: true,
        };
        let captured = walk.run(&layers.root()?, &mut ingestion, &mut entries_left)?;
        captured.store_directories(&mut ingestion)?;
        ingestion.finish()?;
        Ok(captured.root_digest())
    })
    .await
}

/// One capture, on a thread that may block.
struct Run<'a> {
    layers: Layers<'a>,
    outputs: &'a Outputs,
    hidden: &'a [&'static str],
    limits: &'a CaptureLimits,
}

impl Run<'_> {
    fn all(&self, mut ingestion: Ingestion) -> Result<Captured, Error> {
        let mut captured = Captured::default();
        let mut entries_left = self.limits.entries_max;
        for output in &self.outputs.paths {
            match self.layers.find(output.path.as_str(), false)? {
                // A missing output is the client's to notice.
                None => {}
                Some(Found::File(content, attributes)) => {
                    captured
                        .files
                        .push(self.file(output, content, attributes, &mut ingestion)?);
                }
                Some(Found::Directory(place)) => {
                    captured
                        .directories
                        .push(self.directory(output, &place, &mut ingestion, &mut entries_left)?);
                }
                Some(Found::Link(target, attributes)) => self.link(output, target, attributes, &mut captured)?,
                Some(Found::Special) => tracing::debug!(path = %output.path, "a special file is no output"),
            }
        }
        ingestion.finish()?;
        Ok(captured)
    }

    fn file(
        &self,
        output: &OutputPath,
        content: Content,
        attributes: Attributes,
        ingestion: &mut Ingestion,
    ) -> Result<OutputFile, Error> {
        if output.expected == OutputKind::Directory {
            return Err(unexpected(output, "a directory", "a file"));
        }
        let digest = match content {
            Content::Upper(path) => ingestion.file(&path)?,
            Content::Staged(digest) => digest,
        };
        Ok(OutputFile {
            path: output.requested.clone(),
            digest: Some(to_proto(digest)),
            is_executable: attributes.is_executable(),
            node_properties: self.properties(attributes),
            ..OutputFile::default()
        })
    }

    fn directory(
        &self,
        output: &OutputPath,
        place: &Place<'_>,
        ingestion: &mut Ingestion,
        entries_left: &mut u64,
    ) -> Result<OutputDirectory, Error> {
        if output.expected == OutputKind::File {
            return Err(unexpected(output, "a file", "a directory"));
        }
        let format = self.outputs.directory_format;
        let walk = Walk {
            layers: self.layers,
            hidden: self.hidden,
            properties: &|attributes| self.properties(attributes),
            wants_untouched: format != OutputDirectoryFormat::DirectoryOnly,
        };
        let captured = walk.run(place, ingestion, entries_left)?;
        let mut directory = OutputDirectory {
            path: output.requested.clone(),
            ..OutputDirectory::default()
        };
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

    fn link(
        &self,
        output: &OutputPath,
        target: String,
        attributes: Attributes,
        captured: &mut Captured,
    ) -> Result<(), Error> {
        let link = OutputSymlink {
            path: output.requested.clone(),
            target,
            node_properties: self.properties(attributes),
        };
        // What cannot be followed leads nowhere.
        let leads_to = self.layers.find(output.path.as_str(), true).ok().flatten();
        match (output.expected, leads_to) {
            (OutputKind::File | OutputKind::Any, Some(Found::File(..))) => {
                captured.file_symlinks.push(link.clone());
            }
            (OutputKind::Directory | OutputKind::Any, Some(Found::Directory(_))) => {
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
    fn properties(&self, attributes: Attributes) -> Option<NodeProperties> {
        let wanted = self.outputs.properties;
        (wanted.mtime || wanted.unix_mode).then(|| NodeProperties {
            properties: Vec::new(),
            mtime: wanted.mtime.then(|| prost_types::Timestamp {
                seconds: attributes.mtime.tv_sec,
                nanos: i32::try_from(attributes.mtime.tv_nsec).expect("less than a second"),
            }),
            unix_mode: wanted.unix_mode.then_some(attributes.mode),
        })
    }
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
