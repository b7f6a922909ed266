//! What is wrong with a storage that reads well.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context as _, bail};

use super::DiskSettings;
use super::storage::{Bucket, Sharded, Storage, Tiered, Write};

/// Checks a storage; the disk whose files are at hand, if there is one.
pub(super) fn storage(storage: &Storage, top: &DiskSettings) -> anyhow::Result<Option<DiskSettings>> {
    let mut check = Check {
        top,
        dirs: HashSet::new(),
    };
    check.storage(storage, "storage")
}

struct Check<'a> {
    top: &'a DiskSettings,
    dirs: HashSet<PathBuf>,
}

impl Check<'_> {
    /// Checks what stands at `path`; the disk whose files are at hand there.
    fn storage(&mut self, storage: &Storage, path: &str) -> anyhow::Result<Option<DiskSettings>> {
        match storage {
            Storage::Disk(disk) => {
                let settings = self.top.with(disk).with_context(|| format!("{path}.disk"))?;
                if !self.dirs.insert(settings.dir.clone()) {
                    bail!("{path}.disk: dir: another disk is in {} too", settings.dir.display());
                }
                return Ok(Some(settings));
            }
            Storage::Memory(_) => {}
            Storage::Bucket(bucket) => check_bucket(bucket).with_context(|| format!("{path}.bucket"))?,
            Storage::Remote(remote) => {
                let parsed = rootcellar_grpc::client::Endpoint::parse(&remote.url, &remote.instance);
                parsed.with_context(|| format!("{path}.remote"))?;
            }
            Storage::Tiered(tiered) => return self.tiered(tiered, &format!("{path}.tiered")),
            Storage::Sharded(sharded) => self.sharded(sharded, &format!("{path}.sharded"))?,
            Storage::ExistenceCached(cached) => {
                self.storage(&cached.store, &format!("{path}.existence_cached.store"))?;
            }
            Storage::Limited(limited) => {
                let rates = [limited.read_rate, limited.write_rate];
                if limited.operations == Some(0) || rates.iter().flatten().any(|rate| rate.0 == 0) {
                    bail!("{path}.limited: a bound of 0 lets nothing through; leave it out for none");
                }
                self.storage(&limited.store, &format!("{path}.limited.store"))?;
            }
        }
        Ok(None)
    }

    fn tiered(&mut self, tiered: &Tiered, path: &str) -> anyhow::Result<Option<DiskSettings>> {
        let fast = self.storage(&tiered.fast, &format!("{path}.fast"))?;
        self.storage(&tiered.slow, &format!("{path}.slow"))?;
        if tiered.write == Some(Write::Behind) {
            let Some(fast) = &fast else {
                bail!("{path}.write: \"behind\" needs fast.disk, where what waits to be written survives");
            };
            let bytes_max = fast.max_size.0 / 2;
            if tiered.behind_max_size.is_some_and(|size| size.0 > bytes_max) {
                bail!("{path}.behind_max_size: at most half of the fast store, which keeps it until it is written");
            }
        }
        if tiered.behind_max_blobs == Some(0) {
            bail!("{path}.behind_max_blobs: at least 1");
        }
        if tiered.fills_max == Some(0) {
            bail!("{path}.fills_max: at least 1");
        }
        Ok(fast)
    }

    fn sharded(&mut self, sharded: &Sharded, path: &str) -> anyhow::Result<()> {
        for (name, shard) in &sharded.shards {
            self.storage(shard, &format!("{path}.shards.{name}"))?;
        }
        for (name, weight) in &sharded.weights {
            if !sharded.shards.contains_key(name) {
                let names: Vec<&str> = sharded.shards.keys().map(String::as_str).collect();
                bail!(
                    "{path}.weights: there is no shard {name:?}; there are {}",
                    names.join(", ")
                );
            }
            if !(weight.is_finite() && *weight >= 0.0) {
                bail!("{path}.weights.{name}: 0 or more");
            }
        }
        if let Some(name) = sharded
            .shards
            .keys()
            .find(|name| name.is_empty() || name.contains(['/', '\0']))
        {
            bail!("{path}.shards: {name:?} is no name for a shard: it may not be empty, nor hold a slash");
        }
        if sharded.patience_seconds == Some(0) {
            bail!("{path}.patience_seconds: at least 1");
        }
        let replicas = sharded.replicas.unwrap_or(1);
        let weighted = sharded
            .shards
            .keys()
            .filter(|name| sharded.weights.get(*name) != Some(&0.0))
            .count();
        if !(1..=weighted).contains(&replicas) {
            bail!("{path}.replicas: {replicas} copies on {weighted} shards; it takes a shard for each copy");
        }
        Ok(())
    }
}

