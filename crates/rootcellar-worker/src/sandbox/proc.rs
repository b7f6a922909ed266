//! `/proc` of a sandbox: its own processes, and of the kernel only what cannot change or betray the host.
//!
//! The mapped user may write none of the knobs below anyway. They are read-only and masked besides, so that one mistake in
//! the kernel's own checks is not enough.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;

use super::error::Failure;
use super::mounts::{Detached, INERT, Place};

/// Knobs of the kernel: readable, as builds do read them.
const READ_ONLY: [&str; 5] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

/// What tells about the host's memory, keys, timers and hardware.
const MASKED: [&str; 14] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
];

/// Makes the file system; where it will be mounted need not exist yet.
pub(super) fn make() -> Result<Detached, Failure> {
    Detached::filesystem("proc", &[], INERT).map_err(|failure| {
        if failure.errno != Errno::PERM.raw_os_error() {
            return failure;
        }
        // The kernel gives a user namespace no more of /proc than its maker sees, and most containers see a masked one.
        Failure {
            step: format!("{} (is this a container whose own /proc is masked?)", failure.step),
            ..failure
        }
    })
}

/// Mounts it at `/proc`, and covers what is not for the command. Wants `/dev/null` in place.
pub(super) fn mount(root: impl AsFd, proc: Detached) -> Result<(), Failure> {
    let root = root.as_fd();
    proc.attach(&Place::open_directory(root, Path::new("/proc"))?)?;
    for path in READ_ONLY {
        if let Some(place) = Place::open_if_present(root, Path::new(path))? {
            let copy = Detached::copy_of(&place)?;
            copy.change_flags(INERT | libc::MOUNT_ATTR_RDONLY, 0)?;
            copy.attach(&place)?;
        }
    }
    let null = Place::open(root, Path::new("/dev/null"))?;
    for path in MASKED {
        if let Some(place) = Place::open_if_present(root, Path::new(path))? {
            mask(&place, &null)?;
        }
    }
    Ok(())
}

fn mask(place: &Place, null: &Place) -> Result<(), Failure> {
    if place.is_directory()? {
        return Detached::filesystem("tmpfs", &[("mode", "555")], INERT | libc::MOUNT_ATTR_RDONLY)?.attach(place);
    }
    Detached::copy_of(null)?.attach(place)
}
