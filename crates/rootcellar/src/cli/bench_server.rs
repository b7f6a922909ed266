//! The command line of `rootcellar bench server`.

use std::path::PathBuf;

use clap::Args;

use super::ReportFiles;
use crate::size::Size;

#[derive(Debug, Args)]
#[command(after_help = "\
Workloads (an item is what rates and processor time are counted in):
  batch-update   BatchUpdateBlobs of small blobs, all new                   blobs
  batch-read     BatchReadBlobs of small blobs                              blobs
  stream-write   ByteStream.Write of large blobs, all new                   blobs
  stream-read    ByteStream.Read of large blobs                             blobs
  find-missing   FindMissingBlobs, half of the digests present              digests
  ac-put         UpdateActionResult                                         results
  ac-get         GetActionResult of results that are there                  results
  get-tree       GetTree of a tree of a thousand directories                directories
  trace          a build from nothing, then ten that change a little        actions
  slow-readers   a thousand reads of 64 MiB whose clients do not read on: the server's memory (only if it is named)

The processor time is that of the server's process and those below it, where the process is known. What a server says it does not
implement is \"not offered\".

Exit status: 0 if every call did what it should, 1 if one failed.

Examples:
  rootcellar bench server --start
      a server that is started for it, under every workload, five seconds each
  rootcellar bench server --endpoint http://127.0.0.1:8980 --pid $(pgrep -x rootcellar) --only trace
      a server that runs, under one workload
  rootcellar bench server --start --bare --casd /usr/bin/buildbox-casd --dir /srv --html report.html
      ours, one that keeps nothing, and BuildBox's, with ratios and goals, and a page with charts
  rootcellar bench server --start-with fast.toml --start-with safe.toml --only batch-update --seconds 20
      two configurations of ours
  rootcellar bench server --start --only slow-readers
      what a thousand slow readers cost in memory")]
pub(crate) struct BenchServer {
    /// A server that runs; may be given several times.
    #[arg(long = "endpoint", value_name = "URL")]
    pub(crate) endpoints: Vec<String>,

    /// The process of the endpoint in the same place, if it is on this machine; may be given several times.
    #[arg(long = "pid", value_name = "PID")]
    pub(crate) pids: Vec<u32>,

    /// The instance name that endpoints are asked with.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub(crate) instance: String,

    /// Starts a server for this (`ours`), and ends it.
    #[arg(long)]
    pub(crate) start: bool,

    /// Starts a server with a file of settings; may be given several times. Where it listens and stores is not taken from there.
    #[arg(long, value_name = "FILE")]
    pub(crate) start_with: Vec<PathBuf>,

    /// Starts a server that does what no server can avoid and keeps nothing (`bare`): ratios are told against it.
    #[arg(long)]
    pub(crate) bare: bool,

    /// Starts this program of BuildBox as a server (`casd`): ratios are told against it.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) casd: Option<PathBuf>,

    /// Where servers that are started store things. What is made there is removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,

    /// Only this workload; may be given several times.
    #[arg(long = "only", value_name = "WORKLOAD")]
    pub(crate) only: Vec<String>,

    /// Calls in flight.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) concurrency: u32,

    /// Connections that the calls share.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: u32,

    /// How long each workload goes on, not counting what is prepared. A trace ends by itself.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,

    /// How many calls each workload makes, instead of how long it goes on.
    #[arg(long, value_name = "CALLS", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,

    /// Bytes of a small blob.
    #[arg(long, value_name = "SIZE", default_value = "4KiB")]
    pub(crate) blob_size: Size,

    /// Small blobs in one call.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) blobs: u32,

    /// Bytes of a large blob.
    #[arg(long, value_name = "SIZE", default_value = "16MiB")]
    pub(crate) stream_size: Size,

    /// Bytes in one message of a large upload.
    #[arg(long, value_name = "SIZE", default_value = "256KiB")]
    pub(crate) message_size: Size,

    /// Digests in one question.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=20_000))]
    pub(crate) digests: u32,

    /// What a trace does follows from this number. Contents are other ones in each run.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// A tenth of everything, for a quick look.
    #[arg(long)]
    pub(crate) quick: bool,

    #[command(flatten)]
    pub(crate) report: ReportFiles,
}

#[derive(Debug, Args)]
pub(crate) struct BareServer {
    /// Where uploads are written, and removed.
    pub(crate) dir: PathBuf,
}