fn check_bucket(bucket: &Bucket) -> anyhow::Result<()> {
    const SCHEMES: [&str; 4] = ["s3", "gs", "az", "file"];
    let scheme = bucket.url.split_once("://").map(|(scheme, _)| scheme);
    if !scheme.is_some_and(|scheme| SCHEMES.contains(&scheme)) {
        bail!(
            "url: {:?} does not begin with s3://, gs://, az:// or file://",
            bucket.url
        );
    }
    if bucket.access_key_id.is_some() != bucket.secret_access_key.is_some() {
        bail!("access_key_id and secret_access_key go together");
    }
    if bucket.zstd_level.is_some_and(|level| !(1..=19).contains(&level)) {
        bail!("zstd_level: from 1 to 19");
    }
    if bucket.requests_max == Some(0) {
        bail!("requests_max: at least 1");
    }
    let existence_seconds = bucket.existence_seconds.unwrap_or(3600);
    if bucket
        .touch_after_hours
        .is_some_and(|hours| hours > 24 * 3650 || hours * 3600 <= existence_seconds)
    {
        bail!("touch_after_hours: more than existence_seconds ({existence_seconds}), and at most ten years");
    }
    if bucket.existence_entries == Some(0) {
        bail!("existence_entries: at least 1");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::cli;
    use crate::config::Config;
    use crate::config::file::File;

    #[test]
    fn what_cannot_be_is_told_with_its_place() {
        for (text, words) in [
            (
                "[storage.sharded]\nreplicas = 2\nshards.a.disk = { dir = 'a' }",
                &["storage.sharded.replicas", "2 copies on 1 shards"][..],
            ),
            (
                "[storage.sharded]\nshards.a.disk = {}\nshards.b.disk = {}",
                &["storage.sharded.shards.b.disk", "rootcellar-data"],
            ),
            (
                "[storage.sharded]\nshards.a.disk = {}\nweights.b = 1",
                &["storage.sharded.weights", "\"b\"", "there are a"],
            ),
            (
                "[storage.tiered]\nfast.memory.max_size = '1GiB'\nslow.disk = {}\nwrite = 'behind'",
                &["storage.tiered.write", "fast.disk"],
            ),
            (
                "[storage.tiered]\nfast.disk = {}\nslow.bucket.url = 'http://b'",
                &["storage.tiered.slow.bucket", "s3://"],
            ),
            (
                "[storage.remote]\nurl = 'cache:1'",
                &["storage.remote", "http://cache:1"],
            ),
            (
                "[storage.bucket]\nurl = 's3://b'\nzstd_level = 30",
                &["storage.bucket", "19"],
            ),
            ("[storage.disk]\nsync_interval_ms = 0", &["storage.disk", "at least 1"]),
            (
                "[storage.bucket]\nurl = 's3://b'\naccess_key_id.env = 'X'",
                &["storage.bucket", "go together"],
            ),
        ] {
            let error = Config::merge(&cli::Serve::default(), File::parse(text).unwrap()).unwrap_err();
            let message = format!("{error:#}");
            for word in words {
                assert!(message.contains(word), "{text}: {message}");
            }
        }
    }
}
