//! The command line.

mod bench_server;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use rootcellar_digest::{Digest, DigestFunction};

pub(crate) use self::bench_server::{BareServer, BenchServer};
use crate::config::{Layout, StagerKind};
use crate::size::Size;

/// A content-addressed store and Remote Execution API server.
///
/// `rootcellar serve` runs a whole server in ./rootcellar-data: store, action cache, asset cache and execution. The other
/// commands talk to a server: to see what it holds, and to run something on it.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Arguments {
    /// What to log, as a list of targets and levels, such as "info" or "warn,rootcellar_grpc=debug".
    #[arg(long, global = true, env = "ROOTCELLAR_LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the server.
    Serve(Serve),
    /// Stores files and directories, and prints their digests.
    Put(Put),
    /// Fetches a blob, or a directory with all below it.
    Get(Get),
    /// Lists a directory that the server holds, with all below it.
    Tree(Tree),
    /// Runs a command on the server, in a sandbox whose filesystem root is a directory of yours.
    Exec(Exec),
    /// Says what is wrong with a configuration file, and what it can hold.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Moves blobs to where they belong after the shards were changed.
    Rebalance(Rebalance),
    /// Checks a store that no server uses: reads and hashes everything in it.
    Fsck(Fsck),
    /// Tells what of execution works on this machine, and what keeps the rest from it.
    Doctor(Doctor),
    /// Measures how fast this machine is with the store.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if everything is as it should be, 1 if something was found (and repaired, with --repair).

Example:
  rootcellar fsck /srv/rootcellar
      reads everything and changes nothing")]
pub(crate) struct Fsck {
    /// The store's directory.
    #[arg(value_name = "DIR", default_value = "rootcellar-data")]
    pub(crate) dir: PathBuf,

    /// Drops what is damaged, and removes what a crash has left. Clients will upload it again.
    #[arg(long)]
    pub(crate) repair: bool,

