//! Which servers, which load, and how much of it.

use std::path::PathBuf;
use std::time::Duration;

/// A server to be measured.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name in tables.
    pub name: String,
    /// Where it is, as `http://HOST:PORT`.
    pub url: String,
    /// Its instance, which some servers need.
    pub instance: String,
    /// Its process, if that is on this machine and known.
    pub process: Option<u32>,
    /// What it is to the others.
    pub role: Role,
}

/// What a server is to the others of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one whose ratios to the others are asked for.
    Ours,
    /// What nobody can avoid: it keeps nothing, so what it hands out is not looked at beyond its length.
    Bare,
    /// What one would use instead.
    Peer,
    /// Just another one.
    Other,
}

/// What is done to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// `BatchUpdateBlobs` of small blobs.
    BatchUpdate,
    /// `BatchReadBlobs` of small blobs.
    BatchRead,
    /// `ByteStream.Write` of large blobs.
    StreamWrite,
    /// `ByteStream.Read` of large blobs.
    StreamRead,
    /// `FindMissingBlobs` of many digests, half of them present.
    FindMissing,
    /// `UpdateActionResult`.
    AcPut,
    /// `GetActionResult` of results that are there.
    AcGet,
    /// `GetTree` of a tree of a thousand directories.
    GetTree,
    /// A build from nothing, and builds after it that change a little.
    Trace,
    /// A thousand reads whose clients do not read on.
    SlowReaders,
}

impl Workload {
    /// Every workload.
    pub const ALL: [Self; 10] = [
        Self::BatchUpdate,
        Self::BatchRead,
        Self::StreamWrite,
        Self::StreamRead,
        Self::FindMissing,
        Self::AcPut,
        Self::AcGet,
        Self::GetTree,
        Self::Trace,
        Self::SlowReaders,
    ];

    /// Its name on the command line and in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BatchUpdate => "batch-update",
            Self::BatchRead => "batch-read",
            Self::StreamWrite => "stream-write",
            Self::StreamRead => "stream-read",
            Self::FindMissing => "find-missing",
            Self::AcPut => "ac-put",
            Self::AcGet => "ac-get",
            Self::GetTree => "get-tree",
            Self::Trace => "trace",
            Self::SlowReaders => "slow-readers",
        }
    }

    /// The workload of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name() == name)
    }

    /// Whether it is among those that are run where none is named.
    pub const fn is_default(self) -> bool {
        !matches!(self, Self::SlowReaders)
    }
}

/// How long a workload goes on. A trace ends by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// For so long, not counting what is prepared in between.
    Time(Duration),
    /// For so many calls.
    Calls(u64),
}

/// How load is made.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What is done, in this order.
    pub workloads: Vec<Workload>,
    /// Calls in flight.
    pub concurrency: usize,
    /// Connections that they share.
    pub connections: usize,
    /// How long each workload goes on.
    pub bound: Bound,
    /// What decides what a trace does: the same for the same seed.
    pub seed: u64,
    /// What decides all contents: another one for each run, or the server has seen them.
    pub salt: u64,
    /// What everything that is kept is divided by, for a quick look. 1 is the real thing.
    pub shrink: u64,
    /// Bytes of a small blob.
    pub small_bytes: u64,
    /// Small blobs in one call.
    pub blobs_a_call: usize,
    /// Bytes of a large blob.
    pub large_bytes: u64,
    /// Bytes of one message of an upload.
    pub message_bytes: usize,
    /// Digests in one question.
    pub digests_a_call: usize,
    /// A directory on the disk of the servers that are on this machine, for files that are removed at once.
    pub scratch: PathBuf,
}

impl Settings {
    /// A number that is smaller where a quick look is enough.
    pub(super) fn shrunk(&self, count: usize) -> usize {
        (count / usize::try_from(self.shrink).unwrap_or(usize::MAX)).max(1)
    }
}
