//! What a process and those that it started have used, as proc(5) tells it.
//!
//! Processor time is that of the processes that are there when it is asked for: what ended since then is not counted.

#![allow(unsafe_code, reason = "rustix has no clocks of other processes")]

use std::fs;
use std::time::Duration;

/// Processor time, in the kernel and outside of it, of a process and of all below it. `None` if the process is gone.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let processes = with_descendants(pid)?;
    // A child may end meanwhile.
    let times = processes.iter().filter_map(|process| clock(process.pid));
    Some(times.sum())
}

/// The clock of processor time of a process, all of its threads together: exact, where proc(5) counts in hundredths of a second.
fn clock(pid: u32) -> Option<Duration> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write where they are told to, which is valid for them; they keep nothing.
    let is_known = unsafe {
        libc::clock_getcpuclockid(pid, &raw mut clock) == 0 && libc::clock_gettime(clock, &raw mut time) == 0
    };
    let (seconds, nanos) = (u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
    is_known.then(|| Duration::new(seconds, nanos))
}

/// Bytes of memory that no file backs, of a process and of all below it. `None` if the process is gone.
pub(super) fn anonymous_bytes(pid: u32) -> Option<u64> {
    let processes = with_descendants(pid)?;
    Some(
        processes
            .iter()
            .filter_map(|process| resident_anonymous(process.pid))
            .sum(),
    )
}

/// Some of the fields of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
}

fn with_descendants(pid: u32) -> Option<Vec<Process>> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        // Those that end meanwhile are left out.
        .filter_map(|pid: u32| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?))
        .collect();
    let mut found = vec![*all.iter().find(|process| process.pid == pid)?];
    let mut next = 0;
    while let Some(parent) = found.get(next).map(|process| process.pid) {
        found.extend(all.iter().filter(|process| process.parent == parent));
        next += 1;
    }
    Some(found)
}

/// Reads the line of a process. Its name comes in brackets and may hold anything, brackets too.
fn parse(stat: &str) -> Option<Process> {
    let (before, after) = stat.rsplit_once(')')?;
    let pid = before.split_once(' ')?.0.parse().ok()?;
    // The state comes first.
    let parent = after.split_whitespace().nth(1)?.parse().ok()?;
    Some(Process { pid, parent })
}

fn resident_anonymous(pid: u32) -> Option<u64> {
    const KIB: u64 = 1024;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_spaces_does_not_move_the_fields() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194304 100 0 0 0 30 12 5 5 20 0 1 0 100 1000 10";
        let expected = Process { pid: 42, parent: 7 };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("42 (short) S"), None);
        assert_eq!(parse(""), None);
    }

    #[test]
    fn this_process_has_memory_and_a_child_counts_with_it() {
        let own = std::process::id();
        assert!(anonymous_bytes(own).unwrap() > 0);
        assert!(cpu_time(own).is_some());
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = with_descendants(own).unwrap();
        assert!(found.iter().any(|process| process.pid == child.id()), "{found:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_gone_has_nothing() {
        assert_eq!(cpu_time(u32::MAX), None);
    }
}