    /// Prints the findings as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 if this machine can run actions, 1 if it can not.

Examples:
  rootcellar doctor
      looks as this user, for a server in ./rootcellar-data
  sudo rootcellar doctor --dir /srv/rootcellar
      looks as root: which stager works depends on who runs the server, and on the filesystem of its directory")]
pub(crate) struct Doctor {
    /// The server's directory. Something is tried in it, and removed again.
    #[arg(long, value_name = "DIR", default_value = "rootcellar-data")]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Reads a configuration file and says what is wrong with it, or what it makes.
    Check {
        /// The file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Prints all settings with their defaults, as Markdown: the page docs/config.md.
    Reference,
    /// Prints a JSON schema of the file, for editors.
    Schema,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The file is that of a front end, with the shards as they shall be. What it names as [storage.sharded] is looked through, shard by shard, and
each blob is copied to those of its shards that lack it. Front ends may run meanwhile, with the old file or the new one, and it can be run
again at any time. Nothing is removed: what a shard has and no longer should have goes when there is need of room.

A shard that is a server has to be started with --inventory. To take one out of use, give it the weight 0, run this, and remove it then.

Example:
  rootcellar rebalance --config front.toml")]
pub(crate) struct Rebalance {
    /// The configuration of a front end.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Puts, reads, looks up, restarts and evicts, with each storage layout, over the sizes of real builds.
    Layouts(BenchLayouts),
    /// Stages a root of 50,000 files, captures it, and does what others do with it, for comparison.
    Staging(BenchStaging),
    /// Runs actions that do nothing, one at a time and eight at a time, on a server of its own or on yours.
    Actions(BenchActions),
    /// Puts servers of the API under load, ours or any other ones, side by side.
    Server(BenchServer),
    /// Serves zeros, for `bench server --bare`.
    #[command(hide = true)]
    BareServer(BareServer),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rootcellar bench actions --start
      on a server that is started for it, on this machine
  rootcellar bench actions --endpoint http://127.0.0.1:8980 --root /srv/debian -- /bin/true
      on a server that runs, in a root of yours")]
pub(crate) struct BenchActions {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,

    /// Starts a server for this, and ends it.
    #[arg(long, conflicts_with = "endpoint")]
    pub(crate) start: bool,

    /// Where that server stores things. What is made there is removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,

    /// How many actions of each sort.
    #[arg(long, value_name = "N", default_value_t = 300)]
    pub(crate) count: usize,

    /// The root of the actions [default: nothing but a /bin/true].
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) report: ReportFiles,

    /// The command.
    #[arg(last = true, value_name = "ARGV", default_values_t = [String::from("/bin/true")])]
    pub(crate) argv: Vec<String>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rootcellar bench staging
      some minutes, as a table
  rootcellar bench staging --dir /srv --html report.html
      on the disk that the server would use")]
pub(crate) struct BenchStaging {
    /// Where stores and roots are made, on the disk that is measured. What is made there is removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,

    /// Only this question; may be given several times: image, cached, uncached, farms, capture.
    #[arg(long = "only", value_name = "QUESTION")]
    pub(crate) only: Vec<String>,

    /// A tenth of everything, for a quick look.
    #[arg(long)]
    pub(crate) quick: bool,

    #[command(flatten)]
    pub(crate) report: ReportFiles,
}

/// Where a report goes besides the table on standard output.
#[derive(Debug, Args)]
pub(crate) struct ReportFiles {
    /// Writes the numbers to a file, as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Writes a page with charts.
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rootcellar bench layouts
      every layout under three workloads, some minutes, as a table
  rootcellar bench layouts --mix node-modules --size 2GiB --layout hybrid --layout loose
      two layouts under one workload
  rootcellar bench layouts --figures --html report.html
      the figures of docs/benchmarks.md as well, with goals, and a page with charts")]
pub(crate) struct BenchLayouts {
    /// Where the stores are made, on the disk that is measured. What is made there is removed.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,

    /// A layout: loose, packed or hybrid; may be given several times [default: all].
    #[arg(long = "layout", value_name = "LAYOUT")]
    pub(crate) layouts: Vec<String>,

    /// A mix of sizes; may be given several times. `list` tells which there are [default: deb-root, node-modules, c-debug].
    #[arg(long = "mix", value_name = "MIX")]
    pub(crate) mixes: Vec<String>,

    /// How much of each mix is stored: 16 MiB at the least, and with --quick ten times that.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub(crate) size: Size,

    /// Answers the single questions too, such as what a put costs beside hashing. Needs 4 GiB of disk and memory.
    #[arg(long)]
    pub(crate) figures: bool,

    /// Only this question; may be given several times: put, always, get, million, large, full, action-cache.
    #[arg(long = "only", value_name = "QUESTION", requires = "figures")]
    pub(crate) only: Vec<String>,

    /// A tenth of everything, for a quick look.
    #[arg(long)]
    pub(crate) quick: bool,

    #[command(flatten)]
    pub(crate) report: ReportFiles,
}

/// Options of the server. Each can stand in the configuration file too, spelled with underscores, or in the environment; an option here
/// wins.
#[derive(Debug, Default, Args)]
#[command(after_help = "\
Examples:
  rootcellar serve
      everything, in ./rootcellar-data, for clients on this machine
  rootcellar serve --listen 0.0.0.0:8980 --dir /srv/rootcellar --max-size 200GiB --no-execution
      a cache for the network
  rootcellar serve --config rootcellar.toml --workers 16
      a configuration file, with one setting changed

The configuration file holds these settings and more: docs/config.md, or `rootcellar config reference`, has all of them.
  listen = \"0.0.0.0:8980\"
  max_size = \"200GiB\"
  [storage.tiered]               # a disk in front of a bucket; without this, a disk
  fast.disk = {}
  slow.bucket.url = \"s3://builds/cas\"")]
pub(crate) struct Serve {
    /// The address and port to listen on [default: 127.0.0.1:8980].
    ///
    /// Execution lets every client that can reach this port run commands here, in sandboxes. So a port that other machines
    /// reach needs --insecure or --no-execution.
    #[arg(long, env = "ROOTCELLAR_LISTEN", value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// Where everything is stored [default: rootcellar-data].
    #[arg(long, env = "ROOTCELLAR_DIR", value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,

    /// How much may be stored, such as 50GiB; what was used longest ago goes first [default: 50GiB].
    #[arg(long, env = "ROOTCELLAR_MAX_SIZE", value_name = "SIZE")]
    pub(crate) max_size: Option<Size>,

    /// How a new store lays blobs out: a store that is there keeps its own [default: hybrid].
    #[arg(long, env = "ROOTCELLAR_LAYOUT", value_name = "LAYOUT")]
    pub(crate) layout: Option<Layout>,

    /// How many actions run at a time [default: one for each core].
    #[arg(long, env = "ROOTCELLAR_WORKERS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) workers: Option<u32>,

    /// A file with settings (TOML).
    #[arg(long, env = "ROOTCELLAR_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Runs no actions: store, action cache and asset cache only.
    #[arg(long, env = "ROOTCELLAR_NO_EXECUTION")]
    pub(crate) no_execution: bool,

    /// Lets actions that ask for it (`network=on`) use the network of this machine, this server's own port included.
    #[arg(long, env = "ROOTCELLAR_ALLOW_NETWORK")]
    pub(crate) allow_network: bool,

    /// How input roots become directories [default: the best that works here, which `rootcellar doctor` tells].
    #[arg(long, env = "ROOTCELLAR_STAGER", value_name = "STAGER")]
    pub(crate) stager: Option<StagerKind>,

    /// Listens beyond this machine without authentication, with execution on.
    #[arg(long, env = "ROOTCELLAR_INSECURE")]
    pub(crate) insecure: bool,

    /// Tells every client what is stored, for `rootcellar rebalance`: whoever knows the digest of a blob can read it.
    #[arg(long, env = "ROOTCELLAR_INVENTORY")]
    pub(crate) inventory: bool,
}

/// Which server, and how to talk to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Endpoint {
    /// The server.
    #[arg(
        long,
        value_name = "URL",
        env = "ROOTCELLAR_ENDPOINT",
        default_value = "http://127.0.0.1:8980"
    )]
    pub(crate) endpoint: String,

