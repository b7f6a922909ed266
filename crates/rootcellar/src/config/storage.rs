//! What the server stores things in, as the file says it: stores, and stores made of stores.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::secret::Secret;
use super::{Durability, Layout, WhenFull};
use crate::size::Size;

/// A store: one of these.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Storage {
    /// A directory on this machine. Execution needs one.
    Disk(Disk),
    /// Memory of this process, gone with it.
    Memory(Memory),
    /// A bucket of an object store: S3 and what speaks its protocol, Google Cloud Storage, Azure, or a directory.
    Bucket(Box<Bucket>),
    /// Another server of the API.
    Remote(Remote),
    /// A fast store in front of a slow one.
    Tiered(Box<Tiered>),
    /// Several stores, each with a part of the blobs.
    Sharded(Sharded),
    /// A store whose answers about what is present are remembered for a while.
    ExistenceCached(Box<ExistenceCached>),
    /// A store of which only so much is asked at a time.
    Limited(Box<Limited>),
}

/// A directory on this machine. What is not said here is as it stands at the top of the file.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disk {
    /// The directory. No two stores may have the same one.
    pub(crate) dir: Option<PathBuf>,
    /// How much may be stored; what was used longest ago goes first.
    pub(crate) max_size: Option<Size>,
    /// How a new store lays blobs out; one that is there keeps its own.
    pub(crate) layout: Option<Layout>,
    /// What a crash of the machine may take.
    pub(crate) durability: Option<Durability>,
    /// With `durability = "interval"`: at most so much is lost.
    pub(crate) sync_interval_ms: Option<u64>,
    /// How long a blob stays after its last use.
    pub(crate) min_lifetime_seconds: Option<u64>,
    /// What gives way when the store is full of younger blobs.
    pub(crate) when_full: Option<WhenFull>,
    /// How much is read in a second to find what has rotted; `"0"` reads nothing.
    pub(crate) scrub_rate: Option<Size>,
}

/// Memory of this process.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    /// How much may be stored; what was used longest ago goes first.
    pub(crate) max_size: Size,
}

/// A bucket. Credentials that are not said here are looked for as the service's own tools do: in the environment (`AWS_ACCESS_KEY_ID` and
/// so on, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` and so on), of a web identity, of the machine.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[cfg_attr(
    not(feature = "bucket"),
    expect(dead_code, reason = "read, and refused where there are no buckets")
)]
pub(crate) struct Bucket {
    /// `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, or `file:///directory`. The prefix may be left out.
    pub(crate) url: String,
    /// Where the service is, if not where the provider's is, such as `http://127.0.0.1:9000`. With `http` it is not encrypted.
    pub(crate) endpoint: Option<String>,
    /// S3: the region [default: what AWS_REGION says, or us-east-1].
    pub(crate) region: Option<String>,
    /// S3: the bucket's name stands in the path of requests, not in the host's name [default: true with an endpoint, else false].
    pub(crate) path_style: Option<bool>,
    /// S3: the access key.
    pub(crate) access_key_id: Option<Secret>,
    /// S3: the secret key.
    pub(crate) secret_access_key: Option<Secret>,
    /// S3: the session token of temporary keys.
    pub(crate) session_token: Option<Secret>,
    /// Azure: the storage account.
    pub(crate) account: Option<String>,
    /// Azure: its key.
    pub(crate) account_key: Option<Secret>,
    /// Google: the file with the service account.
    pub(crate) service_account_file: Option<PathBuf>,
    /// The level of zstd by which blobs are compressed that become smaller by that, 1 to 19 [default: nothing is compressed]. What is
    /// compressed is read whatever is said here.
    pub(crate) zstd_level: Option<i32>,
    /// Requests under way [default: 64].
    pub(crate) requests_max: Option<usize>,
    /// How often a request that failed is made again, with pauses that grow [default: 10].
    pub(crate) retries_max: Option<usize>,
    /// How long it is remembered that an object is there, and what one server found is relied on by others [default: 3600].
    pub(crate) existence_seconds: Option<u64>,
    /// Of how many objects that is remembered [default: 500000].
    pub(crate) existence_entries: Option<usize>,
    /// Objects in use that are older are made young again, for a lifecycle rule of the bucket that removes old ones. Choose a third of
    /// what the rule says [default: they are not].
    pub(crate) touch_after_hours: Option<u64>,
}

