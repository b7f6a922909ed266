//! What a process and those that it started have used, as proc(5) tells it.
//!
//! Processor time is that of the processes that are there when it is asked for: what ended since then is not counted.

use std::fs;
use std::time::Duration;

/// Processor time, in the kernel and outside of it, of a process and of all below it. `None` if the process is gone.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let ticks_a_second = rustix::param::clock_ticks_per_second();
    let ticks: u64 = with_descendants(pid)?.iter().map(|process| process.ticks).sum();
    Some(Duration::from_millis(
        ticks.saturating_mul(1000) / ticks_a_second.max(1),
    ))
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
    ticks: u64,
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
    // The first is the third field of the manual page, the state.
    let fields: Vec<&str> = after.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Process {
        pid,
        parent: u32::try_from(number(4)?).ok()?,
        ticks: number(14)? + number(15)?,
    })
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
        let expected = Process {
            pid: 42,
            parent: 7,
            ticks: 42,
        };
        assert_eq!(parse(stat), Some(expected));
        assert_eq!(parse("42 (short) S 7"), None);
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
