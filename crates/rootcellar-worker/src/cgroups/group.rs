//! The group of one worker.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::find::worker_group;
use super::{Controller, Parent, ResourceLimits, Version};
use crate::identity::Slot;

/// In which processor time is given out, in microseconds: the kernel's default.
const CPU_PERIOD_US: f64 = 100_000.0;

/// Groups of one name in each hierarchy. Dropping it removes them.
#[derive(Debug)]
pub(crate) struct Group {
    parts: HashMap<Controller, Part>,
    /// Each once: with version 2, all controllers have the same.
    paths: Vec<PathBuf>,
    /// Where the peak of memory is read: with version 2, it is counted anew for a descriptor.
    peak: Mutex<Option<File>>,
}

#[derive(Debug, Clone)]
struct Part {
    version: Version,
    path: PathBuf,
}

/// What a group has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// Processes that the kernel killed because the group had no memory left.
    pub(crate) oom_kills: u64,
    /// The most memory at one time, if the kernel counts it.
    pub(crate) memory_peak_bytes: Option<u64>,
}

impl Group {
    pub(super) fn make(
        parents: &HashMap<Controller, Result<Parent, String>>,
        limits: &ResourceLimits,
        slot: Slot,
    ) -> io::Result<Self> {
        let mut group = Self {
            parts: HashMap::new(),
            paths: Vec::new(),
            peak: Mutex::default(),
        };
        for (controller, parent) in parents {
            let Ok(parent) = parent else { continue };
            let path = worker_group(&parent.path, slot.0);
            if !group.paths.contains(&path) {
                named(&path, fs::create_dir(&path))?;
                group.paths.push(path.clone());
            }
            let part = Part {
                version: parent.version,
                path,
            };
            part.limit(*controller, limits)?;
            group.parts.insert(*controller, part);
        }
        Ok(group)
    }

    /// The files by which a process joins.
    pub(crate) fn joins(&self) -> Vec<PathBuf> {
        self.paths.iter().map(|path| path.join("cgroup.procs")).collect()
    }

    /// Begins to count anew what is counted as a peak.
    pub(crate) fn begin(&self) -> Snapshot {
        if let Some(part) = self.parts.get(&Controller::Memory) {
            let (file, text) = match part.version {
                Version::V2 => ("memory.peak", "reset"),
                Version::V1 => ("memory.max_usage_in_bytes", "0"),
            };
            let peak = OpenOptions::new().read(true).write(true).open(part.path.join(file));
            // Older kernels do not count anew: then there is no peak of one action.
            let anew = peak.and_then(|file| file.write_at(text.as_bytes(), 0).map(|_| file));
            *self.peak() = anew
                .inspect_err(|error| tracing::debug!(%error, file, "the peak of memory is not counted"))
                .ok();
        }
        self.snapshot()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let Some(part) = self.parts.get(&Controller::Memory) else {
            return Snapshot::default();
        };
        let events = match part.version {
            Version::V2 => "memory.events",
            Version::V1 => "memory.oom_control",
        };
        let events = fs::read_to_string(part.path.join(events))
            .inspect_err(|error| tracing::warn!(%error, events, "what was killed for memory is not counted"))
            .unwrap_or_default();
        let kills = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
        Snapshot {
            oom_kills: kills.and_then(|count| count.trim().parse().ok()).unwrap_or(0),
            memory_peak_bytes: self.peak().as_ref().and_then(read_number),
        }
    }