    /// The instance name, which some servers need.
    #[arg(long, value_name = "NAME", env = "ROOTCELLAR_INSTANCE", default_value = "")]
    pub(crate) instance: String,

    /// The function that names what is uploaded.
    #[arg(long, value_name = "FUNCTION", default_value = "sha256")]
    pub(crate) digest_function: DigestFunction,
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,

    /// Files and directories. A directory's digest is that of its Directory message.
    #[arg(required = true, value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,

    /// What to fetch, as [function/]hash/size.
    pub(crate) digest: Digest,

    /// The file to write [default: standard output].
    #[arg(long, short, value_name = "FILE", conflicts_with = "directory")]
    pub(crate) output: Option<PathBuf>,

    /// Fetches the directory that the digest names, with all below it, into this new directory.
    #[arg(long, value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Tree {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,

    /// The directory, as [function/]hash/size.
    pub(crate) digest: Digest,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  mkdir -p root/bin && cp /bin/busybox root/bin/ && ln -s busybox root/bin/sh
  rootcellar exec --root root -- sh -c 'echo hello from / ; ls -l /'")]
pub(crate) struct Exec {
    #[command(flatten)]
    pub(crate) endpoint: Endpoint,

    /// The directory to upload: the command sees it as `/`.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: PathBuf,

    /// A path to bring back, relative to the working directory; may be given several times.
    #[arg(long = "output", value_name = "PATH")]
    pub(crate) outputs: Vec<String>,

    /// Fetches the outputs into this new directory.
    #[arg(long, value_name = "DIR", requires = "outputs")]
    pub(crate) fetch: Option<PathBuf>,

    /// The working directory, relative to the root.
    #[arg(long, value_name = "PATH", default_value = "")]
    pub(crate) working_directory: String,

    /// An environment variable; the command gets no others [default: PATH=/usr/bin:/bin].
    #[arg(long, value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) env: Vec<(String, String)>,

    /// A platform property; may be given several times.
    #[arg(long = "platform", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) properties: Vec<(String, String)>,

    /// Seconds after which the command is killed.
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,

    /// Runs it even if the result is in the action cache.
    #[arg(long)]
    pub(crate) no_cache: bool,

    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "ARGV")]
    pub(crate) argv: Vec<String>,
}

fn name_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is wanted".to_owned()),
    }
}
