//! Servers of the Remote Execution API under load, side by side: ours, a peer, and one that does nothing but what has to be done.
//!
//! ```text
//!   Settings ──┐
//!   Targets ───┴─> for each workload, for each target: Load ──> drive ──> Measured ──> Samples ──> Report
//!                                                                                        └──> ratios ──> Figures
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
use self::drive::{Load, Measured, drive};
use self::failure::{Failure, Failures};
use self::lookups::FindMissing;
use self::peer::{Peer, Windows};
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
        for target in targets {
            say(&format!("{}, {}", workload.name(), target.name));
            run.put_under(target, *workload).await;
        }
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
    async fn put_under(&mut self, target: &Target, workload: Workload) {
        // Each target has contents of its own: two of them may be one and the same server.
        let random = Random::new(self.random.number());
        let mut notes = Notes {
            target,
            workload,
            outcome: &mut self.outcome,
        };
        if workload == Workload::SlowReaders {
            match Box::pin(slow_readers::measure(target, self.settings, &mut { random })).await {
                Ok(held) => notes.hold(&held),
                Err(failure) => notes.failure(failure),
            }
            return;
        }
        match Box::pin(measured(target, workload, self.settings, random)).await {
            Ok(measured) if measured.is_not_offered => notes.note("not offered".to_owned()),
            Ok(measured) => notes.measured(&measured),
            Err(failure) => notes.failure(failure),
        }
    }
}

/// Connects, makes ready what the load needs, and drives it.
async fn measured(
    target: &Target,
    workload: Workload,
    settings: &Settings,
    mut random: Random,
) -> Result<Measured, Failure> {
    let peers = Peer::connect(target, settings.connections, Windows::WIDE).await?;
    let peer = &peers[0];
    let driver = Driver {
        peers: &peers,
        process: target.process,
        settings,
    };
    match workload {
        Workload::BatchUpdate => driver.drive(BatchUpdate::new(peer, settings, &mut random)).await,
        Workload::BatchRead => driver.drive(BatchRead::new(peer, settings, random).await?).await,
        Workload::StreamWrite => driver.drive(StreamWrite::new(peer, settings, &mut random)).await,
        Workload::StreamRead => driver.drive(StreamRead::new(peer, settings, &mut random).await?).await,
        Workload::FindMissing => driver.drive(FindMissing::new(peer, settings, random).await?).await,
        Workload::AcPut => driver.drive(AcPut::new(peer, settings, random).await?).await,
        Workload::AcGet => driver.drive(AcGet::new(peer, settings, random).await?).await,
        Workload::GetTree => driver.drive(GetTree::new(peer, settings, &mut random).await?).await,
        Workload::Trace => driver.drive(Trace::new(settings, random)).await,
        Workload::SlowReaders => unreachable!("it makes no calls that could be counted"),
    }
}

struct Driver<'a> {
    peers: &'a [Peer],
    process: Option<u32>,
    settings: &'a Settings,
}

impl Driver<'_> {
    async fn drive<L: Load>(&self, load: L) -> Result<Measured, Failure> {
        Ok(drive(load, self.peers, self.process, self.settings).await)
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