    fn peak(&self) -> MutexGuard<'_, Option<File>> {
        self.peak.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    fn limit(&self, controller: Controller, limits: &ResourceLimits) -> io::Result<()> {
        match (controller, self.version) {
            (Controller::Memory, Version::V2) => {
                let Some(bytes) = limits.memory_bytes else {
                    return Ok(());
                };
                self.write("memory.max", &bytes.to_string())?;
                // The kernel may have no swap.
                match self.write("memory.swap.max", "0") {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    written => written,
                }
            }
            (Controller::Memory, Version::V1) => match limits.memory_bytes {
                Some(bytes) => self.write("memory.limit_in_bytes", &bytes.to_string()),
                None => Ok(()),
            },
            (Controller::Processes, _) => match limits.processes {
                Some(count) => self.write("pids.max", &count.to_string()),
                None => Ok(()),
            },
            (Controller::Cpu, version) => {
                let Some(cpus) = limits.cpus else { return Ok(()) };
                let quota = (cpus * CPU_PERIOD_US).round();
                match version {
                    Version::V2 => self.write("cpu.max", &format!("{quota} {CPU_PERIOD_US}")),
                    Version::V1 => {
                        self.write("cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
                        self.write("cpu.cfs_quota_us", &quota.to_string())
                    }
                }
            }
        }
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        let path = self.path.join(file);
        named(&path, fs::write(&path, text))
    }
}

fn read_number(file: &File) -> Option<u64> {
    let mut text = [0; 32];
    let len = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..len]).ok()?.trim().parse().ok()
}

fn named<T>(path: &Path, outcome: io::Result<T>) -> io::Result<T> {
    outcome.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

impl Drop for Group {
    fn drop(&mut self) {
        for path in &self.paths {
            // The kernel may take a moment to see that the last process has left.
            let removed = (0..20).find(|_| {
                let is_removed = fs::remove_dir(path).is_ok();
                if !is_removed {
                    std::thread::sleep(Duration::from_millis(5));
                }
                is_removed
            });
            if removed.is_none() {
                tracing::debug!(group = %path.display(), "a control group stays until the next start");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a group writes, into plain files.
    fn written(version: Version, limits: &ResourceLimits) -> (tempfile::TempDir, Group) {
        let dir = tempfile::tempdir().unwrap();
        let parent = Parent {
            version,
            path: dir.path().to_owned(),
        };
        let parents = [Controller::Memory, Controller::Processes, Controller::Cpu];
        let parents = parents.map(|controller| (controller, Ok(parent.clone()))).into();
        let group = Group::make(&parents, limits, Slot(3)).unwrap();
        (dir, group)
    }

    fn limits() -> ResourceLimits {
        ResourceLimits {
            memory_bytes: Some(1 << 20),
            processes: Some(77),
            cpus: Some(1.5),
            ..ResourceLimits::default()
        }
    }

    #[test]
    fn limits_are_written_in_the_words_of_each_version() {
        let in_v2 = [
            ("memory.max", "1048576"),
            ("memory.swap.max", "0"),
            ("pids.max", "77"),
            ("cpu.max", "150000 100000"),
        ];
        let in_v1 = [
            ("memory.limit_in_bytes", "1048576"),
            ("pids.max", "77"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "150000"),
        ];
        for (version, expected) in [(Version::V2, in_v2), (Version::V1, in_v1)] {
            let (_dir, group) = written(version, &limits());
            assert_eq!(group.paths.len(), 1, "one group for all controllers of a hierarchy");
            assert_eq!(group.joins(), [group.paths[0].join("cgroup.procs")]);
            for (file, text) in expected {
                assert_eq!(
                    fs::read_to_string(group.paths[0].join(file)).unwrap(),
                    text,
                    "{version}: {file}"
                );
            }
        }
    }

    #[test]
    fn without_limits_nothing_is_written() {
        let (_dir, group) = written(Version::V2, &ResourceLimits::default());
        assert_eq!(fs::read_dir(&group.paths[0]).unwrap().count(), 0);
    }

    #[test]
    fn kills_and_peaks_are_read() {
        for (version, events, peak) in [
            (Version::V2, "memory.events", "memory.peak"),
            (Version::V1, "memory.oom_control", "memory.max_usage_in_bytes"),
        ] {
            let (_dir, group) = written(version, &ResourceLimits::default());
            assert_eq!(group.snapshot(), Snapshot::default());
            fs::write(group.paths[0].join(events), "low 0\noom 2\noom_kill 3\n").unwrap();
            fs::write(group.paths[0].join(peak), "").unwrap();
            group.begin();
            fs::write(group.paths[0].join(peak), "4096\n").unwrap();
            let expected = Snapshot {
                oom_kills: 3,
                memory_peak_bytes: Some(4096),
            };
            assert_eq!(group.snapshot(), expected, "{version}");
        }
    }
}
