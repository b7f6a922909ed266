//! `/dev` of a sandbox: the few nodes that every program expects, terminals and shared memory of its own.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};

use super::error::{Failure, failed};
use super::mounts::{Detached, INERT, NO_SETUID, Place};
use super::root::memory_file_system;

/// The host's nodes that are shown. A user namespace cannot make device nodes, so that each is a mount.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// The size of `/dev` itself, where nobody has business writing files.
const DEV_BYTES: u64 = 1 << 20;

/// Returns where the nodes lie on the host, in the order in which [`mount`] wants copies of them.
pub(super) fn host_nodes() -> impl Iterator<Item = PathBuf> {
    NODES.iter().map(|node| Path::new("/dev").join(node))
}

/// Mounts `/dev` with all that is in it; `nodes` are copies of the host's.
pub(super) fn mount(root: impl AsFd, nodes: Vec<Detached>, shm_bytes: u64) -> Result<(), Failure> {
    let root = root.as_fd();
    let dev = memory_file_system("755", DEV_BYTES)?;
    fill(&dev).map_err(failed("fill /dev"))?;
    dev.attach(&Place::open_directory(root, Path::new("/dev"))?)?;
    for (node, name) in nodes.into_iter().zip(NODES) {
        node.change_flags(NO_SETUID | libc::MOUNT_ATTR_NOEXEC, 0)?;
        node.attach(&Place::open(root, &Path::new("/dev").join(name))?)?;
    }
    let terminals = Detached::filesystem("devpts", &[("mode", "0620"), ("ptmxmode", "0666")], terminal_flags())?;
    terminals.attach(&Place::open_directory(root, Path::new("/dev/pts"))?)?;
    memory_file_system("1777", shm_bytes)?.attach(&Place::open_directory(root, Path::new("/dev/shm"))?)
}

/// Terminals are devices; nothing else of [`INERT`] is lost.
fn terminal_flags() -> u64 {
    INERT & !libc::MOUNT_ATTR_NODEV
}

/// Makes what is mounted on, and the links. The mount is not attached yet: nobody else sees it half done.
fn fill(dev: &Detached) -> rustix::io::Result<()> {
    for node in NODES {
        openat(
            dev,
            node,
            OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o666),
        )?;
    }
    for directory in ["pts", "shm"] {
        mkdirat(dev, directory, Mode::from_raw_mode(0o755))?;
    }
    LINKS
        .iter()
        .try_for_each(|(link, target)| symlinkat(*target, dev, *link))
}
