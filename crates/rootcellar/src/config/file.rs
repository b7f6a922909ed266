//! What the configuration file can hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use schemars::JsonSchema;
use serde::Deserialize;

use super::complaint::Complaint;
use super::storage::Storage;
use super::{Durability, Layout, StagerKind, WhenFull};
use crate::size::Size;

/// All settings. One that is missing is decided by the default.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The address and port to listen on [default: 127.0.0.1:8980].
    #[schemars(with = "Option<String>")]
    pub(super) listen: Option<SocketAddr>,
    /// The server's directory: of its store, if that is a disk and says no other, and of what it keeps beside [default: rootcellar-data].
    pub(super) dir: Option<PathBuf>,
    /// What everything is stored in [default: a disk in `dir`].
    pub(super) storage: Option<Storage>,
    /// How much a disk may store; what was used longest ago goes first [default: 50GiB].
    pub(super) max_size: Option<Size>,
    /// How a new store on a disk lays blobs out; one that is there keeps its own [default: hybrid].
    pub(super) layout: Option<Layout>,
    /// What a crash of the machine may take of a disk [default: interval].
    pub(super) durability: Option<Durability>,
    /// With `durability = "interval"`: at most so much is lost [default: 1000].
    pub(super) sync_interval_ms: Option<u64>,
    /// How long a blob stays on a disk after its last use [default: 10800].
    pub(super) min_lifetime_seconds: Option<u64>,
    /// What gives way when a disk is full of younger blobs [default: shorten].
    pub(super) when_full: Option<WhenFull>,
    /// How much of a disk is read in a second to find what has rotted; `"0"` reads nothing [default: 8MiB].
    pub(super) scrub_rate: Option<Size>,
    /// The digest functions that are offered [default: sha256, blake3].
    pub(super) digest_functions: Option<Vec<String>>,
    /// Whether clients that ask are told what is stored, which `rootcellar rebalance` needs of a shard. Whoever knows the digest of a
    /// blob can read it [default: false].
    pub(super) inventory: Option<bool>,
    /// How often the log says what was asked of each store; 0 is never [default: 600].
    pub(super) statistics_seconds: Option<u64>,
    /// Whether actions are executed, which needs a disk as the store or as its fast tier [default: true where there is one].
    pub(super) execution: Option<bool>,
    /// How many actions run at a time [default: one for each core].
    pub(super) workers: Option<u32>,
    /// Lets actions that ask for it (`network=on`) use the network of this machine, this server's own port included [default: false].
    pub(super) allow_network: Option<bool>,
    /// Listens beyond this machine without authentication, with execution on [default: false].
    pub(super) insecure: Option<bool>,
    /// How input roots become directories [default: the best that works here].
    pub(super) stager: Option<StagerKind>,
    /// What an action may write to its root [default: as much as `max_size`].
    pub(super) action_disk: Option<Size>,
    /// Memory of all processes of an action together [default: what there is].
    pub(super) action_memory: Option<Size>,
    /// Processes and threads of an action [default: 10000].
    pub(super) action_processes: Option<u64>,
    /// Processors of an action [default: what there is].
    pub(super) action_cpus: Option<f64>,
    /// How long actions may run that do not say it [default: 21600].
    pub(super) default_timeout_seconds: Option<u64>,
    /// Actions that ask for more are refused [default: 86400].
    pub(super) max_timeout_seconds: Option<u64>,
    /// Actions whose client went away are cancelled after that [default: 60].
    pub(super) abandon_after_seconds: Option<u64>,
    /// Further properties that actions may ask of the workers here, each with its values.
    #[serde(default)]
    pub(super) platform: BTreeMap<String, Vec<String>>,
}

impl File {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(toml::from_str(text).map_err(|error| Complaint::new(text, &error))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_told_by_line_and_key_with_the_nearest_that_is_right() {
        for (text, words) in [
            (
                "\nmax-sise = '1GiB'",
                &["line 2", "\"max-sise\"", "nearest is \"max_size\""][..],
            ),
            ("[storage.tierd]\n", &["line 1", "\"tierd\"", "nearest is \"tiered\""]),
            (
                "[storage.tiered]\nfast.disk = {}\nslow.bucket = { url = 's3://b', regoin = 'x' }",
                &["line 3", "\"regoin\"", "nearest is \"region\""],
            ),
            (
                "layout = 'hybird'",
                &["line 1: layout: ", "\"hybird\"", "nearest is \"hybrid\""],
            ),
            ("[storage.tiered]\nfast.disk = {}\n", &["line 1", "slow"]),
            ("workers = 'many'", &["line 1", "expected u32"]),
            ("max_size = '1 parsec'", &["line 1", "1 parsec", "50GiB"]),
            ("dir = 'a'\ndir = 'b'", &["line 2", "duplicate key"]),
            (
                "[storage.bucket]\nurl = 's3://b'\nsecret_access_key = 'hunter2'",
                &["line 3", "a secret is not written here"],
            ),
        ] {
            let message = format!("{:#}", File::parse(text).unwrap_err());
            for word in words {
                assert!(message.contains(word), "{text:?}: {message}");
            }
            assert!(!message.contains("hunter2"), "{message}");
        }
    }
}
