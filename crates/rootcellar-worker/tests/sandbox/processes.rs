//! Looking at the host's processes from outside.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long something that must happen may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a number of seconds to sleep that no other process on this machine has in its command line.
pub(crate) fn unique_nap() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("77{}{:03}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Counts the processes that have `word` in their command line.
pub(crate) fn count_with(word: &str) -> usize {
    pids()
        .filter(|pid| command_line(*pid).split('\0').any(|argument| argument == word))
        .count()
}

/// Waits for a process that has `word` in its command line, and returns it.
pub(crate) fn with(word: &str) -> u32 {
    let has = |pid: &u32| command_line(*pid).split('\0').any(|argument| argument == word);
    let mut found = None;
    wait_until(|| {
        found = pids().find(has);
        found.is_some()
    });
    found.expect("the wait ends when there is one")
}

/// Returns a line of `/proc/pid/status`, without its name.
pub(crate) fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    line.expect("the kernel writes it").to_owned()
}

/// Waits for something that nobody reports.
pub(crate) fn wait_until(mut happened: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !happened() {
        assert!(begin.elapsed() < PATIENCE, "it did not happen in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns the children of `parent` that are part of a sandbox helper.
pub(crate) fn helpers_below(parent: u32) -> Vec<u32> {
    let is_helper = |pid: &u32| command_line(*pid).contains("sandbox-init");
    pids()
        .filter(|pid| parent_of(*pid) == Some(parent))
        .filter(is_helper)
        .collect()
}

/// Returns the processes that watch over sandboxes of this process: children of its spawner.
pub(crate) fn launchers() -> Vec<u32> {
    let spawners = helpers_below(std::process::id());
    spawners.into_iter().flat_map(helpers_below).collect()
}

/// Counts the children of this process that have ended and were not waited for.
pub(crate) fn zombies() -> usize {
    let is_zombie = |pid: &u32| field(*pid, 0).is_some_and(|state| state == "Z");
    pids()
        .filter(|pid| parent_of(*pid) == Some(std::process::id()))
        .filter(is_zombie)
        .count()
}

pub(crate) fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

fn parent_of(pid: u32) -> Option<u32> {
    field(pid, 1)?.parse().ok()
}

/// Returns a field of `/proc/pid/stat`, counted from the one after the program's name.
fn field(pid: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after_name = stat.rsplit_once(") ")?.1;
    after_name.split(' ').nth(index).map(str::to_owned)
}

fn command_line(pid: u32) -> String {
    // A process that has just ended has no command line to match.
    fs::read(format!("/proc/{pid}/cmdline"))
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir(Path::new("/proc")).unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}
