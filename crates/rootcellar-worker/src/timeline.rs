//! When each part of an action's run took place, in the API's words.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost_types::{Any, Timestamp};
use rootcellar_proto::reapi::ExecutedActionMetadata;
use rootcellar_proto::usage::ResourceUsage;
use rootcellar_store::Clock;

/// Fills in an [`ExecutedActionMetadata`] as the run goes on. Its times never go backwards, though the clock may.
#[derive(Debug)]
pub(crate) struct Timeline {
    clock: Arc<dyn Clock>,
    latest: SystemTime,
    metadata: ExecutedActionMetadata,
}

impl Timeline {
    /// Starts with the worker: the action has been queued at `queued`.
    pub(crate) fn start(clock: Arc<dyn Clock>, worker: &str, queued: SystemTime) -> Self {
        let metadata = ExecutedActionMetadata {
            worker: worker.to_owned(),
            queued_timestamp: Some(queued.into()),
            ..ExecutedActionMetadata::default()
        };
        let mut timeline = Self {
            clock,
            latest: queued,
            metadata,
        };
        timeline.metadata.worker_start_timestamp = timeline.now();
        timeline
    }

    pub(crate) fn fetching_inputs(&mut self) {
        self.metadata.input_fetch_start_timestamp = self.now();
    }

    pub(crate) fn inputs_fetched(&mut self) {
        self.metadata.input_fetch_completed_timestamp = self.now();
    }

    pub(crate) fn executing(&mut self) {
        self.metadata.execution_start_timestamp = self.now();
    }

    /// The command has ended after it ran for `ran`, by a clock that does not jump.
    pub(crate) fn executed(&mut self, ran: Duration) {
        self.metadata.execution_completed_timestamp = self.now();
        // A command does not run for longer than i64 seconds.
        self.metadata.virtual_execution_duration = ran.try_into().ok();
    }

    /// What all processes of the command have used.
    pub(crate) fn used(&mut self, usage: &ResourceUsage) {
        let usage = Any::from_msg(usage).expect("a message without required fields can be encoded");
        self.metadata.auxiliary_metadata = vec![usage];
    }

    pub(crate) fn uploading_outputs(&mut self) {
        self.metadata.output_upload_start_timestamp = self.now();
    }

    pub(crate) fn outputs_uploaded(&mut self) {
        self.metadata.output_upload_completed_timestamp = self.now();
    }

    /// What is known so far.
    pub(crate) fn so_far(&self) -> ExecutedActionMetadata {
        self.metadata.clone()
    }

    /// Ends the run.
    pub(crate) fn complete(mut self) -> ExecutedActionMetadata {
        self.metadata.worker_completed_timestamp = self.now();
        self.metadata
    }

    /// What each part took, for a log.
    pub(crate) fn parts(&self) -> Parts {
        let metadata = &self.metadata;
        let between = |begin: &Option<Timestamp>, end: &Option<Timestamp>| {
            let time = |timestamp: &Option<Timestamp>| SystemTime::try_from((*timestamp)?).ok();
            time(end)?.duration_since(time(begin)?).ok()
        };
        Parts {
            waited: between(&metadata.queued_timestamp, &metadata.worker_start_timestamp),
            staged: between(
                &metadata.input_fetch_start_timestamp,
                &metadata.input_fetch_completed_timestamp,
            ),
            sandboxed: between(
                &metadata.execution_start_timestamp,
                &metadata.execution_completed_timestamp,
            ),
            ran: metadata.virtual_execution_duration.and_then(|ran| ran.try_into().ok()),
            captured: between(
                &metadata.output_upload_start_timestamp,
                &metadata.output_upload_completed_timestamp,
            ),
        }
    }

    fn now(&mut self) -> Option<Timestamp> {
        self.latest = self.latest.max(self.clock.now());
        Some(self.latest.into())
    }
}

/// What each part of a run took, as far as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts {
    waited: Option<Duration>,
    staged: Option<Duration>,
    /// The sandbox's own making and ending included.
    sandboxed: Option<Duration>,
    ran: Option<Duration>,
    captured: Option<Duration>,
}

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            ("waited", self.waited),
            ("staged", self.staged),
            ("sandbox", self.sandboxed),
            ("of that ran", self.ran),
            ("captured", self.captured),
        ];
        let known = parts.into_iter().filter_map(|(name, time)| Some((name, time?)));
        for (number, (name, time)) in known.enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            write!(f, "{comma}{name} {:.1} ms", time.as_secs_f64() * 1e3)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A clock that someone sets, backwards too.
    #[derive(Debug)]
    struct SetClock(Mutex<SystemTime>);

    impl SetClock {
        fn set(&self, time: SystemTime) {
            *self.0.lock().unwrap() = time;
        }
    }

    impl Clock for SetClock {
        fn now(&self) -> SystemTime {
            *self.0.lock().unwrap()
        }
    }

    #[test]
    fn times_stay_in_order_when_the_clock_is_set_back() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let clock = Arc::new(SetClock(Mutex::new(start)));
        let mut timeline = Timeline::start(clock.clone(), "w", start);
        timeline.fetching_inputs();
        clock.set(start - Duration::from_secs(500));
        timeline.inputs_fetched();
        clock.set(start + Duration::from_secs(1));
        let metadata = timeline.complete();
        assert_eq!(
            metadata.input_fetch_start_timestamp,
            metadata.input_fetch_completed_timestamp
        );
        assert_eq!(
            metadata.worker_completed_timestamp,
            Some((start + Duration::from_secs(1)).into())
        );
    }
}
