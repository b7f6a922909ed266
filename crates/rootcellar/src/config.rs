//! Settings of the server: defaults, then the file, then the command line.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rootcellar_digest::DigestFunction;
use rootcellar_worker::ResourceLimits;
use serde::Deserialize;

use crate::cli;
use crate::size::Size;

const DEFAULT_PORT: u16 = 8980;
const DEFAULT_MAX_SIZE: Size = Size(50 << 30);
/// Long enough for a browser or a kernel: clients that build those send no timeout of their own.
const DEFAULT_TIMEOUT: Duration = Duration::from_hours(6);
/// Clients whose stream broke come back within seconds; one that was killed never does.
const DEFAULT_ABANDON_AFTER: Duration = Duration::from_secs(60);
/// As much as a person repeats without noticing.
const DEFAULT_SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Longer than clients trust what they were told at the begin of a build.
const DEFAULT_MIN_LIFETIME: Duration = Duration::from_hours(3);
/// More than any build has at once, and far less than the machine can have.
const DEFAULT_PROCESSES: u64 = 10_000;
const DEFAULT_SCRUB_RATE: Size = Size(8 << 20);
const DEFAULT_TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// All settings, decided.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) dir: PathBuf,
    pub(crate) max_size: Size,
    pub(crate) workers: usize,
    pub(crate) execution: bool,
    pub(crate) allow_network: bool,
    /// How input roots become directories; `None` is the best that works here.
    pub(crate) stager: Option<StagerKind>,
    /// What each action may use.
    pub(crate) limits: ResourceLimits,
    pub(crate) digest_functions: Vec<DigestFunction>,
    /// How a new store lays blobs out; `None` leaves it to the default. A store that is there keeps its own.
    pub(crate) layout: Option<Layout>,
    pub(crate) durability: Durability,
    pub(crate) sync_interval: Duration,
    pub(crate) min_lifetime: Duration,
    pub(crate) when_full: WhenFull,
    /// Bytes that the scrub reads in a second; zero is no scrub.
    pub(crate) scrub_rate: Size,
    pub(crate) default_timeout: Duration,
    pub(crate) max_timeout: Duration,
    pub(crate) abandon_after: Duration,
    pub(crate) platform: BTreeMap<String, Vec<String>>,
}

/// When stored content survives a power cut. The store's documentation has the exact promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    Always,
    Interval,
    None,
}

/// Where blobs lie in the store's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Layout {
    /// A file for each blob.
    Loose,
    /// Blobs one behind the other in large files.
    Packed,
    /// Small blobs in packs, larger ones in files.
    Hybrid,
}

impl Layout {
    /// The name by which the store knows it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Loose => "loose",
            Self::Packed => "packed",
            Self::Hybrid => "hybrid",
        }
    }
}

/// How input roots become directories, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StagerKind {
    /// An image over the store's own files, mounted: a root of any size in a millisecond. As root.
    Overlay,
    /// Small files in memory, the store's own files below, mounted in a user namespace. As anyone.
    #[serde(rename = "overlay-tmpfs")]
    #[value(name = "overlay-tmpfs")]
    OverlayTmpfs,
    /// A copy of every file.
    Copy,
}

impl StagerKind {
    /// Its name in settings.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::OverlayTmpfs => "overlay-tmpfs",
            Self::Copy => "copy",
        }
    }
}

/// What gives way when blobs younger than the least lifetime fill the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WhenFull {
    Shorten,
    Refuse,
}

/// What the file can hold. A field that is missing is decided by the default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: Option<SocketAddr>,
    dir: Option<PathBuf>,
    max_size: Option<Size>,
    workers: Option<u32>,
    execution: Option<bool>,
    allow_network: Option<bool>,
    stager: Option<StagerKind>,
    action_disk: Option<Size>,
    action_memory: Option<Size>,
    action_processes: Option<u64>,
    action_cpus: Option<f64>,
    insecure: Option<bool>,
    digest_functions: Option<Vec<String>>,
    layout: Option<Layout>,
    durability: Option<Durability>,
    sync_interval_ms: Option<u64>,
    min_lifetime_seconds: Option<u64>,
    when_full: Option<WhenFull>,
    scrub_rate: Option<Size>,
    default_timeout_seconds: Option<u64>,
    max_timeout_seconds: Option<u64>,
    abandon_after_seconds: Option<u64>,
    #[serde(default)]
    platform: BTreeMap<String, Vec<String>>,
}

/// The fields of [`File`], for the suggestion when a key is misspelled.
const KEYS: [&str; 23] = [
    "listen",
    "dir",
    "max_size",
    "workers",
    "execution",
    "allow_network",
    "stager",
    "action_disk",
    "action_memory",
    "action_processes",
    "action_cpus",
    "insecure",
    "digest_functions",
    "layout",
    "durability",
    "sync_interval_ms",
    "min_lifetime_seconds",
    "when_full",
    "scrub_rate",
    "default_timeout_seconds",
    "max_timeout_seconds",
    "abandon_after_seconds",
    "platform",
];

impl Config {
    /// Decides every setting.
    pub(crate) fn load(options: &cli::Serve) -> anyhow::Result<Self> {
        let file = match &options.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        let insecure = options.insecure || file.insecure.unwrap_or(false);
        let config = Self::merge(options, file)?;
        config.check_exposure(insecure)?;
        Ok(config)
    }

