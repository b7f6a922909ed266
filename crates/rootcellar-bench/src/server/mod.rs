//! Servers of the Remote Execution API under load, side by side: ours, a peer, and one that does nothing but what has to be done.
//!
//! ```text
//!   Settings ──┐
//!   Targets ───┴─> for each workload: Load for each target ──> in turns ──> Measured ──> Samples ──> Report
//!                                                                                           └──> ratios ──> Figures
//! ```
//!
//! The client is this process, most often on the machine of the server. So rates tell what both can do together, and the processor time
//! of the server's process tells what the server takes. Contents, digests and messages are made before clocks run, and answers are
//! looked at as far as that costs nothing: lengths, first bytes, and which blob it is.

mod batches;
mod contents;
mod drive;
mod failure;
mod histogram;
mod lookups;
mod peer;
mod process;
mod ratios;
mod results;
mod settings;
mod slow_readers;
mod streams;
mod trace;
mod trees;

use std::time::Duration;

use self::batches::{BatchRead, BatchUpdate};
pub use self::contents::BLOB_BYTES_MIN;
use self::drive::{Driven, Load, Measured, in_turns};
use self::failure::{Failure, Failures};
use self::lookups::FindMissing;
use self::results::{AcGet, AcPut};
pub use self::settings::{Bound, Role, Settings, Target, Workload};
use self::slow_readers::Held;
use self::streams::{StreamRead, StreamWrite};
use self::trace::Trace;
use self::trees::GetTree;
use crate::measure::count;
use crate::random::Random;
use crate::report::{Charts, Figure, Goal, Note, Report, Sample, Unit};

const CPU: &str = "CPU of the server";
const RATE: &str = "rate";
const MIB: f64 = 1024.0 * 1024.0;
/// Names of quantiles, in thousandths.
const QUANTILES: [(&str, u64); 4] = [
    ("latency, p50", 500),
    ("latency, p90", 900),
    ("latency, p99", 990),
    ("latency, p99.9", 999),
];
/// What slow readers may cost.
const SLOW_READERS_MIB: f64 = 256.0;

/// What a run has shown.
#[derive(Debug)]
pub struct Outcome {
    /// The numbers.
    pub report: Report,
    /// Calls that failed, those left out that a server does not offer.
    pub failed_calls: u64,
}

/// Puts each target under each workload, and tells `say` what is going on.
pub async fn measure(targets: &[Target], settings: &Settings, mut say: impl FnMut(&str)) -> Outcome {
    let mut run = Run {
        settings,
        random: Random::new(settings.salt),
        outcome: Outcome {
            report: Report::titled("Servers under the workload of builds", Charts::ByWorkload),
            failed_calls: 0,
        },
    };
    for workload in &settings.workloads {
        say(workload.name());
        Box::pin(run.put_under(targets, *workload)).await;
    }
    let ratios = ratios::figures(&run.outcome.report, targets);
    // What was asked by the way comes behind the ratios.
    run.outcome.report.figures.splice(0..0, ratios);
    run.outcome
}

struct Run<'a> {
    settings: &'a Settings,
    random: Random,
    outcome: Outcome,
}

impl Run<'_> {
    async fn put_under(&mut self, targets: &[Target], workload: Workload) {
        match workload {
            Workload::BatchUpdate => self.compare::<BatchUpdate>(targets, workload).await,
            Workload::BatchRead => self.compare::<BatchRead>(targets, workload).await,
            Workload::StreamWrite => self.compare::<StreamWrite>(targets, workload).await,
            Workload::StreamRead => self.compare::<StreamRead>(targets, workload).await,
            Workload::FindMissing => self.compare::<FindMissing>(targets, workload).await,
            Workload::AcPut => self.compare::<AcPut>(targets, workload).await,
            Workload::AcGet => self.compare::<AcGet>(targets, workload).await,
            Workload::GetTree => self.compare::<GetTree>(targets, workload).await,
            Workload::Trace => self.compare::<Trace>(targets, workload).await,
            Workload::SlowReaders => self.hold(targets, workload).await,
        }
    }

    /// Makes the same calls to all targets, in turns.
    async fn compare<L: Load>(&mut self, targets: &[Target], workload: Workload) {
        let (mut ready, mut servers) = (Vec::new(), Vec::new());
        for target in targets {
            match Driven::<L>::ready(target, self.settings, self.new_contents()).await {
                Ok(server) => {
                    ready.push(target);
                    servers.push(server);
                }
                Err(failure) => self.notes(target, workload).failure(failure),
            }
        }
        let measured = in_turns(servers, self.settings).await;
        for (target, measured) in ready.into_iter().zip(&measured) {
            self.notes(target, workload).measured(measured);
        }
    }

    /// Has each target hold what readers do not take.
    async fn hold(&mut self, targets: &[Target], workload: Workload) {
        for target in targets {
            let mut random = self.new_contents();
            match slow_readers::measure(target, self.settings, &mut random).await {
                Ok(held) => self.notes(target, workload).hold(&held),
                Err(failure) => self.notes(target, workload).failure(failure),
            }
        }
    }

    /// Each target has contents of its own: two of them may be one and the same server.
    fn new_contents(&mut self) -> Random {
        Random::new(self.random.number())
    }

    fn notes<'a>(&'a mut self, target: &'a Target, workload: Workload) -> Notes<'a> {
        Notes {
            target,
            workload,
            outcome: &mut self.outcome,
        }
    }
}

