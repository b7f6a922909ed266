//! The file system of a sandbox: the staged root with the kernel's own directories on top, and nothing else.
//!
//! ```text
//! /            the staged root (no set-user-id, no devices)
//! /<subtree>   the same tree, read-only or writable where that differs
//! /<bind>      what the operator shows of the host
//! /proc        of this pid namespace; kernel knobs read-only, kernel secrets masked
//! /tmp         in memory, bounded
//! /dev         in memory: six device nodes of the host, pts, shm, and the usual links
//! ```
//!
//! Everything is mounted before the root changes: the kernel lets a user namespace have a `/proc` only where it can
//! still see a whole one.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, fchdir, pivot_root};

use super::error::{Failure, failed};
use super::mounts::{DATA_ONLY, Detached, NO_SETUID, Place};
use super::spec::{Bind, Root, SandboxSpec, Subtree};
use super::{dev, proc};

/// Top-level directories that something is mounted over: a root without them gets no sandbox.
pub const MOUNT_POINTS: &[&str] = &["dev", "proc", "tmp"];

/// Copies of the host's mounts that a sandbox will show, taken by whoever can still reach them.
#[derive(Debug)]
pub(super) struct HostTrees {
    root: Detached,
    binds: Vec<Detached>,
    devices: Vec<Detached>,
}

impl HostTrees {
    /// Copies the mounts. Needs the right to mount in the current mount namespace.
    pub(super) fn take(spec: &SandboxSpec) -> Result<Self, Failure> {
        let root = match &spec.root {
            Root::Path(path) => Detached::copy_of_host(path)?,
            Root::Mount(mount) => Detached::adopt(
                mount
                    .try_clone()
                    .map_err(failed("duplicate the descriptor of the staged root"))?,
            ),
        };
        let binds = spec
            .binds
            .iter()
            .map(|bind| Detached::copy_of_host(&bind.source))
            .collect::<Result<_, _>>()?;
        let devices = dev::host_nodes()
            .map(|path| Detached::copy_of_host(&path))
            .collect::<Result<_, _>>()?;
        Ok(Self { root, binds, devices })
    }
}

/// Stops every mount of this new namespace from telling the host, or hearing from it.
pub(super) fn leave_host_propagation() -> Result<(), Failure> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed("make all mounts private"))
}

/// Builds the file system of the sandbox from `trees` and makes it the root of this process, and the only one.
pub(super) fn enter(trees: HostTrees, spec: &SandboxSpec) -> Result<(), Failure> {
    let HostTrees { root, binds, devices } = trees;
    let proc = proc::make()?;
    let read_only = if spec.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    root.change_flags(DATA_ONLY | read_only, 0)?;
    root.attach_over_root()?;
    fchdir(&root).map_err(failed("enter the staged root"))?;

    spec.subtrees.iter().try_for_each(|subtree| restrict(&root, subtree))?;
    binds
        .into_iter()
        .zip(&spec.binds)
        .try_for_each(|(tree, bind)| show(&root, tree, bind))?;
    mount_tmp(&root, spec.limits.tmp_bytes)?;
    dev::mount(&root, devices, spec.limits.shm_bytes)?;
    proc::mount(&root, proc)?;
    forget_host()
}

/// Mounts part of the root over itself with flags of its own.
fn restrict(root: impl AsFd, subtree: &Subtree) -> Result<(), Failure> {
    let place = Place::open_directory(root, &subtree.path)?;
    let copy = Detached::copy_of(&place)?;
    let (set, clear) = if subtree.read_only {
        (libc::MOUNT_ATTR_RDONLY, 0)
    } else {
        (0, libc::MOUNT_ATTR_RDONLY)
    };
    copy.change_flags(set, clear)?;
    copy.attach(&place)
}

fn show(root: impl AsFd, tree: Detached, bind: &Bind) -> Result<(), Failure> {
    let place = Place::open(root, &bind.target)?;
    tree.change_flags(NO_SETUID | if bind.read_only { libc::MOUNT_ATTR_RDONLY } else { 0 }, 0)?;
    tree.attach(&place)
}

fn mount_tmp(root: impl AsFd, bytes: u64) -> Result<(), Failure> {
    memory_file_system("1777", bytes)?.attach(&Place::open_directory(root, Path::new("/tmp"))?)
}

/// Makes a file system in memory. Its files are bounded too, at the kibibyte of kernel memory that an empty one costs.
pub(super) fn memory_file_system(mode: &str, bytes: u64) -> Result<Detached, Failure> {
    let size = bytes.to_string();
    let files = (bytes / 1024).max(64).to_string();
    Detached::filesystem(
        "tmpfs",
        &[("mode", mode), ("size", &size), ("nr_inodes", &files)],
        DATA_ONLY,
    )
}

/// Makes the working directory the root, and drops the host's root: from here on no path leads to it.
fn forget_host() -> Result<(), Failure> {
    pivot_root(".", ".").map_err(failed("change the root"))?;
    // The old root now lies over the new one, and the working directory is still below it.
    unmount(".", UnmountFlags::DETACH).map_err(failed("detach the old root"))?;
    chdir("/").map_err(failed("enter the new root"))?;
    Ok(())
}