    fn merge(options: &cli::Serve, file: File) -> anyhow::Result<Self> {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
        let max_size = options.max_size.or(file.max_size).unwrap_or(DEFAULT_MAX_SIZE);
        let limits = limits(&file, max_size)?;
        let seconds = |value: Option<u64>, default| value.map_or(default, Duration::from_secs);
        Ok(Self {
            listen: options.listen.or(file.listen).unwrap_or(local),
            dir: options
                .dir
                .clone()
                .or(file.dir)
                .unwrap_or_else(|| PathBuf::from("rootcellar-data")),
            max_size,
            workers: match options.workers.or(file.workers) {
                Some(0) => bail!("workers: at least one is needed; execution = false runs none"),
                Some(workers) => workers.try_into()?,
                None => std::thread::available_parallelism().map_or(1, usize::from),
            },
            execution: !options.no_execution && file.execution.unwrap_or(true),
            allow_network: options.allow_network || file.allow_network.unwrap_or(false),
            stager: options.stager.or(file.stager),
            limits,
            digest_functions: digest_functions(file.digest_functions)?,
            layout: options.layout.or(file.layout),
            durability: file.durability.unwrap_or(Durability::Interval),
            sync_interval: sync_interval(file.sync_interval_ms)?,
            min_lifetime: seconds(file.min_lifetime_seconds, DEFAULT_MIN_LIFETIME),
            when_full: file.when_full.unwrap_or(WhenFull::Shorten),
            scrub_rate: file.scrub_rate.unwrap_or(DEFAULT_SCRUB_RATE),
            default_timeout: seconds(file.default_timeout_seconds, DEFAULT_TIMEOUT),
            max_timeout: seconds(file.max_timeout_seconds, DEFAULT_TIMEOUT_MAX),
            abandon_after: seconds(file.abandon_after_seconds, DEFAULT_ABANDON_AFTER),
            platform: file.platform,
        })
    }

    /// Whoever reaches the port may run commands. That has to be somebody's decision.
    fn check_exposure(&self, insecure: bool) -> anyhow::Result<()> {
        if self.execution && !self.listen.ip().is_loopback() && !insecure {
            bail!(
                "listening on {} lets every machine that reaches it run commands here; add --insecure if that is meant, \
                 --no-execution for a cache only, or listen on 127.0.0.1",
                self.listen
            );
        }
        Ok(())
    }
}

impl File {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let table: toml::Table = toml::from_str(text)?;
        if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
            bail!("there is no setting {key:?}; the nearest is {:?}", nearest(key));
        }
        Ok(toml::from_str(text)?)
    }
}

/// Outputs that do not fit into the store are of no use: so much may be written unless something else is said.
fn limits(file: &File, max_size: Size) -> anyhow::Result<ResourceLimits> {
    if file.action_cpus.is_some_and(|cpus| !(cpus.is_finite() && cpus > 0.0)) {
        bail!("action_cpus: more than 0");
    }
    Ok(ResourceLimits {
        disk_bytes: Some(file.action_disk.unwrap_or(max_size).0),
        memory_bytes: file.action_memory.map(|size| size.0),
        processes: Some(file.action_processes.unwrap_or(DEFAULT_PROCESSES)),
        cpus: file.action_cpus,
    })
}

fn sync_interval(ms: Option<u64>) -> anyhow::Result<Duration> {
    match ms {
        Some(0) => bail!("sync_interval_ms: at least 1; durability = \"always\" syncs every put"),
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => Ok(DEFAULT_SYNC_INTERVAL),
    }
}

fn nearest(key: &str) -> &'static str {
    let similarity = |known: &&str| strsim::jaro_winkler(key, known);
    KEYS.into_iter()
        .max_by(|a, b| similarity(a).total_cmp(&similarity(b)))
        .expect("there are keys")
}

fn digest_functions(names: Option<Vec<String>>) -> anyhow::Result<Vec<DigestFunction>> {
    let Some(names) = names else {
        return Ok(vec![DigestFunction::Sha256, DigestFunction::Blake3]);
    };
    let functions: Vec<DigestFunction> = names
        .iter()
        .map(|name| name.parse())
        .collect::<Result<_, _>>()
        .context("digest_functions")?;
    if functions.is_empty() {
        bail!("digest_functions: at least one is needed");
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_wins_over_the_file_and_the_file_over_the_default() {
        let file = File::parse("listen = '127.0.0.1:1'\nmax_size = '1GiB'\n").unwrap();
        let options = cli::Serve {
            max_size: Some(Size(7)),
            ..cli::Serve::default()
        };
        let config = Config::merge(&options, file).unwrap();
        assert_eq!(
            (config.listen.port(), config.max_size, config.execution),
            (1, Size(7), true)
        );
    }

    #[test]
    fn an_unknown_key_is_named_and_the_nearest_suggested() {
        let error = File::parse("max-sise = '1GiB'").unwrap_err().to_string();
        assert!(error.contains("max-sise") && error.contains("\"max_size\""), "{error}");
    }

    #[test]
    fn every_field_is_a_known_key() {
        let error = toml::from_str::<File>("no_such_key = 1").unwrap_err().to_string();
        let expected = error.split("expected one of").nth(1).expect("serde lists the fields");
        let fields: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        assert_eq!(fields, KEYS);
    }

    #[test]
    fn execution_is_not_exposed_by_accident() {
        let mut config = Config::merge(&cli::Serve::default(), File::default()).unwrap();
        config.check_exposure(false).unwrap();
        config.listen = "0.0.0.0:8980".parse().unwrap();
        assert!(
            config
                .check_exposure(false)
                .unwrap_err()
                .to_string()
                .contains("--insecure")
        );
        config.check_exposure(true).unwrap();
        config.execution = false;
        config.check_exposure(false).unwrap();
    }
}
