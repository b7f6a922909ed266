//! Control groups: what bounds all processes of an action together, and tells what they used.
//!
//! ```text
//!   version 2   <our group>/rootcellar-<pid>-server/    ourselves: a group that passes controllers on may hold no process
//!               <our group>/rootcellar-<pid>-<slot>/    a worker, and what runs for it
//!   version 1   <our group of the controller>/rootcellar-<pid>-<slot>/
//! ```
//!
//! Each controller is used where it is: version 2 is preferred, and version 1 where version 2 lacks it. A worker keeps its group: one
//! action after the other runs in it, each after all processes of the one before are gone. (A group that was used stays in the kernel
//! until the last page that it read is dropped; a new one for each action would add up.)

mod find;
mod group;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use self::group::{Group, Snapshot};
use crate::identity::Slot;

/// Bounds on what each action may use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResourceLimits {
    /// Bytes that it may write to its root. What it keeps within some seconds counts; a single file cannot be larger.
    pub disk_bytes: Option<u64>,
    /// Bytes of memory of all its processes, what they hold in `/tmp` and `/dev/shm` included.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
    /// Processors, of which it gets the time of so many at the most.
    pub cpus: Option<f64>,
}

/// What control groups can bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processes and threads.
    Processes,
    /// Processor time.
    Cpu,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Memory, Self::Processes, Self::Cpu];

    /// The kernel's name for it.
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Processes => "pids",
            Self::Cpu => "cpu",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which of the two interfaces a hierarchy has (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each controller.
    V1,
    /// One hierarchy for all.
    V2,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "version 1",
            Self::V2 => "version 2",
        })
    }
}

/// A group in which groups with some controllers can be made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parent {
    version: Version,
    path: PathBuf,
}

/// The control groups that this process may make groups in.
#[derive(Debug)]
pub struct Cgroups {
    parents: HashMap<Controller, Result<Parent, String>>,
    limits: ResourceLimits,
    groups: Mutex<HashMap<Slot, Arc<Group>>>,
}

impl Cgroups {
    /// Looks for them, and prepares them: with version 2, this process moves to a group of its own below the one it is in. Groups that
    /// processes which are gone have left are removed.
    pub fn find(limits: ResourceLimits) -> Self {
        let parents = find::parents();
        for parent in parents.values().flatten() {
            find::remove_leftovers(&parent.path);
        }
        Self {
            parents,
            limits,
            groups: Mutex::default(),
        }
    }

    /// Which controllers there are, and why not.
    pub fn controllers(&self) -> impl Iterator<Item = (Controller, Result<Version, &str>)> {
        Controller::ALL.into_iter().map(|controller| {
            let parent = &self.parents[&controller];
            (
                controller,
                parent.as_ref().map(|parent| parent.version).map_err(String::as_str),
            )
        })
    }

    pub(crate) fn limits(&self) -> &ResourceLimits {
        &self.limits
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.parents[&controller].is_ok()
    }

    /// The group of a worker, which is made when it is first asked for.
    pub(crate) fn group(&self, slot: Slot) -> std::io::Result<Arc<Group>> {
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = groups.get(&slot) {
            return Ok(group.clone());
        }
        let group = Arc::new(Group::make(&self.parents, &self.limits, slot)?);
        groups.insert(slot, group.clone());
        Ok(group)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let groups = self.groups.get_mut().unwrap_or_else(PoisonError::into_inner);
        groups.clear();
        for parent in self.parents.values().flatten() {
            find::leave(parent);
        }
    }
}
