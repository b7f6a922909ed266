//! What a benchmark ran on, in the words of the machine.

use std::fs;

use serde::Serialize;

/// A machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    /// The processor's name.
    pub processor: String,
    /// Threads that can run at once.
    pub threads: usize,
    /// The kernel's release.
    pub kernel: String,
}

impl Machine {
    /// This machine. What it does not tell is empty.
    pub fn this() -> Self {
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|rest| rest.split_once(':'));
        Self {
            processor: model.map_or_else(String::new, |(_, name)| name.trim().to_owned()),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.trim().to_owned(),
        }
    }
}
