//! The machine as seen from outside of every sandbox.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// How long to rest between two looks at a condition.
const POLL: Duration = Duration::from_millis(20);

/// Looks at `condition` until it holds, and says whether it did before `deadline`.
pub fn wait_until(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// Says whether any process of the host, in whatever namespace, has `program` as its first argument's file name and
/// `argument` as one of the others.
#[must_use]
pub fn process_with_argument(program: &str, argument: &str) -> bool {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").filter_map(Result::ok);
    // A process that ends while it is looked at is one that is not there.
    entries
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| {
            let mut words = line.split(|byte| *byte == 0);
            let first = words.next().unwrap_or_default();
            let name = first.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            name == program.as_bytes() && words.any(|word| word == argument.as_bytes())
        })
}
