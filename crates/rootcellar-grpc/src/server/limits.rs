//! The bounds of the services, as data.

use std::time::Duration;

use rootcellar_reapi::TreeLimits;

/// Bounds of what the services take, send and keep. Each has a default and its reason.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a message that is accepted, 16 MiB. Larger than gRPC's default of 4 MiB, so that a long list of digests or
    /// a batch that is too large is answered for what it is.
    pub request_bytes_max: usize,
    /// Bytes of a message that is sent, 4 MiB less a margin: what a gRPC client accepts by default.
    pub reply_bytes_max: usize,
    /// Bytes of all the blobs of one batch, 3 MiB. It is announced, and leaves room for the digest and the status of some
    /// ten thousand small blobs in a message of 4 MiB.
    pub batch_total_bytes_max: u64,
    /// Bytes of a blob that is taken; `None` takes what fits into the store.
    pub blob_bytes_max: Option<u64>,
    /// Bytes of a blob in one message of a read, 64 KiB: large enough to make messages cheap, small enough for thousands of
    /// readers that do not read, for each of which one is in memory.
    pub read_piece_bytes: usize,
    /// Bounds of a tree that GetTree walks.
    pub trees: TreeLimits,
    /// Bounds of the uploads under way.
    pub uploads: UploadLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request_bytes_max: 16 * MIB,
            reply_bytes_max: 4 * MIB - 64 * KIB,
            batch_total_bytes_max: 3 * MIB as u64,
            blob_bytes_max: None,
            read_piece_bytes: 64 * KIB,
            trees: TreeLimits::default(),
            uploads: UploadLimits::default(),
        }
    }
}

/// Bounds of uploads that are being written, and of those that broke off and wait to be resumed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadLimits {
    /// Uploads being written at once, 2,048; each of a large blob has a file open. Those beyond are told to come back.
    pub active_max: usize,
    /// How long a writer may be silent, two minutes, before its upload is set aside. An empty message is no silence.
    pub silence_max: Duration,
    /// Uploads set aside, 256; each of a large blob has a file open. The oldest go first.
    pub parked_max: usize,
    /// Bytes of the uploads set aside, 8 GiB: room in the spool directory. The oldest go first.
    pub parked_bytes_max: u64,
    /// How long an upload is kept after it broke off, ten minutes: clients that resume do so soon.
    pub parked_time_max: Duration,
    /// How long an upload that is being resumed may wait for its former writer to let go, five seconds. That writer has at
    /// most one piece left to write.
    pub handover_max: Duration,
    /// How long a writer that has sent everything may keep its side open, 100 ms, so that a message after the last one is
    /// noticed. Clients close at once; those that do not are answered all the same.
    pub close_grace: Duration,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self {
            active_max: 2048,
            silence_max: Duration::from_secs(120),
            parked_max: 256,
            parked_bytes_max: 8 * GIB,
            parked_time_max: Duration::from_secs(600),
            handover_max: Duration::from_secs(5),
            close_grace: Duration::from_millis(100),
        }
    }
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const GIB: u64 = 1024 * MIB as u64;
