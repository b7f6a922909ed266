//! Removing a tree that an action has made.
//!
//! Such a tree can be deeper than any path is long and than any process may hold descriptors. Going down keeps one
//! descriptor a level, so a directory that lies too deep is first moved up to where the removal began; from there it is no
//! longer deep.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, Result};
use tokio::sync::oneshot;

use crate::stage_dir::Shelf;

const DEPTH_MAX: usize = 64;

/// Closes mounts and removes trees on a thread of its own, one after the other. Dropping it waits until all are gone.
#[derive(Debug)]
pub(crate) struct Remover {
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Queued>>,
    thread: Option<JoinHandle<()>>,
}

/// What goes.
#[derive(Debug)]
pub(crate) struct Removal {
    /// Descriptors to close, before the tree goes.
    pub(crate) held: Vec<Arc<OwnedFd>>,
    pub(crate) tree: Option<PathBuf>,
    /// What the tree stands on.
    pub(crate) shelf: Option<Arc<Shelf>>,
}

impl Removal {
    pub(crate) fn of_tree(tree: PathBuf) -> Self {
        Self {
            held: Vec::new(),
            tree: Some(tree),
            shelf: None,
        }
    }

    fn run(self) -> Result<()> {
        drop(self.held);
        let Some(tree) = self.tree else { return Ok(()) };
        let removed = remove_tree(&tree).inspect_err(|error| {
            tracing::warn!(path = %tree.display(), %error, "a staged tree stays until the next start");
        })?;
        if let Some(shelf) = self.shelf {
            shelf.note_removed(removed);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Queued {
    removal: Removal,
    done: oneshot::Sender<Result<()>>,
}

impl Remover {
    pub(crate) fn start() -> std::io::Result<Self> {
        let (queue, removals) = mpsc::channel::<Queued>();
        let thread = thread::Builder::new()
            .name("rootcellar-remove".to_owned())
            .spawn(move || {
                for Queued { removal, done } in removals {
                    // Nobody has to wait for it.
                    let _unheard = done.send(removal.run());
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Queues a removal, and tells when it is done. Their number is bounded by those of the actions that run and the images that are
    /// kept.
    pub(crate) fn remove(&self, removal: Removal) -> oneshot::Receiver<Result<()>> {
        let (done, gone) = oneshot::channel();
        let queue = self.queue.as_ref().expect("there until it is dropped");
        queue
            .send(Queued { removal, done })
            .expect("the thread takes what is queued until the queue is dropped");
        gone
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        self.queue = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that removes staged trees panicked");
        }
    }
}

/// Removes `path` and all below it, and tells how much that was; a path that does not exist is removed already.
pub(crate) fn remove_tree(path: &Path) -> Result<u64> {
    let top = match open_dir(CWD, path) {
        Err(Errno::NOENT) => return Ok(0),
        Err(Errno::NOTDIR | Errno::LOOP) => return rustix::fs::unlink(path).map(|()| 1),
        opened => opened?,
    };
    let mut removal = Emptying {
        top: top.as_fd(),
        moved: 0,
        seen: 0,
    };
    removal.empty(top.as_fd(), 0)?;
    // What was moved up lies at the top now, and may have moved up more.
    while removal.empty(top.as_fd(), 0)? > 0 {}
    rustix::fs::rmdir(path)?;
    Ok(removal.seen)
}

struct Emptying<'a> {
    top: BorrowedFd<'a>,
    moved: u64,
    seen: u64,
}

impl Emptying<'_> {
    /// Empties a directory at `depth`, and says how many entries it had.
    fn empty(&mut self, dir: BorrowedFd<'_>, depth: usize) -> Result<usize> {
        let entries: Vec<_> = Dir::read_from(dir)?.collect::<Result<_>>()?;
        let mut count = 0;
        for entry in entries {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            count += 1;
            self.seen += 1;
            match unlink(dir, name) {
                Err(Errno::ISDIR) => self.remove_dir(dir, name, depth)?,
                unlinked => unlinked?,
            }
        }
        Ok(count)
    }

    fn remove_dir(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> Result<()> {
        if depth >= DEPTH_MAX {
            return self.move_up(parent, name);
        }
        let dir = open_dir(parent, name)?;
        self.empty(dir.as_fd(), depth + 1)?;
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            // Something was moved up into it: it is emptied by the next round.
            Err(Errno::NOTEMPTY) => Ok(()),
            removed => removed,
        }
    }

    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        loop {
            self.moved += 1;
            let target = format!("moved-{}", self.moved);
            let moved = rustix::fs::renameat_with(parent, name, self.top, target, RenameFlags::NOREPLACE);
            match moved {
                Err(Errno::EXIST) => {}
                moved => return moved,
            }
        }
    }
}

/// Unlinks a name that is no directory; a directory that its owner may not change is made changeable first.
fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(dir, Mode::RWXU)?;
            rustix::fs::unlinkat(dir, name, AtFlags::empty())
        }
        unlinked => unlinked,
    }
}

/// Opens a directory for emptying; one that its owner may not read is made readable first.
fn open_dir(parent: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&parent, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(&parent, name, flags, Mode::empty())
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let doomed = dir.path().join("doomed");
        fs::create_dir(&doomed).unwrap();
        let mut at: OwnedFd = open_dir(CWD, doomed.as_path()).unwrap();
        for level in 0..2000 {
            let name = "a-rather-long-name-for-one-level";
            rustix::fs::mkdirat(&at, name, Mode::RWXU).unwrap();
            let below = open_dir(&at, name).unwrap();
            if level % 100 == 0 {
                rustix::fs::symlinkat("/etc", &below, "link").unwrap();
            }
            at = below;
        }
        drop(at);
        remove_tree(&doomed).unwrap();
        assert!(!doomed.exists());
        assert!(Path::new("/etc").exists());
    }

    #[test]
    fn closed_directories_and_odd_files_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let doomed = dir.path().join("doomed");
        fs::create_dir_all(doomed.join("closed/inner")).unwrap();
        fs::write(doomed.join("closed/inner/file"), "x").unwrap();
        rustix::fs::mkfifoat(CWD, doomed.join("fifo"), Mode::RWXU).unwrap();
        for closed in ["closed/inner", "closed"] {
            rustix::fs::chmodat(CWD, doomed.join(closed), Mode::empty(), AtFlags::empty()).unwrap();
        }
        remove_tree(&doomed).unwrap();
        assert!(!doomed.exists());
    }

    #[test]
    fn what_is_not_there_is_removed_already() {
        let dir = tempfile::tempdir().unwrap();
        remove_tree(&dir.path().join("nothing")).unwrap();
    }
}