/// Another server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Remote {
    /// Where it is, such as `http://cache.example:8980`.
    pub(crate) url: String,
    /// The instance name, which some servers need.
    #[serde(default)]
    pub(crate) instance: String,
    /// How often a call is made that the server cannot answer at the moment [default: 6; 2 as a shard, where there are others].
    pub(crate) attempts_max: Option<u32>,
}

/// A fast store in front of a slow one. Action results and assets are those of the slow one. Results that still wait to be written behind
/// are served all the same, and where that is to another server, so is what is known of its results while it does not answer.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tiered {
    /// The fast store, a disk above all.
    pub(crate) fast: Storage,
    /// The slow store.
    pub(crate) slow: Storage,
    /// When a put is acknowledged: when the slow store has it, or, `"behind"`, when the fast one has it and it is noted on disk that the slow
    /// one is to get it; an action result gets to another server after all that it needs [default: "through"].
    pub(crate) write: Option<Write>,
    /// Write-behind: how much may wait [default: 4GiB, or a quarter of the fast store].
    pub(crate) behind_max_size: Option<Size>,
    /// Write-behind: how many blobs may wait [default: 200000].
    pub(crate) behind_max_blobs: Option<usize>,
    /// Write-behind: how long a put waits for room before it is refused [default: 30]. Of action
    /// results 100000 may wait, or 256 MiB of records.
    pub(crate) behind_patience_seconds: Option<u64>,
    /// How many blobs are brought from the slow store at a time [default: 32].
    pub(crate) fills_max: Option<usize>,
    /// How often the slow store is told that a blob is used in the fast one [default: 3600].
    pub(crate) tell_uses_after_seconds: Option<u64>,
}

/// When a put is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Write {
    /// When both stores have it.
    Through,
    /// When the fast store has it, which is a disk; the slow one gets it later.
    Behind,
}

/// Several stores, each with a part of the blobs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sharded {
    /// The shards by their names. A shard has its blobs by its name: keep it when it moves elsewhere.
    pub(crate) shards: BTreeMap<String, Storage>,
    /// Copies of each blob, each on a shard of its own [default: 1].
    pub(crate) replicas: Option<usize>,
    /// The shards' shares, by their names [default: 1 each]. One with 0 gets nothing, and what it has is still read.
    #[serde(default)]
    pub(crate) weights: BTreeMap<String, f64>,
    /// Further shards that are asked for a blob that none of its own has. While shards are moved that keep a single copy it takes 1
    /// [default: 0].
    pub(crate) look_further: Option<usize>,
    /// How long a shard may take to answer, and a second more for each mebibyte that is moved [default: 10].
    pub(crate) patience_seconds: Option<u64>,
}

/// A store whose answers are remembered.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExistenceCached {
    /// The store.
    pub(crate) store: Storage,
    /// How long it is remembered that a blob is there [default: 600].
    pub(crate) seconds: Option<u64>,
    /// Of how many blobs that is remembered [default: 500000].
    pub(crate) entries: Option<usize>,
}

/// A store of which only so much is asked at a time.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limited {
    /// The store.
    pub(crate) store: Storage,
    /// Operations under way; more wait [default: any number].
    pub(crate) operations: Option<usize>,
    /// How much is read in a second [default: all that is asked].
    pub(crate) read_rate: Option<Size>,
    /// How much is written in a second [default: all that comes].
    pub(crate) write_rate: Option<Size>,
}

impl Default for Storage {
    fn default() -> Self {
        Self::Disk(Disk::default())
    }
}

/// Writes what it is made of, in few words.
impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disk(_) => f.write_str("a disk"),
            Self::Memory(memory) => write!(f, "{} of memory", memory.max_size),
            Self::Bucket(bucket) => f.write_str(&bucket.url),
            Self::Remote(remote) => f.write_str(&remote.url),
            Self::Tiered(tiered) => write!(f, "{} in front of {}", tiered.fast, tiered.slow),
            Self::Sharded(sharded) => {
                let copies = sharded.replicas.unwrap_or(1);
                write!(f, "{} shards with {copies} copies", sharded.shards.len())
            }
            Self::ExistenceCached(cached) => cached.store.fmt(f),
            Self::Limited(limited) => limited.store.fmt(f),
        }
    }
}
