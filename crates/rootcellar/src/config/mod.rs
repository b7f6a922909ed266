//! Settings of the server: defaults, then the file, then the environment and the command line.

mod check;
pub(crate) mod command;
mod complaint;
mod disk;
mod file;
mod reference;
mod secret;
pub(crate) mod storage;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rootcellar_digest::DigestFunction;
use rootcellar_worker::ResourceLimits;
use schemars::JsonSchema;
use serde::Deserialize;

pub(crate) use self::disk::DiskSettings;
use self::file::File;
use self::storage::Storage;
use crate::cli;
use crate::size::Size;

const DEFAULT_PORT: u16 = 8980;
/// Long enough for a browser or a kernel: clients that build those send no timeout of their own.
const DEFAULT_TIMEOUT: Duration = Duration::from_hours(6);
/// Clients whose stream broke come back within seconds; one that was killed never does.
const DEFAULT_ABANDON_AFTER: Duration = Duration::from_secs(60);
/// Often enough to see what a build does, and seldom enough for a log of weeks.
const DEFAULT_STATISTICS: Duration = Duration::from_secs(600);
/// More than any build has at once, and far less than the machine can have.
const DEFAULT_PROCESSES: u64 = 10_000;
const DEFAULT_TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// All settings, decided.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    /// The server's own directory.
    pub(crate) dir: PathBuf,
    /// The directory of the disk whose files are at hand, if there is one: input roots are staged there.
    pub(crate) disk_dir: Option<PathBuf>,
    /// What everything is stored in.
    pub(crate) storage: Storage,
    /// What holds for disks in it that do not say something else.
    pub(crate) disk: DiskSettings,
    /// Whether clients are told what is stored.
    pub(crate) inventory: bool,
    /// How often the log says what was asked of each store.
    pub(crate) statistics: Option<Duration>,
    pub(crate) workers: usize,
    pub(crate) execution: bool,
    pub(crate) allow_network: bool,
    /// How input roots become directories; `None` is the best that works here.
    pub(crate) stager: Option<StagerKind>,
    /// What each action may use.
    pub(crate) limits: ResourceLimits,
    pub(crate) digest_functions: Vec<DigestFunction>,
    pub(crate) default_timeout: Duration,
    pub(crate) max_timeout: Duration,
    pub(crate) abandon_after: Duration,
    pub(crate) platform: BTreeMap<String, Vec<String>>,
}

/// When stored content survives a power cut. The store's documentation has the exact promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Durability {
    /// Nothing that was acknowledged.
    Always,
    /// What was put in the last moments.
    Interval,
    /// What the kernel had not written by itself.
    None,
}

/// Where blobs lie in the store's directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, clap::ValueEnum)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WhenFull {
    /// The time that blobs stay.
    Shorten,
    /// Puts.
    Refuse,
}

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
        let loopback = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
        let disk = DiskSettings::at_the_top(options, &file)?;
        let storage = file.storage.clone().unwrap_or_default();
        let local = check::storage(&storage, &disk)?;
        let execution = execution(options, &file, local.is_some())?;
        let limits = limits(&file, local.as_ref().unwrap_or(&disk).max_size)?;
        Ok(Self {
            listen: options.listen.or(file.listen).unwrap_or(loopback),
            dir: disk.dir.clone(),
            disk_dir: local.map(|disk| disk.dir),
            storage,
            disk,
            inventory: options.inventory || file.inventory.unwrap_or(false),
            statistics: match file.statistics_seconds {
                Some(0) => None,
                seconds => Some(seconds_or(seconds, DEFAULT_STATISTICS)),
            },
            workers: match options.workers.or(file.workers) {
                Some(0) => bail!("workers: at least one is needed; execution = false runs none"),
                Some(workers) => workers.try_into()?,
                None => std::thread::available_parallelism().map_or(1, usize::from),
            },
            execution,
            allow_network: options.allow_network || file.allow_network.unwrap_or(false),
            stager: options.stager.or(file.stager),
            limits,
            digest_functions: digest_functions(file.digest_functions)?,
            default_timeout: seconds_or(file.default_timeout_seconds, DEFAULT_TIMEOUT),
            max_timeout: seconds_or(file.max_timeout_seconds, DEFAULT_TIMEOUT_MAX),
            abandon_after: seconds_or(file.abandon_after_seconds, DEFAULT_ABANDON_AFTER),
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

fn seconds_or(seconds: Option<u64>, default: Duration) -> Duration {
    seconds.map_or(default, Duration::from_secs)
}

/// Whether actions are executed. Input roots are staged over the files of a disk.
fn execution(options: &cli::Serve, file: &File, has_disk: bool) -> anyhow::Result<bool> {
    if options.no_execution {
        return Ok(false);
    }
    if file.execution == Some(true) && !has_disk {
        bail!(
            "execution needs a disk: put one in front of the storage ([storage.tiered] with fast.disk), or say execution = false"
        );
    }
    Ok(file.execution.unwrap_or(has_disk))
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

    fn merged(text: &str) -> anyhow::Result<Config> {
        Config::merge(&cli::Serve::default(), File::parse(text).unwrap())
    }

    #[test]
    fn actions_are_executed_where_there_is_a_disk() {
        for (text, executes) in [
            ("", true),
            ("execution = false", false),
            ("[storage.tiered]\nfast.disk = {}\nslow.memory.max_size = '1GiB'", true),
            ("[storage.limited]\nstore.disk = {}", false),
            ("[storage.remote]\nurl = 'http://x:1'", false),
        ] {
            assert_eq!(merged(text).unwrap().execution, executes, "{text}");
        }
        let error = merged("execution = true\n[storage.remote]\nurl = 'http://x:1'").unwrap_err();
        assert!(error.to_string().contains("needs a disk"), "{error}");
    }

    #[test]
    fn an_option_wins_over_the_file_and_the_file_over_the_default() {
        let file = File::parse("listen = '127.0.0.1:1'\nmax_size = '1GiB'\n").unwrap();
        let options = cli::Serve {
            max_size: Some(Size(7)),
            ..cli::Serve::default()
        };
        let config = Config::merge(&options, file).unwrap();
        assert_eq!(
            (config.listen.port(), config.disk.max_size, config.execution),
            (1, Size(7), true)
        );
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