/// Where the numbers of one target under one workload go.
struct Notes<'a> {
    target: &'a Target,
    workload: Workload,
    outcome: &'a mut Outcome,
}

impl Notes<'_> {
    fn sample(&mut self, measure: &str, value: f64, unit: Unit) {
        self.outcome.report.samples.push(Sample {
            workload: self.workload.name().to_owned(),
            candidate: self.target.name.clone(),
            measure: measure.to_owned(),
            value,
            unit,
        });
    }

    fn note(&mut self, text: String) {
        self.outcome.report.notes.push(Note {
            workload: self.workload.name().to_owned(),
            candidate: self.target.name.clone(),
            text,
        });
    }

    /// A failure before anything was measured.
    fn failure(&mut self, failure: Failure) {
        if failure.is_unimplemented() {
            return self.note("not offered".to_owned());
        }
        let mut failures = Failures::default();
        failures.add(failure);
        self.failures(&failures);
    }

    fn failures(&mut self, failures: &Failures) {
        self.outcome.failed_calls += failures.count();
        failures.lines().for_each(|line| self.note(line));
    }

    fn measured(&mut self, measured: &Measured) {
        if measured.is_not_offered {
            return self.note("not offered".to_owned());
        }
        self.failures(&measured.failures);
        if measured.items == 0 {
            return;
        }
        let seconds = measured.wall.as_secs_f64();
        if let Some(cpu) = measured.cpu {
            self.sample(CPU, cpu * 1e6, self.item_cost());
        }
        self.sample(RATE, count(measured.items) / seconds, Unit::ItemsASecond);
        if measured.bytes > 0 {
            self.sample(
                "throughput",
                count(measured.bytes) / MIB / seconds,
                Unit::MebibytesASecond,
            );
        }
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        for (name, thousandths) in QUANTILES {
            let time = measured.latency.quantile(thousandths);
            self.sample(name, millis(time), Unit::Milliseconds);
        }
        self.sample("latency, max", millis(measured.latency.max()), Unit::Milliseconds);
        self.sample("calls", count(measured.calls()), Unit::Calls);
    }

    fn item_cost(&self) -> Unit {
        match self.workload {
            Workload::FindMissing => Unit::MicrosecondsADigest,
            Workload::AcPut | Workload::AcGet => Unit::MicrosecondsAResult,
            Workload::GetTree => Unit::MicrosecondsADirectory,
            Workload::Trace => Unit::MicrosecondsAnAction,
            _ => Unit::MicrosecondsABlob,
        }
    }

    fn hold(&mut self, held: &Held) {
        self.failures(&held.failures);
        let Some((idle, most)) = held.idle_bytes.zip(held.most_bytes) else {
            return self.note("the server's process is not known, and so not its memory".to_owned());
        };
        let above = count(most.saturating_sub(idle)) / MIB;
        self.sample("memory, idle", count(idle) / MIB, Unit::Mebibytes);
        self.sample("memory above idle", above, Unit::Mebibytes);
        if self.target.role != Role::Ours {
            return;
        }
        self.outcome.report.figures.push(Figure {
            question: format!("slow readers: MiB of anonymous memory above idle, {}", self.target.name),
            value: above,
            goal: Goal::AtMost(SLOW_READERS_MIB),
            detail: format!(
                "{} reads of {} MiB, of which each client has taken one message; idle {:.0} MiB",
                held.readers,
                slow_readers::BLOB_BYTES >> 20,
                count(idle) / MIB
            ),
        });
    }
}
