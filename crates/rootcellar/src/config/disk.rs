//! The settings of one disk: what its table says, else what stands at the top of the file, else the default.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;

use super::file::File;
use super::storage::Disk;
use super::{Durability, Layout, WhenFull};
use crate::cli;
use crate::size::Size;

const DEFAULT_MAX_SIZE: Size = Size(50 << 30);
/// As much as a person repeats without noticing.
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than clients trust what they were told at the begin of a build.
const DEFAULT_MIN_LIFETIME: Duration = Duration::from_hours(3);
const DEFAULT_SCRUB_RATE: Size = Size(8 << 20);

/// The settings of a disk, decided.
#[derive(Debug, Clone)]
pub(crate) struct DiskSettings {
    pub(crate) dir: PathBuf,
    pub(crate) max_size: Size,
    /// How a new store lays blobs out; `None` leaves it to the default. A store that is there keeps its own.
    pub(crate) layout: Option<Layout>,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Duration,
    pub(crate) min_lifetime: Duration,
    pub(crate) when_full: WhenFull,
    /// Bytes that the scrub reads in a second; zero is no scrub.
    pub(crate) scrub_rate: Size,
}

impl DiskSettings {
    /// What holds for each disk that does not say something else.
    pub(super) fn at_the_top(options: &cli::Serve, file: &File) -> anyhow::Result<Self> {
        let dir = options.dir.clone().or_else(|| file.dir.clone());
        let defaults = Self {
            dir: dir.unwrap_or_else(|| PathBuf::from("rootcellar-data")),
            max_size: DEFAULT_MAX_SIZE,
            layout: None,
            durability: Durability::Interval,
            sync_interval: DEFAULT_SYNC_INTERVAL,
            min_lifetime: DEFAULT_MIN_LIFETIME,
            when_full: WhenFull::Shorten,
            scrub_rate: DEFAULT_SCRUB_RATE,
        };
        defaults.with(&Disk {
            dir: None,
            max_size: options.max_size.or(file.max_size),
            layout: options.layout.or(file.layout),
            durability: file.durability,
            sync_interval_ms: file.sync_interval_ms,
            min_lifetime_seconds: file.min_lifetime_seconds,
            when_full: file.when_full,
            scrub_rate: file.scrub_rate,
        })
    }

    /// The same with what a table says.
    pub(crate) fn with(&self, disk: &Disk) -> anyhow::Result<Self> {
        let sync_interval = match disk.sync_interval_ms {
            Some(0) => bail!("sync_interval_ms: at least 1; durability = \"always\" syncs every put"),
            Some(ms) => Duration::from_millis(ms),
            None => self.sync_interval,
        };
        Ok(Self {
            dir: disk.dir.clone().unwrap_or_else(|| self.dir.clone()),
            max_size: disk.max_size.unwrap_or(self.max_size),
            layout: disk.layout.or(self.layout),
            durability: disk.durability.unwrap_or(self.durability),
            sync_interval,
            min_lifetime: disk.min_lifetime_seconds.map_or(self.min_lifetime, Duration::from_secs),
            when_full: disk.when_full.unwrap_or(self.when_full),
            scrub_rate: disk.scrub_rate.unwrap_or(self.scrub_rate),
        })
    }
}
