//! The execution part of the server: a dispatcher, workers in this process, and the time that the dispatcher is told.

use std::fmt;
use std::sync::Arc;

use anyhow::Context as _;
use rootcellar_scheduler::{Dispatcher, MonotonicClock, Offer, Policy};
use rootcellar_stage::Stager;
use rootcellar_worker::sandbox::Sandbox;
use rootcellar_worker::{Cgroups, Controller, Runner, Workers};
use tokio::task::JoinHandle;

use super::action_limits;
use crate::config::Config;
use crate::stagers;
use crate::storage::Storage;

/// Ids that an action can have inside its sandbox: those of 16 bits, which every program can hold. The last two mean "nobody"
/// and "no id" to the kernel.
const IDS_MAX: u32 = 65_533;

/// A running execution service.
pub(super) struct Execution {
    dispatcher: Dispatcher,
    stager: Arc<dyn Stager>,
    workers: Workers,
    time_keeper: JoinHandle<()>,
}

impl Execution {
    pub(super) async fn start(config: &Config, storage: &Storage) -> anyhow::Result<Self> {
        let offer = offer(config);
        let policy = Policy {
            platforms: vec![offer.clone()],
            unwatched_grace: config.abandon_after,
            ..Policy::default()
        };
        let dispatcher = Dispatcher::new(policy, Arc::new(MonotonicClock::start()));
        let sandbox = Sandbox::of_this_program();
        let cgroups = find_cgroups(config);
        let local = storage.local.clone().context("execution needs a disk")?;
        let dir = stagers::dir(config.disk_dir.as_deref().unwrap_or(&config.dir));
        let stager = stagers::open(config.stager, &dir, local.clone(), &sandbox).await?;
        let runner = Arc::new(Runner {
            store: local.clone(),
            cache: storage.cache.clone(),
            stager: stager.clone(),
            sandbox,
            clock: storage.clock.clone(),
            scratch_dir: dir,
            action_limits: action_limits(config),
            cgroups,
        });
        let count = u32::try_from(config.workers).context("workers")?;
        let workers = Workers::start(&dispatcher, &runner, &offer, &host_name(), count).await?;
        let keeper = dispatcher.clone();
        let time_keeper = tokio::spawn(async move { keeper.keep_time().await });
        Ok(Self {
            dispatcher,
            stager,
            workers,
            time_keeper,
        })
    }

    /// How input roots are staged.
    pub(super) fn stager(&self) -> &dyn fmt::Display {
        &self.stager
    }

    /// Where actions are submitted, and drained.
    pub(super) fn dispatcher(&self) -> &Dispatcher {
        &self.dispatcher
    }

    /// Waits until the workers have cleaned up.
    pub(super) async fn join(self) {
        self.workers.join().await;
        self.time_keeper.abort();
    }
}

/// What is asked for and cannot be bounded for all processes of an action together is said once, here.
fn find_cgroups(config: &Config) -> Cgroups {
    let limits = &config.limits;
    let asked = |controller| match controller {
        Controller::Memory => limits.memory_bytes.is_some(),
        Controller::Processes => limits.processes.is_some(),
        Controller::Cpu => limits.cpus.is_some(),
    };
    let instead = |controller| match controller {
        Controller::Memory => "each process is bounded by itself",
        Controller::Processes => "all processes of a worker's user are bounded together",
        Controller::Cpu => "it is not bounded",
    };
    let cgroups = Cgroups::find(limits.clone());
    for (controller, found) in cgroups.controllers() {
        if let (true, Err(reason)) = (asked(controller), found) {
            tracing::warn!(%controller, reason, "no control group bounds what an action uses: {}", instead(controller));
        }
    }
    cgroups
}

fn offer(config: &Config) -> Offer {
    let offer = Offer::native().unix_ids(0..=IDS_MAX).network(config.allow_network);
    let properties = config
        .platform
        .iter()
        .flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    properties.fold(offer, |offer, (name, value)| offer.property(name, value))
}

/// This machine's name, for the results of its workers.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
