//! The server: opens the store, puts the services over it, runs workers, and ends them in order.
//!
//! ```text
//!   SIGTERM ──► health: not serving ──► no new work ──► running actions end (or are cut off) ──► connections end ──► store closed
//! ```

mod banner;
mod execution;
mod signals;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use rootcellar_grpc::server::{ExecutionOptions, Served, Services, Transport};
use rootcellar_reapi::{ActionCache, ActionCacheOptions, ActionLimits, AssetIndex, AssetOptions, Functions};
use tokio::net::TcpListener;

use self::banner::Banner;
use self::execution::Execution;
use self::signals::Signals;
use crate::cli;
use crate::config::Config;
use crate::storage::Storage;

/// Threads that may block: for file I/O, hashing, staging and capture. A worker uses two at a time.
const BLOCKING_THREADS_MAX: usize = 256;

/// How long running actions may go on when the server is told to end.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// Runs the server until it is told to end.
pub(crate) fn run(options: &cli::Serve) -> anyhow::Result<ExitCode> {
    let config = Config::load(options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("rootcellar")
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .context("starting the runtime")?;
    runtime.block_on(serve(&config))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let mut signals = Signals::watch().context("watching for signals")?;
    raise_open_files_limit();
    let storage = Storage::open(config, cache_options(config)).await?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {}", config.listen))?;
    let address = listener.local_addr().context("asking for the address")?;

    let execution = match config.execution {
        true => Some(Execution::start(config, &storage).await?),
        false => None,
    };
    let Served { routes, health } = services(config, &storage, execution.as_ref())?.build();
    announce(config, address, &storage, execution.as_ref());

    let ending = health.clone();
    let ended = async {
        signals.next().await;
        tracing::info!(
            "shutting down: running actions have {} s, a second signal ends them now",
            DRAIN_PATIENCE.as_secs()
        );
        ending.drain();
        if let Some(execution) = &execution {
            tokio::select! {
                () = execution.dispatcher().drain(DRAIN_PATIENCE) => {}
                () = signals.next() => execution.dispatcher().drain(Duration::ZERO).await,
            }
        }
    };
    rootcellar_grpc::server::serve(listener, routes, health, Transport::default(), ended).await?;
    if let Some(execution) = execution {
        execution.join().await;
    }
    storage.close().await
}

/// Uploads, reads and connections each hold a file; the limit that a shell starts programs with is made for programs of another
/// time. What the operator has set as the hard limit is respected.
fn raise_open_files_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// Says what a person reads when the server is ready. Nobody has to listen.
fn announce(config: &Config, address: SocketAddr, storage: &Storage, execution: Option<&Execution>) {
    let stager = execution.map(Execution::stager);
    let banner = Banner {
        config,
        address,
        store: &storage.blobs,
        stager,
    };
    let mut stdout = std::io::stdout().lock();
    if let Err(error) = write!(stdout, "{banner}").and_then(|()| stdout.flush()) {
        tracing::debug!(%error, "nobody reads what the server announces");
    }
}

fn services(config: &Config, storage: &Storage, execution: Option<&Execution>) -> anyhow::Result<Services> {
    let functions = Functions::new(config.digest_functions.clone())?;
    let options = AssetOptions {
        functions: functions.clone(),
        ..AssetOptions::default()
    };
    let assets = AssetIndex::new(
        storage.records.clone(),
        storage.blobs.clone(),
        storage.clock.clone(),
        options,
    );
    let mut services = Services::new(storage.blobs.clone(), storage.spool.clone(), functions)
        .with_action_cache(ActionCache::clone(&storage.cache), true)
        .with_assets(assets);
    if config.inventory {
        let inventory = storage.inventory.clone();
        services = services.with_inventory(inventory.context("inventory: this storage cannot tell what it holds")?);
    }
    if let Some(execution) = execution {
        let mut options = ExecutionOptions::default();
        options.actions = action_limits(config);
        services = services.with_execution(execution.dispatcher().clone(), options);
    }
    Ok(services)
}

fn cache_options(config: &Config) -> ActionCacheOptions {
    ActionCacheOptions {
        action: action_limits(config),
        ..ActionCacheOptions::default()
    }
}

/// What actions may ask for, wherever one is read.
fn action_limits(config: &Config) -> ActionLimits {
    ActionLimits {
        timeout_default: Some(config.default_timeout),
        timeout_max: Some(config.max_timeout),
        ..ActionLimits::default()
    }
}
